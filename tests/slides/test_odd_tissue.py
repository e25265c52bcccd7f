"""Slides without glass, without a stain, or of other colours: planned, with a reason where one is due."""

from functools import cache

import numpy as np
import pytest

from deepliif_ray.errors import SlideUnsuitableError
from deepliif_ray.native import NativeView
from deepliif_ray.slides import open_slide, plan_slide, write_pyramid
from deepliif_ray.stains import DAB, HEMATOXYLIN
from deepliif_ray.synthetic import SyntheticTissue
from tests.few import few

NATIVE = NativeView(mpp=0.25, white=240.0)
SIDE = 1536
EOSIN = (0.07, 0.99, 0.11)


@cache
def tissue(coverage):
    return np.asarray(SyntheticTissue(SIDE, SIDE, seed=4, mpp=0.25, coverage=coverage)[:, :])


def section(hematoxylin=HEMATOXYLIN, dab=DAB, share=1.0, coverage=0.7):
    """Return tissue in two stains of these colours, DAB of a share of its strength."""
    pixels = tissue(coverage)
    vectors = [np.array(v) / np.linalg.norm(v) for v in (HEMATOXYLIN, DAB)]
    density = np.log10(245 / np.maximum(pixels, 1.0))
    amounts = np.maximum(density @ np.linalg.pinv(np.stack(vectors)), 0) * [1, share]
    own = np.stack([np.array(v) / np.linalg.norm(v) for v in (hematoxylin, dab)])
    return np.clip(245 * 10 ** -(amounts @ own), 0, 255).astype(np.uint8)


def planned(tmp_path, pixels):
    write_pyramid(tmp_path / "a.tiff", pixels, mpp=0.25, quality=None)
    with open_slide(tmp_path / "a.tiff") as slide:
        return plan_slide(slide, native=NATIVE)


def test_the_stains_of_usual_tissue_are_its_own(tmp_path):
    plan = planned(tmp_path, section())
    assert plan.stains.reason is None and plan.stains.dab_percent > 5
    assert np.array(plan.white) == pytest.approx([245, 245, 245], abs=5)
    assert plan.contrast is not None and plan.contrast.onto == 240.0


def test_without_glass_light_is_told_by_gaps_between_cells(tmp_path):
    plan = planned(tmp_path, section(coverage=1.0))
    assert plan.white is not None and min(plan.white) > 225
    assert plan.tissue_mm2 > 0


@pytest.mark.parametrize("share", [0.0, 0.02])
def test_a_slide_that_is_all_negative_takes_the_usual_stains(tmp_path, share):
    plan = planned(tmp_path, section(share=share))
    assert plan.stains.reason is not None
    assert (plan.stains.hematoxylin, plan.stains.dab) == (HEMATOXYLIN, DAB)
    assert plan.contrast is not None, "glass is known all the same"


def test_a_slide_without_counterstain_takes_the_usual_stains(tmp_path):
    plan = planned(tmp_path, section(hematoxylin=DAB))
    assert plan.stains.reason is not None
    assert plan.stains.dab == DAB


def test_hematoxylin_and_eosin_is_known_by_its_colour(tmp_path):
    plan = planned(tmp_path, section(dab=EOSIN))
    assert plan.stains.reason is not None and "degrees" in plan.stains.reason
    assert plan.quality.stain_residual < -0.05, "flagged not_hematoxylin_dab by query/sql/quality.sql"


def test_black_borders_are_neither_glass_nor_stain(tmp_path):
    pixels = section()
    plain = planned(tmp_path, pixels)
    pixels[:200], pixels[-200:], pixels[:, :200], pixels[:, -200:] = 0, 0, 0, 0
    plan = planned(tmp_path, pixels)
    assert np.array(plan.white) == pytest.approx(np.array(plain.white), abs=5), (
        "other patches, the same light"
    )
    assert plan.stains.reason is None


@pytest.mark.parametrize("ink", [(20, 90, 60), (25, 70, 170), (15, 15, 15)], ids=["green", "blue", "black"])
def test_ink_all_over_is_no_stain(tmp_path, ink):
    pixels = section()
    pixels[300:-300, 300:-300] = ink
    plan = planned(tmp_path, pixels)
    assert plan.quality.pen_percent > 20
    assert plan.white is None or min(plan.white) > 200


def test_fluorescence_is_refused(tmp_path):
    with pytest.raises(SlideUnsuitableError, match="background is dark"):
        planned(tmp_path, 255 - section())


def test_what_is_dark_all_over_is_seen_as_it_is_with_a_warning(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers((180, 120, 80), (210, 150, 100), (SIDE, SIDE, 3)).astype(np.uint8)
    plan = planned(tmp_path, pixels)
    assert plan.white is None and plan.contrast is None
    assert any("colour of light" in warning for warning in plan.warnings)
    assert "colour of light" in plan.stains.reason


TINTS = [(1, 0.95, 0.86), (1, 0.9, 0.75), (0.9, 0.8, 0.6), (0.85, 0.85, 0.85), (0.75, 0.85, 1)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return planned(tmp_path_factory.mktemp("plain"), section())


@pytest.mark.parametrize("tint", few([(tint,) for tint in TINTS], 3), ids=str)
def test_dim_and_tinted_glass_is_still_glass(tmp_path, plain, tint):
    tinted = planned(tmp_path, (section() * np.array(tint)).astype(np.uint8))
    assert tinted.tissue_mm2 == pytest.approx(plain.tissue_mm2, rel=0.01)
    cast = 245 * (max(tint) - min(tint))
    assert tinted.quality.background_cast == pytest.approx(cast, abs=8), "flagged tinted_background above 25"


def test_pale_tissue_is_told_from_glass_by_being_uneven(tmp_path):
    pixels = section(coverage=0.6)
    usual = planned(tmp_path, pixels)
    assert usual.tissue_mm2 > 0 and not any("pale" in word for word in usual.warnings)
    faded = (245 * (pixels / 245.0) ** 0.3).astype(np.uint8)
    pale = planned(tmp_path, faded)
    assert any("tissue is pale" in word for word in pale.warnings)
    assert pale.tissue_mm2 == pytest.approx(usual.tissue_mm2, rel=0.1)


def test_tissue_without_a_gap_is_not_taken_for_glass(tmp_path):
    dim = (section(coverage=1.0) * 0.9).astype(np.uint8)
    assert planned(tmp_path, dim).tissue_mm2 == pytest.approx((SIDE * 0.25e-3) ** 2, rel=0.05)


def test_a_little_even_glass_is_not_enough(tmp_path):
    noise = np.random.default_rng(1).normal(0, 12, (SIDE // 32, SIDE // 32)).repeat(32, 0).repeat(32, 1)
    pixels = np.clip([215, 195, 180] + noise[..., None], 0, 255).astype(np.uint8)
    pixels[:160, :160] = 220, 215, 210  # 25 of 2,304 squares, and those inside are under a hundredth
    assert planned(tmp_path, pixels).tissue_mm2 > 0.9 * (SIDE * 0.25e-3) ** 2
