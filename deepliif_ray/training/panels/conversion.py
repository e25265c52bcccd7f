"""Converting negative cells to positive ones in training panels (Neg-to-Pos of Ghahremani et al. 2022)."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepliif_ray.cells.labels import NEGATIVE, POSITIVE, classify, label_core
from deepliif_ray.errors import ConfigError
from deepliif_ray.published import NOISE_THRESH, SEG_THRESH
from deepliif_ray.training.objectives.neg_to_pos import DAPI, NegToPos
from deepliif_ray.training.panels.files import SEG, Panels, UInt8Array

MARKER = "marker"
MARGIN = 2
"""Px around a converted cell that are painted anew too: stain does not end at the outline."""
FEATHER = 1.0
"""Standard deviation, px, of the blur that hides where new and old IHC meet."""
MARKER_LEVEL = 100.0
"""Marker brightness of a converted cell where the tile has no positive cell to take it from, 0–255."""
TEXTURE = (0.5, 1.5)
"""Least and greatest factor by which DAPI modulates the marker inside a cell."""
GLOW = 1.5
"""Standard deviation, px, of the blur of the added light: fluorescence has no sharp outline."""


def convert(model: NegToPos, panels: Panels, share_percent: float, rng: np.random.Generator) -> Panels:
    """Return ``panels`` with a share of the negative cells made positive.

    A cell is a connected component of the segmentation; it is negative when more of its pixels are blue than
    red (published rules). Of n negative cells, ``share_percent`` of n, rounded, are drawn at random, and

    - turn red in the segmentation (their outlines stay);
    - are painted anew in the IHC by the generator, which sees the changed segmentation; the rest of the IHC
      stays as it was, blended over a few px;
    - light up in the marker panel, if there is one: at the median brightness of the tile's positive cells,
      modulated by the cell's DAPI; nothing gets darker.

    Other panels stay, because they do not show the marker.

    Parameters
    ----------
    model : NegToPos
    panels : Panels
        With ``hematoxylin``, ``dapi`` and ``seg``.
    share_percent : float
        0 to 100; the paper uses 50, 70 and 90.
    rng : numpy.random.Generator
        Draws the cells; the same state gives the same result.

    Raises
    ------
    ConfigError
        The share is out of range, or a panel is missing.
    """
    if not 0 <= share_percent <= 100:
        raise ConfigError(f"share is {share_percent}; a percentage from 0 to 100 was expected")
    if SEG not in panels.targets:
        raise ConfigError(f"{panels.name}: has no panel {SEG}, which tells the cells")
    labels, classes, negative = negative_cells(panels.targets[SEG])
    count = int(len(negative) * share_percent / 100 + 0.5)
    chosen = np.sort(rng.choice(negative, count, replace=False))
    converted = np.isin(labels, chosen)
    targets = dict(panels.targets)
    targets[SEG] = _reddened(targets[SEG], converted & (classes != 0))
    if MARKER in targets and DAPI in targets:
        targets[MARKER] = _lit(targets[MARKER], targets[DAPI], np.where(converted, labels, 0), classes)
    changed = replace(panels, name=f"{panels.name}-neg-to-pos-{share_percent:g}", targets=targets)
    return replace(changed, ihc=_blended(panels.ihc, model.paint(changed), converted))


def convert_all(
    model: NegToPos, tiles: Iterable[Panels], share_percent: float, seed: int
) -> Iterator[Panels]:
    """Yield each of ``tiles`` converted; see `convert`.

    What is drawn depends on ``seed`` and the tile's name alone, not on the tiles before it.
    """
    for panels in tiles:
        rng = np.random.default_rng([seed, zlib.crc32(panels.name.encode())])
        yield convert(model, panels, share_percent, rng)


def negative_cells(seg: UInt8Array) -> tuple[NDArray[np.int32], UInt8Array, NDArray[np.int64]]:
    """Find the cells of a segmentation and which are negative.

    Parameters
    ----------
    seg : numpy.ndarray
        uint8 (H, W, 3).

    Returns
    -------
    labels : ndarray of int32, shape (H, W)
        Cells from 1, holes in them included; 0 is background.
    classes : ndarray of uint8, shape (H, W)
        See `deepliif_ray.cells.labels.classify`.
    negative : ndarray of int64
        Labels of the cells with more negative than positive pixels that are larger than noise.
    """
    classes = classify(np.ascontiguousarray(seg), SEG_THRESH)
    labels, _, _, _ = label_core(classes, np.ones(4, np.bool_))
    size = np.bincount(labels.ravel())
    count = {c: np.bincount(labels[classes == c], minlength=len(size)) for c in (POSITIVE, NEGATIVE)}
    negative = (count[NEGATIVE] > count[POSITIVE]) & (size > NOISE_THRESH)
    negative[0] = False
    return labels, classes, np.flatnonzero(negative)


def _reddened(seg: UInt8Array, where: NDArray[np.bool_]) -> UInt8Array:
    """Return ``seg`` with the stronger of red and blue as red, the other as blue, in the pixels ``where``."""
    result = seg.copy()
    red, blue = seg[..., 0][where], seg[..., 2][where]
    result[..., 0][where], result[..., 2][where] = np.maximum(red, blue), np.minimum(red, blue)
    return result


def _lit(marker: UInt8Array, dapi: UInt8Array, labels: NDArray[np.int32], classes: UInt8Array) -> UInt8Array:
    """Return ``marker`` brightened in the labelled cells."""
    inside = labels > 0
    if not inside.any():
        return marker
    positive = marker[classes == POSITIVE]
    level = np.median(positive, axis=0) if len(positive) else np.full(3, MARKER_LEVEL)
    grey = dapi.mean(axis=2)
    numbers, cell = np.unique(labels[inside], return_inverse=True)
    mean = np.asarray(ndimage.mean(grey, labels, numbers))[cell]
    texture = np.clip(grey[inside] / np.maximum(mean, 1.0), *TEXTURE)
    light = np.zeros(marker.shape, np.float32)
    light[inside] = level * texture[:, None]
    glow = ndimage.gaussian_filter(light, (GLOW, GLOW, 0.0))
    lit: UInt8Array = np.maximum(marker, np.clip(np.rint(glow), 0, 255).astype(np.uint8))
    return lit


def _blended(old: UInt8Array, new: UInt8Array, cells: NDArray[np.bool_]) -> UInt8Array:
    """Return ``old`` with ``new`` in the cells and a margin around them, blended at its edge."""
    if not cells.any():
        return old
    around = ndimage.binary_dilation(cells, iterations=MARGIN).astype(np.float32)
    alpha = np.maximum(ndimage.gaussian_filter(around, FEATHER), cells)[..., None]
    mixed: UInt8Array = np.rint(old + alpha * (new.astype(np.float32) - old)).astype(np.uint8)
    return mixed
