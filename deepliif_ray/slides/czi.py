"""Zeiss CZI slides, read by pylibCZIrw (an extra: it is large, and not every machine has a build of it)."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.errors import SlideError, SlideUnreadableError, SlideUnsuitableError
from deepliif_ray.slides.decoded import DecodedSlide
from deepliif_ray.slides.depth import bit_depth, eight_bits, refuse_dark, sampled
from deepliif_ray.slides.reader import portable
from deepliif_ray.slides.slide import Level, Slide
from deepliif_ray.slides.tiff import chosen_plane

_WHITE = (1.0, 1.0, 1.0)
_LISTED = 8
_KINDS = {
    "T": "points in time",
    "C": "channels",
    "R": "rotations",
    "I": "illuminations",
    "H": "phases",
    "V": "views",
}
_COLOURS = ("Bgr24", "Bgr48")

Rectangle = tuple[int, int, int, int]


class CziSlide(DecodedSlide):
    """One scene of a CZI file; see `open_czi`."""

    reader = "czi"
    vendor = "zeiss"

    def __init__(self, path: Path, handle: Any, series: int | None, plane: int | None) -> None:
        self.path, self._handle = path, handle
        sizes = {axis: end - start for axis, (start, end) in handle.total_bounding_box.items()}
        self._check(sizes)
        self._origin, width, height = self._scene(series)
        self.n_planes = sizes.get("Z", 1)
        self.plane, said = chosen_plane(self.name, self.n_planes, plane)
        notes = list(said)
        scans = self._scans()
        self._scanned = np.array([area for area, zoom in scans if zoom == 1], np.int64).reshape(-1, 4)
        halvings = sorted({round(np.log2(1 / zoom)) for _, zoom in scans if zoom < 1})
        steps = [1, *(2**n for n in halvings if n > 0 and min(width, height) >> n > 0)]
        self.levels = tuple(Level(width // step, height // step, float(step)) for step in steps)
        self._bits = 8
        self._judge(notes)
        self._mpp = _pixel_size(handle.raw_metadata)
        self.notes = tuple(notes)

    def read_level(  # noqa: D102  # as in Slide
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        pixels = np.zeros((height, width, 4), np.uint8)
        pixels[..., :3] = eight_bits(self._values(level, x, y, width, height), self._bits)
        step = int(self.levels[level].downsample)
        left, top = self._origin[0] + x * step, self._origin[1] + y * step
        for area in self._scanned:
            x0, y0 = max(area[0] - left, 0) // step, max(area[1] - top, 0) // step
            x1, y1 = -(-(area[0] + area[2] - left) // step), -(-(area[1] + area[3] - top) // step)
            if x1 > x0 and y1 > y0:
                pixels[y0:y1, x0:x1, 3] = 255
        return pixels

    def close(self) -> None:  # noqa: D102  # as in Slide
        self._handle.close()

    def _values(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """Return a rectangle as stored, in RGB; white where nothing was scanned."""
        step = int(self.levels[level].downsample)
        area = (self._origin[0] + x * step, self._origin[1] + y * step, width * step, height * step)
        with self._told(f"pixels at {x}, {y} ({width} × {height}, level {level})"):
            found = self._handle.read(
                roi=area,
                plane={"Z": self.plane or 0},
                scene=self.series,
                zoom=1 / step,
                background_pixel=_WHITE,
            )
            if found.shape != (height, width, 3):
                raise ValueError(f"it has {found.shape} pixels")
        return np.ascontiguousarray(found[..., ::-1])

    def _check(self, sizes: dict[str, int]) -> None:
        """Refuse what is not one RGB image."""
        for axis, kind in _KINDS.items():
            if sizes.get(axis, 1) > 1:
                raise SlideUnsuitableError(
                    f"{self.name}: {sizes[axis]} {kind}; only RGB brightfield images are scored"
                )
        found = self._handle.get_channel_pixel_type(0)
        if found not in _COLOURS:
            kind = "one channel, grey" if found.startswith("Gray") else "pixels"
            raise SlideUnsuitableError(
                f"{self.name}: {kind} ({found}); only RGB brightfield images of 8 or 16 bits are scored"
            )

    def _scene(self, series: int | None) -> tuple[tuple[int, int], int, int]:
        """Return where the scene begins in the file's coordinates, and its size."""
        scenes = self._handle.scenes_bounding_rectangle_no_pyramid
        numbers = sorted(scenes)
        if series is None and len(numbers) > 1:
            listed = "; ".join(f"{n}: {scenes[n].w} × {scenes[n].h}" for n in numbers[:_LISTED])
            raise SlideUnsuitableError(
                f"{self.name}: it holds {len(numbers)} scenes ({listed}); say which one in the "
                "manifest's column series"
            )
        if series is not None and series not in (numbers or [0]):
            raise SlideUnsuitableError(
                f"{self.name}: series {series} is asked for, but its scenes are "
                f"{', '.join(map(str, numbers)) or '0'}"
            )
        if len(numbers) > 1:
            self.series = series
        rectangle = (
            scenes[series if series is not None else numbers[0]]
            if numbers
            else (self._handle.total_bounding_rectangle_no_pyramid)
        )
        return (rectangle.x, rectangle.y), rectangle.w, rectangle.h

    def _scans(self) -> list[tuple[Rectangle, float]]:
        """Return where each stored block of the scene and plane lies, and its zoom."""
        found: list[tuple[Rectangle, float]] = []

        def note(_: int, block: Any) -> bool:
            area = block.logicalRect
            found.append(((area.x, area.y, area.w, area.h), block.get_zoom()))
            return True

        where = {}
        if self.n_planes > 1:
            where["Z"] = self.plane or 0
        if self.series is not None:
            where["S"] = self.series
        self._handle.enumerate_subblocks_subset(note, plane=where or None)
        return found

    def _judge(self, notes: list[str]) -> None:
        """Find the range of 16-bit values, and refuse pictures of fluorescence; both from a sample."""
        coarse = len(self.levels) - 1
        size = self.levels[coarse]
        values = np.concatenate(
            [self._values(coarse, *area).reshape(-1, 3) for area in sampled(size.width, size.height)]
        )
        if values.dtype == np.uint16:
            scanned = values[(values < np.iinfo(np.uint16).max).any(axis=1)]  # the rest may be background
            most = int(scanned.max(initial=0))
            self._bits = bit_depth(most, _stated_bits(self._handle.raw_metadata))
            notes.append(f"16-bit pixels are read as {self._bits}-bit ones: the brightest is {most}")
            values = scanned
        refuse_dark(values, self._bits, self.name)


def _pixel_size(text: str) -> tuple[float, float] | None:
    """Return width and height of a pixel in µm by the file's metadata (metres there); None if not stated."""
    sides = []
    for axis in "XY":
        found = _found(text, f"Metadata/Scaling/Items/Distance[@Id='{axis}']/Value")
        side = float(found) * 1e6 if found else 0.0
        if not 0 < side < float("inf"):
            return None
        sides.append(side)
    return sides[0], sides[1]


def _stated_bits(text: str) -> int | None:
    found = _found(text, "Metadata/Information/Image/ComponentBitCount")
    return int(found) if found and found.isdigit() else None


def _found(text: str, path: str) -> str | None:
    try:
        return ElementTree.fromstring(text).findtext(path)
    except ElementTree.ParseError:
        return None


def open_czi(path: Path, *, series: int | None = None, plane: int | None = None) -> Slide:
    """Open a CZI file; ``series`` is one of its scenes.

    Parameters
    ----------
    path, series, plane
        As for `deepliif_ray.slides.reader.open_slide`.

    Raises
    ------
    SlideError
        The package that reads such files is not installed.
    SlideUnreadableError
        It cannot be opened.
    SlideUnsuitableError
        It is not one RGB brightfield image.
    """
    try:
        from pylibCZIrw.czi import CziReader
    except ImportError as error:
        raise SlideError(
            f"{path.name}: CZI files are read by a package that is not installed; pip install "
            "'deepliif-ray[czi]'"
        ) from error
    try:
        handle = CziReader(str(path))
    except Exception as error:
        raise SlideUnreadableError(
            f"{path.name}: cannot be opened ({portable(error, path)}); export or copy the file again"
        ) from error
    return CziSlide(path, handle, series, plane)
