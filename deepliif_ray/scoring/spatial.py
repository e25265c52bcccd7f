"""How the cells of one slide lie to one another: distances, neighbourhoods, clustering, heterogeneity.

Distances are between centroids. Pure functions on the cells of one slide; two slides have no common
coordinates.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.squares import CELLS, FARTHEST_UM, count_around, sort_into_squares

Floats = NDArray[np.float64]
_FARTHEST_HEXAGON = 1 << 28
_NEIGHBOURS = ((1, 0), (0, 1), (-1, 1))  # of a hexagon, each pair of directions once


def nearest_neighbour_um(x_um: ArrayLike, y_um: ArrayLike) -> Floats:
    """Return the distance of each point to the nearest other one.

    Parameters
    ----------
    x_um, y_um : array_like, shape (n,)
        Centroids, µm; for instance those of the positive cells of a slide.

    Returns
    -------
    ndarray of float64, shape (n,)
        µm; 0 where two are at one place, NaN for a point that is alone.

    Raises
    ------
    ConfigError
        The coordinates cannot be used.
    """
    points = _points(x_um, y_um)
    if len(points) < 2:
        return np.full(len(points), np.nan)
    distances: Floats = cKDTree(points).query(points, k=2)[0][:, 1]
    return distances


def clark_evans(x_um: ArrayLike, y_um: ArrayLike, area_mm2: float) -> float:
    """Return the index of aggregation: mean distance to the nearest other point by that of a random pattern.

    Below 1 points are clustered, above they keep apart. The expectation 1 / (2 √density) knows no border,
    where the nearest neighbour may be cut off; so the index comes out a little too high, the more so the
    fewer points.

    Parameters
    ----------
    x_um, y_um : array_like, shape (n,)
    area_mm2 : float
        Area in which the points can lie, such as that of the tissue.

    Returns
    -------
    float
        NaN for fewer than two points.

    Raises
    ------
    ConfigError
        The coordinates or the area cannot be used.

    References
    ----------
    P. J. Clark and F. C. Evans, "Distance to nearest neighbor as a measure of spatial relationships in
    populations", Ecology 35, 445–453 (1954).
    """
    _positive("area_mm2", area_mm2)
    distances = nearest_neighbour_um(x_um, y_um)
    if len(distances) < 2:
        return math.nan
    return float(distances.mean() * 2 * math.sqrt(len(distances) / (area_mm2 * 1e6)))


def share_within_percent(x_um: ArrayLike, y_um: ArrayLike, positive: ArrayLike, radius_um: float) -> Floats:
    """Return for each cell the share of positive ones among the other cells within a radius.

    Parameters
    ----------
    x_um, y_um : array_like, shape (n,)
    positive : array_like of bool, shape (n,)
    radius_um : float
        Cells at this distance are within it.

    Returns
    -------
    ndarray of float64, shape (n,)
        Percent; NaN for a cell that has no other within the radius.

    Raises
    ------
    ConfigError
        The coordinates or the radius cannot be used.
    """
    points, is_positive = _points(x_um, y_um), _flags(positive, x_um)
    _positive("radius_um", radius_um)
    shares = np.full(len(points), np.nan)
    if not len(points):
        return shares
    counts = count_around(sort_into_squares(points[:, 0], points[:, 1], is_positive), float(radius_um))
    others, positives = (counts & CELLS) - 1, (counts >> 32) - is_positive
    np.divide(100.0 * positives, others, out=shares, where=others > 0)
    return shares


def ripley_l(
    x_um: ArrayLike,
    y_um: ArrayLike,
    radii_um: ArrayLike,
    *,
    window: tuple[float, float, float, float] | None = None,
    border_um: ArrayLike | None = None,
    area_um2: float | None = None,
) -> Floats:
    """Return Ripley's L with border correction (minus sampling, the reduced sample).

    K(r) = area / (n · n_r) · Σ_i #{j ≠ i : |ij| ≤ r}, summed over the n_r points whose distance to the
    border is at least r; L(r) = √(K(r) / π). L(r) is about r for points at random, more where they are
    clustered. Neighbours may lie in the margin, so none is missed. This is what spatstat calls ``border``.

    Parameters
    ----------
    x_um, y_um : array_like, shape (n,)
    radii_um : array_like, shape (m,)
    window : (x0, y0, x1, y1), optional
        Rectangle in which the points were observed, µm. Either this, or the next two for any other shape.
    border_um : array_like, shape (n,), optional
        Distance of each point to the border of what was observed, such as the tissue.
    area_um2 : float, optional
        Area of what was observed.

    Returns
    -------
    ndarray of float64, shape (m,)
        µm; NaN where fewer than two points are given, or none is as far from the border.

    Raises
    ------
    ConfigError
        The coordinates, the radii or what was observed cannot be used.

    References
    ----------
    B. D. Ripley, "Modelling spatial patterns", J. R. Stat. Soc. B 39, 172–212 (1977); B. D. Ripley,
    *Statistical Inference for Spatial Processes* (1988), for edge corrections.
    """
    points = _points(x_um, y_um)
    radii = np.asarray(radii_um, dtype=np.float64)
    if radii.ndim != 1 or not np.all((radii > 0) & np.isfinite(radii)):
        raise ConfigError("radii_um are to be lengths in µm, each more than 0")
    border, area = _observed(points, window, border_um, area_um2)
    lengths = np.full(len(radii), np.nan)
    if len(points) < 2:
        return lengths
    squares = sort_into_squares(points[:, 0], points[:, 1], np.zeros(len(points), np.bool_))
    for place, radius in enumerate(radii):
        inner = border >= radius
        if inner.any():
            pairs = int(count_around(squares, float(radius))[inner].sum() - inner.sum())
            lengths[place] = math.sqrt(area * pairs / (len(points) * int(inner.sum())) / math.pi)
    return lengths


@dataclass(frozen=True)
class Hexagons:
    """The index of hexagons, and how it varies over them.

    Attributes
    ----------
    q, r : ndarray of int64, shape (h,)
        Axial coordinates of the hexagons with enough cells, in the order of (r, q).
    x_um, y_um : ndarray of float64, shape (h,)
        Their centres.
    n_cells, n_positive : ndarray of int64, shape (h,)
    index_percent : ndarray of float64, shape (h,)
    entropy_bits : float
        Shannon entropy of the classes of index: 0 when all are of one class, at most log2(bins). NaN
        without a hexagon.
    pair_entropy_bits : float
        Entropy of the pairs of classes of hexagons that share a side (Haralick's, of the co-occurrence
        matrix): at most 2 · log2(bins). NaN without such a pair.
    """

    q: NDArray[np.int64]
    r: NDArray[np.int64]
    x_um: Floats
    y_um: Floats
    n_cells: NDArray[np.int64]
    n_positive: NDArray[np.int64]
    index_percent: Floats
    entropy_bits: float
    pair_entropy_bits: float


def hexagon_entropy(
    x_um: ArrayLike, y_um: ArrayLike, positive: ArrayLike, *, side_um: float, min_cells: int, bins: int
) -> Hexagons:
    """Return the index on a grid of hexagons, and its entropy: how heterogeneous the marker is.

    Hexagons stand on a corner, and one is centred on (0, 0). The index of each that has ``min_cells`` is
    put in one of ``bins`` equal classes of 0–100 %, a boundary in the upper one.

    The group of Laurinavicius computes Haralick's entropy of Ki67 on such a grid (here
    ``pair_entropy_bits``). Sizes, the number of classes and the base of the logarithm are parameters or
    conventions here and are not confirmed to be theirs; so compare only values computed with the same ones.

    Parameters
    ----------
    x_um, y_um : array_like, shape (n,)
    positive : array_like of bool, shape (n,)
    side_um : float
        Side of a hexagon.
    min_cells : int
        Fewest cells of a hexagon that counts.
    bins : int
        Number of classes.

    Raises
    ------
    ConfigError
        The coordinates or an option cannot be used.

    References
    ----------
    B. Plancoulaine et al., "A methodology for comprehensive breast cancer Ki67 labeling index with
    intra-tumor heterogeneity appraisal based on hexagonal tiling of digital image analysis data",
    Virchows Archiv 467, 711–722 (2015), doi 10.1007/s00428-015-1865-x; D. Zilenaite-Petrulaitiene et al.,
    "Reproducibility of Ki67 Haralick entropy as a prognostic marker in estrogen receptor–positive
    HER2-negative breast cancer", Am. J. Clin. Pathol. 164, 567–580 (2025), doi 10.1093/ajcp/aqaf081; R.
    M. Haralick, K. Shanmugam and I. Dinstein, "Textural features for image classification", IEEE Trans.
    Syst. Man Cybern. SMC-3, 610–621 (1973).
    """
    points, is_positive = _points(x_um, y_um), _flags(positive, x_um)
    _positive("side_um", side_um)
    for name, number in (("min_cells", min_cells), ("bins", bins)):
        if not number >= 1 or number % 1:
            raise ConfigError(f"{name} is {number}; give a whole number of at least 1")
    if len(points) and np.abs(points).max() / side_um > _FARTHEST_HEXAGON:
        raise ConfigError(f"side_um is {side_um}, far too small for a slide; give a side in µm, such as 250")
    found, members = np.unique(_hexagon_of(points, side_um), return_inverse=True)
    n_cells = np.bincount(members, minlength=len(found))
    n_positive = np.bincount(members[is_positive], minlength=len(found))
    kept = n_cells >= min_cells
    r, q = np.divmod(found[kept] + _FARTHEST_HEXAGON, 2 * _FARTHEST_HEXAGON)
    q -= _FARTHEST_HEXAGON
    n_cells, n_positive = n_cells[kept], n_positive[kept]
    classes = np.minimum(n_positive * bins // n_cells, bins - 1)  # whole numbers: no boundary is rounded away
    class_of = dict(zip(zip(q.tolist(), r.tolist(), strict=True), classes.tolist(), strict=True))
    pairs = np.zeros((bins, bins), np.int64)
    for (at_q, at_r), its in class_of.items():
        for dq, dr in _NEIGHBOURS:
            other = class_of.get((at_q + dq, at_r + dr))
            if other is not None:
                pairs[its, other] += 1
                pairs[other, its] += 1
    return Hexagons(
        q=q,
        r=r,
        x_um=side_um * math.sqrt(3) * (q + r / 2),
        y_um=side_um * 1.5 * r,
        n_cells=n_cells,
        n_positive=n_positive,
        index_percent=100 * n_positive / n_cells,
        entropy_bits=_entropy(np.bincount(classes, minlength=bins)),
        pair_entropy_bits=_entropy(pairs),
    )


def _hexagon_of(points: Floats, side_um: float) -> NDArray[np.int64]:
    """Return one number for the hexagon (q, r) around each point, in the order of (r, q).

    A hexagon has three coordinates that sum to 0. They are rounded, and the one that is farthest from a whole
    number is made to fit the others.
    """
    r = points[:, 1] * (2 / 3) / side_um
    q = points[:, 0] / (math.sqrt(3) * side_um) - r / 2
    exact = np.stack([q, r, -q - r])
    near = np.floor(exact + 0.5)
    worst = np.argmax(np.abs(near - exact), axis=0)
    for axis in range(3):
        at = worst == axis
        near[axis, at] = -near[:, at].sum(axis=0) + near[axis, at]
    whole_q, whole_r = near[:2].astype(np.int64)
    return np.asarray(whole_r * (2 * _FARTHEST_HEXAGON) + whole_q)


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(abs((shares * np.log2(shares)).sum())) if len(shares) else math.nan


def _observed(
    points: Floats,
    window: tuple[float, float, float, float] | None,
    border_um: ArrayLike | None,
    area_um2: float | None,
) -> tuple[Floats, float]:
    """Return the points' distances to the border of what was observed, and its area."""
    if (window is None) == (border_um is None) or (border_um is None) != (area_um2 is None):
        raise ConfigError("give either window, or border_um and area_um2: where points were looked for")
    if window is None:
        assert area_um2 is not None
        _positive("area_um2", area_um2)
        border = np.asarray(border_um, dtype=np.float64)
        if border.shape != (len(points),) or not np.all(border >= 0):
            raise ConfigError("border_um is to have one distance a point, each at least 0")
        return border, float(area_um2)
    x0, y0, x1, y1 = window
    if not (math.isfinite(x1 - x0) and math.isfinite(y1 - y0) and x0 < x1 and y0 < y1):
        raise ConfigError(f"window is {window}; give (x0, y0, x1, y1) in µm with x0 < x1 and y0 < y1")
    x, y = points.T
    border = np.minimum.reduce([x - x0, x1 - x, y - y0, y1 - y])
    if len(border) and border.min() < 0:
        raise ConfigError(f"{int((border < 0).sum())} points lie outside of the window {window}")
    return border, (x1 - x0) * (y1 - y0)


def _points(x_um: ArrayLike, y_um: ArrayLike) -> Floats:
    x, y = np.asarray(x_um, dtype=np.float64), np.asarray(y_um, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ConfigError(
            f"x_um and y_um are of shapes {x.shape} and {y.shape}; give one value a cell in each"
        )
    points = np.stack([x, y], axis=1)
    if not np.all(np.abs(points) <= FARTHEST_UM):
        raise ConfigError(
            f"a centroid is not finite or farther away than {FARTHEST_UM:g} µm; give cells of one slide with "
            "coordinates in µm"
        )
    return points


def _flags(positive: ArrayLike, x_um: ArrayLike) -> NDArray[np.bool_]:
    flags = np.asarray(positive, dtype=np.bool_)
    if flags.shape != np.shape(x_um):
        raise ConfigError(f"positive is of shape {flags.shape}; give one value a cell")
    return flags


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name} is {value}; give a number of more than 0")
