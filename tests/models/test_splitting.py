import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from deepliif_ray.models.splitting import FARTHEST, SURENESS, distances, split_cells
from deepliif_ray.published import SEG_THRESH

REACH = 96
"""px beyond which nothing counts for cells of these sizes."""


def discs(centres, radius, side=128, share=1.0):
    """Return a segmentation of negative discs, their centres (y, x)."""
    ys, xs = np.mgrid[:side, :side]
    seg = np.zeros((side, side, 3), np.uint8)
    for y, x in centres:
        seg[np.hypot(ys - y, xs - x) < radius, 2] = round(255 * share)
    return seg


def count(seg):
    """Return how many cells there are."""
    return ndimage.label(seg[..., 0].astype(int) + seg[..., 2] > 255 * SURENESS[0])[1]


def test_touching_cells_are_parted_and_lone_ones_left():
    seg = np.zeros((64, 96, 3), np.uint8)
    y, x = np.mgrid[:64, :96]
    for centre, radius, channel in ((22, 14, 0), (46, 14, 0), (80, 10, 2)):
        seg[np.hypot(y - 32, x - centre) < radius] = 0
        seg[np.hypot(y - 32, x - centre) < radius, channel] = 255
    parted = split_cells(seg)
    cell = (parted[..., 0] > 0) | (parted[..., 2] > 0)
    assert ndimage.label(cell, np.ones((3, 3)))[1] == 3
    assert (parted[:, 64:] == seg[:, 64:]).all()
    assert set(np.nonzero((parted != seg).any(2))[1]) <= set(range(31, 38)), "the line is at the waist"
    assert (split_cells(seg[:, 64:]) == seg[:, 64:]).all()
    assert (split_cells(np.zeros_like(seg)) == 0).all()


def test_cells_that_touch_where_the_network_is_unsure_are_parted():
    seg = np.zeros((64, 96, 3), np.uint8)
    seg[20:44, 10:80, 0] = 140  # one blot without a waist: two cores, and in between a little over half
    seg[22:42, 12:38, 0] = seg[22:42, 52:78, 0] = 255
    parted = split_cells(seg)
    assert ndimage.label(parted[..., 0] > SEG_THRESH)[1] == 2
    assert (parted[22:42, 12:38] == seg[22:42, 12:38]).all(), "what it is sure of stays"


def test_what_the_network_is_unsure_of_all_over_is_dropped():
    seg = np.zeros((64, 96, 3), np.uint8)
    seg[20:44, 8:32, 2] = 160
    seg[20:44, 56:80, 2] = 200
    found = split_cells(seg)
    assert not found[:, :44].any() and (found[20:44, 56:80] == seg[20:44, 56:80]).all()


# Smoothing blurs the waist of small ones.
@pytest.mark.parametrize(
    ("radius", "waist", "cells"),
    [(9, 0.5, 2), (12, 0.6, 2), (16, 0.65, 2), (22, 0.7, 2), (30, 0.7, 2), (40, 0.7, 2)]
    + [(radius, 0.95, 1) for radius in (9, 12, 16, 22, 30, 40)],
)
def test_a_waist_parts_cells_of_any_size(radius, waist, cells):
    apart = 2 * radius * np.sqrt(1 - waist**2)  # the width where discs meet is this share of their own
    seg = discs([(64, 64 - apart / 2), (64, 64 + apart / 2)], radius)
    assert count(seg) == 1
    assert count(split_cells(seg)) == cells


@pytest.mark.parametrize("radius", [10, 20, 30, 50])
@pytest.mark.parametrize("seed", range(4))
def test_a_ragged_nucleus_is_one(radius, seed):
    random = np.random.default_rng(seed)
    ys, xs = np.mgrid[:128, :128]
    angle, away = np.arctan2(ys - 64, xs - 64), np.hypot(ys - 64, xs - 64)
    waves = sum(random.normal(0, 0.04) * np.cos(k * angle + random.uniform(0, 6)) for k in range(3, 9))
    seg = np.zeros((128, 128, 3), np.uint8)
    seg[away < radius * (1 + waves), 0] = 255
    assert count(split_cells(seg)) == 1


@pytest.mark.parametrize("radius", [14, 20, 30])
def test_a_clear_nucleus_is_one(radius):
    seg = discs([(64, 64)], radius)
    seg[discs([(64, 64)], radius * 0.4)[..., 2] > 0] = 0
    parted = split_cells(seg)
    assert (parted == seg).all(), "the hole stays, and no line is drawn to it"


def test_a_ring_of_cells_is_not_one():
    around = [(128 + 50 * np.sin(a), 128 + 50 * np.cos(a)) for a in np.arange(8) * np.pi / 4]
    seg = discs(around, 21, side=256)
    assert count(seg) == 1
    assert count(split_cells(seg)) == 8


masks = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).random((2, 23, 31)) < np.random.default_rng(seed).uniform(0.5, 1)
)


@given(masks)
def test_distances_are_those_of_scipy(masks):
    masks[:, 5, 7] = False  # scipy's are not defined where nothing is outside
    expected = np.stack([ndimage.distance_transform_edt(mask) for mask in masks])
    assert np.array_equal(distances(masks), expected.astype(np.float32))


def test_distances_end_somewhere():
    masks = np.ones((1, 400, 400), bool)
    assert (distances(masks) == FARTHEST).all()
    masks[0, 0, 0] = False
    found = distances(masks)[0]
    assert found[0, 100] == found[100, 0] == 100
    assert found[399, 0] == found[0, 399] == found[399, 399] == FARTHEST


places = st.lists(st.tuples(st.integers(8, 311), st.integers(8, 311)), min_size=1, max_size=60)


@given(places, st.integers(7, 16), st.integers(0, 40))
def test_overlapping_tiles_agree(centres, radius, start):
    start *= 2  # as tiles do, it begins where a pixel of half the resolution does
    seg = discs(centres, radius, side=320)
    part = seg[start : start + 240, start : start + 240]
    inside = (slice(REACH, 240 - REACH),) * 2
    whole = split_cells(seg)[start : start + 240, start : start + 240]
    assert (whole[inside] == split_cells(part)[inside]).all()
