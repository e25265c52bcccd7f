"""How cells lie to one another, by hand, by looking at all pairs, and at random."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.spatial import (
    clark_evans,
    hexagon_entropy,
    nearest_neighbour_um,
    ripley_l,
    share_within_percent,
)

SQUARE = ([0, 3, 0, 3], [0, 0, 4, 4])  # sides of 3 and 4 µm, diagonals of 5


@st.composite
def patterns(draw):
    n = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    offset = draw(st.sampled_from([0, 1e6]))
    if draw(st.booleans()):
        x, y = rng.integers(0, 9, (2, n)) * 5.0 + offset
    else:
        x, y = rng.random((2, n)) * 60 + offset
    return x, y, rng.random(n) < 0.4


def distances(x, y):
    return np.sqrt((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2)


def test_by_hand():
    assert nearest_neighbour_um(*SQUARE).tolist() == [3, 3, 3, 3]
    assert np.isnan(nearest_neighbour_um([1], [1])).tolist() == [True]
    assert nearest_neighbour_um([], []).tolist() == []
    assert nearest_neighbour_um([1, 1, 5], [2, 2, 2]).tolist() == [0, 0, 4]
    positive = [True, False, False, True]
    # 3 µm off is one other cell, 4 off another, 5 the last: on the circle is within it.
    assert share_within_percent(*SQUARE, positive, 3).tolist() == [0, 100, 100, 0]
    assert share_within_percent(*SQUARE, positive, 4).tolist() == [0, 100, 100, 0]
    assert share_within_percent(*SQUARE, positive, 5) == pytest.approx([100 / 3, 200 / 3, 200 / 3, 100 / 3])
    assert np.isnan(share_within_percent(*SQUARE, positive, 2.9)).all()
    # Mean distance 3, density 4 / 48: 1 / (2 sqrt(1 / 12)) = sqrt 3.
    assert clark_evans(*SQUARE, 48e-6) == pytest.approx(math.sqrt(3))
    assert math.isnan(clark_evans([1], [1], 1))


def test_ripley_by_hand():
    # At 3 µm the inner point (5, 5) alone is far enough from the border, and has 2 of the 4 others near.
    x, y = [5, 5, 8, 1, 9], [5, 2, 5, 9, 9]
    found = ripley_l(x, y, [3, 4.5, 6], window=(0, 0, 10, 10))
    k = [100 * 2 / (5 * 1), 100 * 2 / (5 * 1)]
    assert found[:2] == pytest.approx(np.sqrt(np.array(k) / np.pi))
    assert np.isnan(found[2])  # no point is 6 from the border
    same = ripley_l(x, y, [3, 4.5, 6], border_um=[5, 2, 2, 1, 1], area_um2=100)
    np.testing.assert_array_equal(found, same)
    assert np.isnan(ripley_l([5], [5], [1], window=(0, 0, 10, 10))).all()


@settings(max_examples=60, deadline=None)
@given(patterns(), st.sampled_from([5.0, 7.3, 20.0]))
def test_all_pairs(pattern, radius):
    x, y, positive = pattern
    apart = distances(x, y)
    other = ~np.eye(len(x), dtype=bool)
    if len(x) > 1:
        nearest = np.where(other, apart, np.inf).min(axis=1)
        np.testing.assert_allclose(nearest_neighbour_um(x, y), nearest, rtol=1e-12)
    near = (apart <= radius) & other
    with np.errstate(invalid="ignore"):
        expected = 100 * (near & positive).sum(axis=1) / near.sum(axis=1)
    np.testing.assert_allclose(share_within_percent(x, y, positive, radius), expected, rtol=1e-12)
    border = np.random.default_rng(len(x)).random(len(x)) * 20
    inner = border >= radius
    found = ripley_l(x, y, [radius], border_um=border, area_um2=3600)[0]
    if len(x) > 1 and inner.any():
        k = 3600 * near[inner].sum() / (len(x) * inner.sum())
        assert found == pytest.approx(math.sqrt(k / math.pi), rel=1e-12)
    else:
        assert math.isnan(found)


def test_points_at_random_have_l_of_r_and_index_1_and_clusters_more():
    rng = np.random.default_rng(7)
    x, y = rng.random((2, 6_000)) * 1000 + 1e6
    radii = np.array([10, 25, 50, 100])
    window = (1e6, 1e6, 1e6 + 1000, 1e6 + 1000)
    np.testing.assert_allclose(ripley_l(x, y, radii, window=window), radii, rtol=0.03)
    assert clark_evans(x, y, 1) == pytest.approx(1, abs=0.02)
    parents = rng.integers(0, 60, 6_000)
    x, y = ((rng.random(60) * 900 + 50)[parents] + rng.normal(size=6_000) * 8 for _ in range(2))
    assert (ripley_l(x, y, radii[1:3], window=(0, 0, 1000, 1000)) > radii[1:3] * 1.5).all()
    assert clark_evans(x, y, 1) < 0.7


def centres(side):
    """Return the centres of many hexagons that stand on a corner, one on the origin."""
    return {
        (q, r): (math.sqrt(3) * side * (q + r / 2), 1.5 * side * r)
        for q in range(-12, 13)
        for r in range(-12, 13)
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([10.0, 33.3]), st.integers(1, 4), st.sampled_from([1, 4, 10]))
def test_hexagons_are_the_nearest_centres(seed, side, min_cells, bins):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-50, 50, (2, 300))
    positive = rng.random(300) < rng.random()
    known = centres(side)
    places, at = list(known), np.array(list(known.values()))
    nearest = ((x[:, None] - at[:, 0]) ** 2 + (y[:, None] - at[:, 1]) ** 2).argmin(axis=1)
    counts = {}
    for cell, hexagon in enumerate(nearest):
        n, p = counts.get(places[hexagon], (0, 0))
        counts[places[hexagon]] = (n + 1, p + int(positive[cell]))
    counts = {place: (n, p) for place, (n, p) in counts.items() if n >= min_cells}
    found = hexagon_entropy(x, y, positive, side_um=side, min_cells=min_cells, bins=bins)
    table = zip(found.q, found.r, found.n_cells, found.n_positive, strict=True)
    assert {(q, r): (n, p) for q, r, n, p in table} == counts
    for q, r, *place in zip(found.q, found.r, found.x_um, found.y_um, strict=True):
        assert place == pytest.approx(known[q, r])
    classes = {place: min(p * bins // n, bins - 1) for place, (n, p) in counts.items()}
    assert found.entropy_bits == pytest.approx(entropy(list(classes.values())), nan_ok=True)
    sides = [(1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1)]
    pairs = [
        (its, classes[q + dq, r + dr])
        for (q, r), its in classes.items()
        for dq, dr in sides
        if (q + dq, r + dr) in classes
    ]
    assert found.pair_entropy_bits == pytest.approx(entropy(pairs), nan_ok=True)


def entropy(values):
    if not values:
        return math.nan
    shares = [values.count(value) / len(values) for value in set(values)]
    return -sum(share * math.log2(share) for share in shares)


def test_entropy_by_hand():
    # Four hexagons in a row of side 10: two of index 0, two of 100 %.
    x = np.repeat(np.arange(4) * math.sqrt(3) * 10, 5)
    positive = np.repeat([False, False, True, True], 5)
    found = hexagon_entropy(x, np.zeros(20), positive, side_um=10, min_cells=5, bins=10)
    assert found.index_percent.tolist() == [0, 0, 100, 100]
    assert found.entropy_bits == 1
    # Pairs, each both ways: 2 of (0, 0), 1 of (0, 9), 1 of (9, 0), 2 of (9, 9).
    assert found.pair_entropy_bits == pytest.approx(2 * math.log2(3) / 3 + 2 * math.log2(6) / 6)
    alone = hexagon_entropy(x, np.zeros(20), positive, side_um=10, min_cells=5, bins=1)
    assert (alone.entropy_bits, alone.pair_entropy_bits) == (0, 0)
    none = hexagon_entropy(x, np.zeros(20), positive, side_um=10, min_cells=6, bins=10)
    assert len(none.q) == 0 and math.isnan(none.entropy_bits) and math.isnan(none.pair_entropy_bits)


@pytest.mark.parametrize(
    "call",
    [
        lambda: nearest_neighbour_um([1, 2], [1]),
        lambda: nearest_neighbour_um([1, math.nan], [1, 2]),
        lambda: clark_evans([1, 2], [1, 2], 0),
        lambda: share_within_percent([1, 2], [1, 2], [True], 5),
        lambda: share_within_percent([1, 2], [1, 2], [True, False], math.nan),
        lambda: ripley_l([1, 2], [1, 2], [0], window=(0, 0, 9, 9)),
        lambda: ripley_l([1, 2], [1, 2], [math.nan], window=(0, 0, 9, 9)),
        lambda: ripley_l([1, 2], [1, 2], [1]),
        lambda: ripley_l([1, 2], [1, 2], [1], window=(0, 0, 9, 9), border_um=[1, 1], area_um2=9),
        lambda: ripley_l([1, 2], [1, 2], [1], border_um=[1, 1]),
        lambda: ripley_l([1, 2], [1, 2], [1], border_um=[1, -1], area_um2=9),
        lambda: ripley_l([1, 2], [1, 2], [1], border_um=[1, math.nan], area_um2=9),
        lambda: ripley_l([1, 2], [1, 2], [1], window=(9, 0, 0, 9)),
        lambda: ripley_l([1, 20], [1, 2], [1], window=(0, 0, 9, 9)),
        lambda: hexagon_entropy([1], [1], [True], side_um=0, min_cells=1, bins=2),
        lambda: hexagon_entropy([1], [1], [True], side_um=1e-300, min_cells=1, bins=2),
        lambda: hexagon_entropy([1], [1], [True], side_um=1, min_cells=0, bins=2),
        lambda: hexagon_entropy([1], [1], [True], side_um=1, min_cells=1, bins=2.5),
    ],
)
def test_what_cannot_be_used_is_told(call):
    with pytest.raises(ConfigError):
        call()
