"""Agreement against published worked examples and definitions."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.agreement import bland_altman, concordance, icc_a1
from deepliif_ray.scoring.kappa import categories, weighted_kappa
from deepliif_ray.scoring.quantiles import f_quantile, t_quantile

# Shrout and Fleiss 1979, table 2: six subjects, four judges.
JUDGES = np.array([9, 2, 5, 8, 6, 1, 3, 2, 8, 4, 6, 8, 7, 1, 2, 6, 10, 5, 6, 9, 6, 2, 4, 7]).reshape(6, 4)
# Bland and Altman 1986, table 1: peak flow of 17 people, l/min, the first reading of each meter.
LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def pairs(table):
    """The two sides of each subject of a table of counts."""
    one, other = np.nonzero(table)
    count = np.asarray(table)[one, other]
    return np.repeat(one, count), np.repeat(other, count)


def test_shrout_and_fleiss():
    """Table 4 of the paper has 0.29; 0.019 to 0.761 is what R's psych::ICC gives for the same data."""
    found = icc_a1(JUDGES)
    assert (found.n, found.k) == (6, 4)
    assert found.icc == pytest.approx(0.29, abs=0.005)
    assert (found.lower, found.upper) == pytest.approx((0.019, 0.761), abs=0.0005)
    # Table 3: mean squares between subjects 11.24, judges 32.49, residual 1.02.
    assert found.icc == pytest.approx((11.24 - 1.02) / (11.24 + 3 * 1.02 + 4 * (32.49 - 1.02) / 6), abs=0.001)


def test_peak_flow():
    """The paper: bias -2.1 (-22.0 to 17.8), SD 38.8, limits at 2 SD -79.7 and 75.5."""
    found = bland_altman(LARGE, MINI)
    assert (found.bias, found.sd) == pytest.approx((-2.1, 38.8), abs=0.05)
    assert (found.bias - 2 * found.sd, found.bias + 2 * found.sd) == pytest.approx((-79.7, 75.5), abs=0.2)
    assert (found.bias_lower, found.bias_upper) == pytest.approx((-22.0, 17.8), abs=0.1)
    assert (found.limit_lower, found.limit_upper) == pytest.approx((-78.1, 73.9), abs=0.05)  # at 1.96 SD
    # Of the limits at 2 SD, with the rougher error √(3/n) s, the paper has -114.3 to -45.1 and 40.9 to 110.1.
    assert (found.limit_lower_lower + 114.3, found.limit_lower_upper + 45.1) == pytest.approx((0, 0), abs=2)
    assert (found.limit_upper_lower - 40.9, found.limit_upper_upper - 110.1) == pytest.approx((0, 0), abs=2)


def test_concordance_of_peak_flow():
    """By the definition, with n in all variances; 0.943 is also what Stata's concord gives for these data."""
    found = concordance(LARGE, MINI)
    x, y = np.array(LARGE), np.array(MINI)
    expected = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert found.ccc == pytest.approx(expected) == pytest.approx(0.943, abs=0.0005)
    assert found.precision == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.ccc == found.precision * found.accuracy


def test_interval_of_concordance_covers():
    """Bivariate normal, with a bias and unequal spread; the true value follows from the parameters."""
    rng = np.random.default_rng(3)
    shift, scale, rho, n = 0.5, 1.4, 0.8, 40
    truth = 2 * rho * scale / (1 + scale**2 + shift**2)
    held = 0
    for _ in range(600):
        x, noise = rng.normal(size=(2, n))
        found = concordance(x, shift + scale * (rho * x + math.sqrt(1 - rho**2) * noise))
        held += found.lower <= truth <= found.upper
    assert 0.93 <= held / 600 <= 0.975


def test_interval_of_icc_covers():
    """Subjects, raters and the rest all drawn anew, four raters with variance 0.2 of 1 + 0.2 + 0.5."""
    rng = np.random.default_rng(4)
    truth, held = 1 / 1.7, 0
    for _ in range(400):
        values = rng.normal(size=(30, 1)) + rng.normal(0, math.sqrt(0.2), 4)
        found = icc_a1(values + rng.normal(0, math.sqrt(0.5), (30, 4)))
        held += found.lower <= truth <= found.upper
    assert 0.92 <= held / 400 <= 0.985


def test_kappa_of_fleiss_cohen_and_everitt():
    """Of 200 subjects: kappa 0.429, variance .002885; by the authors' weights 0.507, variance .003248."""
    table = [[106, 10, 4], [22, 28, 10], [2, 12, 6]]
    plain = weighted_kappa(*pairs(table), 3, np.eye(3))
    assert plain.kappa == pytest.approx(0.429, abs=0.0005)
    assert plain.standard_error**2 == pytest.approx(0.002885, abs=5e-7)
    weights = [[1, 0, 4 / 9], [0, 1, 6 / 9], [4 / 9, 6 / 9, 1]]
    weighted = weighted_kappa(*pairs(table), 3, weights)
    assert weighted.kappa == pytest.approx(0.507, abs=0.0005)
    assert weighted.standard_error**2 == pytest.approx(0.003248, abs=5e-7)
    assert weighted.lower == pytest.approx(weighted.kappa - 1.96 * weighted.standard_error, abs=1e-5)


def test_kappa_of_cohen():
    """Cohen 1968: kappa 0.492, weighted 0.348, from disagreement weights 0, 1, 3, 6."""
    sides = pairs([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    assert weighted_kappa(*sides, 3, np.eye(3)).kappa == pytest.approx(0.492, abs=0.0005)
    weights = 1 - np.array([[0, 1, 3], [1, 0, 6], [3, 6, 0]]) / 6
    assert weighted_kappa(*sides, 3, weights).kappa == pytest.approx(0.348, abs=0.0005)


def test_standard_error_of_kappa_is_that_of_samples():
    rng = np.random.default_rng(6)
    shares = np.array([[0.3, 0.08, 0.02], [0.07, 0.2, 0.06], [0.01, 0.06, 0.2]])
    found = []
    for _ in range(500):
        counts = rng.multinomial(300, shares.ravel()).reshape(3, 3)
        kappa = weighted_kappa(*pairs(counts), 3, "linear")
        found.append((kappa.kappa, kappa.standard_error))
    kappas, errors = np.transpose(found)
    assert errors.mean() == pytest.approx(kappas.std(), rel=0.1)


def test_weights_by_name():
    sides = [0, 1, 2, 3, 0], [0, 1, 2, 3, 3]
    place = np.arange(4) / 3
    apart = np.abs(place[:, None] - place)
    for name, weights in (("linear", 1 - apart), ("quadratic", 1 - apart**2)):
        assert weighted_kappa(*sides, 4, name) == weighted_kappa(*sides, 4, weights)
    assert weighted_kappa(*sides, 4, "linear").kappa != weighted_kappa(*sides, 4, "quadratic").kappa


values = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=3, max_size=12)


@settings(max_examples=40, deadline=None)
@given(values, st.floats(-1e6, 1e6), st.sampled_from([1e-3, 1.0, 1e3]))
def test_what_holds_for_all(rows, shift, scale):
    one, other = np.transpose(rows) / 10
    assume(np.ptp(one) > 0 and np.ptp(other) > 0)
    icc, lin, limits = icc_a1(np.transpose([one, other])), concordance(one, other), bland_altman(one, other)
    for found, value in ((icc, icc.icc), (lin, lin.ccc)):
        assert value <= 1 and found.lower - 1e-9 <= value <= found.upper + 1e-9
        assert found.upper <= 1 + 1e-9
    assert lin.ccc >= -1 and abs(lin.ccc) <= abs(lin.precision) + 1e-12 and 0 < lin.accuracy <= 1 + 1e-12
    assert limits.limit_lower <= limits.bias <= limits.limit_upper
    # Another origin or unit changes nothing, and the other order only signs.
    moved = icc_a1(np.transpose([one, other]) * scale + shift)
    assert moved.icc == pytest.approx(icc.icc, abs=1e-5)
    assert concordance(other, one).ccc == pytest.approx(lin.ccc)
    assert bland_altman(other, one).bias == pytest.approx(-limits.bias)


@given(st.lists(st.integers(0, 3), min_size=3, max_size=20))
def test_perfect_agreement(one):
    assume(len(set(one)) > 1)
    icc, lin = icc_a1(np.transpose([one, one])), concordance(one, one)
    assert (icc.icc, icc.lower, icc.upper) == (1, 1, 1)
    assert (lin.ccc, lin.lower, lin.upper) == pytest.approx((1, 1, 1))
    assert (bland_altman(one, one).limit_lower, bland_altman(one, one).limit_upper) == (0, 0)
    kappa = weighted_kappa(one, one, 4)
    assert (kappa.kappa, kappa.standard_error) == (1, 0)
    assert math.isnan(kappa.lower) and math.isnan(kappa.upper)


def test_categories_begin_at_their_cutoff():
    assert categories([0, 4.999, 5, 29.9, 30, 100], (5, 30)).tolist() == [0, 0, 1, 1, 2, 2]
    assert categories([], (5, 30)).tolist() == []


SOME = [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: icc_a1([[1, 2], [3, 4]]), "2 subjects"),
        (lambda: icc_a1([1, 2, 3]), "shape"),
        (lambda: icc_a1([[1], [2], [3]]), "two or more"),
        (lambda: icc_a1([[5, 5]] * 3), "all values are 5"),
        (lambda: icc_a1([[1, 2], [3, math.nan], [5, 6]]), r"1 of 3 subjects .* \(counted from 0: 1\)"),
        (lambda: concordance(SOME, [1, 2]), r"\(3,\) and \(2,\) values"),
        (lambda: concordance([], []), "0 subjects"),
        (lambda: concordance(SOME, [7, 7, 7]), "second values are all 7"),
        (lambda: concordance([0, 0, 0], SOME), "first values are all 0"),
        (lambda: bland_altman(SOME, [1, math.inf, 3]), "lack a finite value"),
        (lambda: bland_altman([1], [1]), "1 subject;"),
        (lambda: bland_altman([SOME], [SOME]), "for every subject"),
        (lambda: categories(SOME, ()), "make no categories"),
        (lambda: categories(SOME, (30, 5)), "ascend"),
        (lambda: categories(SOME, (5, 5)), "ascend"),
        (lambda: categories(SOME, (5, math.nan)), "ascend"),
        (lambda: weighted_kappa([0, 1, 2], [0, 1, 3], 3), "3 is no category"),
        (lambda: weighted_kappa([0, 1, 0.5], [0, 1, 1], 3), "0.5 is no category"),
        (lambda: weighted_kappa([0, 1, -1], [0, 1, 1], 3), "-1 is no category"),
        (lambda: weighted_kappa([1, 1, 1], [1, 1, 1], 3), "first values are all in one category"),
        (lambda: weighted_kappa([0, 1, 2], [1, 1, 1], 3), "second values are all in one category"),
        (lambda: weighted_kappa([0, 1, 1], [0, 1, 1], 2, [[1, 1], [1, 1]]), "all categories agree"),
        (lambda: weighted_kappa([0, 0, 0], [0, 0, 0], 1), "1 categories"),
        (lambda: weighted_kappa([0, 1, 1], [0, 1, 1], 2, "cubic"), "cubic"),
        (lambda: weighted_kappa([0, 1, 1], [0, 1, 1], 2, np.eye(3)), "shape"),
        (lambda: weighted_kappa([0, 1, 1], [0, 1, 1], 2, [[0, 1], [1, 0]]), "1 where categories"),
        (lambda: t_quantile(1.0, 3), "share of 1.0"),
        (lambda: f_quantile(0.5, 3, 0), "degrees of freedom"),
    ],
)
def test_what_tells_nothing_is_refused(call, why):
    with pytest.raises(ConfigError, match=why):
        call()


def test_quantiles_agree_with_scipy():
    shares, dfs = (0.001, 0.025, 0.5, 0.9, 0.975, 0.9999), (0.5, 1, 1.7, 3, 15, 300.5, 1e5)
    for share in shares:
        for df in dfs:
            assert t_quantile(share, df) == pytest.approx(stats.t.ppf(share, df), rel=1e-8, abs=1e-8)
            for other in dfs:
                assert f_quantile(share, df, other) == pytest.approx(
                    stats.f.ppf(share, df, other), rel=1e-6, abs=1e-9
                )


def test_an_edge_belongs_to_the_range_that_says_so():
    """Ki67 in breast cancer: low to 5 % and with it, high from 30 % on."""
    values = [0, 4.9, 5, 5.1, 29.9, 30, 100]
    assert categories(values, (5, 30), (True, False)).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert categories(values, (5, 30)).tolist() == [0, 0, 1, 1, 1, 2, 2]
