"""How well two sides agree in ordered categories."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.agreement import Z, paired

Weights = Literal["linear", "quadratic"]


@dataclass(frozen=True)
class WeightedKappa:
    """Agreement in ordered categories beyond chance, and its 95 % interval, which is one of large samples.

    Attributes
    ----------
    n : int
        Subjects.
    kappa : float
        1: always the same category; 0: as chance would have it.
    standard_error : float
        For intervals, not for a test of kappa = 0.
    lower, upper : float
        kappa ∓ 1.96 standard errors, −1 and 1 at the utmost; NaN where all agree, as no variance is seen then
        and the interval would have no width however few subjects there are.
    """

    n: int
    kappa: float
    standard_error: float
    lower: float
    upper: float


def categories(
    values: ArrayLike, cutoffs: Sequence[float], inclusive: Sequence[bool] | None = None
) -> NDArray[np.int64]:
    """Return the category of each value: how many of the cut-offs it reaches.

    Parameters
    ----------
    values : array_like of float, shape (n,)
    cutoffs : sequence of float
        Ascending; a value that equals one is in the category above it.
    inclusive : sequence of bool, optional
        For each cut-off, whether the category below it has the value that equals it instead.

    Returns
    -------
    ndarray of int64, shape (n,)
        From 0 to the number of cut-offs.

    Raises
    ------
    ConfigError
        There is no cut-off, or they do not ascend.
    """
    edges = np.asarray(cutoffs, dtype=np.float64)
    if edges.ndim != 1 or edges.size == 0 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise ConfigError(
            f"cut-offs {list(cutoffs)} make no categories; give numbers that ascend, such as 5,30"
        )
    given = np.asarray(values, dtype=np.float64)
    below = np.isin(given, edges[np.asarray(inclusive, dtype=bool)]) if inclusive is not None else False
    return np.searchsorted(edges, given, side="right") - below


def weighted_kappa(
    first: ArrayLike, second: ArrayLike, n_categories: int, weights: Weights | ArrayLike = "linear"
) -> WeightedKappa:
    """Return Cohen's weighted kappa with its large-sample standard error.

    Parameters
    ----------
    first, second : array_like of int, shape (n,)
        Categories of the same subjects, from 0; at least 3.
    n_categories : int
        At least 2.
    weights : {"linear", "quadratic"} or array_like of float, shape (n_categories, n_categories)
        How much of an agreement a pair of categories is: 1 − |i − j| / (c − 1), or 1 − (i − j)² / (c − 1)²;
        or weights of one's own, 1 where they agree.

    Raises
    ------
    ConfigError
        Lengths differ, there are too few subjects, a value is no category, the weights do not fit, or one
        side has the same category for all, so that kappa is 0 whatever the other says.

    References
    ----------
    J. Cohen, Weighted kappa: nominal scale agreement with provision for scaled disagreement or partial
    credit, 1968; J. L. Fleiss, J. Cohen, B. S. Everitt, Large sample standard errors of kappa and weighted
    kappa, 1969.
    """
    one, other = paired(first, second)
    if n_categories < 2:
        raise ConfigError(f"{n_categories} categories; give 2 or more")
    for values in (one, other):
        wrong = (values != np.floor(values)) | (values < 0) | (values >= n_categories)
        if wrong.any():
            raise ConfigError(f"{values[wrong][0]:g} is no category; they are 0 to {n_categories - 1}")
    for name, values in (("first", one), ("second", other)):
        if np.ptp(values) == 0:
            raise ConfigError(f"the {name} values are all in one category, so chance explains all agreement")
    share = np.zeros((n_categories, n_categories))
    np.add.at(share, (one.astype(np.int64), other.astype(np.int64)), 1 / one.size)
    agreed = _weights(n_categories, weights)
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    observed, chance = float((agreed * share).sum()), float(rows @ agreed @ columns)
    if 1 - chance < 1e-12:
        raise ConfigError("by these weights all categories agree; give less than 1 where they do not")
    kappa = (observed - chance) / (1 - chance)
    means = (agreed @ columns)[:, None] + (agreed.T @ rows)[None, :]
    squares = float((share * (agreed - means * (1 - kappa)) ** 2).sum())
    variance = (squares - (kappa - chance * (1 - kappa)) ** 2) / (one.size * (1 - chance) ** 2)
    error = sqrt(max(variance, 0.0))
    if (one == other).all():
        return WeightedKappa(one.size, 1.0, 0.0, nan, nan)
    return WeightedKappa(one.size, kappa, error, max(-1.0, kappa - Z * error), min(1.0, kappa + Z * error))


def _weights(n_categories: int, weights: Weights | ArrayLike) -> NDArray[np.float64]:
    if isinstance(weights, str):
        if weights not in ("linear", "quadratic"):
            raise ConfigError(f"weights {weights!r}; give linear, quadratic, or a matrix")
        place = np.arange(n_categories) / (n_categories - 1)
        apart = np.abs(place[:, None] - place[None, :])
        return np.asarray(1 - (apart if weights == "linear" else apart**2))
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.shape != (n_categories, n_categories) or not np.isfinite(matrix).all():
        raise ConfigError(
            f"weights of shape {matrix.shape} for {n_categories} categories; give a number a pair"
        )
    if (np.diag(matrix) != 1).any() or matrix.max() > 1:
        raise ConfigError("weights are of agreement: 1 where categories are the same, and nowhere more")
    return matrix
