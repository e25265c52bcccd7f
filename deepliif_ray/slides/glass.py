"""The colour of glass: where a slide is bright and even, and of what colour.

Tissue is what is darker than glass, so glass has to be known first. It is not white everywhere: a lamp makes
it cream, a camera grey. The brightest squares alone do not tell it, because a field may be tissue all over.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

WHITE_PERCENTILE = 99
WHITE_FLOOR = 230
"""Grey level that glass is taken to have at least where no glass is seen."""
NEAR, EVEN = 0.03, 0.02
LEAST_SHARE, LEAST_SQUARES = 0.0025, 9
LEAST_LIGHT, MOST_TINT = 140.0, 1.4


def glass_white(
    mean: NDArray[np.float32], scanned: NDArray[np.bool_], fill: tuple[int, int, int]
) -> tuple[NDArray[np.float64], bool]:
    """Return what is white on a slide, and whether glass was seen.

    The brightest is the 99th percentile of the squares, channel by channel. Squares within 0.03 of its
    optical density that hardly differ from their eight neighbours (by less than 0.02) are glass, if they are
    at least nine and a 400th of all: tissue is hardly ever so even over 24 to 48 µm. White is their median.
    Squares at the slide's edge do not count, since they may be cut. Without
    glass, white is the brightest, but at least 230, so that a field that is tissue all over does not take its
    own tissue for glass. All of it follows a tint of the light, since each channel is taken by itself.

    Parameters
    ----------
    mean : ndarray of float32, shape (rows, columns, 3)
        Averages of red, green and blue of squares of 8 to 16 µm, grey levels; NaN where unreadable.
    scanned : ndarray of bool, shape (rows, columns)
    fill : tuple of int
        Colour of what was not scanned; squares of exactly that colour do not count unless nothing else is
        there.

    Returns
    -------
    white : ndarray of float64, shape (3,)
    seen : bool
    """
    readable = scanned & ~np.isnan(mean).any(axis=2)
    among = readable & (mean != np.array(fill, np.float32)).any(axis=2)
    if not among.any():
        among = readable
    if not among.any():
        return np.full(3, 255.0), False
    brightest = np.percentile(mean[among], WHITE_PERCENTILE, axis=0).astype(np.float64)
    safe = np.where(readable[..., None], mean, 1.0)
    density = np.log10(np.maximum(brightest, 1.0) / np.maximum(safe, 1.0)).mean(axis=2)
    highest = ndimage.maximum_filter(density, 3, mode="constant", cval=np.inf)
    spread = highest - ndimage.minimum_filter(density, 3)
    glass = among & (np.abs(density) < NEAR) & (spread < EVEN)
    if glass.sum() >= max(LEAST_SQUARES, LEAST_SHARE * among.sum()):
        white = np.median(mean[glass], axis=0).astype(np.float64)
        if white.min() >= LEAST_LIGHT and white.max() <= MOST_TINT * white.min():
            return white, True
    return np.clip(brightest, WHITE_FLOOR, 255), False
