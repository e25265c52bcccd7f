"""How far pixels stand out from their surroundings: a second witness of where nuclei are.

Nuclei absorb more red light than what is around them, those with hematoxylin alone and those with dense DAB,
while DAB in membranes and cytoplasm absorbs blue light above all. That can be measured without having
learned anything, so it holds where a network has never been, and it errs elsewhere than a network does: it
takes every dark thing for a nucleus, but misses none for its texture. Both weighed together are right more
often than either.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from deepliif_ray.models.base import UInt8Array
from deepliif_ray.stains import HEMATOXYLIN

SMOOTH = 1.6
"""Lengths are px of 0.5 µm, half the resolution of a tile at 40x; densities are natural."""
BACKGROUND_RADIUS, SHARE_RADIUS = 20, 8
RED_CAP, BLUE_CAP = 2.0, 2.5
"""Densities above are cut, so that black specks do not outshine the nuclei nearby."""
DAB_SHARE = 0.3
"""Of the density of blue light, taken from that of red. DAB has 0.35 (Ruifrok and Johnston 2001): what is
left of it lets nuclei full of it stand out, and stained membranes hardly."""
BLUE_SHARE = HEMATOXYLIN[2] / HEMATOXYLIN[0]
FAINT_BROWN, BROWN, RELIEF = 0.05, 0.2, 0.8
"""Where a place is browner than its surroundings, a want of contrast counts less and less against a nucleus,
and from the second density on by this share less: DAB without hematoxylin under it hardly absorbs red light.
Brown is the density of blue light beyond what hematoxylin explains."""
LEAST, SHARE = 0.05, 0.3
STEEPNESS = 3.0
MOST_WEIGHT = 10
CHANCE = 5
"""Grey levels of both classes together up to which a pixel has no class."""
ABSORBANCE: NDArray[np.float32] = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
"""Natural optical density of each grey level."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ContrastRule:
    """How a network's shares and local contrast are weighed together.

    A pixel's log odds of being a cell's are ``network * its log odds by the network + contrast * `prominence`
    + offset``.

    Attributes
    ----------
    network, contrast : float
        Weights, 0 to 10. A network that is surer than it is right gets less than 1.
    offset : float
        Between -10 and 10.

    Raises
    ------
    ValueError
        A value is no number, or out of range.
    """

    network: float
    contrast: float
    offset: float

    def __post_init__(self) -> None:
        if not all(isinstance(value, int | float) and np.isfinite(value) for value in vars(self).values()):
            raise ValueError(f"local_contrast {vars(self)}: numbers were expected")
        if min(self.network, self.contrast) < 0 or max(*map(abs, vars(self).values())) > MOST_WEIGHT:
            raise ValueError(
                f"local_contrast {vars(self)}: weights are 0 to {MOST_WEIGHT}, "
                f"the offset is -{MOST_WEIGHT} to {MOST_WEIGHT}"
            )


def background(density: FloatArray, radius: int) -> FloatArray:
    """Return the lowest density within ``radius`` px of each pixel (H, W), itself smoothed."""
    lowest = ndimage.minimum_filter(ndimage.gaussian_filter(density, 2.0), 2 * radius + 1)
    result: FloatArray = ndimage.uniform_filter(lowest, radius + 1)
    return result


def threshold(contrast: FloatArray, least: float, share: float, radius: int) -> FloatArray:
    """Return ``share`` of the highest contrast within ``radius`` px of each pixel, at least ``least``."""
    nearby = ndimage.maximum_filter(contrast, 2 * radius + 1)
    result: FloatArray = np.maximum(np.float32(least), np.float32(share) * nearby)
    return result


def prominence(half: UInt8Array) -> FloatArray:
    """Return how far pixels stand out from their surroundings as nuclei do.

    Parameters
    ----------
    half : ndarray of uint8, shape (H, W, 3)
        RGB, 0.5 µm per pixel.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Between -1 and 1, 0 where the contrast is as that of a nucleus' edge: a share of the highest nearby.
        Hardly below 0 where it is browner than around: a nucleus with DAB alone absorbs little red light.
    """
    red = np.minimum(ABSORBANCE[half[..., 0]], np.float32(RED_CAP))
    blue = np.minimum(ABSORBANCE[half[..., 2]], np.float32(BLUE_CAP))
    density = np.maximum(red - np.float32(DAB_SHARE) * blue, np.float32(0))
    contrast = ndimage.gaussian_filter(density, SMOOTH) - background(density, BACKGROUND_RADIUS)
    excess = contrast / threshold(contrast, LEAST, SHARE, SHARE_RADIUS) - 1
    result: FloatArray = np.tanh(excess * np.float32(STEEPNESS / 2))
    stain = np.maximum(blue - np.float32(BLUE_SHARE) * red, np.float32(0))
    brown = ndimage.gaussian_filter(stain, SMOOTH) - background(stain, BACKGROUND_RADIUS)
    relief = RELIEF * np.clip((brown - FAINT_BROWN) / (BROWN - FAINT_BROWN), 0, 1)
    return np.where(result < 0, result * (1 - relief.astype(np.float32)), result)


def weigh(seg: UInt8Array, rgb: UInt8Array, rule: ContrastRule) -> UInt8Array:
    """Return ``seg`` with each pixel's share of cells as the network and local contrast say together.

    Positive and negative keep their proportion; the boundary's share is at most what they leave.

    Parameters
    ----------
    seg, rgb : ndarray of uint8, shape (H, W, 3)
        The network's segmentation, red positive, blue negative, green boundary, and its tile; H and W even.
    rule : ContrastRule
        Weights.
    """
    height, width = seg.shape[:2]
    small = Image.fromarray(rgb).resize((width // 2, height // 2), Image.Resampling.BOX)
    odds = np.exp(np.float32(rule.contrast) * prominence(np.asarray(small)) + np.float32(rule.offset))
    red, blue = seg[..., 0], seg[..., 2]
    together = red.astype(np.uint16) + blue
    odds = _odds_of_share(rule.network)[together] * odds.repeat(2, axis=0).repeat(2, axis=1)
    share = 255 * odds / (1 + odds)
    # Where the network sees hardly any cell its proportion is chance.
    chance = together <= CHANCE
    part = share / np.maximum(together, 1)
    out = np.empty_like(seg)
    out[..., 0] = np.rint(np.where(chance, share / 2, red * part))
    out[..., 1] = np.minimum(seg[..., 1], np.rint(255 - share).astype(np.uint8))
    out[..., 2] = np.rint(np.where(chance, share / 2, blue * part))
    return out


def _odds_of_share(power: float) -> FloatArray:
    """Return the odds, to ``power``, of each sum of two grey levels, 0 to 510."""
    share = np.clip(np.arange(511) / 255, 1 / 255, 254 / 255)
    result: FloatArray = ((share / (1 - share)) ** power).astype(np.float32)
    return result
