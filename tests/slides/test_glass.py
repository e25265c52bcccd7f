"""Glass of any colour is glass, and a field of tissue is not."""

import numpy as np
import pytest

from deepliif_ray.slides.contrast import LEAST_WHITE, light_through
from deepliif_ray.slides.glass import glass_white
from deepliif_ray.slides.quality import shrunk
from deepliif_ray.slides.tissue import tissue_mask
from deepliif_ray.synthetic import SyntheticTissue
from tests.slides.test_tissue import Pyramid, opaque

TINTS = [(1.0, 1.0, 1.0), (1.0, 0.95, 0.86), (0.86, 0.93, 1.0), (0.78, 0.78, 0.78), (0.95, 0.9, 0.75)]
FILL = (255, 255, 255)


def section(seed=5, side=2048):
    return np.asarray(SyntheticTissue(side, side, seed=seed, mpp=0.25)[:, :])


def tinted(pixels, tint):
    return np.rint(pixels * np.array(tint)).astype(np.uint8)


@pytest.mark.parametrize("tint", TINTS[1:])
def test_tissue_area_does_not_follow_the_tint(tint):
    pixels = section()
    plain, changed = (
        tissue_mask(Pyramid(opaque(image), 1), 0.25) for image in (pixels, tinted(pixels, tint))
    )
    assert plain.glass_seen and changed.glass_seen
    assert changed.area_px == pytest.approx(plain.area_px, rel=0.01)
    assert changed.white == pytest.approx(plain.white * np.array(tint), abs=1.0)


def test_a_field_of_tissue_shows_no_glass():
    full = np.asarray(SyntheticTissue(1024, 1024, seed=1, mpp=0.25, coverage=1.0)[:, :])
    white, seen = glass_white(shrunk(full, 32), np.ones((32, 32), bool), FILL)
    assert not seen and (white >= 230).all()


def test_what_was_filled_in_is_not_glass():
    pixels = tinted(section(), (0.95, 0.93, 0.85))
    filled = np.concatenate([np.full_like(pixels, 255), pixels])
    squares = [shrunk(image, 32) for image in (pixels, filled)]
    (alone, seen), (beside, seen_too) = (glass_white(s, np.ones(s.shape[:2], bool), FILL) for s in squares)
    assert seen and seen_too
    assert beside == pytest.approx(alone, abs=1.0)
    nothing = np.full((20, 20, 3), 255, np.float32)
    assert glass_white(nothing, np.ones((20, 20), bool), FILL)[0] == pytest.approx([255, 255, 255])


def test_what_cannot_be_read_or_was_not_scanned_says_nothing():
    squares = shrunk(section(), 32)
    expected, _ = glass_white(squares, np.ones(squares.shape[:2], bool), FILL)
    holes, scanned = squares.copy(), np.ones(squares.shape[:2], bool)
    holes[:6] = np.nan
    scanned[-6:] = False
    found, seen = glass_white(holes, scanned, FILL)
    assert seen and found == pytest.approx(expected, abs=1.5)
    white, seen = glass_white(np.full((4, 4, 3), np.nan, np.float32), np.ones((4, 4), bool), FILL)
    assert not seen and (white == 255).all()


@pytest.mark.parametrize("tint", TINTS)
def test_light_is_told_by_gaps_within_tissue(tint):
    pixels = tinted(section(seed=2, side=512), tint)
    half = shrunk(pixels, 2)
    white = light_through([half[:128, :128], half[128:, 128:]], None)
    plain = light_through([shrunk(section(seed=2, side=512), 2)[:128, :128]], None)
    assert plain is not None and white is not None
    assert np.array(white) == pytest.approx(np.array(plain) * np.array(tint), rel=0.03)


def test_the_brighter_of_glass_and_gaps_is_taken_and_darkness_tells_nothing():
    dark = np.full((64, 64, 3), (90, 60, 40), np.float32)
    assert light_through([dark], None) is None
    assert light_through([dark], np.array([240.0, 238.0, 220.0])) == (240.0, 238.0, 220.0)
    assert light_through([], np.array([240.0, 238.0, 220.0])) is None
    assert light_through([np.full((64, 64, 3), LEAST_WHITE, np.float32)], None) == (LEAST_WHITE,) * 3
