"""The paper's ground truth, on masks made by hand and on real tiles."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy import ndimage

from deepliif_ray import storage
from deepliif_ray.cells.labels import NEGATIVE, POSITIVE, classify
from deepliif_ray.errors import ConfigError
from deepliif_ray.training.panels.files import read_panels
from deepliif_ray.training.panels.instances import BLUE, GREEN, RED, make_truth, otsu, outlines, write_truth
from deepliif_ray.training.panels.listing import list_panels


def colors(seg):
    """One letter a pixel."""
    names = {RED: "r", GREEN: "g", BLUE: "b", (0, 0, 0): "."}
    return ["".join(names[tuple(pixel)] for pixel in row) for row in seg.tolist()]


def test_a_tile_drawn_by_hand():
    mask = np.zeros((7, 12), np.uint16)
    mask[1:6, 1:6] = 40
    mask[1:6, 6:11] = 7  # touches the first
    marker = np.full((7, 12), 5, np.uint8)
    marker[:, :6] = 200
    truth = make_truth(mask, marker, width=1)
    assert colors(truth.seg) == [
        "............",
        ".gggggggggg.",
        ".grrrggbbbg.",
        ".grrrggbbbg.",
        ".grrrggbbbg.",
        ".gggggggggg.",
        "............",
    ]
    assert truth.labels.tolist() == [7, 40]
    assert truth.values.tolist() == [5, 200]
    assert truth.positive.tolist() == [False, True]
    assert truth.threshold == pytest.approx(((5**0.5 + 200**0.5) / 2) ** 2)


def test_cells_cut_by_the_image_have_no_outline_there():
    mask = np.ones((4, 6), int)
    mask[:, 4:] = 0
    assert colors(make_truth(mask, np.zeros((4, 6), np.uint8), threshold=3).seg) == ["bbgg.."] * 4
    mask[:, 5:] = 2
    assert colors(make_truth(mask, np.zeros((4, 6), np.uint8), threshold=3, width=1).seg) == ["bbbg.g"] * 4


def test_a_cell_is_positive_above_the_threshold_by_mean_or_percentile():
    mask = np.ones((4, 4), int)
    marker = np.zeros((4, 4, 3), np.uint8)
    marker[:2, :, 1] = 100  # the greatest channel counts
    assert make_truth(mask, marker, threshold=49).positive.tolist() == [True]
    assert make_truth(mask, marker, threshold=50).positive.tolist() == [False]
    assert make_truth(mask, marker, threshold=99, percentile=75).positive.tolist() == [True]
    assert make_truth(mask, marker, threshold=1, percentile=25).positive.tolist() == [False]


def test_percentiles_are_those_of_each_cell():
    rng = np.random.default_rng(0)
    mask, marker = rng.integers(0, 6, (30, 30)), rng.integers(0, 256, (30, 30), dtype=np.uint8)
    for percentile in (0, 33, 100):
        truth = make_truth(mask, marker, threshold=0, percentile=percentile)
        assert truth.values == pytest.approx(
            [np.percentile(marker[mask == n], percentile) for n in range(1, 6)]
        )


def test_otsu_takes_the_best_of_all_splits():
    values = np.array([1.0, 4.0, 9.0, 100.0, 121.0, 4.0])
    assert otsu(values) == pytest.approx(((3 + 10) / 2) ** 2)
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.uniform(0, 20, 30), rng.uniform(60, 200, 7)])
    roots = np.sqrt(values)

    def within(threshold):
        return sum(part.size * part.var() for part in (roots[values <= threshold], roots[values > threshold]))

    best = within(otsu(values))
    assert all(best <= within(v) + 1e-9 for v in np.sort(values)[:-1])


@pytest.mark.parametrize("values", [[], [7.0], [7.0] * 5, [3.0, 4.0, 9.0, 12.0, 15.0]])
def test_otsu_makes_up_no_groups(values):
    with pytest.raises(ConfigError, match="give one"):
        otsu(np.array(values))


def test_tiles_without_cells_are_black():
    assert not make_truth(np.zeros((3, 3), int), np.zeros((3, 3), np.uint8)).seg.any()


small_masks = arrays.arrays(np.int32, (14, 14), elements=st.sampled_from([0, 1, 1, 1, 2, 2, 3]))


@given(coarse=small_masks, width=st.integers(1, 3), zoom=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_touching_cells_stay_apart(coarse, width, zoom):
    mask = coarse.repeat(zoom, 0).repeat(zoom, 1)
    edge = outlines(mask, width)
    assert not edge[mask == 0].any()
    inner = np.where(edge, 0, mask)
    pieces, count = ndimage.label(inner, np.ones((3, 3)))
    for piece in range(1, count + 1):
        assert len(np.unique(inner[pieces == piece])) == 1
    if mask.any() and len(np.unique(mask[mask > 0])) > 1:
        marker = np.where(mask == 1, 200, 0).astype(np.uint8)
        classes = classify(make_truth(mask, marker, threshold=90, width=width).seg, 120)
        assert np.array_equal(classes, np.select([inner == 1, inner > 1], [POSITIVE, NEGATIVE], 0))


@pytest.mark.parametrize(
    ("mask", "marker", "options", "message"),
    [
        (np.ones((3, 3)), np.ones((3, 3), np.uint8), {}, "float64"),
        (np.ones((3, 3), int), np.ones((3, 4), np.uint8), {}, r"size \(3, 3\)"),
        (np.ones((3, 3), int), np.ones((3, 3, 4), np.uint8), {}, "marker image"),
        (np.ones((3, 3), int), np.ones((3, 3)), {}, "marker image is float64"),
        (np.eye(3, dtype=int)[[0, 2, 1]], np.ones((3, 3), np.uint8), {"threshold": 4}, "number its cells"),
        (np.ones((3, 3), int), np.ones((3, 3), np.uint8), {"threshold": 300}, "0 to 255"),
        (np.ones((3, 3), int), np.ones((3, 3), np.uint8), {"percentile": -1}, "0 to 100"),
        (np.ones((3, 3), int), np.ones((3, 3), np.uint8), {"width": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_made_into_truth(mask, marker, options, message):
    with pytest.raises(ConfigError, match=message):
        make_truth(mask, marker, **options)


@pytest.mark.parametrize("form", ["png8", "png16", "tiff32", "npy"])
def test_masks_of_all_forms(tmp_path, form):
    mask = np.zeros((20, 30), np.int32)
    mask[2:18, 2:12], mask[2:18, 15:28] = 3, 250
    marker = np.where(mask == 3, 180, 10).astype(np.uint8)
    Image.fromarray(marker).save(tmp_path / "marker.png")
    url = str(tmp_path / ("mask." + {"p": "png", "t": "tif", "n": "npy"}[form[0]]))
    data = io.BytesIO()
    if form == "npy":
        np.save(data, mask)
    else:
        kind = {"png8": np.uint8, "png16": np.uint16, "tiff32": np.int32}[form]
        Image.fromarray(mask.astype(kind)).save(data, "TIFF" if form == "tiff32" else "PNG")
    storage.write_bytes(url, data.getvalue())
    truth = write_truth(url, str(tmp_path / "marker.png"), str(tmp_path / "out/seg.png"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/seg.png")), truth.seg)
    assert np.array_equal(truth.seg, make_truth(mask, marker).seg)
    assert truth.positive.tolist() == [True, False]


def test_files_that_cannot_be_used_are_named(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(tmp_path / "rgba.png")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
    grey, rgb, rgba, bad = (str(tmp_path / name) for name in ("grey.png", "rgb.png", "rgba.png", "bad.npy"))
    for mask, marker, named in [
        (rgb, grey, rgb),
        (grey, rgba, rgba),
        (bad, grey, bad),
        ("none.png", grey, "none"),
    ]:
        with pytest.raises(ConfigError, match=named):
            write_truth(mask, marker, str(tmp_path / "seg.png"))


@pytest.mark.parametrize(
    ("folder", "name", "cells", "agreement"),
    [("train", "Bladder1", 183, 0.935), ("train", "Lung1", 60, 0.99), ("official", "34_3", 116, 0.95)],
)
def test_the_rule_agrees_with_the_published_segmentation(shared_data, folder, name, cells, agreement):
    source = next(s for s in list_panels(str(shared_data / "deepliif" / folder)) if s.name == name)
    panels = read_panels(source)
    classes = classify(panels.targets["seg"], 120)
    mask, _ = ndimage.label(classes, np.ones((3, 3)))
    mask[np.bincount(mask.ravel())[mask] < 50] = 0
    truth = make_truth(mask, panels.targets["marker"])
    published = ndimage.mean(classes == POSITIVE, mask, truth.labels) > 0.5
    assert len(truth.labels) == cells
    assert (truth.positive == published).mean() >= agreement
