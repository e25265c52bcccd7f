"""GeoJSON for QuPath: a strict reader accepts it, and it tells what the views tell."""

import json
import sys

import numpy as np
import polars as pl
import pytest
import shapely
from shapely.geometry import shape

from deepliif_ray import cli
from deepliif_ray.annotations.corrections import import_corrections
from deepliif_ray.annotations.origin import Origin
from deepliif_ray.annotations.regions import import_regions
from deepliif_ray.errors import ConfigError, QueryError, ResultsError
from deepliif_ray.exports import cells as chosen
from deepliif_ray.exports.cells import Calls
from deepliif_ray.exports.qupath import CLASSES, export_qupath
from deepliif_ray.query import ask
from tests.exports import slides, strict
from tests.query import fake_results as fake

NAME = 'it\'s "S" 1'


@pytest.fixture
def root(tmp_path):
    root = str(tmp_path / "results")
    slides.commit(root, NAME, attempt="a1")
    return root


def called(root, source="called_cells"):
    return ask(root, f"SELECT * FROM {source} ORDER BY slide_id, cell_id").to_pylist()


def ids(features):
    return [feature["properties"]["measurements"]["DeepLIIF: Cell ID"] for feature in features]


def test_it_tells_what_the_view_tells(root, tmp_path):
    done = export_qupath(root, tmp_path / "a.geojson")
    rows, features = called(root), strict.read(tmp_path / "a.geojson")
    assert done.n_cells == len(rows) == len(features) and done.files == (str(tmp_path / "a.geojson"),)
    assert json.loads((tmp_path / "a.geojson").read_text())["slide_id"] == NAME
    assert ids(features) == [row["cell_id"] for row in rows]
    for row, feature in zip(rows, features, strict=True):
        outline, properties = shape(feature["geometry"]), feature["properties"]
        assert outline.area == pytest.approx(row["area_px"], rel=0.01)
        assert outline.bounds == tuple(row[f"bbox_{edge}"] for edge in ("x0", "y0", "x1", "y1"))
        name = "Positive" if row["positive"] else "Negative"
        assert properties["classification"] == {"name": name, "color": list(CLASSES[name])}
        measured = properties["measurements"]
        assert measured["Nucleus: DAB OD mean"] == pytest.approx(row["dab_od_mean"], abs=1e-4)
        assert measured["Nucleus: Hematoxylin OD mean"] == pytest.approx(row["hematoxylin_od_mean"], abs=1e-4)
        assert measured["Nucleus: Area px^2"] == row["area_px"]
        assert measured["Nucleus: Area µm^2"] == pytest.approx(row["area_um2"], abs=1e-3)
        assert measured.get("DeepLIIF: Marker max") == row["marker_max"]
        assert measured.get("Rim: DAB OD mean") == row["rim_dab_od_mean"]
        assert measured.get("Rim: Stained %") == row["rim_stained_percent"]
        assert measured["Cytoplasm: DAB OD mean"] == pytest.approx(row["cytoplasm_dab_od_mean"], abs=1e-4)
    assert any(row["rim_dab_od_mean"] is None for row in rows)


def test_the_same_cells_give_the_same_file(root, tmp_path):
    for name in ("a.geojson", "b.geojson", "a.geojson.gz", "b.geojson.gz"):
        export_qupath(root, tmp_path / name)
    for ending in ("geojson", "geojson.gz"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    packed = strict.read(tmp_path / "a.geojson.gz")
    assert packed == strict.read(tmp_path / "a.geojson")
    # Another attempt measured other cells.
    slides.commit(root, NAME, attempt="a2", second=5)
    export_qupath(root, tmp_path / "c.geojson")
    assert not {f["id"] for f in packed} & {f["id"] for f in strict.read(tmp_path / "c.geojson")}


def test_strengths(root, tmp_path):
    export_qupath(root, tmp_path / "a.geojson", calls=Calls(), strength=True)
    names = [f["properties"]["classification"]["name"] for f in strict.read(tmp_path / "a.geojson")]
    assert names == [("Negative", "1+", "2+", "3+")[row["strength"]] for row in called(root)]
    assert set(names) == {"Negative", "1+", "2+", "3+"}


def test_points_in_pixel_edges(root, tmp_path):
    export_qupath(root, tmp_path / "a.json", points=True)
    for row, feature in zip(called(root), strict.read(tmp_path / "a.json"), strict=True):
        assert feature["geometry"]["type"] == "Point"
        assert feature["geometry"]["coordinates"] == pytest.approx([row["x"] + 0.5, row["y"] + 0.5], abs=0.01)


def test_coordinates_begin_where_those_of_qupath_do(tmp_path):
    root = str(tmp_path / "results")
    bounds = {"bounds_x": 20, "bounds_y": 7, "bounds_width": 90, "bounds_height": 100}
    slides.commit(root, reader="openslide", **bounds)
    slides.commit(root, "S-2", reader="tifffile", **bounds)
    done = export_qupath(root, tmp_path / "a.geojson", slide="S-1")
    assert done.origin == (20, 7)
    export_qupath(root, tmp_path / "b.geojson", slide="S-1", origin=Origin.SLIDE)
    assert export_qupath(root, tmp_path / "c.geojson", slide="S-2").origin == (0, 0)
    export_qupath(root, tmp_path / "d.geojson", slide="S-1", points=True)
    cropped, whole, other, points = (strict.read(tmp_path / f"{name}.geojson") for name in "abcd")
    assert [f["geometry"] for f in whole] == [f["geometry"] for f in other]
    for a, b, point in zip(cropped, whole, points, strict=True):
        assert np.subtract(shape(b["geometry"]).bounds, shape(a["geometry"]).bounds).tolist() == [
            20,
            7,
            20,
            7,
        ]
        assert shape(a["geometry"]).distance(shape(point["geometry"])) < 8


@pytest.mark.slow
def test_what_people_said_counts(root, tmp_path):
    first, second, third = called(root)[:3]
    (tmp_path / "c.csv").write_text(
        "x,y,call\n"
        f"{first['x']},{first['y']},{'negative' if first['positive'] else 'positive'}\n"
        f"{second['x']},{second['y']},not_a_cell\n"
    )
    import_corrections(root, [str(tmp_path / "c.csv")], slide=NAME, author="me")
    square = shapely.box(*(third[f"bbox_{edge}"] for edge in ("x0", "y0", "x1", "y1")))
    drawn = {
        "type": "Feature",
        "geometry": json.loads(shapely.to_geojson(square)),
        "properties": {"classification": {"name": "Tumor"}},
    }
    (tmp_path / "r.geojson").write_text(json.dumps(drawn))
    import_regions(root, [str(tmp_path / "r.geojson")], slide=NAME, read_slides=False)
    export_qupath(root, tmp_path / "a.geojson")
    export_qupath(root, tmp_path / "b.geojson", calls=Calls(corrections=False))
    export_qupath(root, tmp_path / "c.geojson", calls=Calls(region="tumor"))
    export_qupath(root, tmp_path / "d.geojson", calls=Calls(cutoffs={"size_thresh": 60}))
    told, measured, there, larger = (strict.read(tmp_path / f"{name}.geojson") for name in "abcd")
    assert len(told) == len(measured) - 1 and second["cell_id"] not in ids(told)
    assert told[0]["properties"]["classification"] != measured[0]["properties"]["classification"]
    assert third["cell_id"] in ids(there) and len(there) < len(told)
    assert ids(larger) == [row["cell_id"] for row in called(root, "called_cells({'size_thresh': 60})")]
    with pytest.raises(
        QueryError, match="in regions of class 'Stroma', so nothing was written; it has Tumor"
    ):
        export_qupath(root, tmp_path / "e.geojson", calls=Calls(region="Stroma"))
    assert not (tmp_path / "e.geojson").exists()


def test_large_slides_come_in_parts(root, tmp_path, monkeypatch):
    export_qupath(root, tmp_path / "a.geojson")
    monkeypatch.setattr(chosen, "ROWS", 3)
    seen = []
    export_qupath(root, tmp_path / "b.geojson", watch=lambda done: seen.append(done.n_cells))
    count = len(called(root))
    assert seen == [*range(3, count, 3), count]
    assert strict.read(tmp_path / "a.geojson") == strict.read(tmp_path / "b.geojson")


def test_shards(root, tmp_path, monkeypatch):
    monkeypatch.setattr(chosen, "ROWS", 4)
    folder = tmp_path / "out"
    folder.mkdir()
    whole = export_qupath(root, folder / "whole.geojson.gz")
    done = export_qupath(root, folder / "a.b.geojson.gz", shard_px=60)
    assert done.n_cells == whole.n_cells
    together = []
    for file in done.files:
        name = file.removesuffix(".geojson.gz").rpartition("/a.b_x")[2]
        left, top = map(int, name.split("_y"))
        features = strict.read(file)
        for feature in features:
            x, y = shape(feature["geometry"]).centroid.coords[0]
            assert left - 1 <= x <= left + 61 and top - 1 <= y <= top + 61
        together += features
    assert len(done.files) == 4
    assert sorted(ids(together)) == ids(strict.read(folder / "whole.geojson.gz"))
    with pytest.raises(ConfigError, match="--overwrite replaces all"):
        export_qupath(root, folder / "a.b.geojson.gz", shard_px=90)
    again = export_qupath(root, folder / "a.b.geojson.gz", shard_px=200, overwrite=True)
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["a.b_x0_y0.geojson.gz", "whole.geojson.gz"] and len(again.files) == 1
    with pytest.raises(ConfigError, match="too many"):
        export_qupath(root, folder / "c.geojson", shard_px=5)


def test_refusals(root, tmp_path):
    slides.commit(root, "S-2")
    target = tmp_path / "a.geojson"
    for slide, said in (
        (None, "there are 2 slides .* give --slide"),
        ("S-9", "no slide 'S-9'; there are 'S-2'"),
    ):
        with pytest.raises(ConfigError, match=said):
            export_qupath(root, target, slide=slide)
    with pytest.raises(ConfigError, match="ends in "):
        export_qupath(root, tmp_path / "a.txt", slide="S-2")
    with pytest.raises(ConfigError, match="no such folder"):
        export_qupath(root, tmp_path / "no" / "a.geojson", slide="S-2")
    with pytest.raises(ResultsError):
        export_qupath(tmp_path / "typo", target, slide="S-2")
    with pytest.raises(QueryError, match="nowhere"):
        export_qupath(root, target, slide="S-2", calls=Calls("nowhere"))
    with pytest.raises(QueryError, match="no cell counts with these cut-offs, so nothing"):
        export_qupath(root, target, slide="S-2", calls=Calls({"size_thresh": 10_000}))
    record = fake.commit(root, "lost", [fake.cell()], cells_bytes=7)
    with pytest.raises(QueryError, match="the cells of slide 'lost' are lost"):
        export_qupath(root, target, slide="lost")
    assert record["cells_path"] and not target.exists()
    target.write_text("mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        export_qupath(root, target, slide="S-2")
    assert target.read_text() == "mine"


def test_a_file_is_whole_or_not_there(root, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a.geojson").write_text("mine")

    def stop(_):
        raise KeyboardInterrupt

    for shard in (None, 60):
        with pytest.raises(KeyboardInterrupt):
            export_qupath(root, folder / "a.geojson", overwrite=True, shard_px=shard, watch=stop)
    assert [path.name for path in folder.iterdir()] == ["a.geojson"]
    assert (folder / "a.geojson").read_text() == "mine"


def test_measurements_that_are_no_numbers_are_left_out(tmp_path):
    root = str(tmp_path / "results")
    odd = [fake.cell(0, dab_od_mean=float("nan"), od_mean=float("inf")), fake.cell(1)]
    fake.commit(root, "S", odd)
    export_qupath(root, tmp_path / "a.geojson")
    first, second = (f["properties"]["measurements"] for f in strict.read(tmp_path / "a.geojson"))
    assert set(second) - set(first) == {"Nucleus: DAB OD mean", "DeepLIIF: OD mean x 100"}


def test_what_it_writes_can_be_read_as_corrections(root, tmp_path):
    export_qupath(root, tmp_path / "a.geojson")
    report = import_corrections(root, [str(tmp_path / "a.geojson")], slide=NAME, author="me")
    assert not report.unmatched and not report.refused
    export_qupath(root, tmp_path / "b.geojson")
    assert strict.read(tmp_path / "a.geojson") == strict.read(tmp_path / "b.geojson")


def run(*arguments):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["deepliif-ray", "export", *map(str, arguments)])
        cli.main()
    return exit_.value.code or 0


def test_the_commands(root, tmp_path, capsys):
    assert run("qupath", root, tmp_path / "a.geojson.gz", "--strength") == 0
    assert f"{len(called(root))} cells" in capsys.readouterr().err
    assert strict.read(tmp_path / "a.geojson.gz")
    assert run("qupath", root, tmp_path / "a.geojson.gz") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("qupath-tsv", root, tmp_path / "a.tsv") == 0
    assert run("qupath-tsv", root, tmp_path / "s.tsv", "--summary") == 0
    assert pl.read_csv(tmp_path / "s.tsv", separator="\t").height == 1
    assert run("geoparquet", root, tmp_path / "a.parquet") == 0
