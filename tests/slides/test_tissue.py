import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from deepliif_ray.errors import SlideUnsuitableError
from deepliif_ray.slides import (
    Level,
    Slide,
    TileGrid,
    grey_variance,
    is_empty,
    masked_tiles,
    open_slide,
    tissue_mask,
    write_pyramid,
)
from deepliif_ray.slides.brightfield import check_brightfield
from deepliif_ray.slides.quality import measure_quality
from deepliif_ray.slides.unscanned import fill_unscanned
from deepliif_ray.synthetic import SyntheticTissue
from tests.few import few


def published_variance(tile):
    grey = np.asarray(Image.fromarray(tile).convert("L"))
    kept = grey[np.logical_and(grey != 255, grey != 0)]
    return np.var(kept) if kept.shape[0] else 0


def luma(tile):
    # ITU-R 601-2 in 16-bit fixed point, as Pillow's documentation gives it.
    red, green, blue = (tile[..., channel].astype(np.int64) for channel in range(3))
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 255), st.integers(0, 40))
def test_variance_is_the_published_one(seed, side, centre, spread):
    rng = np.random.default_rng(seed)
    tile = (centre + rng.integers(-spread, spread + 1, (side, side, 3))).clip(0, 255).astype(np.uint8)
    tile[rng.random((side, side)) < 0.2] = rng.choice([0, 255])
    assert grey_variance(tile) == published_variance(tile)
    assert is_empty(tile) == (published_variance(tile) < 9)
    grey = luma(tile)
    kept = grey[(grey > 0) & (grey < 255)]
    assert grey_variance(tile) == pytest.approx(kept.var() if kept.size else 0.0)


def test_limits_of_the_rule():
    half = np.full((64, 64, 3), 100, np.uint8)
    half[:32] = 106  # variance exactly 9
    assert not is_empty(half)
    half[:32] = 105
    assert is_empty(half)
    bars = np.zeros((64, 64, 3), np.uint8)
    bars[::2] = 255
    assert is_empty(bars)  # black and white are ignored
    bars[0, :2] = [[10, 10, 10], [30, 30, 30]]
    assert not is_empty(bars)


def test_rule_is_fast():
    tile = SyntheticTissue(512, 512, seed=1)[0:512, 0:512]
    best = min(_timed(lambda: is_empty(tile)) for _ in range(10))
    assert best < 0.01  # under 1 ms on a quiet core


def _timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Pyramid(Slide):
    """A slide in memory whose level 1 is the box average of level 0."""

    def __init__(self, rgba, downsample):
        self.path = None
        small = rgba
        if downsample > 1:
            small = np.asarray(Image.fromarray(rgba, "RGBA").reduce(downsample))
        self._planes = [rgba, small]
        self.vendor = "memory"
        self.levels = tuple(
            Level(plane.shape[1], plane.shape[0], rgba.shape[0] / plane.shape[0]) for plane in self._planes
        )
        self.full_reads = 0

    def read_level(self, level, x, y, width, height):
        self.full_reads += level == 0
        return self._planes[level][y : y + height, x : x + width]

    def close(self):
        pass


def large_cores(grid):
    return np.array([(t.core[2] - t.core[0]) * (t.core[3] - t.core[1]) >= 16_000 for t in grid])


def opaque(rgb):
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def breaches(slide, grid, masked):
    """Return the masked tiles that the published rule would have run."""
    return [
        int(index)
        for index in np.flatnonzero(masked)
        if not is_empty(slide.read_tile(grid[int(index)].x, grid[int(index)].y, grid.tile))
    ]


backgrounds = st.sampled_from([(240, 240, 240), (255, 255, 255), (0, 0, 0), (1, 1, 1), (254, 255, 255)])


@settings(max_examples=40, deadline=None)
@given(
    backgrounds,
    st.sampled_from([4, 8, 16, 32]),
    st.sampled_from(["nothing", "noise", "checkers", "speck", "specks", "ramp", "hole"]),
    st.floats(0.2, 8.0),
    st.integers(0, 2**32 - 1),
)
def test_mask_never_goes_beyond_the_rule(background, downsample, kind, strength, seed):
    rng = np.random.default_rng(seed)
    shape = (768, 1024)
    rgb = np.empty((*shape, 3))
    rgb[:] = background
    if kind == "noise":  # averages out
        rgb += rng.normal(0, strength, (*shape, 1))
    elif kind == "checkers":  # averages out exactly
        y, x = np.indices(shape)
        rgb += np.where((x + y) % 2, strength, -strength)[..., None]
    elif kind in ("speck", "specks"):
        for _ in range(1 if kind == "speck" else 40):
            y, x, side = rng.integers(0, 760), rng.integers(0, 1000), rng.integers(1, 40)
            rgb[y : y + side, x : x + side] = rng.integers(0, 256, 3)
    elif kind == "ramp":
        rgb += np.linspace(-strength, strength, shape[1])[:, None]
    pixels = opaque(rgb.round().clip(0, 255).astype(np.uint8))
    if kind == "hole":
        pixels[100:600, 100:600, 3] = 0
    slide = Pyramid(pixels, downsample)
    grid = TileGrid(shape[1], shape[0], 256, 16)
    masked = masked_tiles(slide, grid)
    assert masked.shape == (len(grid),)
    assert breaches(slide, grid, masked) == []
    if kind == "nothing":
        grey = luma(np.array(background))
        assert (masked == (large_cores(grid) & (0 < grey < 255))).all()


def test_sparse_regions_are_masked_and_the_edge_of_tissue_is_not():
    rgba = np.zeros((1024, 1024, 4), np.uint8)
    rgba[:300, :300] = opaque(SyntheticTissue(300, 300, seed=1, coverage=1)[0:300, 0:300])
    slide = Pyramid(rgba, 8)
    grid = TileGrid(1024, 1024, 256, 16)
    masked = masked_tiles(slide, grid)
    far = np.array([tile.x >= 300 + 3 * 8 or tile.y >= 300 + 3 * 8 for tile in grid])
    assert (masked == (far & large_cores(grid))).all()
    assert 0 < masked.sum() < len(grid) - 4


def test_mask_needs_a_level_of_use_and_cores_of_size():
    grey = opaque(np.full((2048, 2048, 3), 200, np.uint8))
    for downsample in (1, 2, 64):
        assert not masked_tiles(Pyramid(grey, downsample), TileGrid(2048, 2048, 256, 16)).any()
    assert masked_tiles(Pyramid(grey, 4), TileGrid(2048, 2048, 256, 16)).all()
    small = masked_tiles(Pyramid(grey, 4), TileGrid(2048, 2048, 128, 8))
    assert not small.any()  # 112 x 112 px
    uneven = TileGrid(2048, 560, 512, 32)
    masked = masked_tiles(Pyramid(grey[:560], 4), uneven)
    assert (masked == large_cores(uneven)).all()
    assert 0 < masked.sum() < len(uneven)


def test_every_masked_tile_was_looked_at_at_level_0():
    slide = Pyramid(opaque(np.full((4096, 4096, 3), 200, np.uint8)), 32)
    masked = masked_tiles(slide, TileGrid(4096, 4096, 256, 16))
    assert masked.sum() == slide.full_reads > 200


@pytest.mark.parametrize("missing", [(255, 255, 255, 0), (0, 0, 0, 255), (240, 240, 240, 255)])
def test_a_coarse_level_without_tiles_hides_nothing(missing):
    pixels = SyntheticTissue(1024, 1024, seed=1, coverage=1)[0:1024, 0:1024]
    slide = Pyramid(opaque(pixels), 8)
    whole = slide.read_level

    def read_level(level, x, y, width, height):
        found = whole(level, x, y, width, height).copy()
        if level:
            found[:, max(0, 64 - x) :] = missing
        return found

    expected = tissue_mask(slide, 0.5)
    assert expected.warnings == ()
    slide.read_level = read_level
    assert not masked_tiles(slide, TileGrid(1024, 1024, 256, 16)).any()
    found = tissue_mask(slide, 0.5)
    assert "level 1 does not show what level 0 shows" in found.warnings[0]
    assert found.area_px == pytest.approx(expected.area_px, rel=0.02)


def test_a_level_that_shows_another_picture_or_has_another_shape_is_passed_over():
    pixels = SyntheticTissue(1024, 1024, seed=1, coverage=0.5)[0:1024, 0:1024]
    slide = Pyramid(opaque(pixels), 8)
    expected = tissue_mask(slide, 0.5).area_px
    whole = slide.read_level
    slide.read_level = lambda level, x, y, width, height: (
        whole(level, x, 128 - y - height, width, height)[::-1] if level else whole(0, x, y, width, height)
    )
    assert tissue_mask(slide, 0.5).warnings
    slide.read_level = whole
    slide.levels = (*slide.levels, Level(300, 90, 5.0))
    found = tissue_mask(slide, 0.5)
    assert "another shape" in found.warnings[0]
    assert found.area_px == expected


def test_black_in_quantity_was_not_scanned():
    pixels = SyntheticTissue(1024, 2048, seed=1, coverage=1)[0:2048, 0:1024]
    alone = tissue_mask(Pyramid(opaque(pixels[:1024]), 4), 0.5)
    pixels[1024:] = np.random.default_rng(0).integers(0, 4, (1024, 1024, 3))  # as JPEG leaves it
    slide = Pyramid(opaque(pixels), 4)
    half = tissue_mask(slide, 0.5)
    assert half.area_px == pytest.approx(alone.area_px, rel=0.03)
    assert half.scanned_px == pytest.approx(1024 * 1024, rel=0.03)
    quality, _ = measure_quality(slide, half, 0.5)
    assert quality.pen_percent == 0
    assert quality.tissue_percent == pytest.approx(100 * alone.area_px / 1024**2, rel=0.03)


def test_what_is_no_brightfield_is_refused():
    tissue = SyntheticTissue(1024, 1024, seed=1, coverage=0.6)[0:1024, 0:1024]
    grey = np.repeat(luma(tissue).round().astype(np.uint8)[..., None], 3, axis=2)
    for pixels, why in ((255 - tissue, "dark"), (grey, "grey"), (np.zeros_like(tissue), "black")):
        with pytest.raises(SlideUnsuitableError, match=why):
            check_brightfield("a.tif", tissue_mask(Pyramid(opaque(pixels), 4), 0.5))
    for pixels in (tissue, np.full_like(tissue, 255), np.full_like(tissue, 200)):
        check_brightfield("a.tif", tissue_mask(Pyramid(opaque(pixels), 4), 0.5))


def test_real_fluorescence_is_refused_and_real_sections_are_not(shared_data):
    for path in sorted((shared_data / "deepliif/official").glob("*/*.png")):
        with open_slide(path) as slide:
            tissue = tissue_mask(slide, 0.25)
        if path.stem in ("ihc", "hematoxylin"):
            check_brightfield(path.name, tissue)
        elif path.stem in ("dapi", "lap2", "marker"):
            with pytest.raises(SlideUnsuitableError):
                check_brightfield(path.name, tissue)
    for folder in ("bcdata", "pen", "unlabelled", "fields", "endonuke"):
        for path in sorted((shared_data / folder).glob("*.png"))[:12]:
            with open_slide(path) as slide:
                check_brightfield(path.name, tissue_mask(slide, 0.25))


def test_unscanned_parts_of_a_tile_are_filled_and_black_nuclei_are_not():
    tile = np.full((512, 512, 3), 200, np.uint8)
    tile[disc(512, 40)] = 0  # 314 µm², more than any nucleus
    assert fill_unscanned(tile, 0.25, (240, 240, 240)) is tile
    tile[:, :100] = 2
    tile[:, 100:102] = 60  # what compression leaves at the edge
    filled = fill_unscanned(tile, 0.25, (240, 241, 242))
    assert (filled[:, :103] == (240, 241, 242)).all()
    assert (filled[:, 104:] == tile[:, 104:]).all()


@pytest.mark.parametrize("quality", few([None, 30, 85], 1))
def test_mask_on_written_slides(tmp_path, quality):
    # JPEG ringing around nuclei, and glass with sensor noise, through OpenSlide.
    tissue = SyntheticTissue(2048, 1536, seed=5, coverage=0.4)
    write_pyramid(tmp_path / "a.tiff", tissue, mpp=0.25, quality=quality, min_level=128)
    with open_slide(tmp_path / "a.tiff") as slide:
        grid = TileGrid(slide.width, slide.height, 256, 16)
        assert breaches(slide, grid, masked_tiles(slide, grid)) == []


def test_mask_on_real_slides(shared_data, tmp_path):
    for path in sorted((shared_data / "slides").rglob("*.svs")):
        with open_slide(path) as slide:
            grid = TileGrid(slide.width, slide.height, 256, 16)
            assert breaches(slide, grid, masked_tiles(slide, grid)) == []
    core = sorted((shared_data / "cores").glob("*.jpg"))[0]
    with open_slide(core) as field:
        write_pyramid(tmp_path / "core.tiff", field.read_rgb(0, 0, 0, field.width, field.height), mpp=0.45)
    with open_slide(tmp_path / "core.tiff") as slide:
        grid = TileGrid(slide.width, slide.height, 256, 16)
        assert breaches(slide, grid, masked_tiles(slide, grid)) == []


def disc(side, radius):
    y, x = np.indices((side, side)) - side // 2
    return np.hypot(x, y) < radius


@pytest.mark.parametrize("pyramid", few([True, False], 1))
def test_tissue_area_of_a_disc(tmp_path, pyramid):
    rgb = np.full((3000, 3000, 3), 243, np.uint8)
    inside = disc(3000, 1000)
    rgb[inside] = (190, 180, 200)
    rgb[:40, :40] = 0  # dust
    rgb[disc(3000, 60)] = 243  # a lumen too small to count
    write_pyramid(tmp_path / "a.tiff", rgb, mpp=0.25, quality=None, min_level=256 if pyramid else 3000)
    with open_slide(tmp_path / "a.tiff") as slide:
        assert len(slide.levels) == (3 if pyramid else 1)
        found = tissue_mask(slide, 0.25)
    assert found.area_px == pytest.approx(np.pi * 1000**2, rel=0.02)
    assert 8 <= found.size * 0.25 <= 16
    again = ndimage.zoom(found.mask.astype(np.uint8), found.size, order=0)[:3000, :3000]
    assert (again == inside[: again.shape[0], : again.shape[1]]).mean() > 0.97


def test_tissue_of_fields():
    full = SyntheticTissue(500, 333, seed=1, coverage=1.0)[0:333, 0:500]
    nothing = SyntheticTissue(500, 333, seed=1, coverage=0.0)[0:333, 0:500]
    brown = np.full((333, 500, 3), (120, 90, 60), np.uint8)
    for pixels, least, most in ((full, 0.4, 1.0), (nothing, 0.0, 0.0), (brown, 1.0, 1.0)):
        share = tissue_mask(Pyramid(opaque(pixels), 1), 0.25).area_px / (333 * 500)
        assert least <= share <= most + 1e-9


def test_tissue_of_real_fields(shared_data):
    for name, mpp, least, most in (
        ("cores/ZT135_15_A_4_7.jpg", 0.45, 0.70, 0.80),  # a disc in a square
        ("deepliif/large/ROI_1.png", 0.25, 0.9, 1.0),
        ("bcdata/0.png", 0.25, 0.9, 1.0),
        ("slides/CMU-1-Small-Region.svs", 0.499, 0.33, 0.43),
        ("slides/tcga-cr-7395-01a-01-ts1.svs", 0.25, 0.58, 0.70),
    ):
        with open_slide(shared_data / name) as slide:
            share = tissue_mask(slide, mpp).area_px / (slide.width * slide.height)
        assert least <= share <= most, name
