"""The frames of a DICOM image: where they lie in its files, what they show, and their pixels.

Encoding of pixel data: DICOM PS3.5 section 8 and annex A.4; tiles: PS3.3 C.7.6.17. The colours of a JPEG are
those that its own markers say; the photometric interpretation counts where there are none, because files are
tagged wrongly.
"""

import struct
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments

from deepliif_ray.errors import SlideCorruptError, SlideUnreadableError, SlideUnsuitableError
from deepliif_ray.slides.colour import ycbcr_to_rgb
from deepliif_ray.slides.jpeg import check_end, jpeg_facts

EXPLICIT_LITTLE, JPEG_BASELINE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
_IMPLICIT, _DEFLATED, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_NATIVE = (EXPLICIT_LITTLE, _IMPLICIT, _DEFLATED, _BIG)
_JPEG = (JPEG_BASELINE, "1.2.840.10008.1.2.4.51")
_RLE = "1.2.840.10008.1.2.5"
_DECODERS = {
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.91": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.110": imagecodecs.jpegxl_decode,
    "1.2.840.10008.1.2.4.111": imagecodecs.jpegxl_decode,
    "1.2.840.10008.1.2.4.112": imagecodecs.jpegxl_decode,
    "1.2.840.10008.1.2.4.201": imagecodecs.htj2k_decode,
    "1.2.840.10008.1.2.4.202": imagecodecs.htj2k_decode,
    "1.2.840.10008.1.2.4.203": imagecodecs.htj2k_decode,
}
_JPEG_XL = ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112")
_WITH_END = {*_JPEG, *_DECODERS} - {*_JPEG_XL}
_FULL_YBR = ("YBR_FULL", "YBR_FULL_422")
_MAX_FRAME_PX = 64 << 20


class Frames:
    """An image of a DICOM slide.

    Parameters
    ----------
    parts : list of (path, header, start)
        Its files, several for a concatenation; ``start`` is where the pixel data element begins.
    name : str
        The slide's, for messages.

    Attributes
    ----------
    width, height : int
    tile : tuple of int
        Width and height of a frame.
    n_planes : int
    is_sparse : bool
        Every frame says where it lies.
    """

    def __init__(self, parts: list[tuple[Path, Any, int]], name: str) -> None:
        self._parts, self._name = parts, name
        self.header = header = parts[0][1]
        try:
            self.width, self.height = int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)
            self.tile = int(header.Columns), int(header.Rows)
            self._counts = [int(part.get("NumberOfFrames") or 1) for _, part, _ in parts]
            self.syntax = str(header.file_meta.TransferSyntaxUID)
            self.is_sparse = header.get("DimensionOrganizationType") == "TILED_SPARSE" or (
                header.get("DimensionOrganizationType") != "TILED_FULL"
                and "PerFrameFunctionalGroupsSequence" in header
                and "PlanePositionSlideSequence" in header.PerFrameFunctionalGroupsSequence[0]
            )
            self.n_planes = int(header.get("TotalPixelMatrixFocalPlanes") or 1)
            self._places = self._sparse() if self.is_sparse else {}
        except (AttributeError, ValueError, TypeError, KeyError, IndexError) as error:
            raise SlideUnreadableError(
                f"{name}: its DICOM header lacks what is needed ({error}); export the slide again"
            ) from error
        if min(self.width, self.height, *self.tile) < 1 or self.tile[0] * self.tile[1] > _MAX_FRAME_PX:
            raise SlideUnreadableError(
                f"{name}: {self.width} × {self.height} pixels in frames of {self.tile}; export the "
                "slide again"
            )
        if self.syntax not in (*_NATIVE, *_JPEG, *_DECODERS, _RLE):
            raise SlideUnreadableError(
                f"{name}: its pixels are encoded as {header.file_meta.TransferSyntaxUID.name}, which "
                "is not read; export the slide again, as JPEG or JPEG 2000"
            )
        if self.syntax in _NATIVE and header.PhotometricInterpretation == "YBR_FULL_422":
            raise SlideUnreadableError(
                f"{name}: its colours are subsampled without compression, which is not read; export "
                "the slide again"
            )
        across, down = (
            -(-size // side) for size, side in zip((self.width, self.height), self.tile, strict=True)
        )
        self._across, self._down = across, down
        if not self.is_sparse and sum(self._counts) != across * down * self.n_planes:
            raise SlideUnreadableError(
                f"{name}: {sum(self._counts)} frames where {across} × {down} × {self.n_planes} are "
                "needed; copy all of its files, or export the slide again"
            )

    def _sparse(self) -> dict[tuple[int, int, int], int]:
        """Return the number of each frame by column and row of tiles and focal plane."""
        found: list[tuple[int, int, float]] = []
        for _, header, _ in self._parts:
            for frame in header.PerFrameFunctionalGroupsSequence:
                place = frame.PlanePositionSlideSequence[0]
                x = int(place.ColumnPositionInTotalImagePixelMatrix) - 1
                y = int(place.RowPositionInTotalImagePixelMatrix) - 1
                if x % self.tile[0] or y % self.tile[1]:
                    raise SlideUnsuitableError(
                        f"{self._name}: its tiles lie on no grid (one at {x}, {y}); export the slide again"
                    )
                depth = round(float(place.get("ZOffsetInSlideCoordinateSystem") or 0), 6)
                found.append((x // self.tile[0], y // self.tile[1], depth))
        depths = sorted({depth for _, _, depth in found})
        self.n_planes = len(depths)
        places = {(x, y, depths.index(depth)): number for number, (x, y, depth) in enumerate(found)}
        if len(places) != len(found):
            raise SlideUnsuitableError(
                f"{self._name}: several frames at one place, as of several optical paths; only RGB "
                "brightfield images are scored"
            )
        return places

    @property
    def spacing_um(self) -> tuple[float, float] | None:
        """Width and height of a pixel; None where it is not stated."""
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            for group in (self.header.get(groups) or [])[:1]:
                for measures in group.get("PixelMeasuresSequence") or []:
                    down, across = (float(side) * 1000 for side in measures.PixelSpacing)
                    if min(down, across) > 0 and max(down, across) < float("inf"):
                        return across, down
        return None

    def read(self, column: int, row: int, plane: int) -> NDArray[np.uint8] | None:
        """Return a frame's pixels, shape (frame's height, width, 3); None where the image has none.

        Raises
        ------
        SlideCorruptError
            It cannot be decoded.
        """
        number: int | None
        if self.is_sparse:
            number = self._places.get((column, row, plane))
        else:
            number = (plane * self._down + row) * self._across + column
        if number is None:
            return None
        try:
            pixels = self._decoded(self.encoded(number))
            if pixels.shape != (self.tile[1], self.tile[0], 3):
                raise ValueError(f"it has {pixels.shape} pixels")
        except MemoryError:
            raise
        except Exception as error:
            raise SlideCorruptError(
                f"{self._name}: frame {number} of {self.width} × {self.height} pixels cannot be decoded "
                f"({type(error).__name__}: {error}); export or copy the file again"
            ) from error
        return pixels

    def encoded(self, number: int) -> bytes:
        """Return a frame as it is stored."""
        part = 0
        while number >= self._counts[part]:
            number, part = number - self._counts[part], part + 1
        path = self._parts[part][0]
        if self.syntax == _DEFLATED:
            size = self._frame_bytes
            return bytes(self._inflated[part][number * size : (number + 1) * size])
        with path.open("rb") as file:
            if self.syntax in _NATIVE:
                file.seek(self._pixel_data(part) + number * self._frame_bytes)
                return file.read(self._frame_bytes)
            offsets = self._offsets[part]
            if offsets is None:
                file.seek(self._pixel_data(part))
                return get_frame(file, number, number_of_frames=self._counts[part])
            file.seek(offsets[number])
            end = offsets[number + 1] if number + 1 < len(offsets) else None
            return _fragments(file, end)

    @property
    def _frame_bytes(self) -> int:
        return self.tile[0] * self.tile[1] * 3 * int(self.header.BitsAllocated) // 8

    def _pixel_data(self, part: int) -> int:
        """Return where the value of the pixel data element begins: after its tag, kind and length."""
        return self._parts[part][2] + (8 if self.syntax == _IMPLICIT else 12)

    @cached_property
    def _inflated(self) -> list[bytes]:
        return [dcmread(path).PixelData for path, _, _ in self._parts]

    @cached_property
    def _offsets(self) -> list[list[int] | None]:
        """Where each frame's first fragment begins, a list a file; None where they must be looked for."""
        return [self._offsets_of(part) for part in range(len(self._parts))]

    def _offsets_of(self, part: int) -> list[int] | None:
        path, header, _ = self._parts[part]
        with path.open("rb") as file:
            file.seek(self._pixel_data(part))
            basic = parse_basic_offsets(file)
            first = file.tell()
            table = header.get("ExtendedOffsetTable")
            if table:
                basic = list(struct.unpack(f"<{len(table) // 8}Q", table))
            if len(basic) == self._counts[part]:
                return [first + offset for offset in basic]
            fragments, offsets = parse_fragments(file)
            return offsets if fragments == self._counts[part] else None

    def _decoded(self, data: bytes) -> NDArray[np.uint8]:
        colours = self.header.PhotometricInterpretation
        if self.syntax in _WITH_END:
            check_end(data)
        if self.syntax in _JPEG:
            space = jpeg_facts(data).color or _tagged(self.header)
            return self._eight_bits(
                imagecodecs.jpeg8_decode(data, colorspace=space.upper(), outcolorspace="RGB")
            )
        if self.syntax in _DECODERS:
            pixels = np.asarray(_DECODERS[self.syntax](data))
        elif self.syntax == _RLE:
            kind = np.dtype("<u2" if self.header.BitsAllocated == 16 else "u1")
            planes = np.frombuffer(imagecodecs.dicomrle_decode(data, kind), kind)
            pixels = planes.reshape(3, self.tile[1], self.tile[0]).transpose(1, 2, 0)
        else:
            order = ">" if self.syntax == _BIG else "<"
            values = np.frombuffer(data, f"{order}u{self.header.BitsAllocated // 8}")
            if self.header.get("PlanarConfiguration"):
                pixels = values.reshape(3, self.tile[1], self.tile[0]).transpose(1, 2, 0)
            else:
                pixels = values.reshape(self.tile[1], self.tile[0], 3)
        pixels = self._eight_bits(pixels)
        return ycbcr_to_rgb(pixels) if colours in _FULL_YBR else pixels

    def _eight_bits(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if pixels.dtype == np.uint8:
            return pixels
        shift = max(int(self.header.get("BitsStored") or self.header.BitsAllocated) - 8, 0)
        shifted: NDArray[np.uint8] = np.minimum(pixels >> shift, 255).astype(np.uint8)
        return shifted


def _fragments(file: BinaryIO, end: int | None) -> bytes:
    """Return the fragments from here to ``end``, or to the end of the pixel data, joined."""
    found = []
    while end is None or file.tell() < end:
        group, element, length = struct.unpack("<HHI", file.read(8))
        if (group, element) != (0xFFFE, 0xE000):
            break
        found.append(file.read(length))
    return b"".join(found)


def _tagged(header: Any) -> str:
    return "ycbcr" if header.PhotometricInterpretation.startswith("YBR") else "rgb"


def is_as_tagged(image: Frames) -> bool:
    """Tell whether an image's colours, by the markers of its first frame, are those it is tagged with."""
    if image.syntax not in _JPEG:
        return bool(image.header.PhotometricInterpretation == "RGB")
    try:
        return jpeg_facts(image.encoded(0)).color in (None, _tagged(image.header))
    except (OSError, ValueError, IndexError, struct.error):
        return True  # damaged; it is told when it is read
