"""Hematoxylin that a scanner shows paler or darker, brought to what a model knows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepliif_ray import load_model
from deepliif_ray.evaluation.fields import find_cells, infer_field
from deepliif_ray.native import NativeView
from deepliif_ray.slides.contrast import LEAST_WHITE, Contrast, Counterstain, contrast_for, light_through
from deepliif_ray.slides.quality import shrunk
from deepliif_ray.synthetic import SyntheticTissue

WHITE = (240.0, 238.0, 236.0)


def tissue(side=1024, seed=3):
    return np.asarray(SyntheticTissue(side, side, seed=seed, mpp=0.25)[:, :])


def patches(image):
    half = shrunk(image, 2)
    return [
        half[y : y + 128, x : x + 128] for y in range(0, len(half), 128) for x in range(0, len(half), 128)
    ]


@given(factor=st.floats(0.8, 2), white=st.tuples(*[st.floats(150, 255)] * 3))
def test_a_change_keeps_white_and_order(factor, white):
    grey = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    changed = Contrast(factor, white).apply(grey)
    assert (np.diff(changed[0].astype(int), axis=0) >= 0).all()
    for channel, value in enumerate(white):
        assert abs(int(changed[0, round(value), channel]) - value) <= 1 + factor
    assert (Contrast(1.0, white).apply(grey) == grey).all()


@pytest.mark.parametrize("factor", [0.96, 1.3, 1.8])
def test_the_density_follows_the_contrast(factor):
    pixels = tissue()
    paler = Contrast(1 / factor, WHITE).apply(pixels)
    before, after = (Counterstain.measure(patches(image)) for image in (pixels, paler))
    assert before.od / after.od == pytest.approx(factor, rel=0.06)
    known = 2 * before.od / 1.9  # so that the limits are not met
    assert after.factor(known) == pytest.approx(2 / 1.9 * factor, rel=0.06)


def test_what_is_not_blue_says_nothing():
    for color in ((230, 230, 230), (150, 110, 70), (0, 0, 0)):
        assert Counterstain.measure([np.full((40, 40, 3), color, np.float32)]) is None
    assert Counterstain.measure([]) is None


def test_few_blue_pixels_change_little_and_nothing_is_changed_beyond_the_limits():
    assert Counterstain(0.1, 0.0, WHITE, 12).factor(0.2) == 1
    assert Counterstain(0.1, 1.0, WHITE, 12).factor(0.2) == pytest.approx(2**0.1)
    assert Counterstain(0.1, 10.0, WHITE, 12).factor(0.15) == pytest.approx(1.5)
    assert Counterstain(0.1, 10.0, WHITE, 3).factor(0.2) == pytest.approx(2**0.25)
    assert Counterstain(0.01, 50.0, WHITE, 12).factor(0.168) == 2
    assert Counterstain(0.5, 50.0, WHITE, 12).factor(0.168) == 1


def test_a_paler_scanner_gives_the_same_cells():
    model, pixels = load_model("stain"), tissue()
    model.native = replace(model.native, od=Counterstain.measure(patches(pixels)).od)

    def count(image):
        return find_cells(infer_field(model, image).seg).positive

    cells, paler = count(pixels), count(Contrast(1 / 1.5, WHITE).apply(pixels))
    assert len(paler) == pytest.approx(len(cells), rel=0.03)
    assert paler.mean() == pytest.approx(cells.mean(), abs=0.01)
    model.native = replace(model.native, od=None)
    assert count(Contrast(1 / 1.5, WHITE).apply(pixels)).mean() < cells.mean() - 0.03


@pytest.mark.parametrize("white", [WHITE, (190.0, 192.0, 194.0), (250.0, 240.0, 215.0)])
def test_glass_becomes_what_the_model_knows(white):
    grey = np.rint([white]).astype(np.uint8)[None]
    changed = contrast_for(NativeView(white=240.0), None, white).apply(grey)
    assert np.abs(changed.astype(int) - 240).max() <= 1
    stained = np.rint(np.array([white]) * 0.5).astype(np.uint8)[None]
    assert (
        np.abs(contrast_for(NativeView(white=240.0), None, white).apply(stained).astype(int) - 120).max() <= 1
    )


def test_tiles_stay_as_they_are_where_nothing_is_known_or_asked_for():
    counterstain = Counterstain(0.1, 20.0, WHITE, 12)
    assert contrast_for(NativeView(), counterstain, WHITE) is None
    assert contrast_for(NativeView(white=240.0), counterstain, None) is None
    assert contrast_for(NativeView(od=0.2), None, WHITE) is None
    assert contrast_for(NativeView(od=0.2, white=240.0), None, WHITE) == Contrast(1.0, WHITE, 240.0)
    assert contrast_for(NativeView(od=0.15), counterstain, None) == Contrast(pytest.approx(1.5), WHITE)


@pytest.mark.parametrize(
    "tint", [(1.0, 1.0, 1.0), (1.0, 0.95, 0.86), (0.86, 0.93, 1.0), (0.78, 0.78, 0.78), (0.95, 0.9, 0.75)]
)
def test_light_is_told_by_gaps_within_tissue_and_follows_its_tint(tint):
    pixels = tissue(512, seed=2)
    plain, found = (light_through(patches(image)) for image in (pixels, np.rint(pixels * np.array(tint))))
    assert min(plain) > 225
    assert np.array(found) == pytest.approx(np.array(plain) * np.array(tint), rel=0.01)


def test_darkness_tells_nothing_of_light():
    assert light_through([np.full((64, 64, 3), (90, 60, 40), np.float32)]) is None
    assert light_through([]) is None
    assert light_through([np.full((64, 64, 3), LEAST_WHITE, np.float32)]) == (LEAST_WHITE,) * 3
