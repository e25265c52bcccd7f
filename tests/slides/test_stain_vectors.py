"""A slide's own stains are found, and usual ones are taken, with the reason, where it does not tell them."""

import numpy as np
import pytest

from deepliif_ray.slides.stain_vectors import StainVectors
from deepliif_ray.stains import DAB, HEMATOXYLIN

WHITE = (240.0, 236.0, 221.0)
EOSIN = (0.07, 0.99, 0.11)


def mixed(*stains, seed=0, amount=(0.2, 1.2)):
    """Return a patch whose pixels each hold mostly one of the stains, some of two, and glass between."""
    rng = np.random.default_rng(seed)
    which = rng.integers(len(stains), size=(96, 96))
    shares = np.eye(len(stains))[which] * rng.uniform(*amount, (96, 96, 1))
    shares *= rng.random((96, 96, 1)) > 0.3
    both = rng.random((96, 96, 1)) < 0.1
    shares = np.where(both, rng.uniform(0, 0.4, shares.shape), shares)
    vectors = np.array([np.array(stain) / np.linalg.norm(stain) for stain in stains])
    light = np.array(WHITE) * 10 ** -(shares @ vectors)
    return np.clip(light + rng.normal(0, 1.0, light.shape), 0, 255).astype(np.float32)


def angle(one, other):
    one, other = np.array(one), np.array(other)
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    return np.degrees(np.arccos(min(cosine, 1.0)))


@pytest.mark.parametrize(
    "hematoxylin, dab",
    [(HEMATOXYLIN, DAB), ((0.75, 0.61, 0.25), (0.35, 0.5, 0.79)), ((0.62, 0.65, 0.44), (0.25, 0.65, 0.72))],
)
def test_the_stains_of_a_slide_are_found(hematoxylin, dab):
    found = StainVectors.measure([mixed(hematoxylin, dab, seed=s) for s in range(3)], WHITE)
    assert found.reason is None
    assert angle(found.hematoxylin, hematoxylin) < 4 and angle(found.dab, dab) < 4
    assert 35 < found.dab_percent < 65


def test_the_tint_of_the_light_does_not_matter():
    patch = mixed(HEMATOXYLIN, DAB)
    tint = np.array([0.9, 1.0, 0.8])
    one = StainVectors.measure([patch], WHITE)
    other = StainVectors.measure([(patch * tint).astype(np.float32)], tuple(np.array(WHITE) * tint))
    assert angle(one.hematoxylin, other.hematoxylin) < 0.1 and angle(one.dab, other.dab) < 0.1


@pytest.mark.parametrize(
    "patches, white, reason",
    [
        ([mixed(HEMATOXYLIN)], WHITE, "missing|degrees"),
        ([mixed(DAB)], WHITE, "missing|degrees"),
        ([mixed(HEMATOXYLIN, EOSIN)], WHITE, "degrees"),
        ([np.full((96, 96, 3), WHITE, np.float32)], WHITE, "hardly any stain"),
        ([np.zeros((96, 96, 3), np.float32)], WHITE, "missing|degrees"),
        ([mixed(HEMATOXYLIN, DAB)], None, "colour of light"),
        ([], WHITE, "colour of light"),
    ],
    ids=["no dab", "only dab", "h&e", "glass", "black", "no light", "no tissue"],
)
def test_usual_stains_are_taken_with_the_reason(patches, white, reason):
    found = StainVectors.measure(patches, white)
    assert (found.hematoxylin, found.dab) == (HEMATOXYLIN, DAB)
    assert found.reason is not None
    assert any(part in found.reason for part in reason.split("|")), found.reason


def test_the_order_of_patches_does_not_matter():
    patches = [mixed(HEMATOXYLIN, DAB, seed=s) for s in range(4)]
    one, other = StainVectors.measure(patches, WHITE), StainVectors.measure(patches[::-1], WHITE)
    assert one.hematoxylin == pytest.approx(other.hematoxylin, abs=2e-4)
