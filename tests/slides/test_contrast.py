"""Hematoxylin that a scanner shows paler or darker, brought to what a model knows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepliif_ray import load_model
from deepliif_ray.evaluation.fields import find_cells, infer_field
from deepliif_ray.slides.contrast import Contrast, Counterstain
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
    assert after.contrast(known).factor == pytest.approx(2 / 1.9 * factor, rel=0.06)


def test_what_is_not_blue_says_nothing():
    for color in ((230, 230, 230), (150, 110, 70), (0, 0, 0)):
        assert Counterstain.measure([np.full((40, 40, 3), color, np.float32)]) is None
    assert Counterstain.measure([]) is None


def test_few_blue_pixels_change_little_and_nothing_is_changed_beyond_the_limits():
    assert Counterstain(0.1, 0.0, WHITE, 12).contrast(0.2).factor == 1
    assert Counterstain(0.1, 1.0, WHITE, 12).contrast(0.2).factor == pytest.approx(2**0.1)
    assert Counterstain(0.1, 10.0, WHITE, 12).contrast(0.15).factor == pytest.approx(1.5)
    assert Counterstain(0.1, 10.0, WHITE, 3).contrast(0.2).factor == pytest.approx(2**0.25)
    assert Counterstain(0.01, 50.0, WHITE, 12).contrast(0.168).factor == 2
    assert Counterstain(0.5, 50.0, WHITE, 12).contrast(0.168).factor == 1


def test_a_paler_scanner_gives_the_same_cells():
    model, pixels = load_model("stain"), tissue()
    model.native_od = Counterstain.measure(patches(pixels)).od

    def count(image):
        return find_cells(infer_field(model, image).seg).positive

    cells, paler = count(pixels), count(Contrast(1 / 1.5, WHITE).apply(pixels))
    assert len(paler) == pytest.approx(len(cells), rel=0.03)
    assert paler.mean() == pytest.approx(cells.mean(), abs=0.01)
    model.native_od = None
    assert count(Contrast(1 / 1.5, WHITE).apply(pixels)).mean() < cells.mean() - 0.03
