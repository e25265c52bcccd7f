"""How well two or more measurements of the same subjects agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, nan, sqrt, tanh
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.quantiles import f_quantile, t_quantile

LEAST = 3
"""Subjects without which no agreement is told."""
Weights = Literal["linear", "quadratic"]
_Z = 1.959963984540054
_NAMED = 5


@dataclass(frozen=True)
class IntraclassCorrelation:
    """The share of variance that is between subjects, and its 95 % interval.

    Attributes
    ----------
    n, k : int
        Subjects, measurements of each.
    icc : float
        1: measurements of a subject are equal; 0 or below: as different as those of different subjects. With a
        handful of subjects it can fall below −1.
    lower, upper : float
    """

    n: int
    k: int
    icc: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Concordance:
    """Lin's concordance correlation, and its 95 % interval.

    Attributes
    ----------
    n : int
        Subjects.
    ccc : float
        ``precision * accuracy``; 1 on the line of equality.
    lower, upper : float
    precision : float
        Pearson's correlation.
    accuracy : float
        How near the best line is to that of equality, above 0 and at most 1; Lin's C_b.
    """

    n: int
    ccc: float
    lower: float
    upper: float
    precision: float
    accuracy: float


@dataclass(frozen=True)
class BlandAltman:
    """Differences first − second, in the unit of the measurements, each figure with its 95 % interval.

    Attributes
    ----------
    n : int
        Subjects.
    bias, bias_lower, bias_upper : float
        Mean difference.
    sd : float
        Standard deviation of the differences, with n − 1.
    limit_lower, limit_upper : float
        Limits of agreement, bias ∓ 1.96 sd, between which 95 % of differences are expected if they are normally
        distributed.
    limit_lower_lower, limit_lower_upper, limit_upper_lower, limit_upper_upper : float
        Intervals of the two limits.
    """

    n: int
    bias: float
    bias_lower: float
    bias_upper: float
    sd: float
    limit_lower: float
    limit_lower_lower: float
    limit_lower_upper: float
    limit_upper: float
    limit_upper_lower: float
    limit_upper_upper: float


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
        kappa ∓ 1.96 standard errors, −1 and 1 at the utmost; NaN where all agree, as no variance is seen then and
        the interval would have no width however few subjects there are.
    """

    n: int
    kappa: float
    standard_error: float
    lower: float
    upper: float


def icc_a1(ratings: ArrayLike) -> IntraclassCorrelation:
    """Return the intraclass correlation of single measurements for absolute agreement.

    Two-way: a measurement is the subject's value plus one of the rater (or slide, or run) plus the rest, so a rater who
    is always higher makes it smaller. It is ICC(A,1) of McGraw and Wong, ICC(2,1) of Shrout and Fleiss. Where it is
    below 0 the degrees of freedom of its interval are taken as if it were 0, because their formula breaks down.

    Parameters
    ----------
    ratings : array_like of float, shape (n, k)
        A row a subject, at least 3; a column a rater, at least 2.

    Raises
    ------
    ConfigError
        Too few subjects or raters, a value that is not finite, or all values the same.

    References
    ----------
    P. E. Shrout, J. L. Fleiss, Intraclass correlations: uses in assessing rater reliability, 1979; K. O. McGraw, S. P.
    Wong, Forming inferences about some intraclass correlation coefficients, 1996.
    """
    values = np.asarray(ratings, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ConfigError(
            f"ratings of shape {values.shape}; give a row a subject and a column a rater, two or more"
        )
    _check(*values.T)
    if np.ptp(values) == 0:
        raise ConfigError(f"all values are {values[0, 0]:g}, so nothing tells subjects apart; no agreement")
    n, k = values.shape
    values = values - values.mean()  # squares of small differences beside a large mean would lose digits
    of_subjects, of_raters = values.mean(axis=1), values.mean(axis=0)
    rest = values - of_subjects[:, None] - of_raters
    subjects = k * float(of_subjects @ of_subjects) / (n - 1)
    raters = n * float(of_raters @ of_raters) / (k - 1)
    error = float((rest * rest).sum()) / ((n - 1) * (k - 1))
    icc = (subjects - error) / (subjects + (k - 1) * error + k * (raters - error) / n)
    if icc >= 1:
        return IntraclassCorrelation(n, k, 1.0, 1.0, 1.0)
    odds = max(icc, 0.0) / (1 - icc)
    of_rater, of_error = k * odds / n * raters, (1 + k * (n - 1) / n * odds) * error
    df = (of_rater + of_error) ** 2 / (of_rater**2 / (k - 1) + of_error**2 / ((n - 1) * (k - 1)))
    others = k * raters + (k * n - k - n) * error
    low, high = f_quantile(0.975, n - 1, df), f_quantile(0.975, df, n - 1)
    lower = n * (subjects - low * error) / (low * others + n * subjects)
    upper = n * (high * subjects - error) / (others + n * high * subjects)
    return IntraclassCorrelation(n, k, icc, lower, upper)


def concordance(first: ArrayLike, second: ArrayLike) -> Concordance:
    """Return Lin's concordance correlation coefficient.

    Variances are those with n. The interval is by Fisher's z, with the standard error as corrected in 2000.

    Parameters
    ----------
    first, second : array_like of float, shape (n,)
        Of the same subjects, at least 3.

    Raises
    ------
    ConfigError
        Lengths differ, there are too few subjects, a value is not finite, or one side is the same for all.

    References
    ----------
    L. I. Lin, A concordance correlation coefficient to evaluate reproducibility, 1989; A note on the concordance
    correlation coefficient, 2000.
    """
    one, other = _pair(first, second)
    for name, values in (("first", one), ("second", other)):
        if np.ptp(values) == 0:
            raise ConfigError(f"the {name} values are all {values[0]:g}; there is nothing to correlate")
    n = one.size
    shift = float((one - other).mean())
    x, y = one - one.mean(), other - other.mean()
    xx, yy, xy = (float(product) / n for product in (x @ x, y @ y, x @ y))
    precision = min(1.0, max(-1.0, xy / sqrt(xx * yy)))
    accuracy = 2 * sqrt(xx * yy) / (xx + yy + shift**2)
    ccc = precision * accuracy
    if 1 - abs(ccc) < 1e-12:
        return Concordance(n, ccc, ccc, ccc, precision, accuracy)
    moved = shift**2 / sqrt(xx * yy)
    variance = (
        (1 - precision**2) * accuracy**2 * (1 - ccc**2)
        + 2 * ccc**2 * (1 - ccc) * moved * accuracy
        - ccc**2 * accuracy**2 * moved**2 / 2
    ) / ((n - 2) * (1 - ccc**2) ** 2)
    half = _Z * sqrt(max(variance, 0.0))
    return Concordance(n, ccc, tanh(atanh(ccc) - half), tanh(atanh(ccc) + half), precision, accuracy)


def bland_altman(first: ArrayLike, second: ArrayLike) -> BlandAltman:
    """Return bias and limits of agreement of two measurements.

    Parameters
    ----------
    first, second : array_like of float, shape (n,)
        Of the same subjects, at least 3.

    Raises
    ------
    ConfigError
        Lengths differ, there are too few subjects, or a value is not finite.

    References
    ----------
    J. M. Bland, D. G. Altman, Statistical methods for assessing agreement between two methods of clinical
    measurement, 1986, which takes limits at 2 sd; Measuring agreement in method comparison studies, 1999, with 1.96
    and the standard error of limits that is used here.
    """
    one, other = _pair(first, second)
    difference = one - other
    n = difference.size
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    t = t_quantile(0.975, n - 1)
    mean_half = t * sd / sqrt(n)
    half = t * sd * sqrt(1 / n + _Z**2 / (2 * (n - 1)))
    low, high = bias - _Z * sd, bias + _Z * sd
    return BlandAltman(
        n,
        bias,
        bias - mean_half,
        bias + mean_half,
        sd,
        low,
        low - half,
        low + half,
        high,
        high - half,
        high + half,
    )


def categories(values: ArrayLike, cutoffs: Sequence[float]) -> NDArray[np.int64]:
    """Return the category of each value: how many of the cut-offs it reaches.

    Parameters
    ----------
    values : array_like of float, shape (n,)
    cutoffs : sequence of float
        Ascending; a value that equals one is in the category above it.

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
    return np.searchsorted(edges, np.asarray(values, dtype=np.float64), side="right")


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
        How much of an agreement a pair of categories is: 1 − |i − j| / (c − 1), or 1 − (i − j)² / (c − 1)²; or
        weights of one's own, 1 where they agree.

    Raises
    ------
    ConfigError
        Lengths differ, there are too few subjects, a value is no category, the weights do not fit, or one side has
        the same category for all, so that kappa is 0 whatever the other says.

    References
    ----------
    J. Cohen, Weighted kappa: nominal scale agreement with provision for scaled disagreement or partial credit, 1968;
    J. L. Fleiss, J. Cohen, B. S. Everitt, Large sample standard errors of kappa and weighted kappa, 1969.
    """
    one, other = _pair(first, second)
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
    return WeightedKappa(one.size, kappa, error, max(-1.0, kappa - _Z * error), min(1.0, kappa + _Z * error))


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


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ConfigError(f"{one.shape} and {other.shape} values; give one of each for every subject")
    _check(one, other)
    return one, other


def _check(*columns: NDArray[np.float64]) -> None:
    """Refuse too few subjects, and values that are none, by their places."""
    n = columns[0].size
    if n < LEAST:
        raise ConfigError(f"{n} subject{'s' * (n != 1)}; no agreement is told of fewer than {LEAST}")
    bad = np.flatnonzero(~np.isfinite(np.stack(columns)).all(axis=0)).tolist()
    if bad:
        named = ", ".join(map(str, bad[:_NAMED])) + ", …" * (len(bad) > _NAMED)
        raise ConfigError(
            f"{len(bad)} of {n} subjects lack a finite value (counted from 0: {named}); leave them out"
        )
