"""Optical densities of 8-bit pixels, as tables that kernels look them up in."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.stains import DAB, HEMATOXYLIN

STAIN_SCALE = 1_000_000
"""Stain optical densities are summed as integers in units of 1/STAIN_SCALE."""
Vector = tuple[float, float, float]
WHITE: Vector = (255.0, 255.0, 255.0)


def _od_table() -> NDArray[np.float64]:
    values = np.maximum(np.arange(256, dtype=np.float64), 1)
    return np.log10(255 / values)


@lru_cache(maxsize=64)
def stain_tables(
    hematoxylin: Vector = HEMATOXYLIN, dab: Vector = DAB, white: Vector = WHITE
) -> NDArray[np.int64]:
    """Return the hematoxylin and DAB parts of an 8-bit value of each channel.

    The third stain, the residual, is the cross product of the two.

    Parameters
    ----------
    hematoxylin, dab : tuple of float
        Vectors of optical density in red, green and blue.
    white : tuple of float
        Red, green and blue of glass, grey levels.

    Returns
    -------
    ndarray of int64, shape (3, 2, 256)
        In units of 1/`STAIN_SCALE`.
    """
    vectors = np.array([hematoxylin, dab, np.cross(hematoxylin, dab)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    unmix = np.linalg.inv(vectors)
    density = _od_table() + np.log10(np.array(white) / 255)[:, None]
    parts = density[:, None, :] * unmix[:, :2, None]
    return np.rint(parts * STAIN_SCALE).astype(np.int64)


OD = _od_table()
STAINS = stain_tables()
"""Of the usual stains on white glass."""
