"""The best circle around a cell, found exactly: kernels of `deepliif_ray.scoring.hot_spots`.

For each square an upper bound of the score of all circles around its cells is counted from whole squares.
Squares are looked at from the best bound down, until none can win. Within one, the cells whose side of the
circle is not known are copied once and counted for each circle. A circle is measured exactly only if its
own bound can still win. What was found out stays, so that the next best circle costs little.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepliif_ray.scoring.squares import BLOCK, Squares, cells_of, count_within, gather

SHARE, DENSITY = 0, 1
_LOW = (1 << 32) - 1
_NONE = -1.0  # the score of a circle that does not count
_OUTSIDE = -2.0
_PASSES = 8
_SPREAD = 0.04  # of squared radii around a guess
_WIDTH = 0.75  # in sides of squares


class Question(NamedTuple):
    """What is asked: circles of ``radius2`` (squared, µm²), or of ``cells`` cells where that is 0."""

    by: int
    cells: int
    radius2: float
    min_cells: int


class Bounds(NamedTuple):
    """Of blocks that hold cells: best score and most cells of their circles, and least and largest radius."""

    block: NDArray[np.int64]
    score: NDArray[np.float64]
    n_cells: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class Circles(NamedTuple):
    """Of the circle around each cell: a bound of its score, and what was measured; no cells if it was not."""

    bound: NDArray[np.float64]
    n_cells: NDArray[np.int64]
    n_positive: NDArray[np.int64]
    radius2: NDArray[np.float64]


@njit(cache=True, nogil=True)
def _bound(question: Question, most_positive: int, fewest_negative: int, fewest: int, low2: float) -> float:
    """Return the best score of a circle: at least ``fewest`` cells, a squared radius of ``low2`` or more."""
    if question.by == SHARE:
        # Rounded as the scores themselves are, so that a bound is never below what it bounds.
        return most_positive / max(most_positive + fewest_negative, fewest, 1)
    if question.cells == 0:
        return float(most_positive)
    return most_positive / low2 if low2 > 0 else math.inf


@njit(cache=True, nogil=True)
def _score(question: Question, n_cells: int, n_positive: int, radius2: float) -> float:
    if n_cells < question.min_cells:
        return _NONE
    if question.by == SHARE:
        return n_positive / n_cells
    if question.cells == 0:
        return float(n_positive)
    return n_positive / radius2 if radius2 > 0 else _NONE  # a circle without an area has no density


@njit(cache=True, nogil=True)
def _first_step(squares: Squares, block: int, cells: int, which: int, guess: int) -> int:
    """Return the smallest radius, in half sides of squares, within which as many cells are surely, or may be.

    ``which`` is 0 or 1, the place in what `count_within` returns.

    The search goes from ``guess`` in steps that double, and then halves what is left.
    """
    step = squares.side / 2
    too_low, enough, stride, at = -1, -1, 1, guess
    while enough < 0 or enough - too_low > 1:
        if count_within(squares, block, at * step)[which] & _LOW >= cells:
            enough = at
        else:
            too_low = at
        if enough < 0:
            at = too_low + stride
        elif too_low < 0:
            at = max(enough - stride, 0)
            if enough == 0:
                break
        else:
            at = (too_low + enough) // 2
        stride *= 2
    return enough


@njit(cache=True, nogil=True)
def bound_blocks(squares: Squares, question: Question) -> Bounds:
    """Return bounds of all blocks that hold cells."""
    blocks = ((squares.columns + BLOCK - 1) // BLOCK) * ((squares.rows + BLOCK - 1) // BLOCK)
    found = Bounds(
        np.empty(blocks, np.int64),
        np.empty(blocks, np.float64),
        np.empty(blocks, np.int64),
        np.empty(blocks, np.float64),
        np.empty(blocks, np.float64),
    )
    radius, step, low, gap, at = math.sqrt(question.radius2), squares.side / 2, 0, 4, 0
    zero, one = int(np.int64(0)), int(np.int64(1))  # numba would compile once more for each literal
    for block in range(blocks):
        held = 0
        for line in range(BLOCK):
            begin, end = cells_of(squares, block, line)
            held += end - begin
        if held == 0:
            continue
        if question.cells == 0:
            inside, touched = count_within(squares, block, radius)
            found.low[at] = found.high[at] = radius
        else:
            # Neighbours' radii differ little.
            low = _first_step(squares, block, question.cells, one, low + 1) - 1
            gap = _first_step(squares, block, question.cells, zero, low + gap) - low
            low, high = max(low, 0), low + gap
            inside = count_within(squares, block, low * step)[0]
            touched = count_within(squares, block, high * step)[1]
            found.low[at], found.high[at] = low * step, high * step
        n_inside, most = inside & _LOW, touched & _LOW
        fewest = max(n_inside, question.min_cells)
        found.block[at], found.n_cells[at], found.score[at] = block, most, _NONE
        if most >= question.min_cells:
            fewest_negative = n_inside - (inside >> 32)
            found.score[at] = _bound(question, touched >> 32, fewest_negative, fewest, found.low[at] ** 2)
        at += 1
    return Bounds(found.block[:at], found.score[:at], found.n_cells[:at], found.low[:at], found.high[:at])


@njit(cache=True, nogil=True)
def _count(
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
def _count_two(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.int64], m: int,
    at_x: float, at_y: float, smaller2: float, larger2: float,
) -> tuple[int, int]:  # fmt: skip
    """Return the packed counts of two closed discs."""
    smaller = larger = 0
    for j in range(m):
        dx, dy = x[j] - at_x, y[j] - at_y
        distance2 = dx * dx + dy * dy
        smaller += weight[j] if distance2 <= smaller2 else 0
        larger += weight[j] if distance2 <= larger2 else 0
    return smaller, larger


@njit(cache=True, nogil=True)
def _kth(values: NDArray[np.float64], m: int, k: int) -> float:
    """Return the ``k``-th smallest of the first ``m`` values, counted from 1; changes their order."""
    first, last = 0, m - 1
    while first < last:
        pivot = values[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            last = j
        elif k - 1 >= i:
            first = i
        else:
            break
    return float(values[k - 1])


@njit(cache=True, nogil=True)
def _nearest(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.int64],
    near: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]], m: int, known: int,
    at_x: float, at_y: float, least2: float, most2: float, question: Question, best: float, guess: float,
) -> tuple[float, int, float, float]:  # fmt: skip
    """Measure the circle of the nearest cells around a place, unless it cannot reach ``best``.

    Parameters
    ----------
    x, y, weight : ndarray, shape (≥ m,)
        Cells that may be in it.
    near : tuple of ndarray, shapes (≥ m,)
        Room for as many.
    m, known : int
        How many these are; the packed count of the cells that surely are within ``least2``.
    at_x, at_y : float
    least2, most2 : float
        Squared distances within which it is sought; the cells given are all that may be within the second.
    question : Question
    best, guess : float
        A score to be reached; its squared radius, roughly.

    Returns
    -------
    bound : float
        Of its score; -2 if its squared radius does not lie between ``least2`` and ``most2``.
    packed : int
        Its cells; 0 if it was not measured.
    radius2, guess : float
        Its squared radius; a guess for a circle near by.
    """
    k = question.cells
    low2, high2, low, high = least2, most2, -1, -1
    for _ in range(_PASSES):
        smaller2, larger2 = max(guess * (1 - _SPREAD), least2), min(guess * (1 + _SPREAD), most2)
        if not low2 <= smaller2 <= larger2 <= high2:
            break
        smaller, larger = _count_two(x, y, weight, m, at_x, at_y, smaller2, larger2)
        smaller += known
        larger += known
        if larger & _LOW < k:
            low2, low = larger2, larger
            guess = larger2 * max(k / max(larger & _LOW, 1), 1 + _SPREAD)
        elif smaller & _LOW >= k:
            high2, high = smaller2, smaller
            guess = smaller2 * min(k / (smaller & _LOW), 1 - _SPREAD)
        else:
            low2, low, high2, high = smaller2, smaller, larger2, larger
            guess = low2 + (high2 - low2) * (k - (low & _LOW)) / ((high & _LOW) - (low & _LOW))
            break
    if low < 0:
        low = known + _count(x, y, weight, m, at_x, at_y, low2)
    if high < 0:
        high = known + _count(x, y, weight, m, at_x, at_y, high2)
    n_low, n_high = low & _LOW, high & _LOW
    if not n_low < k <= n_high:
        return _OUTSIDE, 0, 0.0, guess
    bound = _bound(question, high >> 32, n_low - (low >> 32), k, low2)
    if bound < best:
        return bound, 0, 0.0, guess
    between = int(np.int64(0))
    to_order, distance2, its_weight = near
    for j in range(m):
        dx, dy = x[j] - at_x, y[j] - at_y
        d2 = dx * dx + dy * dy
        to_order[between] = distance2[between] = d2
        its_weight[between] = weight[j]
        between += low2 < d2 <= high2
    radius2 = _kth(to_order, between, k - n_low)
    packed = low
    for j in range(between):
        packed += its_weight[j] if distance2[j] <= radius2 else 0
    return _score(question, packed & _LOW, packed >> 32, radius2), packed, radius2, radius2


@njit(cache=True, nogil=True)
def _overlaps(at_x: float, at_y: float, radius: float, chosen: NDArray[np.float64]) -> bool:
    for other in range(len(chosen)):
        dx, dy = at_x - chosen[other, 0], at_y - chosen[other, 1]
        apart = math.sqrt(dx * dx + dy * dy)
        if apart < radius + chosen[other, 2] or apart == 0:  # circles of radius 0 at one place are one
            return True
    return False


@njit(cache=True, nogil=True)
def better(squares: Squares, circles: Circles, i: int, j: int) -> bool:
    """Tell whether the measured circle around ``i`` goes before that around ``j``, or ``j`` is none (-1)."""
    if j < 0:
        return True
    if circles.bound[i] != circles.bound[j]:
        return bool(circles.bound[i] > circles.bound[j])
    if circles.n_cells[i] != circles.n_cells[j]:
        return bool(circles.n_cells[i] > circles.n_cells[j])
    if squares.y[i] != squares.y[j]:
        return bool(squares.y[i] < squares.y[j])
    if squares.x[i] != squares.x[j]:
        return bool(squares.x[i] < squares.x[j])
    return bool(squares.given[i] < squares.given[j])


@njit(cache=True, nogil=True)
def search(
    squares: Squares,
    question: Question,
    bounds: Bounds,
    order: NDArray[np.int64],
    circles: Circles,
    chosen: NDArray[np.float64],
) -> int:
    """Return the cell, as they lie in squares, whose circle is best and overlaps none chosen; -1 for none.

    Parameters
    ----------
    squares : Squares
    question : Question
    bounds : Bounds
    order : ndarray of int64
        Which blocks to search, in which order; the sooner a good circle is found, the less is looked at.
    circles : Circles
        What is known; more when this is done.
    chosen : ndarray of float64, shape (c, 3)
        x, y, radius of circles, µm.
    """
    n = len(squares.x)
    x, y, weight = np.empty(n, np.float64), np.empty(n, np.float64), np.empty(n, np.int64)
    near = (np.empty(n + 1, np.float64), np.empty(n + 1, np.float64), np.empty(n + 1, np.int64))
    best, score, most = int(np.int64(-1)), 0.0, int(np.int64(0))
    for j in order:
        if bounds.score[j] < score or (bounds.score[j] == score and bounds.n_cells[j] < most):
            continue
        gathered, m, known, guess = False, 0, 0, 0.0
        low, high = bounds.low[j], bounds.high[j]
        block, middle = bounds.block[j], (low + high) / 2
        nearest, farthest = low, high
        for line in range(BLOCK):
            begin, end = cells_of(squares, block, line)
            for i in range(begin, end):
                at_x, at_y = squares.x[i], squares.y[i]
                if circles.bound[i] < score or _overlaps(at_x, at_y, low, chosen):
                    continue
                while circles.n_cells[i] == 0:
                    if not gathered:
                        # Most circles are of nearly one size; what is gathered for all sizes that there may
                        # be is twice as much.
                        nearest = max(low, middle - _WIDTH * squares.side)
                        farthest = min(high, middle + _WIDTH * squares.side)
                        m, known = gather(squares, block, nearest, farthest, x, y, weight)
                        gathered = True
                        guess = middle**2
                    if question.cells == 0:
                        radius2 = question.radius2
                        packed = known + _count(x, y, weight, m, at_x, at_y, radius2)
                        bound = _score(question, packed & _LOW, packed >> 32, radius2)
                    else:
                        bound, packed, radius2, guess = _nearest(
                            x, y, weight, near, m, known, at_x, at_y,
                            nearest**2 if nearest > 0 else -1.0, farthest**2,
                            question, score, guess if guess > 0 else middle**2,
                        )  # fmt: skip
                        if bound == _OUTSIDE:
                            m, known = gather(squares, block, low, high, x, y, weight)
                            nearest, farthest, guess = low, high, middle**2
                            continue
                    circles.bound[i], circles.radius2[i] = bound, radius2
                    circles.n_cells[i], circles.n_positive[i] = packed & _LOW, packed >> 32
                    break
                if (
                    circles.n_cells[i] > 0
                    and circles.bound[i] >= score
                    and better(squares, circles, i, best)
                    and not _overlaps(at_x, at_y, math.sqrt(circles.radius2[i]), chosen)
                ):
                    best, score, most = i, circles.bound[i], circles.n_cells[i]
    return best
