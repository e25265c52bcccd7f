"""The panels that belong to a synthetic IHC tile: modalities and segmentation."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepliif_ray.synthetic.panels.nuclei import BoolArray, Nucleus
from deepliif_ray.synthetic.panels.staining import Canvas
from deepliif_ray.training.panels.files import UInt8Array

HEMATOXYLIN_GLASS = (205.0, 214.0, 222.0)
HEMATOXYLIN_DENSITY = (0.62, 0.42, 0.12)


def draw_targets(canvas: Canvas, nuclei: list[Nucleus]) -> dict[str, UInt8Array]:
    """Return the panels that belong to the canvas, each uint8 (side, side, 3)."""
    positive = np.array([False, *(n.positive for n in nuclei)])
    seg = draw_segmentation(canvas.owner, positive)
    density = np.clip(canvas.dapi + 0.05 * canvas.hematoxylin, 0, 1.6)[..., None]
    hematoxylin = np.array(HEMATOXYLIN_GLASS) * 10 ** -(density * np.array(HEMATOXYLIN_DENSITY))
    dapi = ndimage.gaussian_filter(canvas.dapi, 1.2) * 190 + 8
    lap2 = ndimage.gaussian_filter(canvas.rim * (0.4 + 0.6 * (canvas.dapi > 0)), 0.9) * 170
    stained = np.array([0.0, *(min(n.brown, 2.0) / 2.0 if n.positive else 0.0 for n in nuclei)])
    marker = ndimage.gaussian_filter(stained[canvas.owner] * (0.75 + 0.25 * canvas.dapi), 1.8) * 255 + 8
    black = np.zeros_like(lap2)
    return {
        "hematoxylin": _as_bytes(hematoxylin),
        "dapi": _as_bytes(np.stack([dapi] * 3, -1)),
        "lap2": _as_bytes(np.stack([black, lap2, 0.25 * lap2], -1)),
        "marker": _as_bytes(np.stack([marker] * 3, -1)),
        "seg": seg,
    }


def draw_segmentation(owner: NDArray[np.int32], positive: BoolArray) -> UInt8Array:
    """Draw cells as DeepLIIF's truth shows them.

    Parameters
    ----------
    owner : numpy.ndarray
        int (H, W): number of the cell that owns each pixel, 0 outside.
    positive : numpy.ndarray
        bool, one for each number (entry 0 means nothing).

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3): red or blue inside, and a green line 2 px wide around every cell and between touching
        ones.
    """
    padded = np.pad(owner, 1, mode="edge")
    height, width = owner.shape
    touching = np.zeros(owner.shape, np.bool_)
    for dy, dx in ((0, 1), (1, 0), (1, 2), (2, 1)):
        beside = padded[dy : dy + height, dx : dx + width]
        touching |= (beside != owner) & (beside > 0) & (owner > 0)
    around = ndimage.binary_dilation(owner > 0, iterations=2) & (owner == 0)
    wide = touching | around
    seg = np.zeros((*owner.shape, 3), np.uint8)
    inside = (owner > 0) & ~wide
    seg[inside & positive[owner], 0] = 255
    seg[inside & ~positive[owner], 2] = 255
    seg[wide, 1] = 255
    return seg


def _as_bytes(image: NDArray[np.float64]) -> UInt8Array:
    result: UInt8Array = np.clip(image, 0, 255).round().astype(np.uint8)
    return result
