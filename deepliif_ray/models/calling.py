"""Positive or negative: a network's word about a cell, and how brown the cell is, weighed together.

A network that has learned on few laboratories' slides draws nuclei well where it has never been, and calls
them badly: dark brown nuclei on cream glass came out negative, all of them. How brown a nucleus is can be
measured, once glass has its known colour. So a cell is called by a logistic function of both, which rises
with either; what is very brown is always positive, and what has no brown never is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepliif_ray.models.base import UInt8Array
from deepliif_ray.stains import HEMATOXYLIN

MOST_LOG_ODDS, MOST_BROWN = 3.0, 0.2
"""Beyond these, more says nothing more: a network is as sure of a wrong call as of a right one, and what is
brown enough may be darker still."""
CELL = 0.5
RIM = 5
"""px; a cell's colour reaches a little beyond its pixels of over half a share."""
EDGE = 3
"""px. A cell's brownness is measured where all pixels this near are its own: its edge has the stain of what
surrounds it as well, and JPEG smears colour by storing it in pixels of twice the size."""
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class CallRule:
    """How a cell is called.

    Positive where ``network * log_odds + dab * brownness + offset`` is above 0, the log odds cut at ±3, the
    brownness to 0 to 0.2.

    Attributes
    ----------
    network : float
        Weight of the logarithm of the network's positive to its negative share of the cell.
    dab : float
        Weight of the cell's `brownness`.
    offset : float
    least, most : float
        Brownness below which a cell is never positive, and above which it always is.

    Raises
    ------
    ValueError
        A weight is negative, so that more brown or more red could make a cell negative, or the limits cross.
    """

    network: float
    dab: float
    offset: float
    least: float
    most: float

    def __post_init__(self) -> None:
        if not all(isinstance(value, int | float) and np.isfinite(value) for value in vars(self).values()):
            raise ValueError(f"call {vars(self)}: numbers were expected")
        if self.network < 0 or self.dab < 0 or self.least > self.most:
            raise ValueError(f"call {vars(self)}: weights are at least 0, and least is at most most")

    def positive(self, log_odds: FloatArray, brown: FloatArray) -> NDArray[np.bool_]:
        """Return which cells are positive; both arguments have shape (N,)."""
        odds, stain = np.clip(log_odds, -MOST_LOG_ODDS, MOST_LOG_ODDS), np.clip(brown, 0, MOST_BROWN)
        called = self.network * odds + self.dab * stain + self.offset > 0
        result: NDArray[np.bool_] = (called & (brown >= self.least)) | (brown > self.most)
        return result


def brownness(rgb: UInt8Array, white: float) -> FloatArray:
    """Return how brown pixels are: their density of blue light beyond what hematoxylin explains.

    Hematoxylin absorbs a fixed share of blue for the red that it absorbs (Ruifrok and Johnston 2001); what is
    absorbed beyond is DAB, whatever its hue, and black is much of it.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (..., 3)
    white : float
        Grey level of glass.

    Returns
    -------
    ndarray of float64, shape (...)
        Optical density; about 0 for glass and hematoxylin, 0.66 for DAB of density 1.
    """
    density = np.log10(white / np.maximum(np.arange(256), 1.0))
    share = HEMATOXYLIN[2] / HEMATOXYLIN[0]
    brown: FloatArray = density[rgb[..., 2]] - share * density[rgb[..., 0]]
    return brown


@dataclass(frozen=True)
class Evidence:
    """What is known of the cells of a tile.

    Attributes
    ----------
    labels : ndarray of int32, shape (H, W)
        Cell ``i`` of the arrays below is ``i + 1``.
    log_odds, brown : ndarray of float64, shape (N,)
        See `CallRule`; the brownness is of the cell's inside, or of all of a cell that has none.
    """

    labels: NDArray[np.int32]
    log_odds: FloatArray
    brown: FloatArray


def evidence(seg: UInt8Array, rgb: UInt8Array, white: float) -> Evidence:
    """Return what a call is made of.

    Parameters
    ----------
    seg : ndarray of uint8, shape (H, W, 3)
        Red positive, blue negative, green boundary; cells parted by green lines.
    rgb : ndarray of uint8, shape (H, W, 3)
        The tile.
    white : float
        Grey level of glass.
    """
    labels, count = ndimage.label(seg[..., 0].astype(np.int32) + seg[..., 2] > 255 * CELL)
    cell = labels > 0
    of = labels[cell]
    inside = (ndimage.minimum_filter(labels, 2 * EDGE + 1) == labels)[cell]  # lines of 0 lie between cells

    def total(values: NDArray[np.generic]) -> FloatArray:
        sums: FloatArray = np.bincount(of, values, minlength=count + 1)[1:].astype(np.float64)
        return sums

    small = total(inside) == 0  # or thin: it has no inside
    measured = inside | small[of - 1]
    brown = total(measured * brownness(rgb[cell], white)) / total(measured)
    area = np.bincount(of, minlength=count + 1)[1:]
    red, blue = (total(seg[..., channel][cell]) for channel in (0, 2))
    log_odds = np.log((red + area) / (blue + area))
    return Evidence(labels.astype(np.int32), log_odds, brown)


def call_cells(seg: UInt8Array, rgb: UInt8Array, rule: CallRule, white: float) -> UInt8Array:
    """Return ``seg`` with each cell in the colour of its call; parameters as of `evidence`.

    Where a cell shows both colours, the called one gets the greater share of each pixel, so that counting
    pixels, as published, finds the same call.
    """
    found = evidence(seg, rgb, white)
    if not len(found.brown):
        return seg
    positive = np.concatenate([[False], rule.positive(found.log_odds, found.brown)])
    reach = ndimage.grey_dilation(found.labels, RIM)
    labels = np.where(found.labels > 0, found.labels, reach)
    most, least = np.maximum(seg[..., 0], seg[..., 2]), np.minimum(seg[..., 0], seg[..., 2])
    red = positive[labels]
    out = seg.copy()
    cell = labels > 0
    out[..., 0] = np.where(cell, np.where(red, most, least), seg[..., 0])
    out[..., 2] = np.where(cell, np.where(red, least, most), seg[..., 2])
    return out
