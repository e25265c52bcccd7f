import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2hed

from deepliif_ray.errors import ConfigError
from deepliif_ray.slides import is_empty, open_slide, plan_slide
from deepliif_ray.synthetic import SyntheticTissue, write_cohort

WIDTH, HEIGHT = 1100, 900


@pytest.fixture(scope="module")
def tissue():
    return SyntheticTissue(WIDTH, HEIGHT, seed=7, positive_percent=40)


@pytest.fixture(scope="module")
def whole(tissue):
    return tissue[0:HEIGHT, 0:WIDTH]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, WIDTH), st.integers(0, WIDTH), st.integers(0, HEIGHT), st.integers(0, HEIGHT))
def test_any_rectangle_is_the_same_alone(tissue, whole, xa, xb, ya, yb):
    x0, x1, y0, y1 = min(xa, xb), max(xa, xb), min(ya, yb), max(ya, yb)
    part = SyntheticTissue(WIDTH, HEIGHT, seed=7, positive_percent=40)[y0:y1, x0:x1]
    np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])


def test_seeds_differ(whole):
    other = SyntheticTissue(WIDTH, HEIGHT, seed=8, positive_percent=40)[0:HEIGHT, 0:WIDTH]
    assert (other != whole).mean() > 0.3  # glass has the same sensor noise


def test_truth_is_what_is_drawn(tissue, whole):
    truth = tissue.truth()
    hed = rgb2hed(whole)
    x, y = truth["x"].astype(int), truth["y"].astype(int)
    brown = np.array([hed[b - 2 : b + 3, a - 2 : a + 3, 2].mean() for a, b in zip(x, y, strict=True)])
    dark = np.array([whole[b - 2 : b + 3, a - 2 : a + 3].mean() for a, b in zip(x, y, strict=True)])
    assert len(truth) > 300
    assert dark.max() < 215
    cut = (np.median(brown[truth["positive"]]) + np.median(brown[~truth["positive"]])) / 2
    # Neighbours overlap here and there.
    assert ((brown > cut) == truth["positive"]).mean() > 0.95
    margin = truth["radius"].max()
    assert truth["x"].min() > margin
    assert truth["y"].max() < HEIGHT - margin


def test_nothing_is_drawn_elsewhere(tissue, whole):
    truth = tissue.truth()
    y, x = np.mgrid[0:HEIGHT:3, 0:WIDTH:3]
    far = np.ones(x.shape, bool)
    for nucleus in truth:
        far &= np.hypot(x - nucleus["x"], y - nucleus["y"]) > 2.2 * nucleus["radius"]
    assert far.sum() > 1000
    assert whole[::3, ::3][far].mean(axis=1).min() > 150


def test_positive_share_and_its_range():
    for percent in (0, 10, 50, 90, 100):
        positive = SyntheticTissue(6000, 6000, seed=1, positive_percent=percent).truth()["positive"]
        assert 100 * positive.mean() == pytest.approx(percent, abs=4)


def test_resolution_scales_nuclei():
    fine = SyntheticTissue(2000, 2000, seed=3, mpp=0.25).truth()
    coarse = SyntheticTissue(1000, 1000, seed=3, mpp=0.5).truth()
    assert coarse["radius"].mean() / fine["radius"].mean() == pytest.approx(0.5, rel=0.06)
    assert len(coarse) / len(fine) == pytest.approx(1, rel=0.15)


def test_glass_is_empty_by_the_published_rule():
    glass = SyntheticTissue(600, 600, seed=1, coverage=0.0)
    assert len(glass.truth()) == 0
    assert is_empty(glass[0:512, 0:512])


@pytest.mark.parametrize("localisation", ["membranous", "cytoplasmic"])
def test_surrounding_stain(localisation):
    tissue = SyntheticTissue(800, 800, seed=4, positive_percent=50, localisation=localisation, density=0.3)
    brown = rgb2hed(tissue[0:800, 0:800])[..., 2]
    truth = tissue.truth()
    truth = truth[truth["positive"]]
    y, x = np.mgrid[0:800, 0:800]
    rings, centres = [], []
    for nucleus in truth:
        distance = np.hypot(x - nucleus["x"], y - nucleus["y"]) / nucleus["radius"]
        rings.append(brown[(distance > 1.0) & (distance < 1.25)].mean())
        centres.append(brown[distance < 0.5].mean())
    assert np.median(rings) > np.median(centres)


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 0},
        {"mpp": 2.0},
        {"positive_percent": 101},
        {"localisation": "elsewhere"},
        {"coverage": -0.1},
        {"density": 2},
    ],
)
def test_bad_parameters(bad):
    with pytest.raises(ConfigError):
        SyntheticTissue(**{"width": 10, "height": 10, **bad})


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_cohort(tmp_path):
    manifest = write_cohort(tmp_path / "cohort")
    slides, truths = rows(manifest), rows(manifest.parent / "truth.csv")
    assert {row["marker"] for row in slides} == {"Ki67", "CD3"}
    assert len({row["patient_id"] for row in slides}) == 3
    assert len({row["slide_id"] for row in slides}) == len(slides) == 6
    assert 3000 < sum(int(row["cells"]) for row in truths) < 10_000
    for marker in ("Ki67", "CD3"):
        index = sorted(float(row["index_percent"]) for row in truths if row["marker"] == marker)
        assert min(np.diff(index)) > 10
    resolutions = []
    for row in slides:
        with open_slide(manifest.parent / row["uri"]) as slide:
            plan = plan_slide(slide)
        resolutions.append(plan.resolution)
        assert plan.warnings == ()
        assert plan.tissue_mm2 > 0.02
    assert resolutions == ["40x"] * 5 + ["20x"]


def test_cohort_needs_someone(tmp_path):
    with pytest.raises(ConfigError):
        write_cohort(tmp_path, patients=0)
