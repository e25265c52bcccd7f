"""Panels made from a model's outputs on unlabelled images and slides."""

import csv

import numpy as np
import pytest
from PIL import Image

from deepliif_ray import load_model, storage
from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.slides import write_pyramid
from deepliif_ray.training.panels.distill import distill
from deepliif_ray.training.panels.files import MODALITIES, read_panels
from deepliif_ray.training.panels.listing import list_panels
from tests.models.published import write_published_folder
from tests.training.panels.test_files import run

BLUISH = np.array([0, 0, 50], np.uint8)
"""Noise of all colours is grey from afar, and refused as such."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(
        write_published_folder(
            tmp_path_factory.mktemp("model"),
            net_g="resnet_6blocks",
            net_gs="unet_32",
            scale_size=32,
            ngf=4,
        )
    )


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """A field at 40x, half of it empty, and a pyramidal slide at 20x that says so."""
    folder = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(0)
    pixels = np.full((256, 256, 3), 244, np.uint8)
    pixels[:, :128] = rng.integers(90, 200, (256, 128, 3)) + BLUISH
    Image.fromarray(pixels).save(folder / "field one.png")
    noise = rng.integers(90, 200, (192, 256, 3), dtype=np.uint8) + BLUISH
    write_pyramid(folder / "slide.tiff", noise, mpp=0.5)
    return folder


def strips(folder):
    return {source.name: read_panels(source) for source in list_panels(str(folder))}


def test_strips_hold_what_the_model_makes(model, slides, tmp_path):
    seen = []
    count = distill(
        model, [str(slides / "field one.png")], str(tmp_path), tile_size=64, assume_mpp=0.25,
        watch=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    found = strips(tmp_path)
    assert count == len(found) == 8  # of 16 tiles, those with tissue
    assert seen == [(n, 8) for n in range(1, 9)]
    field = np.asarray(Image.open(slides / "field one.png"))
    loaded = load_model(model, modalities=["Hema", "DAPI", "Lap2", "Marker"])
    for name, panels in found.items():
        x, y = (int(part) for part in name.split("_")[-2:])
        assert x < 128
        assert np.array_equal(panels.ihc, field[y : y + 64, x : x + 64])
        expected = loaded.infer(panels.ihc[None], loaded.modality_names)
        assert np.array_equal(panels.targets["seg"], expected.seg[0])
        for ours, theirs in zip(MODALITIES, loaded.modality_names, strict=True):
            assert np.array_equal(panels.targets[ours], expected.modalities[theirs][0])


def test_slides_are_brought_to_the_models_resolution(model, slides, tmp_path):
    distill(model, [str(slides / "slide.tiff")], str(tmp_path), tile_size=128)
    found = strips(tmp_path)
    assert sorted(found) == [f"0000-slide_{x}_{y}" for x in (0, 128, 192, 64) for y in (0, 128, 64)]
    slide = np.asarray(Image.open(slides / "slide.tiff").convert("RGB"))
    tile = Image.fromarray(slide[64:128, 128:192]).resize((128, 128), Image.Resampling.LANCZOS)
    assert np.array_equal(found["0000-slide_128_64"].ihc, np.asarray(tile))


def test_the_tiles_follow_from_the_seed_and_slides_take_turns(model, slides, tmp_path):
    with (slides / "cohort.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["slide_id", "patient_id", "marker", "uri", "mpp"])
        rows.writerow(["a", "p", "Ki67", "field one.png", 0.25])
        rows.writerow(["b", "p", "Ki67", "slide.tiff", ""])

    def names(folder, seed, sources):
        distill(model, sources, str(tmp_path / folder), tile_size=64, max_tiles=5, seed=seed, assume_mpp=0.25)
        return {name: panels.ihc.tobytes() for name, panels in strips(tmp_path / folder).items()}

    first = names("1", 0, [str(slides / "cohort.csv")])
    assert sorted(name[:11] for name in first) == ["0000-field-"] * 3 + ["0001-slide_"] * 2
    assert names("2", 0, [str(slides)]) == first
    assert names("3", 1, [str(slides)]) != first


def test_a_share_of_the_modalities_from_memory_to_memory(model, slides):
    folder = "memory://distilled"
    storage.write_bytes("memory://given/f.png", (slides / "field one.png").read_bytes())
    count = distill(
        model, ["memory://given/f.png"], folder, modalities=("marker", "DAPI"), tile_size=64, max_tiles=1,
        assume_mpp=0.25,
    )  # fmt: skip
    panels = read_panels(list_panels(folder, ("marker", "DAPI"))[0])
    storage.remove(folder)
    assert (count, list(panels.targets)) == (1, ["marker", "DAPI", "seg"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("cd3",)}, "has no modality cd3; its modalities are: Hema, DAPI, Lap2, Marker"),
        ({"modalities": ("dapi", "dapi")}, "different names"),
        ({"assume_mpp": None}, "field one.png: .*unknown"),
        ({"min_tissue_percent": 100.5}, "0 to 100"),
        ({"max_tiles": 0}, "at least 1"),
        ({"tile_size": 8}, "at least 16"),
        ({"sources": ["nowhere.svs"]}, "nowhere.svs: no such file"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(model, slides, tmp_path, options, message):
    given = {"sources": [str(slides / "field one.png")], "assume_mpp": 0.25, "tile_size": 64, **options}
    with pytest.raises(ConfigError, match=message):
        distill(model, output=str(tmp_path), **given)
    assert list(tmp_path.iterdir()) == []


def test_all_bad_slides_are_named_and_blank_ones_told(model, slides, tmp_path):
    (tmp_path / "a.svs").write_bytes(b"nothing")
    (tmp_path / "b.png").write_bytes(b"")
    Image.fromarray(np.full((128, 128, 3), 250, np.uint8)).save(tmp_path / "c.png")
    names = [str(tmp_path / name) for name in ("a.svs", "b.png", "c.png")]
    with pytest.raises(ConfigError, match="2 problems") as caught:
        distill(model, names, str(tmp_path / "out"), assume_mpp=0.25)
    assert "a.svs" in str(caught.value)
    assert "b.png" in str(caught.value)
    with pytest.raises(ConfigError, match=r"no tile of .* holds 50 % tissue"):
        distill(model, names[2:], str(tmp_path / "out"), assume_mpp=0.25, tile_size=64)
    with pytest.raises(ModelError, match="no such model"):
        distill("no-model", names[2:], str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="modality"):
        distill("stain", names[2:], str(tmp_path / "out"))


@pytest.mark.slow
def test_the_command(model, slides, tmp_path):
    options = ["--tile-size", 64, "--assume-mpp", 0.25, "--max-tiles", 2, "--modality", "dapi"]
    done = run("distill", model, slides / "field one.png", slides / "slide.tiff", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert "2 strips written" in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert run("distill", model, tmp_path / "out").returncode == 2
