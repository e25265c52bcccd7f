"""Write pyramidal tiled TIFFs that OpenSlide opens as slides.

BigTIFF, written in one pass: the tiles of every level go into the file as soon as their pixels are known, so
memory is bounded by a few rows of tiles whatever the size of the slide; the directories follow at the end.
"""

import io
import os
import struct
import uuid
import zlib
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepliif_ray.errors import ConfigError

REDUCTION = 4
"""Each level is this many times coarser than the one before, as Aperio's are."""

_SHORT, _LONG, _RATIONAL, _LONG8, _ASCII = 3, 4, 5, 16, 2
_STRUCT = {_SHORT: "H", _LONG: "I", _RATIONAL: "II", _LONG8: "Q"}
_JPEG, _DEFLATE = 7, 8
_RGB, _YCBCR = 2, 6


class Sliceable(Protocol):
    """An image that gives out rectangles: a NumPy array, or something that makes pixels as they are asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(height, width, 3)``."""

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.uint8]:
        """Return the uint8 pixels ``[y0:y1, x0:x1]``."""


def write_pyramid(
    path: Path,
    image: Sliceable | NDArray[np.uint8],
    *,
    mpp: float,
    tile: int = 256,
    quality: int | None = 90,
    min_level: int = 512,
    description: str | None = None,
) -> None:
    """Write ``image`` as a pyramidal tiled BigTIFF.

    The file appears under its name when complete.

    Parameters
    ----------
    path : Path
        Where to; its folder is made.
    image : array or Sliceable
        uint8 RGB of shape (height, width, 3); asked for one row of tiles at a time.
    mpp : float
        Micrometres per pixel, stored as the resolution tags.
    tile : int
        Side of the TIFF's tiles, a multiple of 16.
    quality : int or None
        JPEG quality, 1 to 100, without chroma subsampling; None stores pixels losslessly (deflate).
    min_level : int
        Levels are added, each 4 times coarser (box average), until one fits into this many pixels.
    description : str, optional
        ASCII text for the ImageDescription tag.

    Raises
    ------
    ConfigError
        A parameter is out of range, or the image is not RGB.
    """
    height, width, *rest = image.shape
    if rest != [3] or min(height, width) < 1:
        raise ConfigError(f"{path}: an image of shape {tuple(image.shape)} is not RGB")
    if tile < 16 or tile % 16:
        raise ConfigError(f"{path}: tile size {tile} is not a multiple of 16")
    if quality is not None and not 1 <= quality <= 100:
        raise ConfigError(f"{path}: JPEG quality {quality} is not within 1 to 100")
    if not 0.01 <= mpp <= 1000 or min_level < 1:
        raise ConfigError(f"{path}: mpp {mpp} is not within 0.01 to 1000, or min_level {min_level} below 1")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
            base = _Level(file, width, height, mpp, tile, quality, min_level)
            for y in range(0, height, tile):
                base.append(np.asarray(image[y : y + tile, 0:width]))
            base.finish()
            _write_directories(file, base, (description or "").encode("ascii", "replace"))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _Level:
    """One level while it is written: turns rows of pixels into tiles, and into rows of the next level."""

    def __init__(
        self, file: BinaryIO, width: int, height: int, mpp: float, tile: int, quality: int | None, least: int
    ) -> None:
        self.file, self.width, self.height, self.mpp = file, width, height, mpp
        self.tile, self.quality = tile, quality
        self.offsets: list[int] = []
        self.sizes: list[int] = []
        self._rows: list[NDArray[np.uint8]] = []
        self._waiting = 0
        self.next: _Level | None = None
        if max(width, height) > least:
            smaller = -(-width // REDUCTION), -(-height // REDUCTION)
            self.next = _Level(file, *smaller, mpp * REDUCTION, tile, quality, least)

    def append(self, rows: NDArray[np.uint8]) -> None:
        """Take further rows, at most one tile high and a whole number of the next level's unless last."""
        self._rows.append(rows)
        self._waiting += rows.shape[0]
        if self._waiting >= self.tile:
            self._flush()

    def finish(self) -> None:
        """Write what is left."""
        if self._waiting:
            self._flush()
        if self.next:
            self.next.finish()

    def _flush(self) -> None:
        rows = self._rows[0] if len(self._rows) == 1 else np.concatenate(self._rows)
        self._rows, self._waiting = [], 0
        short = self.tile - rows.shape[0]
        padded = np.pad(rows, ((0, short), (0, -self.width % self.tile), (0, 0)), mode="edge")
        for x in range(0, self.width, self.tile):
            data = self._encode(padded[:, x : x + self.tile])
            self.offsets.append(self.file.tell())
            self.sizes.append(len(data))
            self.file.write(data)
        if self.next:
            self.next.append(np.asarray(Image.fromarray(rows).reduce(REDUCTION)))

    def _encode(self, pixels: NDArray[np.uint8]) -> bytes:
        if self.quality is None:
            return zlib.compress(pixels.tobytes(), 1)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=self.quality, subsampling=0)
        return buffer.getvalue()

    def tags(self) -> list[tuple[int, int, list[int] | bytes]]:
        """Return the level's TIFF tags: code, type and values."""
        density = Fraction(10_000 / self.mpp).limit_denominator(1000)
        resolution = [density.numerator, density.denominator]
        lossless = self.quality is None
        tags: list[tuple[int, int, list[int] | bytes]] = [
            (256, _LONG, [self.width]),
            (257, _LONG, [self.height]),
            (258, _SHORT, [8, 8, 8]),
            (259, _SHORT, [_DEFLATE if lossless else _JPEG]),
            (262, _SHORT, [_RGB if lossless else _YCBCR]),
            (277, _SHORT, [3]),
            (282, _RATIONAL, resolution),
            (283, _RATIONAL, resolution),
            (284, _SHORT, [1]),
            (296, _SHORT, [3]),
            (322, _LONG, [self.tile]),
            (323, _LONG, [self.tile]),
            (324, _LONG8, self.offsets),
            (325, _LONG8, self.sizes),
        ]
        if not lossless:
            tags.append((530, _SHORT, [1, 1]))
        return tags


def _write_directories(file: BinaryIO, base: _Level, description: bytes) -> None:
    """Append one directory a level and link them from the header, finest first."""
    link = 8
    level: _Level | None = base
    while level is not None:
        tags = [(254, _LONG, [0 if level is base else 1]), *level.tags()]
        if description and level is base:
            tags.append((270, _ASCII, description + b"\0"))
        entries = []
        for code, kind, values in sorted(tags, key=lambda tag: tag[0]):
            data = values if isinstance(values, bytes) else _pack(kind, values)
            count = len(values) // 2 if kind == _RATIONAL else len(values)
            entries.append((code, kind, count, data))
        position = file.seek(0, os.SEEK_END)
        external = position + 8 + 20 * len(entries) + 8
        directory, extra = struct.pack("<Q", len(entries)), b""
        for code, kind, count, data in entries:
            directory += struct.pack("<HHQ", code, kind, count)
            if len(data) <= 8:
                directory += data.ljust(8, b"\0")
            else:
                directory += struct.pack("<Q", external + len(extra))
                extra += data
        file.write(directory + bytes(8) + extra)
        file.seek(link)
        file.write(struct.pack("<Q", position))
        link = position + 8 + 20 * len(entries)
        level = level.next


def _pack(kind: int, values: list[int]) -> bytes:
    per_value = _STRUCT[kind][0]
    return struct.pack(f"<{len(values)}{per_value}", *values)
