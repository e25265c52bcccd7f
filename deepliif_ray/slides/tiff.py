"""TIFF files that OpenSlide does not read, or would read wrongly, decoded by tifffile and imagecodecs.

Only the tiles or strips under a rectangle are decoded. What the compressed data says of its colours counts,
not what the file's tags say of them.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from deepliif_ray.errors import (
    SlideCorruptError,
    SlideTooLargeError,
    SlideUnreadableError,
    SlideUnsuitableError,
)
from deepliif_ray.slides.colour import divided, ycbcr_to_rgb
from deepliif_ray.slides.depth import bit_depth
from deepliif_ray.slides.inventory import JPEG, JPEG_2000, Inventory
from deepliif_ray.slides.jpeg import check_end
from deepliif_ray.slides.slide import Level, Slide, square_mpp

MAX_SEGMENT = 500_000_000
"""Pixels of a tile or strip: it is decoded whole."""
_CACHE_BYTES = 64 << 20
_SAMPLED = 64
"""Segments that are looked at for the range of 16-bit values."""
_OPAQUE = 255
_MULTIPLIED, _STRAIGHT = 1, 2
"""Tag ExtraSamples: a transparency that colours are multiplied by already, or one that they are not."""
_YCBCR_JPEG_2000 = 33003
_VENDORS = {
    "svs": "aperio", "ndpi": "hamamatsu", "scn": "leica", "bif": "ventana", "philips": "philips",
    "ome": "ome-tiff", "imagej": "imagej",
}  # fmt: skip
Segment = NDArray[np.uint8] | NDArray[np.uint16]


class TiffSlide(Slide):
    """One image of a TIFF file.

    Parameters
    ----------
    path : Path
    inventory : Inventory
        Of this file.
    number : int
        Which image; see `Inventory.choose`.
    plane : int, optional
        Which focal plane; the middle one where none is asked for.
    notes : tuple of str
        What is to be told of the choice.

    Raises
    ------
    SlideUnsuitableError
        What is asked for is not there, or the image is not one RGB brightfield image.
    SlideCorruptError
        What has to be read to open it cannot be decoded.
    """

    reader = "tifffile"

    def __init__(
        self, path: Path, inventory: Inventory, number: int, plane: int | None, notes: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.picture = picture = inventory.pictures[number]
        self.vendor = next(
            (vendor for kind, vendor in _VENDORS.items() if kind in inventory.kinds),
            "generic-tiff" if picture.tiled else "tiff",
        )
        self.series = number if len(inventory.pictures) > 1 else None
        self.n_planes = picture.planes
        self.plane, plane_notes = chosen_plane(self.name, picture.planes, plane)
        self._file = tifffile.TiffFile(path, _multifile=False)
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._cache: OrderedDict[tuple[int, int, int], Segment | None] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._pages = [self._level_pages(*place) for place in picture.at]
        self.levels = tuple(
            Level(width, height, max(picture.width / width, picture.height / height, 1.0))
            for width, height in picture.levels
        )
        for pages in self._pages:
            self._check(pages)
        self._bits = 8
        if picture.bits > 8:
            self._bits = self._real_bits()
            notes = (*notes, f"{picture.bits}-bit colours scaled by the {self._bits} bits that they use")
        first = self._pages[0][0]
        self._extra = next(iter(() if first is None else first.keyframe.extrasamples), None)
        self._is_multiplied = self._extra == _MULTIPLIED
        self._with_alpha = picture.samples == 4 and self._alpha_says_something()
        if picture.samples == 4 and not self._with_alpha:
            notes = (*notes, "a fourth sample a pixel is passed over")
        self.notes = (*notes, *plane_notes)

    def _level_pages(self, series: int, level: int, page: int | None) -> list[Any]:
        """Return the pages of a level: one, or one a colour."""
        found = self._file.series[series].levels[level]
        if page is not None:
            return [found.pages[page]]
        shape = dict(zip(found.axes, found.shape, strict=True))
        axes = [axis for axis in found.axes if axis not in "YXS" and shape[axis] > 1]
        numbers = np.arange(np.prod([shape[axis] for axis in axes], dtype=int)).reshape(
            [shape[axis] for axis in axes]
        )
        place = tuple((self.plane or 0) if axis == "Z" else slice(None) for axis in axes)
        return [found.pages[int(number)] for number in np.atleast_1d(numbers[place]).ravel()]

    def _check(self, pages: list[Any]) -> None:
        for page in filter(None, pages):
            key = page.keyframe
            pixels = key.tilewidth * key.tilelength if key.is_tiled else key.imagewidth * key.rowsperstrip
            if min(pixels, key.imagewidth * key.imagelength) > MAX_SEGMENT:
                raise SlideTooLargeError(
                    f"{self.name}: its pixels lie in pieces of {pixels:,}, too large to hold; make it tiled"
                )
            if page.keyframe.compression not in tifffile.TIFF.DECOMPRESSORS and key.compression != 1:
                raise SlideUnreadableError(
                    f"{self.name}: compressed as {self.picture.compression}, which cannot be read here; "
                    "export it with JPEG, JPEG 2000, LZW or Deflate compression"
                )

    def _sample(self) -> Iterator[Segment]:
        """Yield pieces evenly spread over the coarsest level."""
        level = len(self._pages) - 1
        for number, page in enumerate(self._pages[level]):
            count = 0 if page is None else len(page.dataoffsets)
            for index in np.unique(np.linspace(0, count - 1, _SAMPLED).astype(int)) if count else ():
                segment = self._segment(level, number, page, int(index))
                if segment is not None:
                    yield segment

    def _real_bits(self) -> int:
        """Return how many bits the colours use: cameras of 10, 12 and 14 bits write 16."""
        most = max((int(segment[..., :3].max()) for segment in self._sample()), default=0)
        return bit_depth(most)

    def _alpha_says_something(self) -> bool:
        """Tell whether the fourth sample is a transparency that leaves something to see."""
        return self._extra in (_MULTIPLIED, _STRAIGHT) and any(
            segment[..., 3].any() for segment in self._sample()
        )

    @property
    def mpp(self) -> float | None:  # noqa: D102  # as in Slide
        if self.picture.mpp is None:
            return None
        return square_mpp(self.name, *self.picture.mpp)

    def read_level(  # noqa: D102  # as in Slide
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        rgba = np.zeros((height, width, 4), np.uint8)
        pages = self._pages[level]
        for number, page in enumerate(pages):
            if page is None:  # the file says that there is one, but has none
                continue
            colours = (number,) if len(pages) > 1 else (0, 1, 2)
            self._read_page(level, number, page, colours, rgba, (x, y))
        return rgba

    def _read_page(
        self,
        level: int,
        number: int,
        page: Any,
        colours: tuple[int, ...],
        rgba: NDArray[np.uint8],
        at: tuple[int, int],
    ) -> None:
        """Write the part of a page that lies under ``rgba``, whose top left pixel is ``at``."""
        key = page.keyframe
        (x, y), (height, width) = at, rgba.shape[:2]
        down = key.tilelength if key.is_tiled else key.rowsperstrip
        across = key.tilewidth if key.is_tiled else key.imagewidth
        columns, rows = -(-key.imagewidth // across), -(-key.imagelength // down)
        planes = colours if self.picture.planar else (0,)
        for plane, row, column in product(
            range(len(planes)),
            range(y // down, -(-(y + height) // down)),
            range(x // across, -(-(x + width) // across)),
        ):
            segment = self._segment(level, number, page, (plane * rows + row) * columns + column)
            if segment is None:
                continue
            top, left = row * down, column * across
            y0, x0 = max(top, y), max(left, x)
            y1, x1 = min(top + segment.shape[0], y + height), min(left + segment.shape[1], x + width)
            part = segment[y0 - top : y1 - top, x0 - left : x1 - left]
            out = rgba[y0 - y : y1 - y, x0 - x : x1 - x]
            if self.picture.planar:
                out[..., plane] = self._as_bytes(part[..., 0])
            elif len(colours) == 1:
                out[..., colours[0]] = self._as_bytes(part[..., 0])
            else:
                out[..., :3] = self._as_bytes(part[..., :3])
            out[..., 3] = _OPAQUE
            if self._with_alpha:
                out[..., 3] = self._as_bytes(part[..., 3])
                if self._is_multiplied:
                    out[..., :3] = divided(out[..., :3], out[..., 3:])

    def _as_bytes(self, values: Segment) -> NDArray[np.uint8]:
        if values.dtype == np.uint8:
            return values.astype(np.uint8, copy=False)
        most = 2**self._bits - 1
        scaled: NDArray[np.uint8] = (
            (np.minimum(values, most).astype(np.uint32) * 255 + most // 2) // most
        ).astype(np.uint8)
        return scaled

    def _segment(self, level: int, number: int, page: Any, index: int) -> Segment | None:
        """Return a decoded tile or strip, (rows, columns, samples); None where the file has no pixels."""
        name = (level, number, index)
        with self._lock:
            if name in self._cache:
                self._cache.move_to_end(name)
                return self._cache[name]
        segment = self._decode(page, index)
        with self._lock:
            if name not in self._cache:
                self._cache[name] = segment
                self._held += 0 if segment is None else segment.nbytes
            while self._held > _CACHE_BYTES and len(self._cache) > 1:
                _, old = self._cache.popitem(last=False)
                self._held -= 0 if old is None else old.nbytes
        return segment

    def _decode(self, page: Any, index: int) -> Segment | None:
        if index >= len(page.dataoffsets) or index >= len(page.databytecounts):
            raise self._corrupt(index, "the file does not list it")
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not offset or not count:
            return None
        data = os.pread(self._descriptor, count, offset)
        if len(data) < count:
            raise self._corrupt(index, "the file is cut short")
        try:
            return self._uncompress(page, index, data)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise anything over damaged bytes
            raise self._corrupt(index, " ".join(str(error).split())[:150] or type(error).__name__) from error

    def _uncompress(self, page: Any, index: int, data: bytes) -> Segment:
        key = page.keyframe
        if int(key.compression) in JPEG | JPEG_2000 and key.jpegheader is None:
            check_end(data)
        if int(key.compression) in JPEG and not self.picture.planar and key.samplesperpixel == 3:
            facts = self.picture.jpeg
            said = facts.color if facts is not None and facts.color else self.picture.colour
            across = key.tilewidth if key.is_tiled else key.imagewidth
            decoded = imagecodecs.jpeg8_decode(
                data if key.jpegheader is None else b"".join((key.jpegheader, data, b"\xff\xd9")),
                tables=page.jpegtables,
                colorspace="RGB" if said == "rgb" else "YCBCR",
                outcolorspace="RGB",
            )
            segment: Segment = np.asarray(decoded).reshape(-1, across, 3)
            return segment
        array, _, shape = page.decode(data, index, jpegtables=page.jpegtables, jpegheader=key.jpegheader)
        segment = np.asarray(array).reshape(shape[1:])
        if int(key.compression) == _YCBCR_JPEG_2000:
            segment = ycbcr_to_rgb(segment)
        if self.picture.colour == "palette":
            return np.ascontiguousarray(
                (key.colormap >> 8).astype(np.uint8)[:, segment[..., 0]].transpose(1, 2, 0)
            )
        return segment

    def _corrupt(self, index: int, why: str) -> SlideCorruptError:
        return SlideCorruptError(
            f"{self.name}: piece {index} of its pixels cannot be decoded ({why}); export or copy it again"
        )

    def close(self) -> None:  # noqa: D102  # as in Slide
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._file.close()


def chosen_plane(name: str, planes: int, asked: int | None) -> tuple[int | None, tuple[str, ...]]:
    """Return which of an image's focal planes is scored, None where there is one, and what to tell of it.

    Raises
    ------
    SlideUnsuitableError
        There is no such plane.
    """
    if asked is not None and not 0 <= asked < planes:
        raise SlideUnsuitableError(f"{name}: there is no plane {asked}; the image has {planes}, from 0")
    if planes == 1:
        return None, ()
    plane = planes // 2 if asked is None else asked
    why = "the middle one" if asked is None else "as the manifest asks"
    return plane, (f"focal plane {plane} of {planes} is scored, {why}",)
