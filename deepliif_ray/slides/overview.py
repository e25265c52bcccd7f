"""A whole slide in squares of some micrometres: what telling tissue from glass looks at."""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from deepliif_ray.errors import SlideCorruptError
from deepliif_ray.slides.slide import Slide

BLACK = 4
"""Area that was not scanned is stored as 0, 0, 0; compression makes up to so much of it."""
BLACK_SHARE = 0.9
MAX_UNREAD_PERCENT = 5.0
"""Of a slide's overview may be undecodable; whether too many tiles are is decided when all are read."""
_BLOCK = 2048
_SMALL_BLOCK = 128
_SAMPLES = 4


def is_black(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels (height, width, 3) are 0 to `BLACK` in every channel.

    Channel by channel: NumPy takes nine times as long for the maximum along an axis of three.
    """
    black: NDArray[np.bool_] = pixels[..., 0] <= BLACK
    for channel in (1, 2):
        black &= pixels[..., channel] <= BLACK
    return black


class Overview:
    """A level of a slide, read block by block and averaged in squares.

    Parameters
    ----------
    slide : Slide
    number : int
        The level.
    factor : int
        Side of a square, pixels of the level.

    Attributes
    ----------
    mean : ndarray of float32, shape (rows, columns, 3)
        Average red, green and blue of each square; NaN where they cannot be decoded.
    noise : ndarray of float32, shape (rows, columns)
        Standard deviation of green among pixels of each square.
    unread : int
        Pixels of the level that cannot be decoded.

    Raises
    ------
    SlideCorruptError
        Over `MAX_UNREAD_PERCENT` cannot be decoded.
    """

    def __init__(self, slide: Slide, number: int, factor: int) -> None:
        level = slide.levels[number]
        self._slide, self._number, self._factor = slide, number, factor
        self._most = MAX_UNREAD_PERCENT / 100 * level.width * level.height
        self.mean = np.full((-(-level.height // factor), -(-level.width // factor), 3), np.nan, np.float32)
        self._black = np.zeros(self.mean.shape[:2], np.float32)
        self._lit = np.zeros(self.mean.shape, np.float32)
        self.noise = np.zeros(self.mean.shape[:2], np.float32)
        self.unread = 0
        step = max(1, _BLOCK // factor) * factor
        for y, x in product(range(0, level.height, step), range(0, level.width, step)):
            self._add(x, y, min(step, level.width - x), min(step, level.height - y))

    def _add(self, x: int, y: int, width: int, height: int) -> None:
        """Read a rectangle of the level; where that fails, quarter it until what is lost is small."""
        try:
            block = self._slide.read_rgb(self._number, x, y, width, height)
        except SlideCorruptError:
            half = -(-max(width, height) // (2 * self._factor)) * self._factor
            if max(width, height) > max(_SMALL_BLOCK, self._factor):
                for top, left in product(range(0, height, half), range(0, width, half)):
                    self._add(x + left, y + top, min(half, width - left), min(half, height - top))
                return
            self.unread += width * height
            if self.unread > self._most:
                raise
            return
        averages = np.asarray(Image.fromarray(block).reduce(self._factor), np.float32)
        row, column = y // self._factor, x // self._factor
        place = slice(row, row + averages.shape[0]), slice(column, column + averages.shape[1])
        self.mean[place] = averages
        self.noise[place] = _noise(block, self._factor)
        black = is_black(block)
        if black.any():
            share = np.asarray(Image.fromarray(black.astype(np.float32)).reduce(self._factor))
            lit = np.asarray(Image.fromarray(np.where(black[..., None], 0, block)).reduce(self._factor))
            self._black[place] = share
            self._lit[place] = lit / np.maximum(1 - share, 1e-3)[..., None]

    def without_black(self, squares: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the averages, those beside black area without its pixels, and what is not black.

        Parameters
        ----------
        squares : int
            Least size of a piece of black.
        """
        unscanned = drop_small(self._black >= BLACK_SHARE, squares)
        beside = ndimage.binary_dilation(unscanned, np.ones((3, 3), bool), iterations=2)
        mixed = beside & ~unscanned & (self._black > 0)
        unscanned |= mixed & (self._black >= BLACK_SHARE)
        mean = np.where(mixed[..., None], np.minimum(self._lit, 255), self.mean)
        return mean.astype(np.float32), ~unscanned


def _noise(block: NDArray[np.uint8], factor: int) -> NDArray[np.float32]:
    """Return the standard deviation of green of up to 16 pixels of each square of ``factor`` pixels."""
    samples = min(_SAMPLES, factor)
    steps = ((np.arange(samples) + 0.5) * factor / samples).astype(int)
    rows, columns = (
        np.minimum((np.arange(-(-side // factor))[:, None] * factor + steps).ravel(), side - 1)
        for side in block.shape[:2]
    )
    green = block[rows[:, None], columns, 1].astype(np.float32)
    squares = green.reshape(len(rows) // samples, samples, len(columns) // samples, samples)
    noise: NDArray[np.float32] = squares.std(axis=(1, 3))
    return noise


def drop_small(mask: NDArray[np.bool_], squares: int) -> NDArray[np.bool_]:
    """Return ``mask`` without its 4-connected pieces of fewer than ``squares`` squares."""
    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel()) >= squares
    keep[0] = False
    kept: NDArray[np.bool_] = keep[labels]
    return kept
