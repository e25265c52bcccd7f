import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepliif_ray.evaluation import perturbations as change

images = hnp.arrays(np.uint8, st.tuples(st.integers(6, 12), st.integers(6, 12), st.just(3)))


def field(side=64, seed=0):
    """Smooth blobs, as tissue is."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 250, (side // 8, side // 8, 3), dtype=np.uint8)
    return change.rescale(coarse, 8.0, new_mpp=1.0)


def test_values_by_hand():
    rgb = np.array([[[255, 200, 100], [0, 10, 1]]], np.uint8)
    assert change.tint(rgb, (1, 0.95, 0.86)).tolist() == [[[255, 190, 86], [0, 10, 1]]]  # 9.5 is even at 10
    assert change.tint(rgb, (1.1, 1, 1))[0, 0].tolist() == [255, 200, 100]  # there is nothing above 255
    # 255 (100/255)^2 = 39.2; the density is doubled.
    assert change.gamma(rgb, 2)[0, 0].tolist() == [255, 157, 39]


@given(images)
def test_nothing_is_changed_by_nothing(rgb):
    assert np.array_equal(change.tint(rgb, (1, 1, 1)), rgb)
    assert np.array_equal(change.gamma(rgb, 1), rgb)
    assert np.array_equal(change.blur(rgb, 0.25, sigma_um=0), rgb)
    assert np.array_equal(change.noise(rgb, 0), rgb)
    assert np.array_equal(change.rescale(rgb, 0.3, new_mpp=0.3), rgb)
    assert np.array_equal(change.turned(change.turned(rgb, 1), 3), rgb)
    assert np.array_equal(change.mirrored(change.mirrored(rgb)), rgb)


@given(images)
def test_pictures_stay_pictures(rgb):
    for changed in (
        change.tint(rgb, (0.86, 0.95, 1)),
        change.gamma(rgb, 0.7),
        change.blur(rgb, 0.25, sigma_um=1),
        change.jpeg(rgb, 25),
        change.noise(rgb, 8),
        change.rescale(rgb, 0.25, new_mpp=0.1),
        change.turned(rgb, 1),
        change.mirrored(rgb),
        change.inscribed(rgb, 45),
    ):
        assert changed.dtype == np.uint8
        assert changed.ndim == 3 and changed.shape[2] == 3
        assert changed.flags.c_contiguous


def test_blur_is_in_micrometres():
    rgb = field()
    assert np.array_equal(
        change.blur(rgb, 0.25, sigma_um=0.5), change.blur(rgb, 0.5, sigma_um=1.0)
    )  # both 2 px
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    spread = change.blur(point, 0.5, sigma_um=0.5)
    assert spread[20, 20, 0] == round(255 / (2 * np.pi))  # a Gaussian of 1 px: 1/(2π) of it stays


def test_noise_is_the_same_every_time_and_as_strong_as_asked():
    rgb = np.full((200, 200, 3), 128, np.uint8)
    noisy = change.noise(rgb, 4)
    assert np.array_equal(noisy, change.noise(rgb, 4))
    assert noisy.std() == pytest.approx(4, abs=0.1)
    assert noisy.mean() == pytest.approx(128, abs=0.1)


def test_jpeg_loses_more_at_a_lower_quality():
    rgb = field()
    losses = [np.abs(change.jpeg(rgb, quality) - rgb.astype(int)).mean() for quality in (95, 50, 10)]
    assert 0 < losses[0] < losses[1] < losses[2]


def test_rescaling_keeps_the_tissue():
    rgb = field()
    small = change.rescale(rgb, 0.25, new_mpp=0.4)
    assert small.shape == (40, 40, 3)
    back = change.rescale(small, 0.4, new_mpp=0.25)
    assert back.shape == rgb.shape
    assert np.abs(back - rgb.astype(int)).mean() < 3


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turning_by_right_angles_is_what_turning_means(quarters):
    rgb = field(72)[:66, :66]  # the middle 46 px, with as much on each side
    assert np.array_equal(
        change.inscribed(rgb, 90 * quarters), change.inscribed(change.turned(rgb, quarters))
    )


def test_the_inscribed_circle_shows_the_same_tissue():
    rgb = field(96)[:90]
    crop, turned = change.inscribed(rgb), change.inscribed(rgb, 45)
    assert crop.shape == turned.shape == (63, 63, 3)  # 90 / √2
    # Turned once more, and the circle is where it was, a quarter further.
    y, x = np.indices((63, 63)) - 31
    circle = np.hypot(y, x) < 31
    assert np.abs(turned[circle].mean(axis=0) - crop[circle].mean(axis=0)).max() < 0.5
    assert turned[31, 31] == pytest.approx(crop[31, 31], abs=1)
    # What lies 20 px to the right lies at the upper right after a turn by 45°.
    assert turned[31 - 14, 31 + 14] == pytest.approx(crop[31, 51], abs=6)
    assert np.abs(turned[31 + 14, 31 + 14].astype(int) - crop[31, 51]).max() > 12
