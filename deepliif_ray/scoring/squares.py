"""Cells of a slide sorted into squares, so that those near a place are found and counted quickly.

Squares lie row by row, and so do the cells of each: the cells of some squares beside one another are one stretch of
the arrays, and how many they are, and how many of them positive, is the difference of two sums.
Which square a cell is in decides only what is looked at. What is counted is decided by exact distances.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_CELLS_PER_SQUARE = 4.0
_MOST_SQUARES = 16_000_000
POSITIVE = 1 << 32
"""What a positive cell adds to a packed count beside its 1: cells in the low half, positives in the high one."""
# Squares are judged by their nominal sides. A cell may lie beyond its square's by rounding, and squared distances
# are rounded too; both are far below this part of a side and of a radius.
_SLACK, _RELATIVE_SLACK = 1e-6, 1e-9


class Squares(NamedTuple):
    """Cells in squares.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        Centroids as they were given, µm, in the order of squares.
    weight : ndarray of int64, shape (n,)
        1, and `POSITIVE` more for a positive cell.
    index : ndarray of int64, shape (n,)
        Place of each cell in the arrays that were given.
    start : ndarray of int64, shape (rows * columns + 1,)
        Where the cells of each square begin.
    positives : ndarray of int64, shape (n + 1,)
        Positive cells before each cell.
    columns, rows : int
    side : float
        Of a square, µm.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    weight: NDArray[np.int64]
    index: NDArray[np.int64]
    start: NDArray[np.int64]
    positives: NDArray[np.int64]
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
    left, top = float(x_um.min()), float(y_um.min())
    width, height = float(x_um.max()) - left, float(y_um.max()) - top
    side = _bounded(math.sqrt(width * height / len(x_um) * _CELLS_PER_SQUARE), width, height)
    for _ in range(4):
        columns, rows = int(width / side) + 1, int(height / side) + 1
        squares = Squares(
            *_sorted(x_um, y_um, positive, left, top, side, columns, rows), columns, rows, side
        )
        # How many others a cell has in its square, of all cells on average: more than the mean over the squares
        # where tissue is not all over the slide.
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
    NDArray[np.float64], NDArray[np.float64], NDArray[np.int64],
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64],
]:  # fmt: skip
    n = len(x_um)
    square = np.empty(n, np.int32)
    start = np.zeros(rows * columns + 1, np.int64)
    for i in range(n):
        column = min(int((x_um[i] - left) / side), columns - 1)
        row = min(int((y_um[i] - top) / side), rows - 1)
        square[i] = row * columns + column
        start[square[i] + 1] += 1
    for s in range(rows * columns):
        start[s + 1] += start[s]
    place = start[:-1].copy()
    x, y = np.empty(n, np.float64), np.empty(n, np.float64)
    weight, index = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n):
        to = place[square[i]]
        place[square[i]] += 1
        x[to], y[to], index[to] = x_um[i], y_um[i], i
        weight[to] = 1 + POSITIVE if positive[i] else 1
    positives = np.zeros(n + 1, np.int64)
    for i in range(n):
        positives[i + 1] = positives[i] + (weight[i] >> 32)
    return x, y, weight, index, start, positives


@njit(cache=True, nogil=True)
def _crowd(start: NDArray[np.int64]) -> float:
    total = 0.0
    for s in range(len(start) - 1):
        count = start[s + 1] - start[s]
        total += count * (count - 1)
    return total / start[-1]


@njit(cache=True, nogil=True)
def reach(radius: float, side: float) -> tuple[float, float]:
    """Return a radius in sides of squares: what is surely within, and what may be."""
    sides = radius / side
    return sides * (1 - _RELATIVE_SLACK) - _SLACK, sides * (1 + _RELATIVE_SLACK) + _SLACK


@njit(cache=True, nogil=True)
def half_span(reach: float, apart: int) -> int:
    """Return how many squares to each side all lie within ``reach`` of all of a square, ``apart`` rows off; or -1."""
    up = abs(apart) + 1
    if reach < up:
        return -1
    return int(math.sqrt(reach * reach - up * up)) - 1


@njit(cache=True, nogil=True)
def half_span_touched(reach: float, apart: int) -> int:
    """Return how many squares to each side come within ``reach`` of a square, ``apart`` rows off; or -1."""
    up = max(abs(apart) - 1, 0)
    if reach < up:
        return -1
    return int(math.sqrt(reach * reach - up * up)) + 1


@njit(cache=True, nogil=True)
def count_within(squares: Squares, square: int, radius: float) -> tuple[int, int, int, int]:
    """Count cells around all of a square.

    Returns
    -------
    inside, inside_positive, touched, touched_positive : int
        Those that are within ``radius`` of every point of the square, and those that may be of some.
    """
    row, column = square // squares.columns, square % squares.columns
    surely, maybe = reach(radius, squares.side)
    inside = inside_positive = touched = touched_positive = 0
    rows = int(maybe) + 1
    for r in range(max(row - rows, 0), min(row + rows, squares.rows - 1) + 1):
        half = half_span_touched(maybe, r - row)
        if half < 0:
            continue
        base = r * squares.columns
        first = squares.start[base + max(column - half, 0)]
        last = squares.start[base + min(column + half, squares.columns - 1) + 1]
        if first == last:
            continue
        touched += last - first
        touched_positive += squares.positives[last] - squares.positives[first]
        half = half_span(surely, r - row)
        if half >= 0:
            first = squares.start[base + max(column - half, 0)]
            last = squares.start[base + min(column + half, squares.columns - 1) + 1]
            inside += last - first
            inside_positive += squares.positives[last] - squares.positives[first]
    return inside, inside_positive, touched, touched_positive


@njit(cache=True, nogil=True)
def gather(
    squares: Squares,
    square: int,
    within: float,
    beyond: float,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weight: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Copy the cells of which is not known whether they lie within a distance of a point in the square.

    Parameters
    ----------
    squares : Squares
    square : int
    within, beyond : float
        A distance between these two is meant, µm.
    x, y, weight : ndarray, shape (n,)
        Take the copies.

    Returns
    -------
    copied : int
    surely, all : int
        The packed counts of the cells that lie within ``within`` of every point of the square, and of these with
        the copied ones.
    """
    row, column = square // squares.columns, square % squares.columns
    surely = reach(within, squares.side)[0]
    maybe = reach(beyond, squares.side)[1]
    rows = int(maybe) + 1
    copied = known = all_ = 0
    for r in range(max(row - rows, 0), min(row + rows, squares.rows - 1) + 1):
        half = half_span_touched(maybe, r - row)
        if half < 0:
            continue
        base = r * squares.columns
        first = squares.start[base + max(column - half, 0)]
        last = squares.start[base + min(column + half, squares.columns - 1) + 1]
        all_ += (last - first) + ((squares.positives[last] - squares.positives[first]) << 32)
        half = half_span(surely, r - row)
        skip_from = skip_to = last
        if half >= 0 and first < last:
            skip_from = squares.start[base + max(column - half, 0)]
            skip_to = squares.start[base + min(column + half, squares.columns - 1) + 1]
            known += (skip_to - skip_from) + (
                (squares.positives[skip_to] - squares.positives[skip_from]) << 32
            )
        for begin, end in ((first, skip_from), (skip_to, last)):
            for i in range(begin, end):
                x[copied], y[copied], weight[copied] = squares.x[i], squares.y[i], squares.weight[i]
                copied += 1
    return copied, known, all_
