"""Cells are called by the network and by how brown they are; browner is never less positive."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepliif_ray.cells import extract_cells
from deepliif_ray.models.calling import CallRule, brownness, call_cells, evidence
from deepliif_ray.stains import DAB, HEMATOXYLIN

RULE = CallRule(network=1.0, dab=10.0, offset=-2.0, least=0.04, most=0.4)
WHITE = 240.0


def colour(hematoxylin=0.0, dab=0.0):
    vectors = [np.array(v) / np.linalg.norm(v) for v in (HEMATOXYLIN, DAB)]
    return WHITE * 10 ** -(hematoxylin * vectors[0] + dab * vectors[1])


def cells(*kinds):
    """Return a map and a tile with one square a kind: (red share, hematoxylin, DAB)."""
    seg, rgb = np.zeros((24, 24 * len(kinds), 3), np.uint8), np.full((24, 24 * len(kinds), 3), 240, np.uint8)
    for number, (red, hematoxylin, dab) in enumerate(kinds):
        where = np.s_[4:20, 24 * number + 4 : 24 * number + 20]
        seg[where] = (round(255 * red), 0, round(255 * (1 - red)))
        rgb[where] = np.rint(colour(hematoxylin, dab))
    return seg, rgb


def test_brownness_is_dab_beyond_hematoxylin():
    pixels = np.rint([colour(), colour(0.5), colour(1.0), colour(0, 0.5), colour(0.5, 0.5)]).astype(np.uint8)
    found = brownness(pixels, WHITE)
    assert found[:3] == pytest.approx([0, 0, 0], abs=0.01)
    assert found[3:] == pytest.approx([0.33, 0.33], abs=0.01)
    assert brownness(np.zeros(3, np.uint8), WHITE) > 1, "black is much DAB"


def test_dark_brown_is_positive_and_blue_is_not_whatever_the_network_says():
    seg, rgb = cells((0.02, 0.1, 0.9), (0.98, 0.6, 0.0), (0.9, 0.2, 0.2), (0.1, 0.2, 0.2))
    called = call_cells(seg, rgb, RULE, WHITE)
    table = extract_cells(called, rgb=rgb, noise_thresh=0).table
    assert table["majority_positive"].to_pylist() == [True, False, True, False]
    assert table["area_px"].to_pylist() == [256] * 4
    assert (called.sum(axis=2) == seg.sum(axis=2)).all(), "shares change places, no more"


@given(
    red=st.floats(0.05, 0.95), hematoxylin=st.floats(0, 0.5), dab=st.floats(0, 1.5), more=st.floats(0, 0.5)
)
@settings(deadline=None, max_examples=50)
def test_more_brown_or_more_red_never_makes_a_cell_negative(red, hematoxylin, dab, more):
    def positive(*kind):
        seg, rgb = cells(kind)
        found = evidence(seg, rgb, WHITE)
        return bool(RULE.positive(found.log_odds, found.brown)[0])

    if positive(red, hematoxylin, dab):
        assert positive(red, hematoxylin, dab + more + 0.02)  # grey levels are whole numbers
        assert positive(min(0.97, red + more), hematoxylin, dab)


def test_a_cell_is_as_brown_as_its_inside():
    seg, rgb = cells((0.5, 0.4, 0.0), (0.5, 0.4, 0.0), (0.5, 0.0, 0.6))
    brown = np.rint(colour(0, 1.0))
    rgb[4:20, 28:30] = rgb[4:20, 42:44] = brown  # the second: its neighbours' stain, or its membrane's
    rgb[6:18, 54:66] = np.rint(colour(0, 0.8))  # the third: darker inside
    found = evidence(seg, rgb, WHITE).brown
    assert found[1] == found[0] == pytest.approx(0, abs=0.01)
    assert found[2] == pytest.approx(0.66 * 0.8, abs=0.01)


def test_cells_without_an_inside_are_measured_whole():
    seg, rgb = cells((0.5, 0.0, 0.5), (0.5, 0.0, 0.5))
    seg[7:, :24] = 0  # three rows are left of the first
    found = evidence(seg, rgb, WHITE).brown
    assert found == pytest.approx([0.33, 0.33], abs=0.01)


def test_colour_stored_in_coarser_pixels_hardly_makes_a_cell_browner():
    seg, rgb = cells((0.5, 0.4, 0.0), (0.5, 0.0, 1.0))
    rgb[4:20, 20:28] = np.rint(colour(0, 1.0))  # the brown cell's stain reaches to the blue one
    coarse = Image.fromarray(rgb).resize((24, 12), Image.Resampling.BOX)
    buffer = io.BytesIO()
    coarse.save(buffer, "JPEG", quality=85, subsampling="4:2:0")
    smeared = np.asarray(Image.open(buffer).resize((48, 24), Image.Resampling.BICUBIC))
    whole = brownness(smeared[4:20, 4:20], WHITE).mean()
    inside = evidence(seg, smeared, WHITE).brown[0]
    assert abs(inside) < whole / 3


def test_a_map_without_cells_stays_as_it_is():
    seg, rgb = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 240, np.uint8)
    assert (call_cells(seg, rgb, RULE, WHITE) == seg).all()


@pytest.mark.parametrize(
    "changed", [{"network": -1.0}, {"dab": -1.0}, {"least": 0.5}, {"offset": float("nan")}, {"most": "x"}]
)
def test_rules_that_could_turn_round_are_refused(changed):
    with pytest.raises(ValueError, match="call"):
        CallRule(**vars(RULE) | changed)
