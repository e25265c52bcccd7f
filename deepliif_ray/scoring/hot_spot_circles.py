"""The circle around one cell, how good it can be and is: kernels of `deepliif_ray.scoring.hot_spots`."""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepliif_ray.scoring.squares import CELLS, count_disc

SHARE, DENSITY = 0, 1
UNCOUNTED = -1.0
"""The score of a circle that does not count."""
OUTSIDE = -2.0
"""Stands for a score that is not known, because the circle is of another size than was looked for."""
_PASSES = 8
_SPREAD = 0.9  # by the root of the number of cells: how far around a guess it is looked


class Question(NamedTuple):
    """What is asked: circles of ``radius2`` (squared, µm²), or of ``cells`` cells where that is 0."""

    by: int
    cells: int
    radius2: float
    min_cells: int


@njit(cache=True, nogil=True)
def bound_score(
    question: Question, most_positive: int, fewest_negative: int, fewest: int, low2: float
) -> float:
    """Return the best score of a circle: at least ``fewest`` cells, a squared radius of ``low2`` or more."""
    if question.by == SHARE:
        # Rounded as the scores themselves are, so that a bound is never below what it bounds.
        return most_positive / max(most_positive + fewest_negative, fewest, 1)
    if question.cells == 0:
        return float(most_positive)
    return most_positive / low2 if low2 > 0 else math.inf


@njit(cache=True, nogil=True)
def score_of(question: Question, n_cells: int, n_positive: int, radius2: float) -> float:
    """Return the score of a circle; `UNCOUNTED` if it does not count."""
    if n_cells < question.min_cells:
        return UNCOUNTED
    if question.by == SHARE:
        return n_positive / n_cells
    if question.cells == 0:
        return float(n_positive)
    return n_positive / radius2 if radius2 > 0 else UNCOUNTED  # a circle without an area has no density


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
def measure_nearest(
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
        Of its score; `OUTSIDE` if its squared radius does not lie between ``least2`` and ``most2``.
    packed : int
        Its cells; 0 if it was not measured.
    radius2, guess : float
        Its squared radius; a guess for a circle near by.
    """
    k = question.cells
    spread = min(_SPREAD / math.sqrt(k), 0.1)  # of the squared radius
    low2, high2, low, high = least2, most2, -1, -1
    for _ in range(_PASSES):
        smaller2, larger2 = max(guess * (1 - spread), least2), min(guess * (1 + spread), most2)
        if not low2 <= smaller2 <= larger2 <= high2:
            break
        smaller, larger = _count_two(x, y, weight, m, at_x, at_y, smaller2, larger2)
        smaller += known
        larger += known
        if larger & CELLS < k:
            low2, low = larger2, larger
            guess = larger2 * max(k / max(larger & CELLS, 1), 1 + spread)
        elif smaller & CELLS >= k:
            high2, high = smaller2, smaller
            guess = smaller2 * min(k / (smaller & CELLS), 1 - spread)
        else:
            low2, low, high2, high = smaller2, smaller, larger2, larger
            guess = low2 + (high2 - low2) * (k - (low & CELLS)) / ((high & CELLS) - (low & CELLS))
            break
    if low < 0:
        low = known + count_disc(x, y, weight, m, at_x, at_y, low2)
    if high < 0:
        high = known + count_disc(x, y, weight, m, at_x, at_y, high2)
    n_low, n_high = low & CELLS, high & CELLS
    if not n_low < k <= n_high:
        return OUTSIDE, 0, 0.0, guess
    bound = bound_score(question, high >> 32, n_low - (low >> 32), k, low2)
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
    return score_of(question, packed & CELLS, packed >> 32, radius2), packed, radius2, radius2
