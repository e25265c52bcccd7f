"""Whether two models differ: paired tests on their figures of the same images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, shapiro, wilcoxon

_LEAST_FOR_SHAPIRO = 3
_MOST_FOR_EXACT = 200


@dataclass(frozen=True)
class Comparison:
    """Two models on one metric.

    Attributes
    ----------
    n : int
        Images on which both have a figure.
    first, second, difference : float
        Means, and the mean of ``second − first``.
    wilcoxon_p : float
        Two-sided p of the Wilcoxon signed-rank test: small if the differences are not centred on 0. 1 if
        no figure differs.
    shapiro_p : float or None
        p of the Shapiro-Wilk test of the differences: small if they are not normally distributed, which is
        when a rank test is called for and a t-test is not. None with fewer than three images, or when all
        differ by the same.
    """

    n: int
    first: float
    second: float
    difference: float
    wilcoxon_p: float
    shapiro_p: float | None


def compare_paired(first: ArrayLike, second: ArrayLike) -> Comparison | None:
    """Compare two models' figures of the same images.

    Zero differences are left out of the ranking (Wilcoxon 1945). p is exact for up to 200 images that differ,
    ties or not, else from the normal approximation; with n images it cannot be below 2^(1−n).

    Parameters
    ----------
    first, second : array_like of float, shape (n,)
        In the order of the images; NaN: no figure.

    Returns
    -------
    Comparison or None
        None if no image has both figures.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    known = ~(np.isnan(one) | np.isnan(other))
    one, other = one[known], other[known]
    if one.size == 0:
        return None
    difference = other - one
    constant = np.ptp(difference) == 0
    return Comparison(
        n=one.size,
        first=float(one.mean()),
        second=float(other.mean()),
        difference=float(difference.mean()),
        wilcoxon_p=_wilcoxon_p(difference[difference != 0]),
        shapiro_p=None if constant or one.size < _LEAST_FOR_SHAPIRO else float(shapiro(difference).pvalue),
    )


def _wilcoxon_p(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p of the signed-rank test of differences other than 0."""
    if differences.size > _MOST_FOR_EXACT:
        return float(wilcoxon(differences, method="asymptotic").pvalue)
    # Twice the ranks are whole numbers, ties (which share their mean rank) included. SciPy would go through
    # all signs of tied ranks one by one, or approximate.
    ranks = np.rint(2 * rankdata(np.abs(differences))).astype(np.int64)
    chance = np.zeros(int(ranks.sum()) + 1)
    chance[0] = 1.0
    for rank in ranks:
        chance[rank:] = (chance[rank:] + chance[: len(chance) - rank]) / 2
        chance[:rank] /= 2
    positive = int(ranks[differences > 0].sum())
    return float(min(1.0, 2 * min(chance[: positive + 1].sum(), chance[positive:].sum())))
