"""The best circle around a cell, found exactly: kernels of `deepliif_ray.scoring.hot_spots`.

For each square an upper bound of the score of all circles around its cells is counted from whole squares. Squares are
looked at from the best bound down, until none can win. Within one, the cells whose side of the circle is not known are
copied once and counted for each circle. A circle is measured exactly only if its own bound can still win. What was
found out stays, so that the next best circle costs little.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepliif_ray.scoring.squares import Squares, count_within, gather

SHARE, DENSITY = 0, 1
_LOW = (1 << 32) - 1
_NONE = -1.0  # the score of a circle that does not count
_PASSES = 6
_SPREAD = 0.04  # of squared radii around a guess


class Question(NamedTuple):
    """What is asked: circles of ``radius2`` (squared, µm²), or of ``cells`` cells where that is 0."""

    by: int
    cells: int
    radius2: float
    min_cells: int


class Bounds(NamedTuple):
    """Of squares that hold cells: best score and most cells of their circles, radii that enclose theirs (µm)."""

    square: NDArray[np.int64]
    score: NDArray[np.float64]
    n_cells: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class Circles(NamedTuple):
    """What is known of the circle around each cell: a bound of its score; and, if measured, cells, not 0, and more."""

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
def bound_squares(squares: Squares, question: Question) -> Bounds:
    """Return bounds of all squares that hold cells."""
    occupied = 0
    for s in range(len(squares.start) - 1):
        occupied += squares.start[s + 1] > squares.start[s]
    found = Bounds(
        np.empty(occupied, np.int64),
        np.empty(occupied, np.float64),
        np.empty(occupied, np.int64),
        np.empty(occupied, np.float64),
        np.empty(occupied, np.float64),
    )
    radius, step, low, at = math.sqrt(question.radius2), squares.side / 2, 0, 0
    gap = 4
    for s in range(len(squares.start) - 1):
        if squares.start[s + 1] == squares.start[s]:
            continue
        if question.cells == 0:
            inside, inside_positive, most, positive = count_within(squares, s, radius)
            fewest = max(inside, question.min_cells)
            found.low[at] = found.high[at] = radius
            counts = most >= question.min_cells
        else:
            # Steps at which fewer cells than asked for are touched, and at which as many are inside. Neighbours'
            # differ little.
            k = question.cells
            while low > 0 and count_within(squares, s, low * step)[2] >= k:
                low -= 1
            while count_within(squares, s, (low + 1) * step)[2] < k:
                low += 1
            inside, inside_positive, _, _ = count_within(squares, s, low * step)
            high = low + gap
            enough, _, most, positive = count_within(squares, s, high * step)
            if enough < k:
                while enough < k:
                    high += 1
                    enough, _, most, positive = count_within(squares, s, high * step)
            else:
                while high > low + 1:
                    fewer = count_within(squares, s, (high - 1) * step)
                    if fewer[0] < k:
                        break
                    high -= 1
                    most, positive = fewer[2], fewer[3]
            gap = high - low
            fewest = k
            found.low[at], found.high[at] = low * step, high * step
            counts = True
        found.square[at], found.n_cells[at] = s, most
        found.score[at] = (
            _bound(question, positive, inside - inside_positive, fewest, found.low[at] ** 2)
            if counts
            else _NONE
        )
        at += 1
    return found


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
    return values[k - 1]


@njit(cache=True, nogil=True)
def _nearest(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.int64],
    near: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]], m: int, known: int, all_: int,
    at_x: float, at_y: float, question: Question, best: float, guess: float,
) -> tuple[float, int, float, float]:  # fmt: skip
    """Measure the circle of the nearest cells around a place, unless it cannot reach ``best``.

    ``guess`` is its squared radius, roughly; ``known`` the packed count of cells surely in it, ``all_`` of those and
    of the others that may be, which are the first ``m`` of the arrays. ``near`` is room for as many.

    Returns
    -------
    bound : float
        Of its score.
    packed : int
        Its cells; 0 if it was not measured.
    radius2, guess : float
        Its squared radius; a guess for a circle near by.
    """
    k = question.cells
    low2, high2 = -1.0, math.inf
    low, high = known, all_
    for _ in range(_PASSES):
        smaller2, larger2 = guess * (1 - _SPREAD), guess * (1 + _SPREAD)
        smaller, larger = _count_two(x, y, weight, m, at_x, at_y, smaller2, larger2)
        smaller += known
        larger += known
        if larger & _LOW < k:
            low2, low = larger2, larger
        elif smaller & _LOW >= k:
            high2, high = smaller2, smaller
        else:
            low2, low, high2, high = smaller2, smaller, larger2, larger
        bound = _bound(question, high >> 32, (low & _LOW) - (low >> 32), k, low2)
        if low2 > 0 and high2 < math.inf:
            share = (k - (low & _LOW)) / ((high & _LOW) - (low & _LOW))
            guess = low2 + (high2 - low2) * share
        elif low2 > 0:
            guess = max(low2 * k / (low & _LOW), low2 * 1.02)
        else:
            guess = min(high2 * k / (high & _LOW), high2 * 0.98)
        if bound < best:
            return bound, 0, 0.0, guess
        if low2 > 0 and (high & _LOW) - (low & _LOW) <= max(k // 8, 16):
            break
    between = 0
    to_order, distance2, its_weight = near
    for j in range(m):
        dx, dy = x[j] - at_x, y[j] - at_y
        d2 = dx * dx + dy * dy
        if low2 < d2 <= high2:
            to_order[between] = distance2[between] = d2
            its_weight[between] = weight[j]
            between += 1
    radius2 = _kth(to_order, between, k - (low & _LOW))
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
    """Tell whether the measured circle around ``i`` goes before that around ``j``, or there is no ``j`` (-1)."""
    if j < 0:
        return True
    if circles.bound[i] != circles.bound[j]:
        return circles.bound[i] > circles.bound[j]
    if circles.n_cells[i] != circles.n_cells[j]:
        return circles.n_cells[i] > circles.n_cells[j]
    if squares.y[i] != squares.y[j]:
        return squares.y[i] < squares.y[j]
    if squares.x[i] != squares.x[j]:
        return squares.x[i] < squares.x[j]
    return squares.index[i] < squares.index[j]


@njit(cache=True, nogil=True)
def search(
    squares: Squares,
    question: Question,
    bounds: Bounds,
    order: NDArray[np.int64],
    circles: Circles,
    chosen: NDArray[np.float64],
    best: int,
) -> int:
    """Return the cell, in the order of squares, whose circle is best and overlaps none that is chosen; -1 for none.

    Parameters
    ----------
    squares : Squares
    question : Question
    bounds : Bounds
    order : ndarray of int64
        Which squares to search, in which order; the sooner a good circle is found, the less is looked at.
    circles : Circles
        What is known; more when this is done.
    chosen : ndarray of float64, shape (c, 3)
        x, y, radius of circles, µm.
    best : int
        A cell whose measured circle is to be beaten, or -1.
    """
    n = len(squares.x)
    x, y, weight = np.empty(n, np.float64), np.empty(n, np.float64), np.empty(n, np.int64)
    near = (np.empty(n, np.float64), np.empty(n, np.float64), np.empty(n, np.int64))
    score, most = (circles.bound[best], circles.n_cells[best]) if best >= 0 else (0.0, 0)
    for j in order:
        if bounds.score[j] < score or (bounds.score[j] == score and bounds.n_cells[j] < most):
            continue
        gathered, m, known, all_, guess = False, 0, 0, 0, 0.0
        low = bounds.low[j]
        for i in range(squares.start[bounds.square[j]], squares.start[bounds.square[j] + 1]):
            if circles.bound[i] < score or _overlaps(squares.x[i], squares.y[i], low, chosen):
                continue
            if circles.n_cells[i] == 0:
                if not gathered:
                    m, known, all_ = gather(squares, bounds.square[j], low, bounds.high[j], x, y, weight)
                    gathered = True
                if not 0 < guess < math.inf:
                    guess = (low**2 + bounds.high[j] ** 2) / 2
                if question.cells == 0:
                    radius2 = question.radius2
                    packed = known + _count(x, y, weight, m, squares.x[i], squares.y[i], radius2)
                    bound = _score(question, packed & _LOW, packed >> 32, radius2)
                else:
                    bound, packed, radius2, guess = _nearest(
                        x, y, weight, near, m, known, all_, squares.x[i], squares.y[i], question, score, guess
                    )
                circles.bound[i], circles.radius2[i] = bound, radius2
                circles.n_cells[i], circles.n_positive[i] = packed & _LOW, packed >> 32
                if packed == 0:
                    continue
            if (
                circles.bound[i] >= score
                and better(squares, circles, i, best)
                and not _overlaps(squares.x[i], squares.y[i], math.sqrt(circles.radius2[i]), chosen)
            ):
                best, score, most = i, circles.bound[i], circles.n_cells[i]
    return best
