"""Cells of a slide sorted into squares, so that those near a place are found and counted quickly.

Squares lie row by row, and so do the cells of each: the cells of some squares beside one another are one
stretch of the arrays, and how many they are, and how many of them positive, is the difference of two sums.
Which square a cell is in decides only what is looked at. What is counted is decided by exact distances.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_CELLS_PER_SQUARE = 4.0
BLOCK = 3
"""Squares along the side of the smallest block; what surrounds one is looked at once for all of its cells."""
_SPLIT = 4  # along the side, where a block holds too many
_LARGEST = BLOCK * _SPLIT**3
_FEW = 32  # cells of a larger block
_MOST_SQUARES = 16_000_000
POSITIVE = 1 << 32
"""What a positive cell adds to a packed count beside its 1: positives are the high half."""
CELLS = POSITIVE - 1
"""What of a packed count is the number of cells."""
FARTHEST_UM = 1e9
"""Coordinates farther off than this are of no slide, and squares of them could not be counted."""
# Squares are judged by their nominal sides. A cell may lie beyond its square's by rounding, and squared
# distances are rounded too; both are far below this part of a side and of a radius.
_SLACK, _RELATIVE_SLACK = 1e-6, 1e-9


class Squares(NamedTuple):
    """Cells in squares.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        Centroids as they were given, µm, in the order of squares.
    positive : ndarray of bool, shape (n,)
    given : ndarray of int64, shape (n,)
        Place of each cell in the arrays that were given.
    start : ndarray of int32, shape (rows * columns + 1,)
        Where the cells of each square begin, which is the number of cells before.
    positives : ndarray of int32, shape (rows * columns + 1,)
        Positive cells before each square.
    columns, rows : int
    side : float
        Of a square, µm.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    positive: NDArray[np.bool_]
    given: NDArray[np.int64]
    start: NDArray[np.int32]
    positives: NDArray[np.int32]
    columns: int
    rows: int
    side: float


def sort_into_squares(
    x_um: NDArray[np.float64], y_um: NDArray[np.float64], positive: NDArray[np.bool_]
) -> Squares:
    """Return cells in squares that hold about four where cells are as dense as they are around most of them.

    Parameters
    ----------
    x_um, y_um : ndarray of float64, shape (n,)
        Finite; at least one.
    positive : ndarray of bool, shape (n,)
    """
    # Arrays that can be written to, one value after the other: the kernels are compiled for no others.
    x_um, y_um = (np.require(values, np.float64, ["C", "W"]) for values in (x_um, y_um))
    positive = np.require(positive, np.bool_, ["C", "W"])
    left, top = float(x_um.min()), float(y_um.min())
    width, height = float(x_um.max()) - left, float(y_um.max()) - top
    alone = _CELLS_PER_SQUARE / len(x_um)  # the part of all squares that one is to be
    side = _bounded(max(math.sqrt(width * height * alone), max(width, height) * alone), width, height)
    for _ in range(4):
        columns, rows = int(width / side) + 1, int(height / side) + 1
        squares = Squares(*_sorted(x_um, y_um, positive, left, top, side, columns, rows), columns, rows, side)
        # How many others a cell has in its square, of all cells on average: more than the mean over the
        # squares where tissue is not all over the slide.
        crowd = _crowd(squares.start)
        finer = _bounded(side * math.sqrt(_CELLS_PER_SQUARE / max(crowd, 1e-3)), width, height)
        if not finer < side / 1.3:
            break
        side = finer
    return squares


def _bounded(side: float, width: float, height: float) -> float:
    """Return ``side``, larger where there would be too many squares."""
    side = max(side, max(width, height) / _MOST_SQUARES * 4)
    if side <= 0:
        return 1.0  # all cells are at one place
    while (width / side + 1) * (height / side + 1) > _MOST_SQUARES:
        side *= 1.25
    return side


@njit(cache=True, nogil=True)
def _sorted(
    x_um: NDArray[np.float64], y_um: NDArray[np.float64], positive: NDArray[np.bool_],
    left: float, top: float, side: float, columns: int, rows: int,
) -> tuple[
    NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_],
    NDArray[np.int64], NDArray[np.int32], NDArray[np.int32],
]:  # fmt: skip
    n = len(x_um)
    square = np.empty(n, np.int32)
    start = np.zeros(rows * columns + 1, np.int32)
    positives = np.zeros(rows * columns + 1, np.int32)
    for i in range(n):
        column = min(int((x_um[i] - left) / side), columns - 1)
        row = min(int((y_um[i] - top) / side), rows - 1)
        square[i] = row * columns + column
        start[square[i] + 1] += 1
        positives[square[i] + 1] += positive[i]
    for s in range(rows * columns):
        start[s + 1] += start[s]
        positives[s + 1] += positives[s]
    place = start[:-1].copy()
    x, y = np.empty(n, np.float64), np.empty(n, np.float64)
    is_positive, index = np.empty(n, np.bool_), np.empty(n, np.int64)
    for i in range(n):
        to = place[square[i]]
        place[square[i]] += 1
        x[to], y[to], is_positive[to], index[to] = x_um[i], y_um[i], positive[i], i
    return x, y, is_positive, index, start, positives


@njit(cache=True, nogil=True)
def _crowd(start: NDArray[np.int32]) -> float:
    total = 0.0
    for s in range(len(start) - 1):
        count = start[s + 1] - start[s]
        total += count * (count - 1)
    return float(total / start[-1])


@njit(cache=True, nogil=True)
def cells_of(squares: Squares, square: int, span: int, line: int) -> tuple[int, int]:
    """Return where the cells of a block begin and end that lie in its ``line``-th row of squares.

    A block is ``span`` squares wide and high, ``square`` is its upper left one. It may reach beyond the rest.
    """
    row, column = square // squares.columns, square % squares.columns
    if row + line >= squares.rows:
        return 0, 0
    last = square + line * squares.columns + min(span, squares.columns - column)
    return squares.start[square + line * squares.columns], squares.start[last]


@njit(cache=True, nogil=True)
def lay_blocks(squares: Squares) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return blocks that hold all cells: the upper left square and the span of each.

    They are of the least size where cells are dense, and larger where they are sparse, so that each holds
    some. Those near one another are near in the list.
    """
    most = squares.start[-1]
    first, spans = np.empty(most, np.int64), np.empty(most, np.int64)
    waiting = np.empty((4 * _SPLIT * _SPLIT, 3), np.int64)
    found = 0
    for top in range(0, squares.rows, _LARGEST):
        for left in range(0, squares.columns, _LARGEST):
            waiting[0] = top, left, _LARGEST
            ahead = 1
            while ahead > 0:
                ahead -= 1
                row, column, span = waiting[ahead]
                square, held = row * squares.columns + column, 0
                for line in range(span):
                    begin, end = cells_of(squares, square, span, line)
                    held += end - begin
                if span == BLOCK or 0 < held <= _FEW:
                    if held > 0:
                        first[found], spans[found] = square, span
                        found += 1
                elif held > 0:
                    part = span // _SPLIT
                    for r in range(row, min(row + span, squares.rows), part):
                        for c in range(column, min(column + span, squares.columns), part):
                            waiting[ahead] = r, c, part
                            ahead += 1
    return first[:found], spans[:found]


@njit(cache=True, nogil=True)
def _surely(radius: float, side: float) -> float:
    """Return a radius in sides of squares, made smaller by what rounding may do."""
    return radius / side * (1 - _RELATIVE_SLACK) - _SLACK


@njit(cache=True, nogil=True)
def _maybe(radius: float, side: float) -> float:
    return radius / side * (1 + _RELATIVE_SLACK) + _SLACK


@njit(cache=True, nogil=True)
def _touched(squares: Squares, reach: float, row: int, column: int, span: int, r: int) -> tuple[int, int]:
    """Return from which square of row ``r`` to before which one may be within ``reach`` of a block."""
    apart = max(row - r - 1, r - row - span, 0)
    if reach < apart:
        return 0, 0
    beyond = int(math.sqrt(reach * reach - apart * apart)) + 1
    base = r * squares.columns
    return base + max(column - beyond, 0), base + min(column + span + beyond, squares.columns)


@njit(cache=True, nogil=True)
def _inside(
    squares: Squares, reach: float, row: int, column: int, span: int, r: int, none: int
) -> tuple[int, int]:
    """Return the same for all of the squares within ``reach`` of all of a block; else ``none`` twice."""
    apart = max(row + span - r, r - row + 1)
    if reach < apart:
        return none, none
    far = int(math.sqrt(reach * reach - apart * apart))
    first, last = max(column + span - far, 0), min(column + far, squares.columns)
    if first >= last:
        return none, none
    return r * squares.columns + first, r * squares.columns + last


@njit(cache=True, nogil=True)
def packed(squares: Squares, first: int, last: int) -> int:
    """Return the packed count of the cells in the squares from ``first`` to the one before ``last``."""
    positives = squares.positives[last] - squares.positives[first]
    return int((squares.start[last] - squares.start[first]) + POSITIVE * positives)


@njit(cache=True, nogil=True)
def count_inside(squares: Squares, square: int, span: int, radius: float) -> int:
    """Return the packed count of cells that surely are within ``radius`` of every point of a block."""
    row, column = square // squares.columns, square % squares.columns
    reach = _surely(radius, squares.side)
    rows, total = int(max(reach, 0.0)), 0
    for r in range(max(row - rows, 0), min(row + span + rows, squares.rows)):
        first, last = _inside(squares, reach, row, column, span, r, 0)
        total += packed(squares, first, last)
    return total


@njit(cache=True, nogil=True)
def count_touched(squares: Squares, square: int, span: int, radius: float) -> int:
    """Return the packed count of cells that may be within ``radius`` of some point of a block."""
    row, column = square // squares.columns, square % squares.columns
    reach = _maybe(radius, squares.side)
    rows, total = int(reach) + 1, 0
    for r in range(max(row - rows, 0), min(row + span + rows, squares.rows)):
        first, last = _touched(squares, reach, row, column, span, r)
        total += packed(squares, first, last)
    return total


@njit(cache=True, nogil=True)
def gather(
    squares: Squares,
    square: int,
    span: int,
    within: float,
    beyond: float,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weight: NDArray[np.int64],
) -> tuple[int, int]:
    """Copy the cells of which is not known whether they lie within a distance of a point in a block.

    Parameters
    ----------
    squares : Squares
    square, span : int
        The block.
    within, beyond : float
        A distance between these two is meant, µm.
    x, y, weight : ndarray, shape (n,)
        Take the copies; a weight is the packed count of one cell.

    Returns
    -------
    copied, surely : int
        How many; the packed count of the cells that lie within ``within`` of every point of the block.
    """
    row, column = square // squares.columns, square % squares.columns
    surely, maybe = _surely(within, squares.side), _maybe(beyond, squares.side)
    rows = int(maybe) + 1
    copied = known = 0
    for r in range(max(row - rows, 0), min(row + span + rows, squares.rows)):
        first, last = _touched(squares, maybe, row, column, span, r)
        if squares.start[first] == squares.start[last]:
            continue
        skip_from, skip_to = _inside(squares, surely, row, column, span, r, last)
        known += packed(squares, skip_from, skip_to)
        for part in range(2):
            begin = squares.start[skip_to if part else first]
            length = squares.start[last if part else skip_from] - begin
            for i in range(length):
                x[copied + i] = squares.x[begin + i]
                y[copied + i] = squares.y[begin + i]
                weight[copied + i] = 1 + POSITIVE * squares.positive[begin + i]
            copied += length
    return copied, known


@njit(cache=True, nogil=True)
def count_disc(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.int64], m: int,
    at_x: float, at_y: float, radius2: float,
) -> int:  # fmt: skip
    """Return the packed count of the first ``m`` cells that lie in a closed disc."""
    total = 0
    for j in range(m):
        dx, dy = x[j] - at_x, y[j] - at_y
        total += weight[j] if dx * dx + dy * dy <= radius2 else 0
    return total


@njit(cache=True, nogil=True)
def count_around(squares: Squares, radius: float) -> NDArray[np.int64]:
    """Return the packed count of the closed disc around each cell, in the order in which cells were given."""
    n = len(squares.x)
    x, y, weight = np.empty(n, np.float64), np.empty(n, np.float64), np.empty(n, np.int64)
    counts = np.empty(n, np.int64)
    first, spans = lay_blocks(squares)
    for block in range(len(first)):
        square, span = first[block], spans[block]
        m, known = gather(squares, square, span, radius, radius, x, y, weight)
        for line in range(span):
            begin, end = cells_of(squares, square, span, line)
            for i in range(begin, end):
                counts[squares.given[i]] = known + count_disc(
                    x, y, weight, m, squares.x[i], squares.y[i], radius * radius
                )
    return counts
