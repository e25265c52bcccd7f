"""Keep touching cells apart in a segmentation that shows them as one, and drop crumbs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.segmentation import watershed

from deepliif_ray.models.base import UInt8Array

FOLD = 2
SMOOTH, RADIUS = 1.5, 3
"""px at half resolution: of the depth, and least distance between two centres."""
WAIST = 0.85
"""Parts that touch are two cells only where the waist is narrower than this share of the narrower part."""
CELL, CORE = 0.5, 0.7
LARGEST_HOLE = 150
"""px at half resolution: 37 µm² at 40x. A clear nucleus is no ring, which would have several centres."""
LEAST_SHARE = 0.65
SURE = 150 / 255
"""Share of a pixel above which it is a cell's; others are darkened so that the published rules leave them."""
_DARKER: UInt8Array = (np.arange(256) * 0.8).astype(np.uint8)
LEAST_AREA = 40
"""px at half resolution: 10 µm² at 40x; few sections of nuclei are smaller."""
BOUNDARY = (0, 255, 0)
NEIGHBOURS = (
    ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
)
"""What cuts an image into pixels and their neighbours, to the left and above."""


def split_cells(seg: UInt8Array) -> UInt8Array:
    """Return ``seg`` with green lines where cells of more than one centre have a waist, without crumbs.

    A watershed (Beucher & Lantuéjoul 1979) from the peaks of the smoothed distance to the edge of cells'
    cores, where the network is surer, since it is unsure between neighbours. Small cells have peaks close to
    each other, and large ones more than one; so peaks may be close, and parts with hardly a waist between
    them are one again. What the network is unsure of all over is wrong more often than right, and dropped. It
    works at half resolution, every filter is small, and whether two parts are one is told from these two
    alone, so that overlapping tiles agree on cells of which they see all that touches them.

    Parameters
    ----------
    seg : numpy.ndarray
        uint8 (H, W, 3), H and W even: red positive, blue negative, green boundary.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3), a copy.
    """
    height, width = seg.shape[:2]
    share = (seg[..., 0].astype(np.float32) + seg[..., 2]) / 255
    half = share.reshape(height // FOLD, FOLD, width // FOLD, FOLD).mean(axis=(1, 3))
    cell, core = _without_holes(half > CELL), _without_holes(half > CORE)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(core).astype(np.float32), SMOOTH)
    peaks = (depth == ndimage.maximum_filter(depth, 2 * RADIUS + 1)) & core
    seeds, _ = ndimage.label(peaks, np.ones((3, 3)))
    parts: NDArray[np.int32] = watershed(-depth, seeds, mask=cell)  # type: ignore[no-untyped-call]
    labels, count = _joined(parts, depth)
    coreless, more = ndimage.label(cell & (labels == 0))
    labels = np.where(coreless > 0, coreless + count, labels)
    area = np.bincount(labels.ravel(), minlength=count + more + 1)
    sure = np.bincount(labels.ravel(), half.ravel(), minlength=count + more + 1)
    dropped = (area < LEAST_AREA) | (sure < LEAST_SHARE * area)
    dropped[0] = False
    # Pixels where half the resolution has no cell would join two cells around the end of their line.
    rims = np.where(labels > 0, labels, ndimage.maximum_filter(labels, 3))
    out = seg.copy()
    unsure = share <= SURE
    for channel in (0, 2):
        out[..., channel] = np.where(unsure, _DARKER[seg[..., channel]], seg[..., channel])
    out[_borders(_unfolded(rims))] = BOUNDARY
    # With the green rim around it.
    gone, free = _unfolded(dropped[labels]), _unfolded(labels == 0)
    out[(ndimage.binary_dilation(gone, iterations=5) & free) | gone] = 0
    return out


def _unfolded(half: NDArray[Any]) -> NDArray[Any]:
    """Return ``half`` at the tile's resolution."""
    return half.repeat(FOLD, axis=0).repeat(FOLD, axis=1)


def _without_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return ``mask`` with its small holes filled; what the edge of the tile cuts may be no hole."""
    background, count = ndimage.label(~mask)
    area = np.bincount(background.ravel(), minlength=count + 1)
    hole = area <= LARGEST_HOLE
    for edge in (background[0], background[-1], background[:, 0], background[:, -1]):
        hole[edge] = False
    hole[0] = False
    filled: NDArray[np.bool_] = mask | hole[background]
    return filled


def _joined(parts: NDArray[np.int32], depth: NDArray[np.float32]) -> tuple[NDArray[np.int32], int]:
    """Return ``parts``, those with hardly a waist between them made one, and how many there are."""
    count = int(parts.max(initial=0))
    widest = np.zeros(count + 1, np.float32)
    np.maximum.at(widest, parts.ravel(), depth.ravel())
    pairs = []
    for one, other in NEIGHBOURS:
        border = _apart(parts[one], parts[other])
        first, second = parts[one][border], parts[other][border]
        waist = np.minimum(depth[one][border], depth[other][border])
        wide = waist >= WAIST * np.minimum(widest[first], widest[second])
        pairs.append(np.stack([first[wide], second[wide]]))
    first, second = np.concatenate(pairs, axis=1)
    touching = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(count + 1, count + 1))
    number, joined = connected_components(touching, directed=False)
    # The background is a component of its own, the first.
    labels: NDArray[np.int32] = joined.astype(np.int32)[parts]
    return labels, number - 1


def _borders(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the pixels of both sides of every border between two labels, background aside."""
    borders = np.zeros(labels.shape, np.bool_)
    for one, other in NEIGHBOURS:
        apart = _apart(labels[one], labels[other])
        borders[one] |= apart
        borders[other] |= apart
    return borders


def _apart(first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return where both are labels, and different ones."""
    apart: NDArray[np.bool_] = (first != second) & (first > 0) & (second > 0)
    return apart
