import numpy as np
import pytest

from deepliif_ray.cells import extract_cells
from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.fields import Rules, find_cells, infer_field
from deepliif_ray.models.base import Inference
from deepliif_ray.native import PUBLISHED


class Echo:
    """Returns its tiles; the marker is their red channel."""

    name, digest, device, precision = "echo", "0", "cpu", "float32"
    modality_names = ("Hema",)
    background_marker = 7
    has_marker = True
    native = PUBLISHED

    def __init__(self):
        self.sizes = []

    def infer(self, tiles, modalities=()):
        self.sizes += [tile.shape for tile in tiles]
        return Inference(tiles, tiles[..., 0], dict.fromkeys(modalities, 255 - tiles))


@pytest.mark.parametrize("size", [(640, 640), (512, 512), (300, 200), (513, 1300)])
@pytest.mark.parametrize(("resolution", "tile"), [("40x", 512), ("20x", 256)])
def test_a_field_is_put_together_from_its_tiles(size, resolution, tile):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    model = Echo()
    maps = infer_field(model, rgb, resolution=resolution, modalities=["Hema"])
    assert np.array_equal(maps.seg, rgb)
    assert np.array_equal(maps.marker, rgb[..., 0])
    assert np.array_equal(maps.modalities["Hema"], 255 - rgb)
    assert set(model.sizes) == {(tile, tile, 3)}


def test_empty_tiles_are_not_run():
    model = Echo()
    maps = infer_field(model, np.full((600, 600, 3), 240, np.uint8))
    assert not model.sizes
    assert not maps.seg.any()
    assert (maps.marker == 7).all()


def square(seg, x, y, side, colour):
    seg[y : y + side, x : x + side] = colour


def test_cells_are_those_of_the_scoring():
    seg = np.zeros((120, 160, 3), np.uint8)
    square(seg, 10, 10, 20, (255, 0, 0))
    seg[15:18, 15:18] = (0, 255, 0)  # a hole: filled
    square(seg, 60, 10, 20, (0, 0, 255))
    square(seg, 100, 10, 3, (255, 0, 0))  # 9 px: found, but too small to count
    square(seg, 140, 10, 2, (255, 0, 0))  # 4 px: noise
    square(seg, 10, 60, 20, (0, 0, 200))
    marker = np.zeros((120, 160), np.uint8)
    marker[65, 15] = 250
    cells = find_cells(seg, marker, Rules(size_thresh=50))
    assert cells.xy.tolist() == [[19.5, 19.5], [69.5, 19.5], [19.5, 69.5]]
    assert cells.positive.tolist() == [True, False, False]
    assert np.bincount(cells.labels.ravel())[1:].tolist() == [400, 400, 400]
    assert (cells.labels[16, 16], cells.labels[11, 101]) == (1, 0)
    assert cells.labels_of(positive=False).max() == 3
    assert set(np.unique(cells.labels_of(positive=True))) == {0, 1}
    assert find_cells(seg, marker, Rules(size_thresh=50, marker_thresh=200)).positive.tolist() == [
        True, False, True,
    ]  # fmt: skip
    assert len(find_cells(seg, rules=Rules(size_thresh=0)).xy) == 4
    assert len(find_cells(np.zeros_like(seg)).xy) == 0


@pytest.mark.parametrize("thresh", [60, 120])
def test_labels_belong_to_the_cells_of_the_table(thresh):
    rng = np.random.default_rng(1)
    coarse = rng.choice(
        np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255), (0, 200, 0), (80, 0, 0)], np.uint8), (40, 40)
    )
    seg = coarse.repeat(3, axis=0).repeat(3, axis=1)
    cells = find_cells(seg, rules=Rules(seg_thresh=thresh, size_thresh=0))
    table = extract_cells(seg, seg_thresh=thresh).table
    assert np.bincount(cells.labels.ravel())[1:].tolist() == table["area_px"].to_pylist()
    for cell, (x, y) in enumerate(cells.xy, start=1):
        ys, xs = np.nonzero(cells.labels == cell)
        assert (xs.mean(), ys.mean()) == pytest.approx((x, y))


@pytest.mark.parametrize(
    ("options", "word"), [({"resolution": "5x"}, "5x"), ({"marker_thresh": "high"}, "high")]
)
def test_bad_rules(options, word):
    seg = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ConfigError, match=word):
        find_cells(seg, seg[..., 0], Rules(**options))
