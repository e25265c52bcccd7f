import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray.cells.thresholds import (
    SizeRules,
    marker_threshold,
    size_threshold,
    size_threshold_of_counts,
)
from tests.cells import oracle

RANGES = {"40x": (4, 7, 10), "20x": (3, 4, 6), "10x": (2, 2, 3)}


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.integers(5, 3000), min_size=2, max_size=120), st.sampled_from(list(RANGES)))
def test_size_threshold_is_the_published_minimum(sizes, resolution):
    density, step = oracle.size_density(np.array(sizes))
    index = next((i for i in range(1, 499) if density[i - 1] > density[i] < density[i + 1]), 1)
    root = (index - 1) * step
    least, default, most = RANGES[resolution]
    root = least if root < least else default if root > most else root
    assert size_threshold(np.array(sizes), resolution) == round(root * root)


def test_size_threshold_of_hardly_any_cells_is_zero():
    assert size_threshold(np.array([], dtype=np.int64), "40x") == 0
    assert size_threshold(np.array([900]), "40x") == 0


@given(st.lists(st.integers(0, 255), min_size=1, max_size=400))
def test_marker_threshold_is_numpys_percentiles(values):
    image = np.array(values, dtype=np.uint8)
    visible = image[image > 0]
    low, high = (
        (round(np.percentile(visible, 0.1)), round(np.percentile(visible, 99.9))) if len(visible) else (0, 0)
    )
    expected = round((high - low) * 0.9) + low
    assert marker_threshold(np.bincount(image, minlength=256)) == expected


def test_marker_threshold_of_a_large_histogram():
    histogram = np.zeros(256, dtype=np.int64)
    histogram[[10, 200]] = 999_999_000, 1000
    assert marker_threshold(histogram) == pytest.approx(10)


@pytest.mark.parametrize("mpp", [0.125, 0.25, 0.36, 0.72])
def test_physical_rules_are_areas(mpp):
    rules = SizeRules.physical(mpp)
    assert rules.large_noise("default") * mpp**2 == pytest.approx(1000, abs=mpp**2)
    assert rules.large_noise(None) is None
    assert rules.pixels(4) * mpp**2 == pytest.approx(0.25, abs=mpp**2 / 2 + 1e-9)
    sizes = (np.array([1, 2, 25, 30, 40]) / mpp**2).round().astype(np.int64)
    found = rules.size_threshold(sizes, np.array([9, 5, 50, 90, 40])) * mpp**2
    assert found == pytest.approx(8, abs=mpp**2 / 2 + 1e-9), "whatever the cells are"
    assert SizeRules("20x").size_threshold(sizes, np.array([9, 5, 50, 90, 40])) == size_threshold_of_counts(
        sizes, np.array([9, 5, 50, 90, 40]), "20x"
    )
