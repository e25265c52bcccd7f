"""Hot spots: the circles of a slide with the highest share, or the highest density, of positive cells."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.hot_spot_circles import DENSITY, SHARE, Question
from deepliif_ray.scoring.hot_spot_search import Bounds, Circles, better, bound_blocks, search
from deepliif_ray.scoring.squares import FARTHEST_UM, Squares, lay_blocks, sort_into_squares

MIN_CELLS = 500
"""Fewest cells of a circle of a given area whose share counts."""
_THREADS = 2
_FIRST = 500  # blocks
_FEW = 20_000  # cells for which a second thread is not worth its start
_UM2_PER_MM2 = 1e6


@dataclass(frozen=True)
class HotSpot:
    """A circle around a cell, and the cells in it.

    Attributes
    ----------
    x_um, y_um : float
        Its centre, the centroid of a counted cell.
    radius_um : float
    area_mm2 : float
        Of the whole circle, also where it reaches beyond the tissue.
    n_cells, n_positive : int
        Cells whose centroids lie in it or on its edge.
    share_percent : float
    density_per_mm2 : float or None
        Positive cells by area; None for a circle without an area (of as many cells at one place).
    """

    x_um: float
    y_um: float
    radius_um: float
    area_mm2: float
    n_cells: int
    n_positive: int
    share_percent: float
    density_per_mm2: float | None


def hot_spots(
    x_um: ArrayLike,
    y_um: ArrayLike,
    positive: ArrayLike,
    *,
    cells: int | None = None,
    area_mm2: float | None = None,
    by: Literal["share", "density"] = "share",
    count: int = 1,
    min_cells: int | None = None,
) -> list[HotSpot]:
    """Find the circles of one slide with the highest share, or density, of positive cells, exactly.

    A circle is centred on a cell (QuPath's density maps take the pixels of a grid), so the result does not
    depend on a grid. It holds either the ``cells`` nearest cells of its centre, that one included, or what
    lies within a given area. Cells at the same distance are in it or out of it together, so it can hold a
    few more than ``cells``.

    The best circle comes first. The next is the best of those whose centres are at least both radii away
    from each one chosen before. Of circles with the same score the upper one is taken, then the left one;
    of circles of an area that with more cells before. So the order of the cells given makes no difference.

    A hot spot is a maximum of many counts, so its share is biased upward, the more so the fewer cells it
    has: even where the tissue is the same everywhere, the best of many circles is above the index. So no
    interval is given, as one computed from these cells as if they had been chosen beforehand would be
    wrong.

    Parameters
    ----------
    x_um, y_um : array_like, shape (n,)
        Centroids of the counted cells of one slide, µm.
    positive : array_like of bool, shape (n,)
    cells : int, optional
        Cells of a circle. Either this or ``area_mm2``.
    area_mm2 : float, optional
        Area of a circle.
    by : {"share", "density"}
        The highest share of positive cells, or most positive cells by area of the circle. Beyond the tissue
        a circle has area and no cells.
    count : int
        How many circles that do not overlap; fewer are returned if there is no room for as many.
    min_cells : int, optional
        With ``area_mm2``: circles of fewer cells do not count. By default 500 for the share, as one cell
        alone would give 100 %, and 1 for the density. 500 is what the International Ki67 in Breast Cancer
        Working Group counts in a hot spot, and the least for the grade of a neuroendocrine tumour.

    Returns
    -------
    list of HotSpot
        Empty if no circle counts: fewer than ``cells`` cells, or no circle of ``min_cells``. Circles
        without an area have no density and do not count by density.

    Raises
    ------
    ConfigError
        An option or a coordinate cannot be used.

    References
    ----------
    S. C. Y. Leung et al., "Analytical validation of a standardized scoring protocol for Ki67: phase 3 of an
    international multicenter collaboration", npj Breast Cancer 2, 16014 (2016): 500 cells of a hot spot. M.
    Kulldorff, "A spatial scan statistic", Communications in Statistics – Theory and Methods 26, 1481–1496
    (1997): the maximum over many windows has a distribution of its own.
    """
    x, y, is_positive = _checked(x_um, y_um, positive)
    question, radius_um = _question(cells, area_mm2, by, count, min_cells)
    if len(x) < question.min_cells:
        return []
    squares = sort_into_squares(x, y, is_positive)
    n = len(x)
    circles = Circles(
        np.full(n, np.inf), np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.float64)
    )
    parts = 1 if n < _FEW else _THREADS
    chosen = np.empty((0, 3))
    found: list[HotSpot] = []
    with ThreadPoolExecutor(parts) as pool:
        bounds = _bounded(squares, question, pool, parts)
        orders = _orders(bounds, parts)
        while len(found) < count:
            ends = [
                pool.submit(search, squares, question, bounds, order, circles, chosen) for order in orders
            ]
            best = -1
            for end in ends:
                one = int(end.result())
                if one >= 0 and better(squares, question, circles, one, best):
                    best = one
            if best < 0:
                break
            spot = _spot(squares, circles, best, radius_um, area_mm2)
            found.append(spot)
            chosen = np.vstack([chosen, [[spot.x_um, spot.y_um, spot.radius_um]]])
    return found


def _bounded(squares: Squares, question: Question, pool: ThreadPoolExecutor, parts: int) -> Bounds:
    """Return bounds of all blocks that hold cells."""
    split = (np.array_split(values, parts) for values in lay_blocks(squares))
    ends = [pool.submit(bound_blocks, squares, question, *some) for some in zip(*split, strict=True)]
    return Bounds(*map(np.concatenate, zip(*(end.result() for end in ends), strict=True)))


def _orders(bounds: Bounds, parts: int) -> list[NDArray[np.int64]]:
    """Return blocks in parts: the most promising, then the others as they lie, so memory is near."""
    ranked = np.lexsort((-bounds.n_cells, -bounds.score))
    first, rest = ranked[:_FIRST], np.sort(ranked[_FIRST:])
    return [
        np.concatenate([first[part::parts], some]) for part, some in enumerate(np.array_split(rest, parts))
    ]


def _spot(
    squares: Squares, circles: Circles, i: int, radius_um: float | None, area_mm2: float | None
) -> HotSpot:
    n_cells, n_positive = int(circles.n_cells[i]), int(circles.n_positive[i])
    radius = math.sqrt(circles.radius2[i]) if radius_um is None else radius_um
    area = math.pi * float(circles.radius2[i]) / _UM2_PER_MM2 if area_mm2 is None else float(area_mm2)
    return HotSpot(
        x_um=float(squares.x[i]),
        y_um=float(squares.y[i]),
        radius_um=radius,
        area_mm2=area,
        n_cells=n_cells,
        n_positive=n_positive,
        share_percent=100 * n_positive / n_cells,
        density_per_mm2=n_positive / area if area > 0 else None,
    )


def _question(
    cells: int | None, area_mm2: float | None, by: str, count: int, min_cells: int | None
) -> tuple[Question, float | None]:
    if (cells is None) == (area_mm2 is None):
        raise ConfigError("a hot spot is of a number of cells or of an area: give either cells or area_mm2")
    if by not in ("share", "density"):
        raise ConfigError(f"by is {by!r}; give 'share' or 'density'")
    for name, number in (("cells", cells), ("count", count), ("min_cells", min_cells)):
        if number is not None and (not number >= 1 or number % 1):
            raise ConfigError(f"{name} is {number}; give a whole number of at least 1")
    kind = SHARE if by == "share" else DENSITY
    if cells is not None:
        if min_cells is not None:
            raise ConfigError("min_cells is for circles of an area; one of cells has as many: leave it out")
        return Question(kind, int(cells), 0.0, int(cells)), None
    assert area_mm2 is not None
    if not 0 < area_mm2 < math.inf:
        raise ConfigError(f"area_mm2 is {area_mm2}; give the circle's area in mm², more than 0")
    radius2 = float(area_mm2) * _UM2_PER_MM2 / math.pi
    fewest = int(min_cells or (MIN_CELLS if kind == SHARE else 1))
    return Question(kind, 0, radius2, fewest), math.sqrt(radius2)


def _checked(
    x_um: ArrayLike, y_um: ArrayLike, positive: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    x, y = (np.asarray(values, dtype=np.float64) for values in (x_um, y_um))
    is_positive = np.asarray(positive, dtype=np.bool_)
    if not x.shape == y.shape == is_positive.shape or x.ndim != 1:
        raise ConfigError(
            f"x_um, y_um and positive are of shapes {x.shape}, {y.shape} and {is_positive.shape}; give three "
            "arrays with one value a cell"
        )
    if not (np.all(np.abs(x) <= FARTHEST_UM) and np.all(np.abs(y) <= FARTHEST_UM)):
        raise ConfigError(
            f"a centroid is not finite or farther away than {FARTHEST_UM:g} µm; give cells of one slide "
            "with coordinates in µm"
        )
    return x, y, is_positive
