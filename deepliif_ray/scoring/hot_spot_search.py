"""The best circle around a cell, found exactly: kernels of `deepliif_ray.scoring.hot_spots`.

For each block an upper bound of the score of all circles around its cells is counted from whole squares.
Blocks whose bound is below the best circle so far are left out. In the others, the cells that may be in some
circles and not in others are copied once, and counted for each circle. A circle is measured exactly only if
its own bound can still win. What was found out stays, so that the next best circle costs little.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepliif_ray.scoring.hot_spot_circles import (
    OUTSIDE,
    UNCOUNTED,
    Question,
    bound_score,
    measure_nearest,
    score_of,
)
from deepliif_ray.scoring.squares import (
    CELLS,
    Squares,
    cells_of,
    count_disc,
    count_inside,
    count_touched,
    gather,
)

_WIDTH = 0.25  # in sides of blocks


class Bounds(NamedTuple):
    """Of blocks that hold cells: best score and most cells of their circles, and least and largest radius."""

    square: NDArray[np.int64]
    span: NDArray[np.int64]
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
def _first_step(squares: Squares, square: int, span: int, cells: int, touched: int, guess: int) -> int:
    """Return the smallest radius, in half sides of squares, within which as many cells may be, or surely are.

    The first if ``touched`` is not 0. The search goes from ``guess`` in steps that double, and then halves
    what is left.
    """
    step = squares.side / 2
    too_low, enough, stride, at = -1, -1, 1, guess
    while enough < 0 or enough - too_low > 1:
        if touched:
            count = count_touched(squares, square, span, at * step)
        else:
            count = count_inside(squares, square, span, at * step)
        if count & CELLS >= cells:
            enough = at
        else:
            too_low = at
        if enough < 0:
            at = too_low + stride
        elif too_low < 0:
            if enough == 0:
                break
            at = max(enough - stride, 0)
        else:
            at = (too_low + enough) // 2
        stride *= 2
    return enough


@njit(cache=True, nogil=True)
def bound_blocks(
    squares: Squares, question: Question, square_of: NDArray[np.int64], span_of: NDArray[np.int64]
) -> Bounds:
    """Return bounds of blocks, of which the upper left squares and the spans are given."""
    blocks = len(square_of)
    score, n_cells = np.empty(blocks, np.float64), np.empty(blocks, np.int64)
    least, largest = np.empty(blocks, np.float64), np.empty(blocks, np.float64)
    step, low, gap = squares.side / 2, 0, 4
    no, yes = int(np.int64(0)), int(np.int64(1))  # numba would compile once more for each literal
    for at in range(blocks):
        square, span = square_of[at], span_of[at]
        if question.cells == 0:
            least[at] = largest[at] = math.sqrt(question.radius2)
        else:
            # Neighbours' radii differ little.
            low = _first_step(squares, square, span, question.cells, yes, low + 1) - 1
            gap = _first_step(squares, square, span, question.cells, no, low + gap) - low
            low = max(low, 0)
            least[at], largest[at] = low * step, (low + gap) * step
        inside = count_inside(squares, square, span, least[at])
        touched = count_touched(squares, square, span, largest[at])
        n_inside, n_cells[at], score[at] = inside & CELLS, touched & CELLS, UNCOUNTED
        if n_cells[at] >= question.min_cells:
            score[at] = bound_score(
                question,
                touched >> 32,
                n_inside - (inside >> 32),
                max(n_inside, question.min_cells),
                least[at] ** 2,
            )
    return Bounds(square_of, span_of, score, n_cells, least, largest)


@njit(cache=True, nogil=True)
def _overlaps(at_x: float, at_y: float, radius: float, chosen: NDArray[np.float64]) -> bool:
    for other in range(len(chosen)):
        dx, dy = at_x - chosen[other, 0], at_y - chosen[other, 1]
        apart = math.sqrt(dx * dx + dy * dy)
        if apart < radius + chosen[other, 2] or apart == 0:  # circles of radius 0 at one place are one
            return True
    return False


@njit(cache=True, nogil=True)
def _before(squares: Squares, i: int, j: int) -> bool:
    """Tell whether cell ``i`` is above ``j``, or beside it to the left, or at its place and given before."""
    if squares.y[i] != squares.y[j]:
        return bool(squares.y[i] < squares.y[j])
    if squares.x[i] != squares.x[j]:
        return bool(squares.x[i] < squares.x[j])
    return bool(squares.given[i] < squares.given[j])


@njit(cache=True, nogil=True)
def better(squares: Squares, question: Question, circles: Circles, i: int, j: int) -> bool:
    """Tell whether the measured circle around ``i`` goes before that of ``j``, or there is none."""
    if j < 0:
        return True
    if circles.bound[i] != circles.bound[j]:
        return bool(circles.bound[i] > circles.bound[j])
    if question.cells == 0 and circles.n_cells[i] != circles.n_cells[j]:
        return bool(circles.n_cells[i] > circles.n_cells[j])
    return _before(squares, i, j)


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
        if bounds.score[j] < score:
            continue
        gathered, m, known, guess = False, 0, 0, 0.0
        low, high = bounds.low[j], bounds.high[j]
        square, span, middle = bounds.square[j], bounds.span[j], (low + high) / 2
        nearest, farthest = low, high
        for line in range(span):
            begin, end = cells_of(squares, square, span, line)
            for i in range(begin, end):
                at_x, at_y = squares.x[i], squares.y[i]
                limit = min(circles.bound[i], bounds.score[j])
                # Where tissue is all alike, as it is without a positive cell, place decides and nothing need
                # be counted.
                by_place = question.cells > 0 or bounds.n_cells[j] <= most
                ties = limit == score and best >= 0 and by_place
                if limit < score or (ties and not _before(squares, i, best)):
                    continue
                if _overlaps(at_x, at_y, low, chosen):
                    continue
                while circles.n_cells[i] == 0:
                    if not gathered:
                        # Most circles are of nearly one size; what is gathered for all sizes that there may
                        # be is twice as much.
                        nearest = max(low, middle - _WIDTH * span * squares.side)
                        farthest = min(high, middle + _WIDTH * span * squares.side)
                        m, known = gather(squares, square, span, nearest, farthest, x, y, weight)
                        gathered = True
                        guess = middle**2
                    if question.cells == 0:
                        radius2 = question.radius2
                        packed = known + count_disc(x, y, weight, m, at_x, at_y, radius2)
                        bound = score_of(question, packed & CELLS, packed >> 32, radius2)
                    else:
                        bound, packed, radius2, guess = measure_nearest(
                            x, y, weight, near, m, known, at_x, at_y,
                            nearest**2 if nearest > 0 else -1.0, farthest**2,
                            question, score, guess if guess > 0 else middle**2,
                        )  # fmt: skip
                        if bound == OUTSIDE:
                            m, known = gather(squares, square, span, low, high, x, y, weight)
                            nearest, farthest, guess = low, high, middle**2
                            continue
                    circles.bound[i], circles.radius2[i] = bound, radius2
                    circles.n_cells[i], circles.n_positive[i] = packed & CELLS, packed >> 32
                    break
                if (
                    circles.n_cells[i] > 0
                    and circles.bound[i] >= score
                    and better(squares, question, circles, i, best)
                    and not _overlaps(at_x, at_y, math.sqrt(circles.radius2[i]), chosen)
                ):
                    best, score, most = i, circles.bound[i], circles.n_cells[i]
    return best
