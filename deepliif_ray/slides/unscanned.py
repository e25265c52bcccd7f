"""Area that a scanner left out, stored as black: filled with glass before a model sees it.

At the edge of such an area a model finds cells that are not there. Published folders see tiles as they are.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepliif_ray.slides.overview import is_black
from deepliif_ray.slides.tissue import SPECK_UM2

EDGE_UM = 32.0
"""Black along so much of a tile's side is no stain."""
FRINGE = 3
"""Pixels around it that compression darkened."""


def fill_unscanned(tile: NDArray[np.uint8], mpp: float, glass: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return a tile whose unscanned area, black, has the colour of glass.

    Black is 0 to 4 in every channel. A piece of it was not scanned if it has 2,500 µm², or runs along a side
    of the tile for 32 µm; saturated nuclei are smaller (the largest on real fields measures 230 µm²).

    Parameters
    ----------
    tile : ndarray of uint8, shape (height, width, 3)
    mpp : float
        Micrometres per pixel.
    glass : tuple of int
        RGB.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        The tile itself if there is nothing to fill.
    """
    black = is_black(tile)
    if black.sum() * mpp < EDGE_UM:
        return tile
    labels, count = ndimage.label(black)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * mpp**2
    chosen = areas >= SPECK_UM2
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        chosen |= np.bincount(side, minlength=count + 1) * mpp >= EDGE_UM
    chosen[0] = False
    if not chosen.any():
        return tile
    filled = tile.copy()
    filled[ndimage.binary_dilation(chosen[labels], iterations=FRINGE)] = glass
    return filled
