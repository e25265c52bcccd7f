"""Outlines that enclose their cells, made of the stored ones.

The stored ``boundary`` is the published outline: its vertices are the centres of the cell's border pixels. So
it cuts half a pixel off all around, runs along spurs of one pixel there and back, and many programs refuse
it as a polygon. It stays as it is: it is what published DeepLIIF draws, so results can be compared with
theirs, no result needs a new version, and results that were scored before give valid outlines too.

An exported outline follows the edges of the cell's pixels instead. Coordinates are those of pixel edges, as
QuPath and others have them: the pixel in column 3 reaches from 3 to 4, and its centre, which is 3 in the
tables, is 3.5. Cells are pixels of level 0 at whatever scale the model saw them, so no other step occurs.
"""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

BRIDGE = 0.1
"""Where two pixels of a cell touch by their corners alone, they are joined by a bridge that begins this far
from the corner, in px: the ring would else meet itself there. It adds a hundredth of a pixel."""

# Directions count clockwise from the upper left, so odd ones are the sides of a pixel, even ones its corners.
_CODE = np.array([[0, 1, 2], [7, -1, 3], [6, 5, 4]], np.int8)
_CORNER_X = np.array([0, 0, 1, 0, 1, 0, 0, 0], np.int64)
_CORNER_Y = np.array([0, 0, 0, 0, 1, 0, 1, 0], np.int64)
# Along a side of a pixel, clockwise.
_ALONG_X = np.array([0, 1, 0, 0, 0, -1, 0, 0], np.int64)
_ALONG_Y = np.array([0, 0, 0, 1, 0, 0, 0, -1], np.int64)
_SIDES = np.array([1, 3, 5, 7], np.int64)

_AT_ONCE = 2_000
"""Cells: their border pixels are then a few hundred thousand, and take little memory and time."""

Int64Array = NDArray[np.int64]


def enclosing_outlines(boundaries: Sequence[bytes] | NDArray[np.object_]) -> NDArray[np.object_]:
    """Return the outlines of cells along the outer edges of their pixels.

    Parameters
    ----------
    boundaries : sequence of bytes
        Stored outlines of N cells: WKB polygons whose vertices are level-0 pixel indices.

    Returns
    -------
    ndarray of shapely.Polygon, shape (N,)
        Each is valid and without holes, in pixel-edge coordinates at level 0, x right and y down. Its area
        is the cell's ``area_px``, and `BRIDGE` squared for each place where pixels touch by corners alone.
        Rings are wound as RFC 7946 asks: counter-clockwise where y points up, so that the sum of
        ``x₁y₂ − x₂y₁`` is positive. On a screen, where y points down, that looks clockwise.
    """
    stored: NDArray[np.object_] = shapely.from_wkb(np.asarray(boundaries, dtype=object))
    found = np.empty(len(stored), dtype=object)
    for begin in range(0, len(stored), _AT_ONCE):
        found[begin : begin + _AT_ONCE] = _outlines(stored[begin : begin + _AT_ONCE])
    return found


def _outlines(stored: NDArray[np.object_]) -> NDArray[np.object_]:
    points, cell = shapely.get_coordinates(stored, return_index=True)
    count = len(stored)
    x, y, direction, owner, is_chain = _steps(points, cell.astype(np.int64), count)
    edge_x, edge_y, side, owner = _sides(x, y, direction, owner)
    is_chain &= _meet(edge_x, edge_y, side, owner, count)
    ring, owner = _corners(edge_x, edge_y, side, owner)
    wanted = is_chain[owner]
    found = np.empty(count, dtype=object)
    rings = shapely.linearrings(ring[wanted], indices=(np.cumsum(is_chain) - 1)[owner[wanted]])
    found[is_chain] = shapely.polygons(rings)
    # One that is not valid would cost its reader the whole file.
    is_chain[is_chain] = shapely.is_ccw(rings) & shapely.is_valid(found[is_chain])
    found[~is_chain] = [_around(polygon) for polygon in stored[~is_chain]]
    return found


def _steps(
    points: NDArray[np.float64], cell: Int64Array, count: int
) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array, NDArray[np.bool_]]:
    """Return the border pixels of all cells, one after another: where each is, and where the next one is.

    A cell of one pixel has no next one: its direction is -1. The last array says which cells are such chains
    of pixels, as the outlines that are stored here are.
    """
    whole = np.rint(points).astype(np.int64)
    is_chain = np.ones(count, bool)
    is_chain[cell[(whole != points).any(axis=1)]] = False
    (from_x, from_y), (by_x, by_y) = whole[:-1].T, np.diff(whole, axis=0).T
    length = np.maximum(np.abs(by_x), np.abs(by_y))
    length[cell[1:] != cell[:-1]] = 0
    is_straight = (by_x == 0) | (by_y == 0) | (np.abs(by_x) == np.abs(by_y))
    is_chain[cell[:-1][(length > 0) & ~is_straight]] = False
    length[~is_chain[cell[:-1]]] = 0
    line = np.repeat(np.arange(len(length)), length)
    sign_x, sign_y = np.sign(by_x), np.sign(by_y)
    along = np.arange(len(line)) - (np.cumsum(length) - length)[line]
    x, y = from_x[line] + along * sign_x[line], from_y[line] + along * sign_y[line]
    direction, owner = _CODE[sign_y + 1, sign_x + 1].astype(np.int64)[line], cell[:-1][line]
    is_alone = is_chain.copy()
    is_alone[owner] = False
    first = np.searchsorted(cell, np.flatnonzero(is_alone))
    if len(first):
        at = np.searchsorted(owner, cell[first])
        x, y = np.insert(x, at, whole[first, 0]), np.insert(y, at, whole[first, 1])
        direction, owner = np.insert(direction, at, -1), np.insert(owner, at, cell[first])
    return x, y, direction, owner, is_chain


def _sides(
    x: Int64Array, y: Int64Array, direction: Int64Array, owner: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
    """Return the sides of pixels that face outwards, in the order of the outline: beginning, which, cell.

    Between the pixel that the outline comes from and the one that it goes to, clockwise, all neighbours of a
    pixel are outside: so its sides in between are the cell's.
    """
    before = np.roll(direction, 1)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    before[starts] = direction[np.append(starts[1:], len(owner)) - 1]
    back = (before + 4) & 7
    outside = (direction - back - 1) & 7
    first = back + 1 + (back & 1)
    number = np.where(back & 1, outside >> 1, (outside + 1) >> 1)
    is_alone = direction < 0
    first[is_alone], number[is_alone] = _SIDES[0], len(_SIDES)
    pixel = np.repeat(np.arange(len(x)), number)
    side = (first[pixel] + 2 * (np.arange(len(pixel)) - (np.cumsum(number) - number)[pixel])) & 7
    return x[pixel] + _CORNER_X[side - 1], y[pixel] + _CORNER_Y[side - 1], side, owner[pixel]


def _next(owner: Int64Array) -> Int64Array:
    """Return for each place of rings the one that follows: after the last of a ring, its first."""
    following = np.arange(1, len(owner) + 1)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    following[np.append(starts[1:], len(owner)) - 1] = starts
    return following


def _meet(x: Int64Array, y: Int64Array, side: Int64Array, owner: Int64Array, count: int) -> NDArray[np.bool_]:
    """Tell of which cells each side begins where the one before it ends."""
    follows = _next(owner)
    apart = (x + _ALONG_X[side] != x[follows]) | (y + _ALONG_Y[side] != y[follows])
    whole = np.zeros(count, bool)
    whole[owner] = True
    whole[owner[apart]] = False
    return whole


def _corners(
    x: Int64Array, y: Int64Array, side: Int64Array, owner: Int64Array
) -> tuple[NDArray[np.float64], Int64Array]:
    """Return the corners of rings, and the cell of each; where a ring meets itself, two beside the corner."""
    before = np.empty_like(side)
    before[_next(owner)] = side
    is_turn = before != side
    x, y, side, before, owner = (values[is_turn] for values in (x, y, side, before, owner))
    inwards = np.flatnonzero(side == (before - 2) & 7)
    is_met = np.zeros(len(x), bool)
    if len(inwards):
        in_x, in_y, of = x[inwards], y[inwards], owner[inwards]
        left, top = in_x.min(), in_y.min()
        wide, high = in_x.max() - left + 1, in_y.max() - top + 1
        key = (of * high + in_y - top) * wide + in_x - left
        ordered = np.sort(key)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        is_met[inwards] = np.isin(key, twice)
    place = np.repeat(np.arange(len(x)), 1 + is_met)
    ring = np.column_stack([x[place], y[place]]).astype(np.float64)
    at = np.flatnonzero(is_met[place])
    ahead, behind = at[1::2], at[::2]
    for column, along in enumerate((_ALONG_X, _ALONG_Y)):
        ring[behind, column] -= BRIDGE * along[before[place[behind]]]
        ring[ahead, column] += BRIDGE * along[side[place[ahead]]]
    return ring, owner[place]


def _around(polygon: shapely.Polygon) -> shapely.Polygon:
    """Return what lies within half a pixel of an outline that was not made by this software."""
    moved = shapely.transform(shapely.make_valid(polygon), lambda points: points + 0.5)
    parts = shapely.get_parts(shapely.buffer(moved, 0.5, join_style="mitre", cap_style="square"))
    largest = parts[np.argmax(shapely.area(parts))]
    return shapely.orient_polygons(shapely.polygons(shapely.get_exterior_ring(largest)))
