"""Intervals of clustered tissue whose index is known: the clustered ones hold it, the plain ones do not.

What is estimated is the index of tissue of the kind, each simulated slide being a sample of it;
benchmarks/coverage.py says how it is simulated and prints tables of many kinds.
"""

import numpy as np
import pytest

from benchmarks.coverage import Tissue, coverage, patient_coverage, simulate
from tests.scoring import clustered

KINDS = [
    Tissue(0.03, 100, 4000, 4000, crowded_positive=0.5, pixel_um=50),
    Tissue(0.2, 100, 4000, 4000, pixel_um=50),
    Tissue(0.6, 50, 3000, 6000, pixel_um=50),
]


@pytest.fixture(scope="module")
def found():
    return [coverage(kind, 200, seed=1) for kind in KINDS]


def test_clustered_intervals_hold_the_index_and_plain_ones_do_not(found):
    """Of 600 slides 95 % are 570, give or take 5."""
    clustered_share, plain = (np.mean([getattr(c, name) for c in found]) for name in ("clustered", "plain"))
    assert 93 <= clustered_share <= 97.5
    assert plain < 50
    assert all(c.clustered >= 90 and c.plain < 60 for c in found)


def test_blocks_that_are_taken_for_independent_hold_it_less(found):
    assert all(c.blocks < c.clustered and c.blocks_width < c.clustered_width for c in found)


@pytest.mark.parametrize("kind", [KINDS[0], Tissue(0.2, 100, 1000, 1000, between=0.5, pixel_um=50)])
def test_the_index_is_that_of_the_tissue(kind):
    """The integral against a great many cells, between slides included."""
    rng = np.random.default_rng(7)
    effect = rng.normal(0, kind.between, (1500 if kind.between else 100, 1, 1))
    positive, total = simulate(kind, len(effect), rng, effect)
    x, n = positive.sum((1, 2)), total.sum((1, 2))
    error = np.sqrt(((x - x.sum() / n.sum() * n) ** 2).sum()) / n.sum()
    assert x.sum() / n.sum() == pytest.approx(kind.index, abs=3.5 * error)
    assert n.mean() == pytest.approx(kind.cells_per_mm2 * kind.height_um * kind.width_um / 1e6, rel=0.02)


def test_fields_are_as_long_as_they_say():
    """Of single pixels in which all cells are alike: the correlation of positivity over 100 µm is 1/e."""
    kind = Tissue(0.5, 100, 6000, 6000, spread=0.1, crowding=0, cells_per_mm2=4e8, pixel_um=250)
    for length, expected in ((250, np.exp(-1)), (500, np.exp(-0.25))):
        kind = Tissue(**{**vars(kind), "length_um": length})
        positive, total = simulate(kind, 30, np.random.default_rng(3))
        with np.errstate(invalid="ignore"):
            logit = positive / total
        inner = logit[:, 1:-1, 1:-1]
        assert np.std(inner) == pytest.approx(0.1 * 0.25, rel=0.05)
        beside = np.corrcoef(inner[:, :, :-1].ravel(), inner[:, :, 1:].ravel())[0, 1]
        assert beside == pytest.approx(expected, abs=0.03)


def bootstrap_width(positive, total, rng, side=4, repeats=400):
    """Width of the 95 % percentile interval from resampled squares of ``side`` blocks, in percent."""
    height, width = (n // side * side for n in positive.shape)
    squares = [
        a[:height, :width].reshape(height // side, side, width // side, side).sum((1, 3)).ravel()
        for a in (positive, total)
    ]
    drawn = rng.integers(0, squares[0].size, (repeats, squares[0].size))
    low, high = np.quantile(100 * squares[0][drawn].sum(1) / squares[1][drawn].sum(1), [0.025, 0.975])
    return high - low


def test_a_spatial_bootstrap_gives_the_same_width():
    """Squares of 1 mm are resampled, in which correlation over 50 µm is as good as whole."""
    rng = np.random.default_rng(5)
    kind = Tissue(0.2, 50, 10000, 10000, pixel_um=50)
    positive, total = simulate(kind, 12, rng)
    x, n = positive.sum((1, 2)), total.sum((1, 2))
    number = clustered.effective_cells(x, n, clustered.block_sums(positive, total))
    ours = clustered.interval(x, n, number)
    theirs = [bootstrap_width(*blocks, rng) for blocks in zip(positive, total, strict=True)]
    assert np.mean(ours[1] - ours[0]) == pytest.approx(np.mean(theirs), rel=0.08)


def test_patients_of_two_slides(found):
    kind = Tissue(0.2, 100, 1500, 1500, between=0.3, pixel_um=50)
    of_two = patient_coverage(kind, 2, 300, seed=2)
    assert 92.5 <= of_two.clustered <= 98.5
    assert of_two.within < 80 and of_two.plain < 30  # blocks know nothing of other slides


@pytest.mark.slow
@pytest.mark.parametrize("index", [0.03, 0.2, 0.6])
@pytest.mark.parametrize("length", [50, 100, 200])
@pytest.mark.parametrize("common", [0.0, 0.5])
def test_a_thousand_slides(index, length, common):
    kind = Tissue(index, length, 8000, 8000, crowded_positive=common, pixel_um=50)
    share = coverage(kind, 1000, seed=11)
    # 1,000 slides tell to 0.7 points. At 3 % over 200 µm the index of 8 mm is still skewed: about 92 %.
    assert (90 if index == 0.03 and length == 200 else 93) <= share.clustered <= 97
    assert share.plain < 70


@pytest.mark.slow
@pytest.mark.parametrize("slides", [2, 3, 4])
@pytest.mark.parametrize("between", [0.0, 0.1, 0.3])
def test_a_thousand_patients(slides, between):
    kind = Tissue(0.2, 100, 3000, 3000, between=between, pixel_um=50)
    share = patient_coverage(kind, slides, 1000, seed=13)
    assert share.clustered >= 93
    assert between < 0.3 or share.clustered < 97.5
