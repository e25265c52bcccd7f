"""Tables with QuPath's names of columns tell what the views and scores tell."""

import gzip

import numpy as np
import polars as pl
import pytest

from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.exports import cells as chosen
from deepliif_ray.exports.cells import Calls
from deepliif_ray.exports.measurements import export_measurements, export_summary
from deepliif_ray.exports.qupath import export_qupath
from deepliif_ray.query import ask
from tests.exports import slides, strict
from tests.query import fake_results as fake

HEAD = [
    "Image", "Object ID", "Object type", "Name", "Classification", "Parent", "ROI", "Centroid X µm",
    "Centroid Y µm",
]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    root = str(tmp_path / "results")
    slides.commit(root, uri="file:///slides/a%20b\tc.svs")
    return root


def table(path):
    return pl.read_csv(path, separator="\t")


def called(root, source="called_cells", where="true"):
    return pl.DataFrame(pl.from_arrow(ask(root, f"FROM {source} WHERE {where} ORDER BY slide_id, cell_id")))


def test_a_row_a_cell(root, tmp_path, monkeypatch):
    monkeypatch.setattr(chosen, "ROWS", 5)
    done = export_measurements(root, tmp_path / "a.tsv", strength=True)
    export_qupath(root, tmp_path / "a.geojson", strength=True)
    features, frame, rows = strict.read(tmp_path / "a.geojson"), table(tmp_path / "a.tsv"), called(root)
    assert frame.columns[: len(HEAD)] == HEAD and done.n_cells == frame.height == rows.height > 5
    assert frame["Image"].unique().to_list() == ["a b c.svs"]
    assert frame["Object ID"].to_list() == [feature["id"] for feature in features]
    classes = [feature["properties"]["classification"]["name"] for feature in features]
    assert frame["Classification"].to_list() == classes
    for name, value in features[0]["properties"]["measurements"].items():
        assert frame[name][0] == pytest.approx(value, abs=1e-3)
    for axis in "xy":
        expected = (rows[axis].to_numpy() + 0.5) * 0.25
        assert np.abs(frame[f"Centroid {axis.upper()} µm"].to_numpy() - expected).max() <= 0.00501
    assert frame["DeepLIIF: Marker max"].null_count() == rows["marker_max"].null_count() > 0


def test_centroids_begin_where_those_of_qupath_do(tmp_path):
    root = str(tmp_path / "results")
    slides.commit(root, reader="openslide", bounds_x=20, bounds_y=8, bounds_width=90, bounds_height=90)
    assert export_measurements(root, tmp_path / "a.txt.gz").origin == (20, 8)
    frame = table(gzip.decompress((tmp_path / "a.txt.gz").read_bytes()))
    row = called(root).row(0, named=True)
    assert frame["Centroid X µm"][0] == pytest.approx((row["x"] + 0.5 - 20) * 0.25, abs=0.006)
    assert frame["Centroid Y µm"][0] == pytest.approx((row["y"] + 0.5 - 8) * 0.25, abs=0.006)


def test_a_row_a_slide(root, tmp_path):
    slides.commit(root, "S-0", marker="ER", patient_id="P2")
    fake.commit(root, "empty", [])
    assert export_summary(root, tmp_path / "a.tsv") == 3
    assert export_summary(root, tmp_path / "b.tsv", strength=True) == 3
    plain, graded = table(tmp_path / "a.tsv"), table(tmp_path / "b.tsv")
    assert plain["Slide ID"].to_list() == ["S-0", "S-1", "empty"]
    counts = ask(root, "FROM slide_counts ORDER BY slide_id").to_pylist()
    scores = {row["slide_id"]: row for row in ask(root, "FROM slide_h_scores()").to_pylist()}
    for number, expected in enumerate(counts):
        row, strong = plain.row(number, named=True), graded.row(number, named=True)
        assert row["Num Detections"] == expected["n_called"] == strong["Num Detections"]
        assert row["Num Positive"] == expected["n_positive"]
        assert row["Num Negative"] == expected["n_called"] - expected["n_positive"]
        assert row["Num Positive per mm^2"] == round(expected["n_positive"] / expected["tissue_mm2"], 2)
        assert row["Positive %"] == pytest.approx(expected["index_percent"], abs=0.005)
        assert strong["Num Positive"] == sum(strong[f"Num {n}+"] for n in (1, 2, 3))
        assert strong["H-score"] == pytest.approx(scores[expected["slide_id"]]["h_score"], abs=0.005)
    assert plain["Positive %"][2] is None
    assert export_summary(root, tmp_path / "c.tsv", slide="S-0", calls=Calls({"size_thresh": 60})) == 1
    there = called(root, "called_cells({'size_thresh': 60})", "slide_id = 'S-0'")
    assert table(tmp_path / "c.tsv")["Num Detections"].to_list() == [there.height]


def test_refusals(root, tmp_path):
    with pytest.raises(ConfigError, match="no slide 'x'"):
        export_summary(root, tmp_path / "a.tsv", slide="x")
    with pytest.raises(ConfigError, match="ends in"):
        export_measurements(root, tmp_path / "a.csv")
    export_summary(root, tmp_path / "a.tsv")
    with pytest.raises(ConfigError, match="--overwrite"):
        export_measurements(root, tmp_path / "a.tsv")
    with pytest.raises(QueryError, match="Stroma"):
        export_summary(root, tmp_path / "b.tsv", calls=Calls(region="Stroma"))
    fake.commit(root, "lost", [fake.cell()], cells_bytes=7)
    with pytest.raises(QueryError, match="slide 'lost': nothing can be counted"):
        export_summary(root, tmp_path / "b.tsv", strength=True)
    assert [path.name for path in tmp_path.iterdir() if path.name != "results"] == ["a.tsv"]
