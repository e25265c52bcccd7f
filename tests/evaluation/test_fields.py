import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepliif_ray.cells import extract_cells
from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.fields import Rules, find_cells, infer_field
from deepliif_ray.models.base import Inference
from deepliif_ray.native import PUBLISHED, NativeView
from deepliif_ray.slides.contrast import Counterstain, contrast_for
from deepliif_ray.slides.grid import TileGrid
from deepliif_ray.slides.quality import shrunk


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


class Toned(Echo):
    """An `Echo` that knows one strength of hematoxylin, and adds to a tile what tells places in it apart."""

    native = NativeView(od=0.2)

    def infer(self, tiles, modalities=()):
        ramp = np.arange(tiles.shape[1], dtype=np.uint8)
        found = tiles + (ramp[:, None] + ramp)[..., None]
        self.sizes += [tile.shape for tile in tiles]
        return Inference(found, found[..., 0], {})


def stained(height, width):
    """A pale field of bluish squares, with noise."""
    rng = np.random.default_rng(3)
    rgb = rng.integers(225, 240, (height, width, 3), dtype=np.uint8)
    for y, x in rng.integers(0, (height - 12, width - 12), (height * width // 900, 2)):
        rgb[y : y + 12, x : x + 12] = rgb[y : y + 12, x : x + 12] * np.array([0.72, 0.78, 0.9])
    return rgb


def as_published(model, rgb, resolution):
    """`infer_field` of the three resolutions, written out; patches of contrast are 64 µm."""
    size, halving, side = {"40x": (512, 2, 128), "20x": (256, 1, 128), "10x": (128, 1, 64)}[resolution]
    half = shrunk(rgb, halving)
    patches = [
        half[y : y + side, x : x + side]
        for y in range(0, half.shape[0], side)
        for x in range(0, half.shape[1], side)
    ]
    contrast = contrast_for(model.native, Counterstain.measure(patches), None)
    assert contrast.factor > 1.1  # else the field says nothing of it
    shown, seg = contrast.apply(rgb), np.zeros_like(rgb)
    for tile in TileGrid(rgb.shape[1], rgb.shape[0], size, size // 4):
        pixels = shown[tile.y : tile.y + size, tile.x : tile.x + size]
        x0, y0, x1, y1 = tile.core
        found = model.infer(pixels[None]).seg[0]
        seg[y0:y1, x0:x1] = found[y0 - tile.y : y1 - tile.y, x0 - tile.x : x1 - tile.x]
    return seg


@pytest.mark.parametrize(("resolution", "mpp"), [("40x", 0.25), ("20x", 0.5), ("10x", 1.0)])
def test_published_resolutions_are_as_ever(resolution, mpp):
    rgb = stained(700, 900)
    expected = as_published(Toned(), rgb, resolution)
    assert np.array_equal(infer_field(Toned(), rgb, resolution=resolution).seg, expected)
    assert np.array_equal(infer_field(Toned(), rgb, mpp=mpp).seg, expected)


@pytest.mark.parametrize(
    ("native_mpp", "mpp", "side"),
    [
        (0.25, 0.25, 512),
        (0.25, 0.16, 800),
        (0.25, 0.6, 213),  # 213.3
        (0.5, 0.25, 1024),
        (None, 0.16, 512),
        (None, 0.35, 512),  # √(0.25 · 0.5) is 0.354
        (None, 0.36, 256),
        (None, 0.8, 128),
    ],
)
def test_a_known_pixel_size_decides_the_tiles(native_mpp, mpp, side):
    rgb = np.random.default_rng(0).integers(0, 256, (600, 1030, 3), dtype=np.uint8)
    model = Echo()
    model.native = NativeView(native_mpp)
    assert np.array_equal(infer_field(model, rgb, mpp=mpp, resolution="10x").seg, rgb)
    assert set(model.sizes) == {(side, side, 3)}


def test_contrast_is_measured_as_the_engine_does():
    rgb, model = stained(800, 800), Toned()
    model.native = NativeView(0.25, od=0.2)
    # At 0.16 µm patches are 400 px, of which three by three make one: 133 px of 266.
    half = shrunk(rgb, 3)
    patches = [half[y : y + 133, x : x + 133] for y in (0, 133) for x in (0, 133)]
    contrast = contrast_for(model.native, Counterstain.measure(patches), None)
    expected = Toned().infer(contrast.apply(rgb)[None]).seg[0]
    assert np.array_equal(infer_field(model, rgb, mpp=0.16).seg, expected)


def test_sizes_are_areas_where_the_pixel_size_is_known():
    seg = np.zeros((120, 160, 3), np.uint8)
    square(seg, 10, 10, 3, (255, 0, 0))  # 9 px
    square(seg, 60, 10, 5, (0, 0, 255))  # 25 px
    # What is larger than 4 px of 40x is a cell: at half that pixel size, larger than 16 px.
    assert find_cells(seg, rules=Rules(size_thresh=0)).positive.tolist() == [True, False]
    assert find_cells(seg, rules=Rules(size_thresh=0, mpp=0.125)).positive.tolist() == [False]
    big = np.zeros((140, 140, 3), np.uint8)
    square(big, 2, 2, 130, (255, 0, 0))  # 16,900 px: too large for a cell at 0.25 µm, not at 0.2
    assert [len(find_cells(big, rules=Rules(mpp=mpp)).xy) for mpp in (0.25, 0.2)] == [0, 1]


@given(
    hnp.arrays(np.uint8, (14, 14), elements=st.integers(0, 3)),
    st.sampled_from([2, 3]),
    st.sampled_from(["40x", "20x"]),
)
def test_magnified_maps_have_the_same_cells(kinds, times, resolution):
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255), (0, 255, 0)], np.uint8)
    seg = colours[kinds].repeat(4, axis=0).repeat(4, axis=1)
    large = seg.repeat(times, axis=0).repeat(times, axis=1)
    cells = find_cells(seg, rules=Rules(mpp=0.3))
    again = find_cells(large, rules=Rules(resolution, mpp=0.3 / times))
    assert again.positive.tolist() == cells.positive.tolist()
    assert again.xy.ravel().tolist() == pytest.approx((cells.xy * times + (times - 1) / 2).ravel().tolist())


def test_models_without_a_scale_are_counted_by_the_nearest_resolution():
    own, other = Echo(), Echo()
    own.native = NativeView(0.25)
    rules = Rules("10x", size_thresh=7, mpp=0.45)
    assert rules.of(own) == rules
    assert Rules("20x").of(own) == Rules("20x", mpp=0.5), "its sizes are areas"
    assert rules.of(other) == Rules("20x", size_thresh=7)
    assert Rules("10x").of(other) == Rules("10x")
    assert (rules.pixel_um, Rules("10x").pixel_um) == (0.45, 1.0)


@pytest.mark.parametrize("mpp", [0.0, 0.04, 4.1, float("nan"), -1])
def test_pixel_sizes_that_cannot_be(mpp):
    with pytest.raises(ConfigError, match=r"µm per pixel is outside 0\.05 to 4"):
        Rules(mpp=mpp)
