"""Label images: every pixel is of the cell that SQL says, wherever the area begins, in both formats."""

import json
import sys

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray import cli
from deepliif_ray.annotations.origin import Origin
from deepliif_ray.cells.extract import extract_cells
from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.exports import labels, levels
from deepliif_ray.exports.cells import Calls
from deepliif_ray.exports.labels import export_labels
from deepliif_ray.query import ask
from tests.cells.maps import blobs, colour, noise
from tests.exports import slides
from tests.few import few
from tests.query import fake_results as fake

FORMATS = ("a.ome.tiff", "a.zarr")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    for module in (levels, labels):
        monkeypatch.setattr(module, "SIDE", 32)
    monkeypatch.setattr(labels, "ROWS", 7)
    monkeypatch.setattr(labels, "_AT_ONCE", 3)


@pytest.fixture
def root(tmp_path):
    root = str(tmp_path / "results")
    bounds = {"bounds_x": 30, "bounds_y": 40, "bounds_width": 80, "bounds_height": 70}
    slides.commit(root, reader="openslide", width_px=120, height_px=120, **bounds)
    return root


def called(root):
    return ask(root, "FROM called_cells ORDER BY cell_id").to_pylist()


def read(path, level=0):
    if path.suffix == ".zarr":
        return zarr.open_array(path / "labels" / "cells" / str(level), mode="r")[:]
    with tifffile.TiffFile(path) as file:
        return file.series[0].levels[level].asarray()


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_are_those_of_the_cells(root, tmp_path, name):
    done = export_labels(root, tmp_path / name)
    rows, pixels = called(root), read(tmp_path / name)
    assert pixels.dtype == np.uint32 and pixels.shape == (120, 120)
    assert done.n_cells == len(rows) == len(np.unique(pixels)) - 1
    for row in rows:
        y, x = np.nonzero(pixels == row["cell_id"] + 1)
        assert len(x) == row["area_px"]
        assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == tuple(
            row[f"bbox_{edge}"] for edge in ("x0", "y0", "x1", "y1")
        )
        assert (x.mean(), y.mean()) == pytest.approx((row["x"], row["y"]))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), is_noise=st.booleans())
def test_odd_cells_too(tmp_path_factory, seed, is_noise):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("odd")
    classes = noise(rng, 60, 50, 0.45) if is_noise else blobs(rng, 60, 50)
    table = extract_cells(colour(classes), rgb=np.zeros((60, 50, 3), np.uint8), noise_thresh=0).table
    names = [name for name in table.column_names if name in fake.cell()]
    rows = [fake.cell(**row) for row in table.select(names).to_pylist()]
    if not rows:
        return
    fake.commit(str(folder / "r"), "S", rows, size_thresh=0, width_px=50, height_px=60)
    export_labels(str(folder / "r"), folder / "a.zarr")
    counted = np.bincount(read(folder / "a.zarr").ravel(), minlength=len(rows) + 1)
    assert counted[1:].tolist() == [row["area_px"] for row in rows]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "area",
    few(
        [
            ((0, 0, 50, 40),),
            ((33, 7, 64, 90),),
            ((119, 119, 1, 1),),
            ((17, 31, 1, 70),),
            ((0, 0, 8, 8),),
            ((5, 5, 1, 1),),
        ],
        2,
    ),
)
def test_an_area_is_a_part_of_the_whole(root, tmp_path, name, area):
    export_labels(root, tmp_path / "all.zarr")
    x, y, width, height = area
    whole = read(tmp_path / "all.zarr")[y : y + height, x : x + width]
    if not whole.any():
        with pytest.raises(QueryError, match="in this area"):
            export_labels(root, tmp_path / name, at=area)
        assert not (tmp_path / name).exists()
        return
    done = export_labels(root, tmp_path / name, at=area)
    np.testing.assert_array_equal(read(tmp_path / name), whole)
    assert done.n_cells == len(np.unique(whole[whole > 0]))


@pytest.mark.parametrize("name", FORMATS)
def test_overviews_are_every_second_pixel(root, tmp_path, name):
    export_labels(root, tmp_path / name, at=(1, 2, 101, 67))
    finest = read(tmp_path / name)
    for level, step in ((1, 2), (2, 4)):
        np.testing.assert_array_equal(read(tmp_path / name, level), finest[::step, ::step])
    with pytest.raises((IndexError, FileNotFoundError)):
        read(tmp_path / name, 3)


def test_the_tiff_tells_size_and_place(root, tmp_path):
    export_labels(root, tmp_path / "a.ome.tiff", at=(20, 8, 100, 60))
    with tifffile.TiffFile(tmp_path / "a.ome.tiff") as file:
        ome = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
        page = file.pages[0]
        assert page.is_tiled and page.compression.name == "ADOBE_DEFLATE" and len(page.subifds) == 2
        assert page.tags["XResolution"].value[0] / page.tags["XResolution"].value[1] == pytest.approx(40_000)
    pixels = ome["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (0.25, "µm")
    assert pixels["Channel"]["Name"] == "cells" and pixels["Type"] == "uint32"
    assert (pixels["Plane"]["PositionX"], pixels["Plane"]["PositionY"]) == (5.0, 2.0)
    told = json.loads(ome["Description"])
    assert told["area"] == "20,8,100,60" and told["label"] == "cell_id + 1" and told["slide_id"] == "S-1"


def test_the_zarr_tells_size_and_place(root, tmp_path):
    export_labels(root, tmp_path / "a.zarr", at=(20, 8, 100, 60))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group.metadata.zarr_format == 3 and group.attrs["ome"] == {"version": "0.5"}
    assert group["labels"].attrs["ome"] == {"version": "0.5", "labels": ["cells"]}
    ome = group["labels/cells"].attrs["ome"]
    assert ome["version"] == "0.5" and "image-label" in ome
    (scales,) = ome["multiscales"]
    assert [axis["name"] for axis in scales["axes"]] == ["y", "x"]
    assert {axis["unit"] for axis in scales["axes"]} == {"micrometer"}
    for number, data in enumerate(scales["datasets"]):
        scale, translation = data["coordinateTransformations"]
        assert scale == {"type": "scale", "scale": [0.25 * 2**number] * 2}
        assert translation == {"type": "translation", "translation": [2.0, 5.0]}
        assert group["labels/cells"][data["path"]].metadata.dimension_names == ("y", "x")
    assert len(scales["datasets"]) == 3


def test_where_an_area_begins(root, tmp_path):
    export_labels(root, tmp_path / "a.zarr", at=(40, 45, 30, 20))
    export_labels(root, tmp_path / "b.zarr", at=(10, 5, 30, 20), origin=Origin.BOUNDS)
    np.testing.assert_array_equal(read(tmp_path / "a.zarr"), read(tmp_path / "b.zarr"))
    a, b = (zarr.open_group(tmp_path / name, mode="r") for name in ("a.zarr", "b.zarr"))
    assert a["labels/cells"].attrs["ome"] == b["labels/cells"].attrs["ome"]


@pytest.mark.parametrize(
    "area", [(0, 0, 121, 10), (-1, 0, 10, 10), (0, 0, 0, 10), (120, 0, 1, 1), (0, 60, 10, 61)]
)
def test_an_area_beside_the_slide_is_refused(root, tmp_path, area):
    with pytest.raises(ConfigError, match=r"slide 'S-1'.*120 × 120"):
        export_labels(root, tmp_path / "a.zarr", at=area)


def test_refusals_leave_nothing(root, tmp_path):
    with pytest.raises(ConfigError, match=r"\.ome\.tiff"):
        export_labels(root, tmp_path / "a.png")
    for name in FORMATS:
        with pytest.raises(QueryError, match="no cell counts"):
            export_labels(root, tmp_path / name, calls=Calls({"size_thresh": 10_000}))
    export_labels(root, tmp_path / "a.zarr")
    with pytest.raises(ConfigError, match="--overwrite"):
        export_labels(root, tmp_path / "a.zarr")
    export_labels(root, tmp_path / "a.zarr", at=(0, 0, 60, 60), overwrite=True)
    assert read(tmp_path / "a.zarr").shape == (60, 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "results"]


def test_from_the_command_line(root, tmp_path, monkeypatch, capsys):
    told = ["--at", "10,5,30,20", "--origin", "bounds", "--slide", "S-1"]
    monkeypatch.setattr(
        sys, "argv", ["deepliif-ray", "export", "labels", root, str(tmp_path / "a.zarr"), *told]
    )
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code and read(tmp_path / "a.zarr").shape == (20, 30)
    said = capsys.readouterr().err.replace("\n", " ")
    number = len(np.unique(read(tmp_path / "a.zarr"))) - 1
    assert f"a.zarr: {number} cells" in said and "30, 40 px from the slide's corner" in said
