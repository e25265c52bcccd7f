import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepliif_ray.cells import decode_wkb, extract_cells
from deepliif_ray.errors import ConfigError
from tests.cells import maps, oracle

RECORDINGS = [("34_3", "40x"), ("6_2", "40x"), ("mosaic", "40x"), ("mosaic", "20x"), ("mosaic", "10x")]


@pytest.mark.parametrize("core", [None, 448, 61])
@pytest.mark.parametrize(("name", "resolution"), RECORDINGS)
def test_reproduces_published_postprocessing(shared_reference, name, resolution, core):
    folder = shared_reference / "postprocess"
    seg, marker, ihc = (
        np.asarray(Image.open(folder / f"{name}-{part}.png").convert("RGB"))
        for part in ("seg", "marker", "ihc")
    )
    recorded = json.loads((folder / f"{name}-{resolution}.json").read_text())
    result = extract_cells(seg, marker, ihc, resolution=resolution, core=core)
    cells = [
        {
            "size": c["area_px"],
            "positive": c["majority_positive"],
            "marker": c["marker_max"],
            "bbox": [[c["bbox_x0"], c["bbox_y0"]], [c["bbox_x1"] - 1, c["bbox_y1"] - 1]],
            "centroid": [round(c["x"]), round(c["y"])],
            "boundary": decode_wkb(c["boundary"]).tolist(),
            "od": round(c["od_mean"]),
        }
        for c in result.table.to_pylist()
    ]
    assert cells == recorded["cells"]
    thresholds = result.thresholds
    assert recorded["settings"] == {
        "default_size_thresh": thresholds.size_thresh,
        "noise_thresh": thresholds.noise_thresh,
        "large_noise_thresh": thresholds.large_noise_thresh,
        "seg_thresh": thresholds.seg_thresh,
        "default_marker_thresh": thresholds.marker_thresh,
    }


@st.composite
def _classes(draw):
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "blobs", "spiral", "rings", "broken"]))
    if kind == "noise":
        return maps.noise(rng, height, width, draw(st.sampled_from([0.2, 0.4, 0.6, 0.8])))
    if kind == "blobs":
        return maps.blobs(rng, height, width)
    gap = draw(st.integers(2, 4))
    if kind == "spiral":
        classes = maps.spiral(height, width, gap)
    else:
        classes = maps.rings(height, width, gap, broken=kind == "broken")
    if draw(st.booleans()):  # a few pixels flipped open and close holes
        flips = rng.random((height, width)) < 0.02
        classes = np.where(flips, rng.integers(0, 4, (height, width)), classes)
    return classes


def _inputs(classes):
    rng = np.random.default_rng(classes.size)
    seg = maps.colour(classes)
    return seg, rng.integers(0, 256, seg.shape[:2], np.uint8), rng.integers(0, 256, seg.shape, np.uint8)


@settings(max_examples=200, deadline=None)
@given(_classes(), st.sampled_from([0, 4]), st.sampled_from([None, 60]), st.integers(1, 41))
def test_cores_and_whole_map_agree_with_published_rules(classes, noise_thresh, large_noise_thresh, core):
    seg, marker, rgb = _inputs(classes)
    options = {"noise_thresh": noise_thresh, "large_noise_thresh": large_noise_thresh, "mpp": 0.25}
    whole = extract_cells(seg, marker, rgb, **options)
    cut = extract_cells(seg, marker, rgb, core=core, **options)
    assert cut.table.equals(whole.table)
    assert cut.thresholds == whole.thresholds
    expected = oracle.cells(seg, marker, rgb, noise_thresh, large_noise_thresh)
    columns = list(expected[0]) if expected else []
    assert whole.table.num_rows == len(expected)
    assert whole.table.select(columns).to_pylist() == expected


@pytest.mark.parametrize("core", [1, 2, 3, 7, 16, 31])
@pytest.mark.parametrize(
    "classes",
    [
        maps.spiral(48, 33),
        maps.rings(48, 33),
        maps.rings(33, 48, broken=True),
        np.eye(32, dtype=int),
        np.indices((32, 32)).sum(axis=0) % 2,
        np.ones((32, 32), dtype=int),
        np.zeros((32, 32), dtype=int),
    ],
    ids=["spiral", "rings", "broken-rings", "diagonal", "checkerboard", "full", "empty"],
)
def test_adversarial_maps_do_not_depend_on_cores(classes, core):
    inputs = _inputs(classes)
    options = {"noise_thresh": 0, "large_noise_thresh": None, "mpp": 0.5}
    whole = extract_cells(*inputs, **options).table
    assert extract_cells(*inputs, core=core, **options).table.equals(whole)
    assert whole.num_rows == len(oracle.cells(*inputs, 0, None))


def test_hole_closed_only_by_the_neighbouring_core():
    classes = np.zeros((12, 16), dtype=int)
    classes[2:9, 4:12] = 1
    classes[4:7, 6:10] = 0  # the hole lies across the seam at x = 8
    classes[5, 7] = 2  # with an islet in it
    cell = extract_cells(*_inputs(classes), core=8, large_noise_thresh=None).table.to_pylist()
    assert [(c["area_px"], c["positive_px"], c["negative_px"]) for c in cell] == [(56, 44, 1)]


def test_outline_of_a_cell_of_several_cores_is_that_of_the_whole():
    rng = np.random.default_rng(3)
    seg = maps.colour(maps.blobs(rng, 90, 90, 30))
    whole = extract_cells(seg, core=None).table["boundary"]
    assert extract_cells(seg, core=13).table["boundary"].equals(whole)


def test_stain_densities_of_pure_stains():
    od_of_dab = 0.8 * np.array([0.268, 0.570, 0.776]) / np.linalg.norm([0.268, 0.570, 0.776])
    brown = np.rint(255 * 10**-od_of_dab).astype(np.uint8)
    cell = extract_cells(
        np.full((9, 9, 3), (255, 0, 0), np.uint8), rgb=np.broadcast_to(brown, (9, 9, 3))
    ).table.to_pylist()[0]
    assert cell["dab_od_mean"] == pytest.approx(0.8, abs=0.01)
    assert cell["hematoxylin_od_mean"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seg": np.zeros((4, 4), np.uint8)}, "seg has shape"),
        ({"seg": np.zeros((4, 4, 3), np.float32)}, "float32"),
        ({"marker": np.zeros((5, 4), np.uint8)}, "marker has shape"),
        ({"rgb": np.zeros((5, 4, 3), np.uint8)}, "rgb has shape"),
        ({"resolution": "60x"}, "resolution is '60x'"),
        ({"large_noise_thresh": "big"}, "large_noise_thresh is 'big'"),
        ({"core": 0}, "core is 0"),
        ({"mpp": 0}, "mpp is 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        extract_cells(**{"seg": np.zeros((4, 4, 3), np.uint8), **arguments})
