"""What stands out from its surroundings, weighed with what a network says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepliif_ray.errors import ModelError
from deepliif_ray.models import load_model
from deepliif_ray.models.bundle import read_bundle, spec_of, write_bundle
from deepliif_ray.models.compact import CompactNetwork
from deepliif_ray.models.compact_spec import CompactSpec
from deepliif_ray.models.local_contrast import ContrastRule, prominence, weigh
from deepliif_ray.stains import DAB, HEMATOXYLIN

NOTHING = ContrastRule(network=1, contrast=0, offset=0)
RULE = ContrastRule(network=0.8, contrast=1, offset=-0.3)
SPEC = CompactSpec(widths=(4, 8), depths=(1, 1), modalities=("dapi",), tile_size=64)
GLASS, NUCLEUS, DARK = (240, 240, 240), (120, 130, 180), (60, 40, 30)
REACH = 48
"""px of half resolution beyond which nothing counts."""
images = arrays(np.uint8, (16, 16, 3))


def picture(color, side=256, at=(128, 128), radius=12):
    """Return glass with one disc, RGB."""
    ys, xs = np.mgrid[:side, :side]
    disc = (ys - at[0]) ** 2 + (xs - at[1]) ** 2 <= radius**2
    return np.where(disc[..., None], np.uint8(color), np.uint8(GLASS)), disc


@pytest.mark.parametrize("color", [NUCLEUS, DARK, (200, 205, 220)])
def test_what_is_darker_than_its_surroundings_stands_out(color):
    rgb, disc = picture(color)
    found = prominence(rgb)
    assert found[disc].mean() > 0.7 and found[~disc].mean() < -0.7
    assert found.min() >= -1 and found.max() <= 1


def test_a_pale_nucleus_stands_out_as_a_dark_one_does():
    glass = np.array(GLASS)
    pale = (glass * (np.array(NUCLEUS) / glass) ** 0.4).astype(np.uint8)  # the same stain, less of it
    one, other = (prominence(picture(color)[0]) for color in (NUCLEUS, pale))
    assert np.abs(one - other).max() < 0.1


@pytest.mark.parametrize(("hematoxylin", "dab"), [(0.5, 0.6), (0.4, 0.4), (0.5, 0.9), (0.3, 0.6)])
def test_a_stained_membrane_does_not_stand_out_as_its_nucleus_does(hematoxylin, dab):
    ys, xs = np.mgrid[:256, :256]
    away = np.hypot(ys - 128, xs - 128)
    nucleus, membrane = (240 * 10 ** -(np.array(v) * d) for v, d in ((HEMATOXYLIN, hematoxylin), (DAB, dab)))
    rgb = np.where((away <= 12)[..., None], nucleus, np.where((away <= 18)[..., None], membrane, 240))
    found = prominence(rgb.astype(np.uint8))
    assert found[away <= 11].mean() > 0.9
    assert found[(away > 13.5) & (away < 17)].mean() < 0


def test_flat_tissue_and_glass_do_not_stand_out():
    for grey in (0, 90, 240, 255):
        assert (prominence(np.full((64, 64, 3), grey, np.uint8)) < -0.5).all()


def test_only_surroundings_count():
    rgb = np.random.default_rng(3).integers(40, 240, (256, 256, 3), np.uint8)
    part = (slice(60, 220), slice(30, 200))
    inside = (slice(REACH, -REACH),) * 2
    whole, alone = prominence(rgb)[part][inside], prominence(rgb[part])[inside]
    assert np.allclose(whole, alone, atol=1e-5), "sums along a line are rounded from its start"


@given(images, images)
def test_nothing_to_weigh_changes_nothing(seg, rgb):
    seg[..., 2] = np.minimum(seg[..., 2], 255 - seg[..., 0])
    seg[..., 1] = np.minimum(seg[..., 1], 255 - seg[..., 0] - seg[..., 2])
    assert np.abs(weigh(seg, rgb, NOTHING).astype(int) - seg).max() <= 3


@given(images, images, st.floats(0, 2), st.floats(-2, 2))
def test_shares_stay_shares_and_classes_keep_their_proportion(seg, rgb, contrast, offset):
    seg[..., 2] = np.minimum(seg[..., 2], 255 - seg[..., 0])
    found = weigh(seg, rgb, ContrastRule(0.8, contrast, offset)).astype(int)
    assert (found.sum(axis=-1) <= 256).all(), "a rounded share may be one more"
    red, blue = seg[..., 0].astype(int), seg[..., 2].astype(int)
    more_red = red - blue > 5
    assert (found[..., 0] >= found[..., 2])[more_red].all()
    assert (found[..., 2] >= found[..., 0])[blue - red > 5].all()


def test_contrast_finds_what_the_network_doubts_and_doubts_what_it_finds_in_the_flat():
    rgb, disc = picture(NUCLEUS, 512, (256, 256), 24)
    unsure = np.zeros((512, 512, 3), np.uint8)
    unsure[..., 2], unsure[..., 1] = 128, 60
    found = weigh(unsure, rgb, RULE)[..., 2]
    assert found[disc].mean() > 140 and found[~disc].mean() < 90
    assert (weigh(unsure, rgb, RULE)[..., 0] == 0).all(), "a class that the network does not see is not made"


@pytest.mark.parametrize(
    "values",
    [
        (-1, 1, 0),
        (1, -0.1, 0),
        (1, 1, float("nan")),
        (1, "1", 0),
        (1, float("inf"), 0),
        (11, 1, 0),
        (1, 1, -1e4),
    ],
)
def test_weights_that_cannot_be_are_refused(values):
    with pytest.raises(ValueError, match="local_contrast"):
        ContrastRule(*values)


def test_the_most_that_may_be_is_still_a_picture():
    seg = np.random.default_rng(1).integers(0, 128, (64, 64, 3), np.uint8)
    for offset in (-10, 10):
        found = weigh(seg, np.roll(seg, 9, axis=0), ContrastRule(10, 10, offset)).astype(int)
        assert (found.sum(axis=-1) <= 256).all() and found.max() > 200


def test_it_is_part_of_what_a_bundle_is():
    weights = CompactNetwork(SPEC).state_dict()
    specs = {"plain": SPEC, "weighed": replace(SPEC, local_contrast=RULE)}
    digests = {
        name: write_bundle(f"memory://contrast/{name}", name, spec, weights, {}, "float32")
        for name, spec in specs.items()
    }
    assert digests["plain"] != digests["weighed"]
    assert read_bundle("memory://contrast/weighed").spec.local_contrast == RULE
    assert read_bundle("memory://contrast/plain").spec.local_contrast is None


@pytest.mark.parametrize("rule", [{"network": 1}, {"network": -1, "contrast": 1, "offset": 0}, 3, []])
def test_a_bundle_with_another_rule_is_refused_by_name(rule, tmp_path):
    with pytest.raises(ModelError, match="make no compact network"):
        spec_of({"layers": {"local_contrast": rule}}, str(tmp_path))


def test_the_shipped_model_weighs_contrast():
    rgb, _ = picture(NUCLEUS, 512, (256, 256), 24)
    shipped = load_model("compact")
    assert shipped.spec.local_contrast is not None
    assert shipped.infer(rgb[None]).seg[0, 256, 256, 2] > 128


@pytest.mark.parametrize("density", [0.25, 0.5])
def test_a_nucleus_of_dab_alone_is_hardly_held_to_lack_contrast(density):
    ys, xs = np.mgrid[:128, :128]
    nuclei = [((40, 64), HEMATOXYLIN, 0.8), ((62, 64), DAB, density)]  # the dark one sets what a contrast is
    rgb = np.full((128, 128, 3), 240.0)
    for (x, y), stain, amount in nuclei:
        rgb[np.hypot(ys - y, xs - x) <= 7] = 240 * 10 ** -(np.array(stain) * amount)
    found = prominence(rgb.astype(np.uint8))
    assert found[np.hypot(ys - 64, xs - 62) <= 5].mean() > -0.25
    assert found[np.hypot(ys - 20, xs - 100) <= 5].mean() < -0.9, "glass is no nucleus"


def test_brown_all_around_is_no_reason_for_a_nucleus():
    rgb = np.full((128, 128, 3), 240 * 10 ** -(np.array(DAB) * 0.4)).astype(np.uint8)
    assert (prominence(rgb) < -0.9).all()
