"""Slides whose file asks to be shown turned or mirrored: shown so, everywhere."""

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.slides.slide import Level, Slide

_TURNS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""TIFF's and EXIF's orientations: sides exchanged, then mirrored across, then down, to stand upright."""


class TurnedSlide(Slide):
    """A slide shown upright, as its orientation tag asks and as viewers show it.

    Parameters
    ----------
    slide : Slide
        The slide as it is stored.
    orientation : int
        2 to 8, as TIFF and EXIF number them.
    """

    def __init__(self, slide: Slide, orientation: int) -> None:
        self._slide = slide
        self._exchanged, self._across, self._down = _TURNS[orientation]
        self.path, self.vendor, self.reader = slide.path, slide.vendor, slide.reader
        self.background, self.series = slide.background, slide.series
        self.plane, self.n_planes = slide.plane, slide.n_planes
        self.levels = tuple(
            Level(level.height, level.width, level.downsample) if self._exchanged else level
            for level in slide.levels
        )
        self.notes = (
            *slide.notes,
            f"shown upright, as orientation {orientation} in the file asks; coordinates are of that picture",
        )

    @property
    def mpp(self) -> float | None:  # noqa: D102  # as in Slide
        return self._slide.mpp

    def read_level(  # noqa: D102  # as in Slide
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        size = self.levels[level]
        if self._across:
            x = size.width - x - width
        if self._down:
            y = size.height - y - height
        if self._exchanged:
            pixels = self._slide.read_level(level, y, x, height, width).swapaxes(0, 1)
        else:
            pixels = self._slide.read_level(level, x, y, width, height)
        pixels = pixels[:: -1 if self._down else 1, :: -1 if self._across else 1]
        return np.ascontiguousarray(pixels)

    def close(self) -> None:  # noqa: D102  # as in Slide
        self._slide.close()


def upright(slide: Slide, orientation: int) -> Slide:
    """Return a slide as its orientation tag asks to be shown; a value that no tag has is passed over."""
    return TurnedSlide(slide, orientation) if orientation in _TURNS and orientation != 1 else slide
