"""Modality images, and statistics of two models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import wilcoxon

from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.modalities import mean_squared_error, structural_similarity_index
from deepliif_ray.evaluation.statistics import compare_paired

images = hnp.arrays(np.uint8, (12, 12, 3))


def test_mean_squared_error_by_hand():
    truth = np.zeros((11, 11, 3), np.uint8)
    found = truth.copy()
    found[0, 0] = 255  # one white pixel of 121
    assert mean_squared_error(found, truth) == pytest.approx(1 / 121)
    found[0, 0] = (51, 51, 51)  # grey 0.2
    assert mean_squared_error(found, truth) == pytest.approx(0.04 / 121)
    found[0, 0] = (255, 0, 0)  # luminance of pure red: 0.2125
    assert mean_squared_error(found, truth) == pytest.approx(0.2125**2 / 121)


def test_similarity_of_flat_images_by_hand():
    # Without variance SSIM is (2 a b + C1) / (a² + b² + C1) with C1 = 0.01².
    dark, bright = (np.full((16, 16, 3), value, np.uint8) for value in (51, 204))  # 0.2 and 0.8
    expected = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert structural_similarity_index(dark, bright) == pytest.approx(expected)
    # The published range of 255 makes C1 = 2.55², which outweighs the images.
    expected = (2 * 0.2 * 0.8 + 2.55**2) / (0.2**2 + 0.8**2 + 2.55**2)
    assert structural_similarity_index(dark, bright, 255.0) == pytest.approx(expected)


@given(images, images)
def test_similarity(one, other):
    assert structural_similarity_index(one, one) == pytest.approx(1)
    assert structural_similarity_index(one, other) == pytest.approx(structural_similarity_index(other, one))
    assert mean_squared_error(one, one) == 0


def test_images_that_cannot_be_compared():
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ConfigError, match="same size"):
        mean_squared_error(image, image[:12])
    with pytest.raises(ConfigError, match="11 px"):
        structural_similarity_index(image[:10], image[:10])


def test_wilcoxon_by_hand():
    # Differences 1, 2, 3, 4, 5, −6: ranks of the negative ones sum to 6. Of the 2^6 ways to sign the ranks
    # 14 give a sum of 6 or less (1, 1, 1, 2, 2, 3, 4 ways to make 0 to 6): p = 2 · 14/64.
    first = np.zeros(6)
    result = compare_paired(first, [1, 2, 3, 4, 5, -6])
    assert result is not None
    assert result.wilcoxon_p == pytest.approx(2 * 14 / 64)
    assert (result.n, result.first, result.second, result.difference) == (6, 0, 1.5, 1.5)
    assert compare_paired(first, np.arange(1, 7)).wilcoxon_p == pytest.approx(2 / 64)


@pytest.mark.parametrize(
    ("n", "ties"), [(1, False), (5, False), (9, False), (30, False), (5, True), (9, True)]
)
def test_wilcoxon_is_scipys(n, ties):
    values = np.random.default_rng(n).normal(0.3, 1, n)
    if ties:
        values = np.copysign(np.ceil(np.abs(values)), values)
    assert compare_paired(np.zeros(n), values).wilcoxon_p == pytest.approx(wilcoxon(values).pvalue)


def test_wilcoxon_of_many():
    values = np.random.default_rng(0).normal(0.1, 1, 300)
    approximate = compare_paired(np.zeros(300), values).wilcoxon_p
    assert approximate == pytest.approx(wilcoxon(values, method="exact").pvalue, abs=2e-3)


def test_shapiro_tells_a_normal_from_a_skewed_difference():
    rng = np.random.default_rng(0)
    assert compare_paired(np.zeros(40), rng.normal(size=40)).shapiro_p > 0.05
    assert compare_paired(np.zeros(40), rng.exponential(size=40) ** 2).shapiro_p < 1e-4


def test_too_little_to_test():
    assert compare_paired([], []) is None
    assert compare_paired([np.nan], [1]) is None
    same = compare_paired([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (same.wilcoxon_p, same.shapiro_p, same.difference) == (1, None, 0)
    assert compare_paired([1, 2], [2, 4]).shapiro_p is None
    assert compare_paired([1, np.nan, 3], [2, 5, 5]).n == 2


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_swapping_the_models(pairs):
    first, second = np.array(pairs).T
    one, other = compare_paired(first, second), compare_paired(second, first)
    assert one.wilcoxon_p == pytest.approx(other.wilcoxon_p)
    assert one.difference == pytest.approx(-other.difference)
    assert 0 <= one.wilcoxon_p <= 1
