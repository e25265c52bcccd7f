import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deepliif_ray.errors import ConfigError, ResolutionError
from deepliif_ray.native import NativeView
from deepliif_ray.slides import (
    SlidePlan,
    open_slide,
    plan_slide,
    resolution_name,
    tile_size_for,
    write_pyramid,
)
from deepliif_ray.synthetic import SyntheticTissue


@pytest.fixture(scope="module")
def tissue():
    return SyntheticTissue(1200, 1000, seed=1)[0:1000, 0:1200]


@pytest.fixture(scope="module")
def tiff(tmp_path_factory, tissue):
    path = tmp_path_factory.mktemp("plan") / "slide.tiff"
    write_pyramid(path, tissue, mpp=0.25)
    return path


@pytest.fixture(scope="module")
def png(tmp_path_factory, tissue):
    path = tmp_path_factory.mktemp("plan") / "field.png"
    Image.fromarray(tissue).save(path)
    return path


def plan(path, **options):
    with open_slide(path) as slide:
        return plan_slide(slide, **options)


def test_plan_of_a_slide(tiff):
    made = plan(tiff)
    assert (made.width, made.height, made.vendor) == (1200, 1000, "generic-tiff")
    assert (made.mpp, made.mpp_source) == (0.25, "file")
    assert (made.tile, made.overlap, made.resolution) == (512, 32, "40x")
    assert (made.grid.n_columns, made.grid.n_rows) == (3, 3)
    assert 0.01 < made.tissue_mm2 < 1200 * 1000 * 0.25**2 / 1e6
    assert made.warnings == ()


def test_json_round_trip(tiff):
    made = plan(tiff, mpp=0.4)
    assert made.warnings
    assert SlidePlan.from_json(made.to_json()) == made
    masked = replace(made, masked=(1, 2), warnings=("a",))
    assert SlidePlan.from_json(masked.to_json()) == masked
    older = json.loads(made.to_json())
    del older["quality"]  # staged by a version without quality control
    assert SlidePlan.from_json(json.dumps(older)) == replace(made, quality=None)


def test_masked_tiles_are_in_the_plan(tmp_path):
    pixels = np.full((2000, 2000, 3), (205, 200, 195), np.uint8)
    pixels[:300, :300] = SyntheticTissue(300, 300, seed=1, coverage=1)[0:300, 0:300]
    write_pyramid(tmp_path / "a.tiff", pixels, mpp=0.5, quality=None)
    made = plan(tmp_path / "a.tiff")
    assert made.tile == 256
    assert 0 < len(made.masked) < len(made.grid)
    assert all(isinstance(index, int) for index in made.masked)


def test_manifest_overrides_the_file(tiff):
    made = plan(tiff, mpp=0.26, assume_mpp=1.0)
    assert (made.mpp, made.mpp_source, made.warnings) == (0.26, "manifest", ())
    made = plan(tiff, mpp=0.5)
    assert (made.tile, made.resolution) == (256, "20x")
    assert made.warnings == ("mpp is 0.5 in the manifest but 0.25 in the file",)


def test_unknown_resolution_is_not_guessed(png, tiff):
    with pytest.raises(ResolutionError, match=r"field.png: .*manifest.*--assume-mpp"):
        plan(png)
    made = plan(png, assume_mpp=0.5)
    assert (made.mpp, made.mpp_source, made.tile) == (0.5, "assumed", 256)
    assert plan(png, mpp=0.25, assume_mpp=0.5).mpp == 0.25
    assert plan(tiff, assume_mpp=0.5).mpp_source == "file"


@pytest.mark.parametrize("mpp", [0.01, 0.0499, 4.01, 352.8])
def test_impossible_resolutions(png, mpp):
    with pytest.raises(ResolutionError, match="true mpp"):
        plan(png, mpp=mpp)


@pytest.mark.parametrize(("mpp", "warned"), [(0.06, True), (0.1, False), (2.0, False), (3.0, True)])
def test_unusual_resolutions(png, mpp, warned):
    assert bool(plan(png, mpp=mpp, native=NativeView(0.25)).warnings) == warned


def test_sizes_can_be_chosen(tiff):
    made = plan(tiff, tile_size=400, overlap=0)
    assert (made.tile, made.overlap, made.resolution, made.warnings) == (400, 0, "40x", ())
    made = plan(tiff, tile_size=256)
    assert (made.overlap, made.resolution) == (16, "20x")
    assert "nearer to 40x" in made.warnings[0]
    for bad in ({"tile_size": 0}, {"tile_size": 64, "overlap": 32}, {"overlap": -1}):
        with pytest.raises(ConfigError):
            plan(tiff, **bad)


def test_published_sizes():
    expected = {0.2: 512, 0.25: 512, 0.353: 512, 0.354: 256, 0.5: 256, 0.707: 256, 0.7072: 128, 1.0: 128}
    assert {mpp: tile_size_for(mpp) for mpp in expected} == expected
    assert [resolution_name(tile) for tile in (385, 384, 193, 192)] == ["40x", "20x", "20x", "10x"]


def test_real_slides(shared_data):
    slides = shared_data / "slides"
    assert plan(slides / "CMU-1-Small-Region.svs").resolution == "20x"
    with pytest.raises(ResolutionError):
        plan(slides / "tcga-cr-7395-01a-01-ts1.svs")
    camelyon = slides / "camelyon_dicom/multiframe_camelyon_challenge_image.dcm"
    with pytest.raises(ResolutionError, match=r"28\.9"):
        plan(camelyon)
    assert "28.9" in plan(camelyon, mpp=0.25).warnings[0]
    assert plan(slides / "boxes.tiff", assume_mpp=0.25).mpp_source == "assumed"


@pytest.mark.parametrize("mpp", [0.125, 0.2271, 0.3461, 0.36, 0.72])
def test_a_model_with_a_scale_of_its_own_gets_tiles_of_its_physical_size(png, mpp):
    made = plan(png, mpp=mpp, native=NativeView(0.25))
    assert made.tile * mpp == pytest.approx(128, abs=mpp)
    assert (made.native_mpp, made.warnings) == (0.25, ())
    assert plan(png, mpp=mpp, native=NativeView(0.5, 256)).tile == made.tile
    published = plan(png, mpp=mpp)
    assert published.tile in (512, 256, 128)
    assert any("published" in text for text in published.warnings) == (mpp != 0.2271)
