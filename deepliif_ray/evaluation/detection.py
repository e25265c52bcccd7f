"""Detection of cells against expert centroids."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

REACH_UM = 2.5
"""How far a hit may lie from the truth: BCData's 10 px at 40x, so 5 px at 20x and 2.5 px at 10x."""


@dataclass(frozen=True)
class Hits:
    """What became of every found and every true point of one class.

    Attributes
    ----------
    found : ndarray of int64, shape (n,)
        For each found point the true point it was matched with; −1: a false positive.
    truth : ndarray of int64, shape (m,)
        For each true point the found point it was matched with; −1: a false negative.
    """

    found: NDArray[np.int64]
    truth: NDArray[np.int64]

    @property
    def counts(self) -> "Counts":
        """How many there are of each kind."""
        hits = int((self.truth >= 0).sum())
        return Counts(hits, len(self.found) - hits, len(self.truth) - hits)


@dataclass(frozen=True)
class Counts:
    """True positives, false positives and false negatives, and the ratios made of them.

    A ratio of which nothing was there and nothing was found is 1; one that has no denominator for another
    reason (precision of no found point) is 0, as in the statistics published with DeepLIIF.
    """

    true_positives: int
    false_positives: int
    false_negatives: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return self._ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return self._ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        doubled = 2 * self.true_positives
        return self._ratio(doubled, doubled + self.false_positives + self.false_negatives)

    def _ratio(self, part: int, whole: int) -> float:
        if whole == 0:
            return float(self.false_positives + self.false_negatives == 0)
        return part / whole


def match_points(found: ArrayLike, truth: ArrayLike, reach: float = 10.0) -> Hits:
    """Match found with true points, one to one, at most ``reach`` apart.

    The assignment is optimal: of all one-to-one assignments, one with the most pairs, and of these the one
    with the smallest sum of distances. A second point found at one true cell has no partner left: duplicates
    are false positives.

    Parameters
    ----------
    found, truth : array_like, shape (n, 2) and (m, 2)
        Points x, y, px.
    reach : float
        Largest distance of a pair, px, inclusive.

    References
    ----------
    Huang et al., BCData: a large-scale dataset and benchmark for cell detection and counting, MICCAI 2020:
    a detection within 10 px of a true centre of its class is true, and further ones there are false.
    """
    here, there = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (found, truth))
    partner_of_found = np.full(len(here), -1, dtype=np.int64)
    partner_of_truth = np.full(len(there), -1, dtype=np.int64)
    near = cKDTree(here).query_ball_point(there, reach) if len(here) and len(there) else []
    columns = np.repeat(np.arange(len(near)), [len(points) for points in near])
    rows = np.concatenate([*near, []]).astype(np.int64)
    # Points that no chain of near pairs connects cannot compete, so each cluster is a small problem.
    size = len(here) + len(there)
    graph = coo_matrix((np.ones(len(rows)), (rows, len(here) + columns)), shape=(size, size))
    _, cluster = connected_components(graph, directed=False)
    order = np.argsort(cluster[rows], kind="stable")
    for pairs in np.split(order, np.flatnonzero(np.diff(cluster[rows[order]])) + 1):
        left, i = np.unique(rows[pairs], return_inverse=True)
        right, j = np.unique(columns[pairs], return_inverse=True)
        distance = np.linalg.norm(here[rows[pairs]] - there[columns[pairs]], axis=1)
        cost = np.zeros((len(left), len(right)))
        # One pair more is worth more than all distances together.
        cost[i, j] = distance - (reach + 1) * (min(cost.shape) + 1)
        chosen = linear_sum_assignment(cost)
        real = cost[chosen] < 0
        partner_of_found[left[chosen[0][real]]] = right[chosen[1][real]]
        partner_of_truth[right[chosen[1][real]]] = left[chosen[0][real]]
    return Hits(partner_of_found, partner_of_truth)


def detect(
    found: ArrayLike,
    found_positive: ArrayLike,
    truth: ArrayLike,
    truth_positive: ArrayLike,
    reach: float = 10.0,
) -> dict[str, Hits]:
    """Match found with true cells of the same class, and once more regardless of class.

    Parameters
    ----------
    found, truth : array_like, shape (n, 2) and (m, 2)
        Centres x, y, px.
    found_positive, truth_positive : array_like of bool, shape (n,) and (m,)
    reach : float
        See `match_points`.

    Returns
    -------
    dict of str to Hits
        ``positive``, ``negative`` (their points numbered within the class, in the order given), and ``any``.
    """
    here, there = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (found, truth))
    ours, theirs = (np.asarray(kinds, dtype=bool).reshape(-1) for kinds in (found_positive, truth_positive))
    return {
        "positive": match_points(here[ours], there[theirs], reach),
        "negative": match_points(here[~ours], there[~theirs], reach),
        "any": match_points(here, there, reach),
    }


def index_percent(positive: ArrayLike) -> float:
    """Return the percentage of positive cells, not rounded; 0 without a cell, as published.

    Parameters
    ----------
    positive : array_like of bool, shape (n,)
        The class of each cell.
    """
    kinds = np.asarray(positive, dtype=bool)
    return 100.0 * float(kinds.mean()) if kinds.size else 0.0
