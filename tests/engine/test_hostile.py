"""Slides that are not as they should be, scored: what becomes rows, what becomes failures."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from deepliif_ray import Execution, cli, connect, score
from deepliif_ray.cli.common import app
from deepliif_ray.errors import ManifestError
from deepliif_ray.slides import guard, helper
from deepliif_ray.synthetic import SyntheticTissue
from tests.engine.results import tables
from tests.options import sorted_out
from tests.slides.tiffs import tiff

FIELDS = ["slide_id", "patient_id", "marker", "uri"]


def run(folder: Path, uris, results="results", **options):
    """Score the slides and return the tables."""
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        writer.writerows([str(uri), f"P{n}", "Ki67", uri] for n, uri in enumerate(uris))
    options = {"model": "stain", "engine": "local", "assume_mpp": 0.5} | options
    score(str(folder / "manifest.csv"), str(folder / results), **sorted_out(**options))
    return tables(folder / results)


def failures(found) -> dict[str, tuple[str, str]]:
    return {row["slide_id"]: (row["stage"], row["reason"]) for row in found["failures"].to_pylist()}


@pytest.fixture(scope="module")
def tissue():
    return np.asarray(SyntheticTissue(640, 640, seed=2, mpp=0.5)[:, :])


def test_every_bad_file_fails_typed_and_the_good_one_is_scored(shared_data, tissue, tmp_path):
    bad = shared_data / "bad"
    with (bad / "OUTCOMES.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    names.remove("wsi/sm_image_jpegls/sm_image_jpegls.dcm")  # one that OpenSlide does not read, but is sound
    Image.fromarray(tissue[:300, :300]).save(tmp_path / "good.png")
    found = run(tmp_path, [*(bad / name for name in names), "good.png"])
    reasons = failures(found)
    assert {reason for _, reason in reasons.values()} == {"unreadable", "corrupt", "unsuitable"}
    assert len(reasons) == len(names) == 14
    assert found["slides"]["slide_id"].to_pylist() == ["good.png"]


def test_bad_tiles_up_to_a_share_are_counted(tissue, tmp_path):
    """One damaged block of the file spoils some tiles of 144."""
    tiff(tmp_path / "whole.tiff", tissue, resolution=(20_000, 20_000), tile=64)
    tiff(tmp_path / "bad.tiff", tissue, resolution=(20_000, 20_000), tile=64, spoil=[45])
    options = {"model": "toy", "tile_size": 64, "overlap": 4, "max_bad_tiles_percent": 5}
    found = run(tmp_path, ["whole.tiff", "bad.tiff"], **options)
    bad, whole = found["slides"].to_pylist()
    assert whole["n_tiles_bad"] == 0
    assert 4 <= bad["n_tiles_bad"] <= 9
    assert bad["n_tiles"] == sum(bad[f"n_tiles_{kind}"] for kind in ("inferred", "empty", "masked", "bad"))
    _, overview, tiles = bad["warnings"]
    assert len(whole["warnings"]) == 1  # both: the tile size is that of 10x
    assert "counts as no tissue" in overview
    assert f"{bad['n_tiles_bad']} of 144 tiles cannot be decoded" in tiles and "bad.tiff: pixels at" in tiles
    assert 0.9 * whole["tissue_mm2"] < bad["tissue_mm2"] < whole["tissue_mm2"]
    assert 0.9 * whole["n_cells"] < bad["n_cells"] < whole["n_cells"]
    cells = found["cells"]
    # Cells elsewhere are the same; there are none within the damaged block, 320 to 384 px along x.
    inside = "slide_id = '{}' AND x BETWEEN 324 AND 379 AND y BETWEEN 260 AND 315"
    far = "slide_id = '{}' AND y > 450"
    kept = "SELECT x, y, area_px, marker_max, positive_px FROM cells WHERE {} ORDER BY ALL"

    def rows(where, slide):
        with connect(tmp_path / "results") as connection:
            return connection.sql(kept.format(where.format(slide))).fetchall()

    assert cells.num_rows == bad["n_cells"] + whole["n_cells"]
    assert rows(inside, "whole.tiff") and not rows(inside, "bad.tiff")
    assert rows(far, "whole.tiff") == rows(far, "bad.tiff") != []


@pytest.mark.slow
def test_too_many_bad_tiles_fail_the_slide_with_the_first(tissue, tmp_path):
    tiff(tmp_path / "bad.tiff", tissue, resolution=(20_000, 20_000), tile=64, spoil=[45])
    options = {"model": "toy", "tile_size": 64, "overlap": 4}
    found = run(tmp_path, ["bad.tiff"], **options)
    (row,) = found["failures"].to_pylist()
    assert (row["stage"], row["reason"]) == ("read", "corrupt")
    assert "of its 144 tiles are bad, more than the 1 %" in row["message"]
    assert not [path for path in (tmp_path / "results" / "_staging").rglob("*") if path.is_file()]
    # The first bad tile in the order of the grid, and another share is another configuration.
    from deepliif_ray.slides import TileGrid

    tile = TileGrid(640, 640, 64, 4)[row["tile"]]
    assert tile.x < 384 and tile.x + 64 > 320 and tile.y < 256 < tile.y + 64
    assert run(tmp_path, ["bad.tiff"], **options, max_bad_tiles_percent=5)["slides"].num_rows == 1


@pytest.mark.slow
def test_the_share_does_not_depend_on_what_was_staged_when(tissue, tmp_path):
    tiff(tmp_path / "bad.tiff", tissue, resolution=(20_000, 20_000), tile=64, spoil=[44, 45])
    options = {"model": "toy", "tile_size": 64, "overlap": 4, "max_bad_tiles_percent": 20}

    def stop(progress):
        if progress.tiles_done >= 80:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ["bad.tiff"], watch=stop, **options)
    resumed = run(tmp_path, ["bad.tiff"], **options)
    undisturbed = run(tmp_path, ["bad.tiff"], results="other", **options)
    assert resumed["slides"]["n_tiles_bad"].to_pylist()[0] > 4
    for name in ("slides", "cells"):
        assert resumed[name].equals(undisturbed[name])


@pytest.mark.slow
def test_a_slide_that_ends_its_reader_fails_and_others_go_on(tissue, tmp_path, monkeypatch):
    guard.end_helper()
    monkeypatch.setattr(helper, "COMMAND", ("-P", "-m", "tests.slides.bad_child"))
    monkeypatch.setattr(helper, "TIME_LIMIT_S", 3)
    names = ["a.tiff", "segfault.tiff", "hang.tiff", "glib.tiff", "greedy-open.tiff", "z.tiff"]
    tiff(tmp_path / "a.tiff", tissue[:700, :700], resolution=(20_000, 20_000))
    for name in names[1:]:
        shutil.copy(tmp_path / "a.tiff", tmp_path / name)
    try:
        found = run(tmp_path, names)
    finally:
        guard.end_helper()
    assert failures(found) == {
        "segfault.tiff": ("plan", "crashed"),
        "hang.tiff": ("plan", "timeout"),
        "glib.tiff": ("plan", "memory"),
        "greedy-open.tiff": ("open", "memory"),
    }
    first, last = found["slides"].to_pylist()
    assert first["n_cells"] == last["n_cells"] > 0


@pytest.mark.parametrize("width", [5_000_000, 2**31 - 1])
def test_absurd_dimensions_are_refused_before_any_tile(width, tmp_path):
    tags = {256: (4, [width]), 257: (4, [width])}
    tiff(tmp_path / "absurd.tiff", np.zeros((256, 256, 3), np.uint8), tags=tags)
    found = run(tmp_path, ["absurd.tiff"])
    assert failures(found)["absurd.tiff"][1] in ("too_large", "unreadable")


def test_several_dicom_series_in_a_folder(shared_data, tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    for folder in ("boxes_dicom", "camelyon_dicom"):
        for path in (shared_data / "slides" / folder).iterdir():
            shutil.copy(path, both / path.name)
    alone = tmp_path / "alone"
    shutil.copytree(shared_data / "slides" / "boxes_dicom", alone)
    found = run(tmp_path, ["both/boxes_0.dcm", str(both), str(alone)])
    (row,) = found["failures"].to_pylist()
    assert (row["slide_id"], row["reason"]) == (str(both), "unreadable")
    assert "2 DICOM series" in row["message"] and "boxes_0.dcm" in row["message"]
    one, same = found["slides"].to_pylist()
    assert (one["width_px"], one["n_cells"]) == (same["width_px"], same["n_cells"])


def test_a_file_of_any_name_that_exists_is_scored(tissue, tmp_path):
    Image.fromarray(tissue[:200, :200]).save(tmp_path / "a.png")
    names = ["a\nb.png", "\x1b[2Jc.png", "d'\"e.png", "😐 %41#?.png", "עברית.png"]
    for name in names:
        os.link(tmp_path / "a.png", tmp_path / name)
    assert run(tmp_path, names)["slides"].num_rows == len(names)


HOSTILE = [
    "../../../../tmp/escaped",
    "/etc/passwd",
    "'; DROP TABLE slides; --",
    "a\"b'c`d\\",
    "$files ${columns} %s {0}",
    "a\nb\r\nc\td",
    "nul\0nul",
    "\x1b[2J\x1b]0;title\x07",
    "😐👩‍🔬",
    "\u202eהפוך\u202c",
    "x" * 10_000,
    "CON",
    "*?[a]=~",
    "NULLS",
    "-rf",
]
# Ending in a letter: no word for nothing, date or number, which a manifest may not have for an id.
anything = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(
    lambda text: f"{text}S"
)


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, *HealthCheck]
)
@example(ids=HOSTILE, patient="'; DROP TABLE slides; --", values=HOSTILE)
@given(
    ids=st.lists(anything.filter(str.strip), min_size=1, max_size=3, unique=True),
    patient=anything.map(str.strip).filter(bool),
    values=st.lists(anything.filter(str.strip), min_size=1, max_size=3),
)
def test_text_of_the_manifest_is_only_text(ids, patient, values, tissue, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    rows = []
    for number in range(len(ids) - 1):
        Image.fromarray(tissue[:64, :64]).save(folder / f"{number}.png")
    for number, slide_id in enumerate(ids):
        value = values[number % len(values)]
        row = {"slide_id": slide_id, "patient_id": patient, "marker": "Ki67", "mpp": 0.5}
        # The last is missing, so that its texts become a failure too.
        rows.append(
            row
            | {
                "uri": "none.png" if number == len(ids) - 1 else f"{number}.png",
                "note": value,
                "'; --": value,
            }
        )
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    before = sorted(path for path in folder.parent.iterdir())
    results = str(folder / "results")
    summary = score(str(folder / "manifest.jsonl"), results, model="toy", execution=Execution(engine="local"))
    assert (summary.scored, summary.failed) == (len(ids) - 1, 1)
    assert sorted(path for path in folder.parent.iterdir()) == before
    pictures = {f"{number}.png" for number in range(len(ids) - 1)}
    assert {path.name for path in folder.iterdir()} == pictures | {"manifest.jsonl", "results"}
    for path in (folder / "results").rglob("*"):
        assert path.resolve().is_relative_to(folder) and path.name.isprintable() and len(path.name) < 120
    for sandbox in (False, True):
        with connect(results, sandbox=sandbox) as connection:
            found = connection.sql(
                "SELECT slide_id, patient_id, attributes FROM slides "
                "UNION ALL SELECT slide_id, patient_id, attributes FROM failures"
            ).fetchall()
            assert {name: (owner, more) for name, owner, more in found} == {
                row["slide_id"]: (patient, {"note": row["note"], "'; --": row["note"]}) for row in rows
            }
            ids_of_cells = connection.execute("SELECT DISTINCT slide_id FROM cells").fetchall()
            assert {name for (name,) in ids_of_cells} <= set(ids)
    assert cli.main  # has added the commands to the application
    runner = CliRunner()
    status = runner.invoke(app, ["status", results, "--json"])
    assert json.loads(status.stdout)["failures"][0]["slide_id"] == ids[-1]
    for command in (["status", results], ["index", results, "--slides"], ["index", results]):
        shown = runner.invoke(app, command)
        assert shown.exit_code == 0
        assert not {"\x1b", "\0", "\x07", "\u202e"} & set(shown.stdout)
    again = score(str(folder / "manifest.jsonl"), results, model="toy", execution=Execution(engine="local"))
    assert (again.skipped, again.failed) == (len(ids) - 1, 1)


def test_no_file_name_holds_a_nul(tmp_path):
    with pytest.raises(ManifestError, match="row 3: uri holds a NUL"):
        run(tmp_path, ["a.png", "b\0.png"])
