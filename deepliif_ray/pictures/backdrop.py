"""The tissue behind a picture: the slide that was scored, read by the process that reads slides."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepliif_ray.errors import SlideCorruptError
from deepliif_ray.pictures.view import View
from deepliif_ray.slides import Slide
from deepliif_ray.slides.levels import level_within

UNREAD = 160
"""Grey level of what cannot be decoded."""
_BLOCK = 2048
"""Pixels a side of a level that are read at once, at most."""
_LEAST_BLOCK = 64
_MARGIN = 3


def read_view(slide: Slide, view: View, number: int | None = None) -> tuple[NDArray[np.uint8], float]:
    """Return the pixels of a picture of a slide, without anything on them.

    They come from the coarsest level that is at least as fine as the picture and shows there what level 0
    shows, block by block.

    Parameters
    ----------
    slide : Slide
    view : View
        It may reach beyond the slide by less than a pixel of the picture.
    number : int, optional
        The level to read; by default it is found by comparing levels in this area.

    Returns
    -------
    pixels : ndarray of uint8, shape (rows, columns, 3)
        What cannot be decoded is `UNREAD`.
    unread_percent : float
        Share of the picture that cannot be.

    Raises
    ------
    SlideError
        The slide cannot be read any more.
    """
    if number is None:
        number = level_within(slide, 1 / view.scale, view.area)
    downsample = slide.levels[number].downsample
    pixels = np.full((view.rows, view.columns, 3), UNREAD, np.uint8)
    side = max(1, int(_BLOCK * view.scale * downsample))
    unread = 0
    for top in range(0, view.rows, side):
        for left in range(0, view.columns, side):
            block = left, top, min(side, view.columns - left), min(side, view.rows - top)
            unread += _read(slide, number, view, block, pixels)
    return pixels, 100 * unread / (view.rows * view.columns)


def _read(
    slide: Slide, number: int, view: View, block: tuple[int, int, int, int], pixels: NDArray[np.uint8]
) -> int:
    """Read a block of the picture; where that fails, quarter it. Return how many pixels are lost."""
    left, top, width, height = block
    level = slide.levels[number]
    across, down = slide.width / level.width, slide.height / level.height
    x0, x1 = ((view.x + edge / view.scale) / across for edge in (left, left + width))
    y0, y1 = ((view.y + edge / view.scale) / down for edge in (top, top + height))
    # The last row of a picture may reach half a pixel beyond the slide.
    x1, y1 = min(x1, level.width), min(y1, level.height)
    from_x, from_y = max(0, int(x0) - _MARGIN), max(0, int(y0) - _MARGIN)
    to_x, to_y = min(level.width, int(x1) + 1 + _MARGIN), min(level.height, int(y1) + 1 + _MARGIN)
    try:
        read = slide.read_rgb(number, from_x, from_y, to_x - from_x, to_y - from_y)
    except SlideCorruptError:
        if max(width, height) <= _LEAST_BLOCK:
            return width * height
        half = -(-max(width, height) // 2)
        return sum(
            _read(
                slide, number, view, (x, y, min(half, left + width - x), min(half, top + height - y)), pixels
            )
            for y in range(top, top + height, half)
            for x in range(left, left + width, half)
        )
    # Averages where the picture is coarser; where it is finer, pixels stay as they are.
    how = Image.Resampling.BOX if view.scale * across < 1 else Image.Resampling.NEAREST
    box = (x0 - from_x, y0 - from_y, x1 - from_x, y1 - from_y)
    made = Image.fromarray(read).resize((width, height), how, box)
    pixels[top : top + height, left : left + width] = np.asarray(made)
    return 0
