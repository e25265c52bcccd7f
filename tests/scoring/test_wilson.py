"""Wilson intervals against published and independent figures."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from deepliif_ray.errors import ConfigError
from tests.scoring.wilson import wilson


@pytest.mark.parametrize(
    ("positive", "total", "lower", "upper"),
    [
        # Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20, 1/29
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
    ],
)
def test_published_examples(positive, total, lower, upper):
    assert wilson(positive, total) == pytest.approx((lower, upper), abs=0.005)


@given(st.integers(1, 10**7), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.999]))
def test_agrees_with_scipy(total, share, level):
    positive = round(share * total)
    ours = wilson(positive, total, level)
    theirs = binomtest(positive, total).proportion_ci(level, method="wilson")
    assert ours == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)
    assert 0 <= ours[0] <= 100 * positive / total <= ours[1] <= 100


def test_nothing_counted():
    assert all(math.isnan(end) for end in wilson(0, 0))


@pytest.mark.parametrize("arguments", [(2, 1), (-1, 5), (1, 2, 0.0), (1, 2, 1.0), (1, 2, 95)])
def test_impossible(arguments):
    with pytest.raises(ConfigError):
        wilson(*arguments)
