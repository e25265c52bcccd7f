import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from deepliif_ray.evaluation.detection import Counts, detect, index_percent, match_points

points = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12).map(
    lambda pairs: np.array(pairs, dtype=float).reshape(-1, 2)
)


def test_by_hand():
    truth = [(10, 10), (50, 50), (90, 90)]
    found = [(10, 20), (50, 61), (200, 200), (91, 90)]  # 10 px off: a hit; 11 px: none; nowhere; 1 px
    hits = match_points(found, truth)
    assert hits.found.tolist() == [0, -1, -1, 2]
    assert hits.truth.tolist() == [0, -1, 3]
    counts = hits.counts
    assert counts == Counts(2, 2, 1)
    assert counts.precision == 2 / 4
    assert counts.recall == 2 / 3
    assert counts.f1 == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))  # 4/7
    assert counts.f1 == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))


def test_duplicates_are_false_positives():
    hits = match_points([(10, 10), (12, 10), (10, 13)], [(11, 10)])
    assert hits.counts == Counts(1, 2, 0)
    assert hits.found.tolist() in ([0, -1, -1], [-1, 0, -1])  # the nearer two are 1 px off, the last √10


def test_the_most_pairs_before_the_shortest():
    # Taking the nearest first would pair 0 with 0 (1 px) and leave found 1, 12 px from truth 1, alone.
    hits = match_points([(0, 0), (-8, 0)], [(-1, 0), (9, 0)])
    assert hits.found.tolist() == [1, 0]
    assert match_points([(0, 0), (4, 0)], [(3, 0), (1, 0)]).found.tolist() == [1, 0]  # 1 + 1, not 3 + 3


def test_classes():
    truth, kinds = [(10, 10), (50, 50), (90, 90)], [True, True, False]
    hits = detect(truth, [True, False, False], truth, kinds)
    # Positive: 1 found, 2 true. Negative: 2 found, 1 true. The swapped cell is a miss of one class and a
    # false positive of the other.
    assert hits["positive"].counts == Counts(1, 0, 1)
    assert hits["negative"].counts == Counts(1, 1, 0)
    assert hits["any"].counts == Counts(3, 0, 0)
    swapped = detect(truth, np.invert(kinds), truth, kinds)
    assert swapped["positive"].counts.f1 == swapped["negative"].counts.f1 == 0
    assert swapped["any"].counts.f1 == 1


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        ([], [], (1, 1, 1)),
        ([(1, 1)], [], (0, 0, 0)),
        ([], [(1, 1)], (0, 0, 0)),
        ([(1, 1)], [(99, 1)], (0, 0, 0)),
    ],
)
def test_nothing_there_or_nothing_found(found, truth, expected):
    counts = match_points(found, truth).counts
    assert (counts.precision, counts.recall, counts.f1) == expected


def test_index():
    assert index_percent([True, False, False]) == pytest.approx(100 / 3)
    assert index_percent([]) == 0


@given(points, points, st.sampled_from([0, 3, 10, 100]))
def test_is_the_optimal_assignment(found, truth, reach):
    hits = match_points(found, truth, reach)
    pairs = np.flatnonzero(hits.found >= 0)
    assert (hits.truth[hits.found[pairs]] == pairs).all()
    distance = np.linalg.norm(found[:, None] - truth[None], axis=2)
    best = linear_sum_assignment(np.where(distance <= reach, distance - 1e4, 0))
    near = distance[best] <= reach
    assert len(pairs) == near.sum()
    assert distance[pairs, hits.found[pairs]].sum() == pytest.approx(distance[best][near].sum())
    mirrored = match_points(truth, found, reach).counts
    assert mirrored.f1 == hits.counts.f1
    assert mirrored.precision == hits.counts.recall


@given(points)
def test_perfect(truth):
    assert match_points(truth, truth, 0).counts.f1 == 1


def test_many_points_are_quick():
    truth = np.random.default_rng(0).uniform(0, 5000, (20_000, 2))
    counts = match_points(truth + 1, truth).counts
    assert counts.true_positives > 19_000
