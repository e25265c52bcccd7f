import csv
import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from deepliif_ray import Execution, connect, load_model, score, storage
from deepliif_ray.cells import extract_cells
from deepliif_ray.cells.densities import stain_tables
from deepliif_ray.cells.thresholds import SizeRules
from deepliif_ray.engine.run.progress import Progress
from deepliif_ray.errors import ConfigError, ManifestError, ModelError
from deepliif_ray.models.stain import Stain
from deepliif_ray.slides import TileGrid, is_empty, open_slide, plan_slide
from tests.engine.results import assert_same, tables
from tests.few import few
from tests.options import sorted_out


def local(manifest, results, **options):
    return score(str(manifest), str(results), **sorted_out(**{"model": "toy", "engine": "local", **options}))


@pytest.fixture
def own_cohort(cohort, tmp_path) -> Path:
    """A copy of the cohort that a test may change."""
    shutil.copytree(cohort.parent, tmp_path / "cohort")
    return tmp_path / "cohort" / cohort.name


def rewrite(manifest: Path, change) -> None:
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows) or rows
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, {name: None for row in rows for name in row})
        writer.writeheader()
        writer.writerows(rows)


def whole_slide(path: Path, mpp_tile: int) -> pa.Table:
    """Cells of a slide the published way: infer the tiles, stitch the maps, process the whole map."""
    model = load_model("stain")
    with open_slide(path) as slide:
        grid = TileGrid(slide.width, slide.height, mpp_tile, mpp_tile // 16)
        seg = np.zeros((slide.height, slide.width, 3), np.uint8)
        marker = np.full((slide.height, slide.width), model.background_marker, np.uint8)
        for tile in (grid[i] for i in range(len(grid))):
            pixels = slide.read_tile(tile.x, tile.y, mpp_tile)
            if is_empty(pixels):
                continue
            result = model.infer(pixels[None])
            x0, y0, x1, y1 = tile.core
            inner = np.s_[y0 - tile.y : y1 - tile.y, x0 - tile.x : x1 - tile.x]
            seg[y0:y1, x0:x1] = result.seg[0][inner]
            marker[y0:y1, x0:x1] = result.marker[0][inner]
        rgb = slide.read_rgb(0, 0, 0, slide.width, slide.height)
        mpp, plan = slide.mpp, plan_slide(slide)
    resolution = "40x" if mpp_tile == 512 else "20x"
    own = stain_tables(plan.stains.hematoxylin, plan.stains.dab, plan.white)
    extracted = extract_cells(seg, marker, rgb, resolution=resolution, mpp=mpp, own_stains=own)
    return extracted.table, extracted.thresholds


@pytest.mark.parametrize(("slide_id", "tile"), [("P02-Ki67", 512), ("P03-CD3", 256)])
def test_tables_are_those_of_the_whole_slide_at_once(cohort, undisturbed, slide_id, tile):
    expected, thresholds = whole_slide(cohort.parent / f"{slide_id}.tiff", tile)
    with connect(undisturbed) as connection:
        columns = ", ".join(expected.column_names)
        cells = connection.sql(
            f"SELECT {columns} FROM cells WHERE slide_id = '{slide_id}' ORDER BY cell_id"
        ).to_arrow_table()
        record = connection.sql(f"SELECT * FROM slides WHERE slide_id = '{slide_id}'").to_arrow_table()
    record = record.to_pylist()[0]
    assert expected.num_rows > 100
    assert cells.equals(expected.cast(cells.schema))
    assert record["n_cells"] == expected.num_rows
    sizes, counts = np.unique(expected["area_px"].to_numpy(), return_counts=True)
    assert record["size_thresh"] == SizeRules.physical(record["mpp"]).size_threshold(sizes, counts)
    assert record["marker_thresh"] == thresholds.marker_thresh


def test_records_say_where_they_come_from(undisturbed):
    with connect(undisturbed) as connection:
        row = (
            connection.sql("SELECT * FROM slides WHERE slide_id = 'P03-CD3'").to_arrow_table().to_pylist()[0]
        )
        (run,) = connection.sql("SELECT * FROM runs").to_arrow_table().to_pylist()
    assert row["run_id"] == run["run_id"]
    assert row["resolution"] == "20x" and row["tile_px"] == 256 and row["mpp_source"] == "file"
    assert row["n_tiles"] == row["n_tiles_inferred"] + row["n_tiles_empty"] + row["n_tiles_masked"]
    assert dict(row["attributes"]) == {"site": "lung"}
    assert row["timings"]["infer_s"] > 0
    assert (run["status"], run["n_scored"], run["n_failed"]) == ("finished", 6, 0)


def test_nothing_is_left_in_staging(undisturbed):
    assert not [p for p in (undisturbed / "_staging").rglob("*") if p.is_file()]


def test_staging_that_a_killed_run_left_behind_is_removed(cohort, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        remove = storage.remove
        patch.setattr(storage, "remove", lambda url: None if "/_staging/" in url else remove(url))
        local(cohort, tmp_path)
    other = tmp_path / "_staging" / "P02-CD3-other" / "work" / "0-1.arrow"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another job")
    assert len(list(tmp_path.rglob("*.arrow"))) == 7
    assert local(cohort, tmp_path).skipped == 6
    assert list(tmp_path.rglob("*.arrow")) == [other]


def test_index_is_near_the_truth(cohort, undisturbed):
    truth = pl.read_csv(cohort.with_name("truth.csv"))
    with connect(undisturbed) as connection:
        found = pl.from_arrow(connection.sql("SELECT * FROM patient_indices").to_arrow_table())
    both = truth.join(found, on=["patient_id", "marker"]).filter(pl.col("marker") == "Ki67")
    assert both.height == 3
    assert (both["index_percent"] - both["index_percent_right"]).abs().max() < 5


def test_running_again_does_nothing(cohort, undisturbed, monkeypatch):
    monkeypatch.setattr(Stain, "infer", lambda *_: pytest.fail("inferred again"))
    summary = local(cohort, undisturbed, model="stain")
    assert (summary.scored, summary.skipped) == (0, 6)


@pytest.mark.parametrize("what", few(["file", "mpp"], 1))
def test_only_what_changed_is_done_again(own_cohort, tmp_path, what):
    results = tmp_path / "results"
    local(own_cohort, results)
    if what == "file":
        slide = own_cohort.parent / "P02-CD3.tiff"
        shutil.copy(own_cohort.parent / "P01-CD3.tiff", slide)
    else:
        rewrite(own_cohort, lambda rows: rows[3].update(mpp="0.26"))
    summary = local(own_cohort, results)
    assert (summary.scored, summary.skipped) == (1, 5)
    with connect(results) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT slide_id) FROM slides").fetchone() == (
            6,
            6,
        )
        cells = connection.execute(
            "SELECT count(*), count(DISTINCT (slide_id, cell_id)) FROM cells"
        ).fetchone()
    assert cells[0] == cells[1]


def test_other_options_make_a_new_generation(own_cohort, tmp_path):
    local(own_cohort, tmp_path / "results")
    assert local(own_cohort, tmp_path / "results", noise_thresh=250).scored == 6
    with connect(tmp_path / "results") as connection:
        assert connection.execute("SELECT min(area_px) FROM cells").fetchone()[0] > 50


def test_failures_are_rows_until_the_slide_succeeds(own_cohort, tmp_path):
    good = own_cohort.parent / "P01-Ki67.tiff"
    data = good.read_bytes()
    good.write_bytes(data[:1000])
    rewrite(
        own_cohort,
        lambda rows: [
            *rows,
            {**rows[0], "slide_id": "gone", "uri": "gone.tiff"},
            {**rows[0], "slide_id": "no-mpp", "uri": "field.png"},
        ],
    )
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)).save(
        own_cohort.parent / "field.png"
    )
    results = tmp_path / "results"
    summary = local(own_cohort, results)
    assert (summary.scored, summary.failed) == (5, 3)
    rows = {row["slide_id"]: row for row in tables(results)["failures"].to_pylist()}
    assert {key: (row["stage"], row["reason"]) for key, row in rows.items()} == {
        "gone": ("fetch", "missing"),
        "no-mpp": ("plan", "resolution"),
        "P01-Ki67": ("open", "unreadable"),
    }
    assert "--assume-mpp" in rows["no-mpp"]["message"]
    good.write_bytes(data)
    summary = local(own_cohort, results, assume_mpp=0.25)
    assert summary.failed == 1
    assert [row["slide_id"] for row in tables(results)["failures"].to_pylist()] == ["gone"]
    assert tables(results)["slides"].num_rows == 7


def test_model_trouble_fails_only_the_slide_it_is_about(own_cohort, tmp_path, monkeypatch):
    sent = Stain.infer

    def infer(self, tiles, modalities=()):
        if tiles.shape[1] == 256:  # the one slide at 20x
            raise ModelError("no memory left")
        return sent(self, tiles, modalities)

    monkeypatch.setattr(Stain, "infer", infer)
    summary = local(own_cohort, tmp_path / "results", model="stain")
    assert (summary.scored, summary.failed) == (5, 1)
    (row,) = tables(tmp_path / "results")["failures"].to_pylist()
    assert (row["slide_id"], row["stage"], row["reason"]) == ("P03-CD3", "infer", "model")


def test_a_slide_that_changes_meanwhile_fails_as_such(own_cohort, tmp_path, monkeypatch):
    slide = own_cohort.parent / "P02-CD3.tiff"

    def touch(progress: Progress) -> None:
        os.utime(slide, ns=(1, slide.stat().st_mtime_ns + 1))

    summary = local(own_cohort, tmp_path / "results", watch=touch)
    assert summary.failed == 1
    (row,) = tables(tmp_path / "results")["failures"].to_pylist()
    assert (row["slide_id"], row["reason"]) == ("P02-CD3", "changed")
    assert local(own_cohort, tmp_path / "results").scored == 1


def test_stopping_keeps_staged_tiles_and_says_so(cohort, undisturbed, tmp_path):
    def stop(progress: Progress) -> None:
        if progress.tiles_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local(cohort, tmp_path, watch=stop, model="stain")
    with connect(tmp_path) as connection:
        assert connection.execute("SELECT status FROM runs").fetchall() == [("interrupted",)]
    planned = []
    local(cohort, tmp_path, watch=lambda progress: planned.append(progress.tiles_planned), model="stain")
    with connect(undisturbed) as connection:
        tiles = connection.execute("SELECT sum(n_tiles - n_tiles_masked) FROM slides").fetchone()[0]
    assert 0 < planned[-1] < tiles
    assert_same(undisturbed, tmp_path)


def test_results_and_manifest_in_memory(undisturbed, cohort):
    memory = fsspec.filesystem("memory")
    memory.put(str(cohort.parent), "/in-memory", recursive=True)
    score(
        "memory://in-memory/manifest.csv",
        "memory://results",
        model="stain",
        execution=Execution(engine="local"),
    )
    with connect("memory://results") as connection:
        found = connection.execute("SELECT count(*) FROM cells").fetchone()
    with connect(undisturbed) as connection:
        assert connection.execute("SELECT count(*) FROM cells").fetchone() == found


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tile_size": 3}, ConfigError, "tile_size is 3"),
        ({"engine": "dask"}, ConfigError, "engine is 'dask'"),
        ({"model": "no/such/folder"}, ModelError, "no/such/folder"),
        ({"precision": "float8"}, ConfigError, "float8"),
        ({"actors": 0}, ConfigError, "actors is 0"),
        ({"address": "ray://nowhere"}, ConfigError, "address"),
    ],
)
def test_bad_options_are_refused_before_any_work(cohort, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        local(cohort, tmp_path / "results", **options)
    assert not (tmp_path / "results").exists()


def test_bad_manifest_is_refused_before_any_work(tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("slide_id,patient_id,marker,uri\na,p,Ki67,a.tiff\na,,HE,b.tiff\n")
    with pytest.raises(ManifestError) as caught:
        local(manifest, tmp_path / "results")
    assert len(caught.value.problems) == 3
    assert not (tmp_path / "results").exists()
