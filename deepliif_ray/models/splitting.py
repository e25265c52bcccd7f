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
WAIST = 0.9
"""Parts that touch are two cells only where the waist is narrower than this share of the narrower part."""
SURENESS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares above which a pixel is a cell's, the first, and whose outlines the depth is measured from, in the
mean: neighbours part at the higher ones, and what the network is less sure of is whole at the lower ones."""
FARTHEST = 181
"""px at half resolution, 90 µm at 40x: its square is the last below 2 ** 15."""
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

    A watershed (Beucher & Lantuéjoul 1979) from the peaks of the smoothed distance to the edge of cells, in
    the mean of several shares, since the network is less sure between neighbours. Small cells have peaks
    close to each other, and large ones more than one; so peaks may be close, and parts with hardly a waist
    between them are one again. What the network is unsure of all over is wrong more often than right, and
    dropped. It works at half resolution, every filter is small, and whether two parts are one is told from
    these two alone, so that overlapping tiles agree where they overlap.

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
    outlines = np.stack([_without_holes(half > least) for least in SURENESS])
    cell = outlines[0]
    depth = ndimage.gaussian_filter(distances(outlines).mean(axis=0), SMOOTH)
    peaks = (depth == ndimage.maximum_filter(depth, 2 * RADIUS + 1)) & cell
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
    out[_borders(rims)] = BOUNDARY
    if dropped.any():  # with the green rim around it
        gone, free = _unfolded(dropped[labels]), _unfolded(labels == 0)
        out[(ndimage.binary_dilation(gone, iterations=5) & free) | gone] = 0
    return out


def distances(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the Euclidean distance of each pixel to the nearest one outside its mask.

    As ``scipy.ndimage.distance_transform_edt`` of each, in under half of its time: distances along columns
    first, then the nearest of these along rows (Felzenszwalb & Huttenlocher 2012), as far as any can matter.

    Parameters
    ----------
    masks : ndarray of bool, shape (N, H, W)

    Returns
    -------
    ndarray of float32, shape (N, H, W)
        px, at most `FARTHEST`; what lies beyond the image is not outside.
    """
    height, width = masks.shape[1:]
    row = np.arange(height, dtype=np.int16)[:, None]
    far = np.int16(FARTHEST)
    above = row - np.maximum.accumulate(np.where(masks, -far, row), axis=1)
    below = np.minimum.accumulate(np.where(masks, row + far, row)[:, ::-1], axis=1)[:, ::-1] - row
    column = np.minimum(np.minimum(above, below), far).astype(np.uint16) ** 2
    nearest = column.copy()
    for step in range(1, width):
        square = np.uint16(step**2)
        if square >= nearest.max(initial=0):
            break
        left, right = nearest[..., :-step], nearest[..., step:]
        np.minimum(left, column[..., step:] + square, out=left)
        np.minimum(right, column[..., :-step] + square, out=right)
    found: NDArray[np.float32] = np.sqrt(nearest, dtype=np.float32)
    return found


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
    """Return the tile's pixels on both sides of every border between two labels, background aside."""
    height, width = labels.shape
    borders = np.zeros((height * FOLD, width * FOLD), np.bool_)
    columns = _apart(labels[:, 1:], labels[:, :-1]).repeat(FOLD, axis=0)
    borders[:, FOLD - 1 : -1 : FOLD] |= columns
    borders[:, FOLD::FOLD] |= columns
    rows = _apart(labels[1:], labels[:-1]).repeat(FOLD, axis=1)
    borders[FOLD - 1 : -1 : FOLD] |= rows
    borders[FOLD::FOLD] |= rows
    return borders


def _apart(first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return where both are labels, and different ones."""
    apart: NDArray[np.bool_] = (first != second) & (first > 0) & (second > 0)
    return apart
