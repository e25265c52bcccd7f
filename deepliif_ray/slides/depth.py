"""How pixels of more than 8 bits become 8-bit ones, and a first look at whether they are dark."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.errors import SlideUnsuitableError

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras give."""
DARK = 0.25
"""Half of the pixels darker than this part of the range in all colours: the light came from the specimen."""
_SAMPLE_PX = 4_000_000
_PATCH, _PATCHES = 512, 4

Area = tuple[int, int, int, int]


def sampled(width: int, height: int) -> Iterator[Area]:
    """Yield areas, ``x, y, width, height``, that tell what a level is like: all of it, or patches."""
    if width * height <= _SAMPLE_PX:
        yield 0, 0, width, height
        return
    for row in range(_PATCHES):
        for column in range(_PATCHES):
            x = max(int((column + 0.5) / _PATCHES * width) - _PATCH // 2, 0)
            y = max(int((row + 0.5) / _PATCHES * height) - _PATCH // 2, 0)
            yield x, y, min(_PATCH, width - x), min(_PATCH, height - y)


def bit_depth(most: int, stated: int | None = None) -> int:
    """Return how many bits 16-bit values have: the stated number if all fit, else the next cameras give.

    Parameters
    ----------
    most : int
        The largest value of a sample.
    stated : int, optional
        Bits by the file's metadata; 16 says nothing, it is what is written by default.
    """
    if stated is not None and 8 <= stated < DEPTHS[-1] and most < 1 << stated:
        return stated
    return next(bits for bits in DEPTHS if most < 1 << bits)


def eight_bits(values: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """Return the upper 8 of ``bits`` bits; what is beyond the range is its end."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    shifted: NDArray[np.uint8] = np.minimum(values >> (bits - 8), 255).astype(np.uint8)
    return shifted


def refuse_dark(values: NDArray[np.integer], bits: int, name: str) -> None:
    """Refuse an image whose background is dark.

    Parameters
    ----------
    values : ndarray, shape (n, 3)
        A sample of the scanned pixels.
    bits : int
        Bits of a value.
    name : str
        The slide's.

    Raises
    ------
    SlideUnsuitableError
        It is dark.
    """
    if values.size and np.median(values.max(axis=1)) < DARK * ((1 << bits) - 1):
        raise SlideUnsuitableError(
            f"{name}: most of it is dark, as in fluorescence; only RGB brightfield images are scored"
        )
