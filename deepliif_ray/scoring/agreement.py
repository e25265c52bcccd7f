"""How well two or more measurements of the same subjects agree; in categories, see `kappa`."""

from dataclasses import dataclass
from math import atanh, sqrt, tanh

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.quantiles import f_quantile, t_quantile

LEAST = 3
"""Subjects without which no agreement is told."""
Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
_NAMED = 5


@dataclass(frozen=True)
class IntraclassCorrelation:
    """The share of variance that is between subjects, and its 95 % interval.

    Attributes
    ----------
    n, k : int
        Subjects, measurements of each.
    icc : float
        1: measurements of a subject are equal; 0 or below: as different as those of different subjects. With
        a handful of subjects it can fall below −1.
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
        Limits of agreement, bias ∓ 1.96 sd, between which 95 % of differences are expected if they are
        normally distributed.
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


def icc_a1(ratings: ArrayLike) -> IntraclassCorrelation:
    """Return the intraclass correlation of single measurements for absolute agreement.

    Two-way: a measurement is the subject's value plus one of the rater (or slide, or run) plus the rest, so a
    rater who is always higher makes it smaller. It is ICC(A,1) of McGraw and Wong, ICC(2,1) of Shrout and
    Fleiss. Where it is below 0 the degrees of freedom of its interval are taken as if it were 0, because
    their formula breaks down.

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
    P. E. Shrout, J. L. Fleiss, Intraclass correlations: uses in assessing rater reliability, 1979; K. O.
    McGraw, S. P. Wong, Forming inferences about some intraclass correlation coefficients, 1996.
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
    L. I. Lin, A concordance correlation coefficient to evaluate reproducibility, 1989; A note on the
    concordance correlation coefficient, 2000.
    """
    one, other = paired(first, second)
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
    half = Z * sqrt(max(variance, 0.0))
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
    measurement, 1986, which takes limits at 2 sd; Measuring agreement in method comparison studies, 1999,
    with 1.96 and the standard error of limits that is used here.
    """
    one, other = paired(first, second)
    difference = one - other
    n = difference.size
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    t = t_quantile(0.975, n - 1)
    mean_half = t * sd / sqrt(n)
    half = t * sd * sqrt(1 / n + Z**2 / (2 * (n - 1)))
    low, high = bias - Z * sd, bias + Z * sd
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


def paired(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two measurements of the same subjects as float64 arrays of shape (n,).

    Raises
    ------
    ConfigError
        Lengths differ, there are fewer than 3 subjects, or a value is not finite.
    """
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
