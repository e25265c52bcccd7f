"""How much of each square of a grid an area covers: exact, and without a geometry for every square."""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

_CHUNK = 500_000


def covered(area: Any, mask: NDArray[np.bool_], square: tuple[float, float]) -> float:
    """Return the area that a region and the squares of a mask have in common.

    Every edge of the outline is cut where it crosses the lines of the grid. To the right of a piece lies the
    region, or it ends there, for as much of the row as the piece is high; so the sums of pieces from the left
    are what is covered. That is how fonts are drawn, and exact up to rounding.

    Parameters
    ----------
    area : Polygon or MultiPolygon
        Valid, in pixels, nowhere left of or above 0, 0.
    mask : ndarray of bool, shape (rows, columns)
    square : tuple of float
        Width and height of a square of the mask in pixels; the first begins at 0, 0.

    Returns
    -------
    float
        In square pixels.
    """
    if area.is_empty:
        return 0.0
    width, height = square
    x0, y0, x1, y1 = area.bounds
    rows, columns = mask.shape
    left, right = int(x0 // width), min(int(x1 // width) + 1, columns)
    top, bottom = int(y0 // height), min(int(y1 // height) + 1, rows)
    if left >= right or top >= bottom:
        return 0.0
    # Two more columns and a row: for edges on the very last lines.
    shape = bottom - top + 1, right - left + 2
    sums = np.zeros(shape[0] * shape[1])
    start, step = _edges(area, (width, height), (left, top))
    for begin in range(0, len(start), _CHUNK):
        sums += _pieces(start[begin : begin + _CHUNK], step[begin : begin + _CHUNK], shape)
    shares = np.cumsum(sums.reshape(shape), axis=1)[:-1, :-2]
    return abs(float(np.sum(shares, where=mask[top:bottom, left:right]))) * width * height


def _edges(
    area: Any, square: tuple[float, float], first: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the edges of an area that are not level begin, and how they go, (N, 2) each, in squares.

    Inner rings run the other way round than outer ones.
    """
    rings = shapely.get_rings(shapely.get_parts(shapely.orient_polygons(area)))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    points = points / square - first
    step = np.diff(points, axis=0)
    counts = (ring[1:] == ring[:-1]) & (step[:, 1] != 0)
    return points[:-1][counts], step[counts]


def _pieces(
    start: NDArray[np.float64], step: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return what edges, (N, 2) each, add to each square that they cross and to the next one."""
    edges = np.arange(len(start))
    owners, cuts = [edges, edges], [np.zeros(len(start)), np.ones(len(start))]
    for axis in (0, 1):
        ends = start[:, axis] + step[:, axis]
        first = np.floor(np.minimum(start[:, axis], ends)).astype(np.int64) + 1
        crossed = np.maximum(np.ceil(np.maximum(start[:, axis], ends)).astype(np.int64) - first, 0)
        owner = np.repeat(edges, crossed)
        line = np.arange(crossed.sum()) - np.repeat(np.cumsum(crossed) - crossed, crossed) + first[owner]
        owners.append(owner)
        cuts.append(np.clip((line - start[owner, axis]) / step[owner, axis], 0, 1))
    owner, cut = np.concatenate(owners), np.concatenate(cuts)
    order = np.lexsort((cut, owner))
    owner, cut = owner[order], cut[order]
    same = owner[1:] == owner[:-1]
    owner, since, until = owner[:-1][same], cut[:-1][same], cut[1:][same]
    rise = (until - since) * step[owner, 1]
    middle = start[owner] + ((since + until) / 2)[:, None] * step[owner]
    column = np.clip(np.floor(middle[:, 0]).astype(np.int64), 0, shape[1] - 2)
    row = np.clip(np.floor(middle[:, 1]).astype(np.int64), 0, shape[0] - 1)
    beyond = rise * (middle[:, 0] - column)
    place = row * shape[1] + column
    size = shape[0] * shape[1]
    added = np.bincount(place, rise - beyond, size).astype(np.float64, copy=False)
    added += np.bincount(place + 1, beyond, size)
    return added
