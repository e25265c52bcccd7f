"""What `infer` writes is what scoring infers, at the place that it says."""

import json
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from deepliif_ray import Execution, cli, score
from deepliif_ray.cells.extract import extract_cells
from deepliif_ray.engine import steps
from deepliif_ray.errors import ConfigError, ModelError, ResolutionError, SlideCorruptError, SlideMissingError
from deepliif_ray.exports import levels
from deepliif_ray.modalities import infer_modalities
from deepliif_ray.models import load_model, modalities_of
from deepliif_ray.models.checkpoint import load_checkpoint
from deepliif_ray.query import ask
from deepliif_ray.slides import write_pyramid
from deepliif_ray.slides.guard import GuardedSlide
from deepliif_ray.synthetic import SyntheticTissue
from tests.models.published import write_published_folder

TINY = {"net_g": "resnet_6blocks", "net_gs": "unet_32", "scale_size": 32, "ngf": 4}
WIDTH, HEIGHT = 1100, 700
NAMES = ("hematoxylin", "dapi", "lap2", "marker", "segmentation")


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Tissue on the left, glass on the right."""
    path = tmp_path_factory.mktemp("slide") / "a.tiff"
    pixels = SyntheticTissue(WIDTH, HEIGHT, seed=3, coverage=1.0)[0:HEIGHT, 0:WIDTH].copy()
    pixels[:, 500:] = 243
    write_pyramid(path, pixels, mpp=0.25, quality=None)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return str(write_published_folder(tmp_path_factory.mktemp("model") / "published", **TINY))


def images(path):
    with tifffile.TiffFile(path) as file:
        return {series.name: series.asarray() for series in file.series}


def scored_maps(slide, model, folder, monkeypatch):
    """Score a slide; return the segmentation and marker maps that cells were measured in, and the results.

    Tiles that are masked are not measured: they count as background.
    """
    seg = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    marker = np.full((HEIGHT, WIDTH), load_model(model).background_marker, np.uint8)
    measure = steps.measure_core

    def spy(seg_core, marker_core, rgb, *, core, **more):
        x0, y0, x1, y1 = core
        seg[y0:y1, x0:x1] = seg_core
        marker[y0:y1, x0:x1] = marker_core
        return measure(seg_core, marker_core, rgb, core=core, **more)

    monkeypatch.setattr(steps, "measure_core", spy)
    folder.mkdir(exist_ok=True)
    (folder / "m.csv").write_text(f"slide_id,patient_id,marker,uri\nS,P,Ki67,{slide}\n")
    done = score(
        str(folder / "m.csv"), str(folder / "results"), model=model, execution=Execution(engine="local")
    )
    assert done.scored == 1
    return seg, marker, str(folder / "results")


@pytest.mark.parametrize("model", ["compact", pytest.param("published", marks=pytest.mark.slow)])
def test_the_segmentation_is_the_one_that_was_scored(slide, published, model, tmp_path, monkeypatch):
    uri = published if model == "published" else model
    seg, marker, results = scored_maps(slide, uri, tmp_path / "scored", monkeypatch)
    done = infer_modalities(str(slide), tmp_path / "a.ome.tiff", model=uri)
    made = images(tmp_path / "a.ome.tiff")
    assert tuple(made) == done.names == NAMES
    np.testing.assert_array_equal(made["segmentation"], seg)
    np.testing.assert_array_equal(made["marker"].max(axis=2), marker)
    assert len(np.unique(seg.reshape(-1, 3), axis=0)) > 2
    (record,) = ask(results, "FROM slides").to_pylist()
    assert done.n_inferred == record["n_tiles_inferred"] < done.n_tiles == record["n_tiles"]
    if model == "published":
        return
    # The cells of the file are the cells of the results: the file tells all that scoring knew.
    table = extract_cells(made["segmentation"], made["marker"].max(axis=2), noise_thresh=4).table
    cells = ask(results, "SELECT * FROM cells ORDER BY cell_id")
    assert cells.num_rows > 30
    for name in ("area_px", "x", "y", "positive_px", "marker_max", "bbox_x0"):
        assert cells[name].to_pylist() == table[name].to_pylist(), name


@pytest.mark.parametrize(
    "region",
    [
        (417, 33, 500, 640),
        *(pytest.param(area, marks=pytest.mark.slow) for area in ((0, 0, 300, 200), (1099, 699, 1, 1))),
    ],
)
def test_a_region_is_a_part_of_the_whole(slide, published, tmp_path, region):
    options = {"model": published, "modalities": ["Lap2", "SEG", "hematoxylin"]}
    infer_modalities(str(slide), tmp_path / "all.ome.tiff", **options)
    done = infer_modalities(str(slide), tmp_path / "part.ome.tiff", region=region, **options)
    assert done.names == ("lap2", "segmentation", "hematoxylin") and done.area == region
    whole, part = images(tmp_path / "all.ome.tiff"), images(tmp_path / "part.ome.tiff")
    x, y, width, height = region
    for name in done.names:
        np.testing.assert_array_equal(part[name], whole[name][y : y + height, x : x + width])


def test_where_there_is_nothing_it_is_blank_as_said(slide, published, tmp_path):
    done = infer_modalities(str(slide), tmp_path / "a.ome.tiff", region=(900, 0, 200, 700), model=published)
    made = images(tmp_path / "a.ome.tiff")
    assert done.n_inferred == 0 and done.n_tiles > 0
    assert (made["segmentation"] == 0).all() and (made["dapi"] == 0).all()
    assert (made["marker"] == 10).all() and (made["hematoxylin"] == 243).all()


def test_overviews_names_size_and_place(slide, published, tmp_path, monkeypatch):
    monkeypatch.setattr(levels, "SIDE", 64)
    infer_modalities(str(slide), tmp_path / "a.ome.tiff", region=(20, 8, 301, 201), model=published, mpp=0.5)
    with tifffile.TiffFile(tmp_path / "a.ome.tiff") as file:
        ome = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
        for series, told in zip(file.series, ome, strict=True):
            shapes = [level.shape for level in series.levels]
            assert shapes == [(201, 301, 3), (101, 151, 3), (51, 76, 3), (26, 38, 3)]
            finest, coarser = (series.levels[n].asarray() for n in (0, 1))
            truth = np.asarray(Image.fromarray(finest).reduce(2))
            np.testing.assert_allclose(coarser.astype(int), truth, atol=1)
            page = series.levels[0].pages[0]
            assert page.is_tiled and page.compression.name == "ADOBE_DEFLATE"
            pixels = told["Pixels"]
            assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == 0.5
            assert pixels["PhysicalSizeXUnit"] == "µm" and pixels["Channel"]["Name"] == series.name
            assert (pixels["Plane"]["PositionX"], pixels["Plane"]["PositionY"]) == (10.0, 4.0)
            said = json.loads(told["Description"])
            assert said["area"] == "20,8,301,201" and said["slide"] == "a.tiff" and said["tile_px"] == 256
            assert said["mpp_source"] == "manifest"


def test_modalities_of_models(published):
    assert modalities_of("compact") == ("hematoxylin", "dapi", "lap2", "marker")
    assert modalities_of("stain") == ()
    assert modalities_of(published) == load_checkpoint(published).options.modality_names
    assert len(modalities_of(published)) == 4


def test_refusals_leave_nothing(slide, tmp_path, published):
    target = tmp_path / "a.ome.tiff"

    def infer(**more):
        return infer_modalities(str(more.pop("slide", slide)), more.pop("to", target), **more)

    for region in ((1000, 0, 101, 10), (-1, 0, 10, 10), (0, 0, 10, 0), (0, 700, 5, 5)):
        with pytest.raises(ConfigError, match=r"a\.tiff: --region .*1,100 × 700"):
            infer(region=region)
    with pytest.raises(ConfigError, match="stain: makes no dapi; it makes segmentation"):
        infer(model="stain", modalities=["dapi"])
    with pytest.raises(ConfigError, match="makes no cd3; it makes hematoxylin, dapi, lap2, marker, segm"):
        infer(model=published, modalities=["dapi", "CD3"])
    with pytest.raises(ConfigError, match="name each once"):
        infer(modalities=["hema", "hematoxylin"])
    with pytest.raises(ModelError, match="no such model"):
        infer(model="nothing")
    with pytest.raises(ConfigError, match="ends in"):
        infer(to=tmp_path / "a.png")
    with pytest.raises(SlideMissingError):
        infer(slide=tmp_path / "none.tiff")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        tmp_path / "no_mpp.png"
    )
    with pytest.raises(ResolutionError, match=r"no_mpp\.png.*--mpp"):
        infer(slide=tmp_path / "no_mpp.png")
    target.write_text("mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        infer()
    assert target.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tiff", "no_mpp.png"]


def test_tiles_that_cannot_be_decoded_are_said_or_refused(slide, published, tmp_path, monkeypatch):
    read = GuardedSlide.read_rgb

    def broken(self, level, x, y, width, height):
        if level == 0 and x + width > limit:
            raise SlideCorruptError(f"{self.name}: a rotten tile")
        return read(self, level, x, y, width, height)

    options = {"region": (0, 0, 500, 400), "model": published, "modalities": ["segmentation", "dapi"]}
    infer_modalities(str(slide), tmp_path / "sound.ome.tiff", **options)
    limit = 600
    monkeypatch.setattr(GuardedSlide, "read_rgb", broken)
    done = infer_modalities(str(slide), tmp_path / "a.ome.tiff", **options)
    assert 0 < done.n_bad < done.n_tiles
    assert f"{done.n_bad} tiles cannot be decoded and are blank" in done.warnings[-1]
    sound, made = images(tmp_path / "sound.ome.tiff"), images(tmp_path / "a.ome.tiff")
    np.testing.assert_array_equal(made["dapi"][:, :480], sound["dapi"][:, :480])
    assert (made["dapi"][:, 480:] == 0).all() and (sound["dapi"][:, 480:] != 0).any()
    limit = 0
    with pytest.raises(SlideCorruptError, match=r"a\.tiff.*rotten"):
        infer_modalities(str(slide), tmp_path / "b.ome.tiff", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tiff", "sound.ome.tiff"]


def test_from_the_command_line(slide, published, tmp_path, monkeypatch, capsys):
    target = str(tmp_path / "a.ome.tiff")
    told = ["--region", "10,20,300,200", "--modalities", "dapi,segmentation", "--model", published]
    monkeypatch.setattr(sys, "argv", ["deepliif-ray", "infer", str(slide), target, *told])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code
    assert "dapi, segmentation; 300 × 200 px from 10, 20" in capsys.readouterr().err.replace("\n", " ")
    assert images(target)["dapi"].shape == (200, 300, 3)
    monkeypatch.setattr(sys, "argv", ["deepliif-ray", "infer", str(slide), target, "--region", "1,2,3"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2 and "--region '1,2,3'" in capsys.readouterr().err
