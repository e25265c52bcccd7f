"""Hot spots are the best circles of all, whatever the tissue."""

import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba.core import event

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.__main__ import compile_kernels
from deepliif_ray.scoring.hot_spots import hot_spots
from deepliif_ray.scoring.spatial import ripley_l, share_within_percent
from tests.scoring.brute import brute_hot_spots


def rows(spots):
    return [dataclasses.astuple(spot) for spot in spots]


def tissue(kind, n, seed):
    """Return x, y, positive of cells at random, in clusters, on a lattice, on lines, at few places."""
    rng = np.random.default_rng(seed)
    if kind == "uniform":
        x, y = rng.random((2, n)) * 400
    elif kind == "clustered":
        at = rng.integers(0, 5, n)
        spread = rng.exponential(30, 5)[at]
        x, y = (rng.random(5)[at] * 2000 + rng.normal(size=n) * spread for _ in range(2))
    elif kind == "lattice":
        x, y = rng.integers(0, 12, (2, n)) * 5.0
    elif kind == "line":
        x, y = rng.random(n) * 3000, np.full(n, 7.25)
    else:
        x, y = rng.integers(0, 3, n) * 1e4, rng.integers(0, 2, n) * 0.1
    offset = rng.choice([0, 1e6, -3e5])
    return x + offset, y + offset, rng.random(n) < rng.choice([0, 0.05, 0.5, 0.9, 1])


@st.composite
def questions(draw):
    question = {
        "by": draw(st.sampled_from(["share", "density"])),
        "count": draw(st.sampled_from([1, 2, 5, 100])),
    }
    if draw(st.booleans()):
        question["cells"] = draw(st.sampled_from([1, 2, 3, 5, 20, 100, 500]))
    else:
        question["area_mm2"] = draw(st.sampled_from([1e-6, 1e-4, 0.001, 0.01, 0.16, 5]))
        question["min_cells"] = draw(st.sampled_from([None, 1, 3, 20, 100]))
    return question


TISSUES_AND_QUESTIONS = given(
    kind=st.sampled_from(["uniform", "clustered", "lattice", "line", "places"]),
    n=st.sampled_from([0, 1, 2, 3, 10, 60, 250, 600]),
    seed=st.integers(0, 2**32),
    question=questions(),
)


@settings(max_examples=120, deadline=None)
@TISSUES_AND_QUESTIONS
@example(kind="places", n=60, seed=1, question={"by": "density", "cells": 5, "count": 100})
@example(kind="places", n=60, seed=1, question={"by": "share", "cells": 5, "count": 100})
@example(kind="uniform", n=600, seed=2, question={"by": "share", "area_mm2": 5, "count": 2})
def test_they_are_those_of_brute_force(kind, n, seed, question):
    cells = tissue(kind, n, seed)
    assert rows(hot_spots(*cells, **question)) == brute_hot_spots(*cells, **question)


@pytest.mark.parametrize("question", [{"cells": 60}, {"area_mm2": 0.02, "min_cells": 12}])
@pytest.mark.parametrize("by", ["share", "density"])
def test_so_they_are_with_two_threads(question, by):
    rng = np.random.default_rng(3)
    n = 20_000  # from here on there are two
    # Most of the tissue is far away and has no positive cell, so that brute force need not look there.
    x, y = np.where(np.arange(n) < 800, 0, 1e5) + rng.random((2, n)) * 1000
    positive = (np.arange(n) < 800) & (rng.random(n) < 0.3)
    near = slice(0, 800)
    found = rows(hot_spots(x, y, positive, by=by, count=3, **question))
    assert found == brute_hot_spots(x[near], y[near], positive[near], by=by, count=3, **question)


def test_by_hand():
    # Four positive cells close together, ten negative ones in a row.
    x, y = [0, 3, 0, 3, *range(100, 200, 10)], [0, 0, 4, 4, *[50] * 10]
    positive = [True] * 4 + [False] * 10
    (spot,) = hot_spots(x, y, positive, cells=3)
    # The third nearest of a corner is 4 µm away; of four ties the upper left is taken.
    assert (spot.x_um, spot.y_um, spot.radius_um, spot.n_cells, spot.n_positive) == (0, 0, 4, 3, 3)
    assert spot.share_percent == 100
    assert spot.area_mm2 == pytest.approx(math.pi * 16e-6)
    assert spot.density_per_mm2 == pytest.approx(3 / (math.pi * 16e-6))
    # On the circle is in it: 5 µm to the far corner.
    (spot,) = hot_spots(x, y, positive, area_mm2=math.pi * 25e-6 * (1 + 1e-12), by="density")
    assert spot.n_positive == 4
    # Of 200 cells at one place no circle of 100 has an area.
    assert hot_spots([5.0] * 200, [5.0] * 200, [True] * 200, cells=100, by="density") == []
    (spot,) = hot_spots([5.0] * 200, [5.0] * 200, [True] * 200, cells=100, count=9)
    assert (spot.n_cells, spot.density_per_mm2) == (200, None)


def test_cells_at_the_same_distance_belong_together():
    angle = np.arange(4) * np.pi / 2
    x, y = np.append(np.round(np.cos(angle)) * 7, 0), np.append(np.round(np.sin(angle)) * 7, 0)
    (spot,) = hot_spots(x, y, [False, True, False, True, True], cells=3)
    # The centre has 3 positive of 5, each other place 2 of 3 at most: itself, the centre, and both beside it.
    assert (spot.n_cells, spot.n_positive) == (4, 3)
    (spot,) = hot_spots(x, y, [True] * 5, cells=3, by="density")
    assert (spot.x_um, spot.y_um, spot.n_cells) == (0, 0, 5)  # asked for 3


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_the_order_of_cells_makes_no_difference(random):
    x, y, positive = tissue("lattice", 250, 5)
    order = list(range(250))
    random.shuffle(order)
    for question in ({"cells": 20}, {"area_mm2": 0.0004, "min_cells": 5}):
        shuffled = hot_spots(x[order], y[order], positive[order], count=3, **question)
        assert shuffled == hot_spots(x, y, positive, count=3, **question)


def test_a_share_needs_500_cells_unless_said_otherwise():
    x, y = np.random.default_rng(0).random((2, 499))
    assert hot_spots(x, y, x > 0.5, area_mm2=1) == []
    assert hot_spots(x, y, x > 0.5, area_mm2=1, min_cells=499)[0].n_cells == 499
    assert hot_spots(x, y, x > 0.5, area_mm2=1, by="density")[0].n_cells == 499
    assert hot_spots(x, y, x > 0.5, cells=500) == []


def test_no_circle_overlaps_another():
    x, y, positive = tissue("uniform", 2_000, 4)
    spots = hot_spots(x, y, positive, cells=30, count=10)
    assert len(spots) == 10
    for i, one in enumerate(spots):
        for other in spots[:i]:
            apart = math.hypot(one.x_um - other.x_um, one.y_um - other.y_um)
            assert apart >= one.radius_um + other.radius_um
    assert [s.share_percent for s in spots] == sorted((s.share_percent for s in spots), reverse=True)


def test_arrays_that_cannot_be_written_to_and_other_types():
    x = np.arange(50, dtype=np.float32)
    x.flags.writeable = False
    positive = (np.arange(50) % 7 == 0).astype(int)
    assert rows(hot_spots(x, x[::-1], positive, cells=5)) == brute_hot_spots(x, x[::-1], positive, cells=5)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ({}, "either cells or area_mm2"),
        ({"cells": 5, "area_mm2": 1}, "either cells or area_mm2"),
        ({"cells": 0}, "cells is 0"),
        ({"cells": 2.5}, "cells is 2.5"),
        ({"area_mm2": 0}, "area_mm2 is 0"),
        ({"area_mm2": -1}, "area_mm2 is -1"),
        ({"area_mm2": math.nan}, "area_mm2 is nan"),
        ({"area_mm2": math.inf}, "area_mm2 is inf"),
        ({"cells": 5, "by": "most"}, "by is 'most'"),
        ({"cells": 5, "count": 0}, "count is 0"),
        ({"cells": math.nan}, "cells is nan"),
        ({"cells": 5, "min_cells": 5}, "leave it out"),
        ({"area_mm2": 1, "min_cells": -2}, "min_cells is -2"),
    ],
)
def test_wrong_options_are_told(question, told):
    with pytest.raises(ConfigError, match=told):
        hot_spots([1, 2], [1, 2], [True, False], **question)


@pytest.mark.parametrize(
    "cells",
    [
        ([1, 2], [1], [True, False]),
        ([1, 2], [1, 2], [True]),
        ([[1, 2]], [[1, 2]], [[True, False]]),
        ([1, math.nan], [1, 2], [True, False]),
        ([1, 2], [math.nan, 2], [True, False]),
        ([1, 2], [1, math.inf], [True, False]),
        ([1, 2], [1, 1e200], [True, False]),
    ],
)
def test_wrong_cells_are_told(cells):
    with pytest.raises(ConfigError, match="give"):
        hot_spots(*cells, cells=1)


def test_after_compile_kernels_nothing_is_compiled_any_more():
    compile_kernels()
    compiled = []

    class Listener(event.Listener):
        def on_start(self, event):
            compiled.append(event.data["dispatcher"].__name__)

        def on_end(self, event):
            pass

    listener = Listener()
    event.register("numba:compile", listener)
    try:
        x, y, positive = tissue("uniform", 900, 6)
        x.flags.writeable = positive.flags.writeable = False
        for by in ("share", "density"):
            hot_spots(x, y, positive, cells=50, by=by, count=2)
            hot_spots(list(x), y, positive, area_mm2=0.01, by=by, min_cells=20, count=2)
        share_within_percent(x, y, positive, 20)
        ripley_l(x[positive], y[positive], [5], window=(-1e9, -1e9, 1e9, 1e9))
    finally:
        event.unregister("numba:compile", listener)
    assert not compiled


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None)
@TISSUES_AND_QUESTIONS
def test_they_are_those_of_brute_force_in_thousands_of_cases(kind, n, seed, question):
    cells = tissue(kind, n, seed)
    assert rows(hot_spots(*cells, **question)) == brute_hot_spots(*cells, **question)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["share", "density"])
@pytest.mark.parametrize("question", [{"cells": 500}, {"cells": 2000}, {"area_mm2": 0.5}])
def test_three_million_cells_take_seconds(question, by):
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 3_000_000)) * 22_000
    positive = rng.random(3_000_000) < 0.2
    hot_spots(x[:9], y[:9], positive[:9], cells=1)
    before = time.process_time()
    assert len(hot_spots(x, y, positive, by=by, count=5, **question)) == 5
    assert time.process_time() - before < 20  # 4 to 8 on a quiet machine; looking at every pair takes an hour
