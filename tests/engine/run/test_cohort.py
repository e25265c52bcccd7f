"""Results that follow their manifest: changed metadata, files that moved, slides that left."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from deepliif_ray import connect, score, storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.synthetic import SyntheticTissue
from deepliif_ray.tables.optimize import optimize
from tests.few import few
from tests.models.toy_model import ToyModel
from tests.options import sorted_out
from tests.test_cli import run

COLUMNS = ("slide_id", "patient_id", "marker", "uri", "mpp", "site")
SIDE = 256


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three small fields with cells."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(3):
        pixels = np.asarray(SyntheticTissue(1100, 1100, seed=n)[400 : 400 + SIDE, 400 : 400 + SIDE])
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return folder


class Cohort:
    """A manifest that a test may change, and its results."""

    seen, connection = None, None

    def __init__(self, folder, pictures):
        shutil.copytree(pictures, folder / "slides")
        self.folder, self.results = folder, folder / "results"
        self.rows = [
            dict(zip(COLUMNS, (f"S{n}", "P1", "Ki67", f"slides/{n}.png", "0.25", "A"), strict=True))
            for n in range(3)
        ]

    def write(self):
        with (self.folder / "m.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)

    def score(self, **options):
        self.write()
        return score(
            str(self.folder / "m.csv"),
            str(self.results),
            **sorted_out(model="toy", engine="local", **options),
        )

    def ask(self, query):
        """Ask through a new connection whenever something of the results has changed."""
        files = [path for path in self.results.rglob("*") if path.is_file()]
        state = sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
        if state != self.seen:
            self.seen, self.connection = state, connect(self.results)
        return self.connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def scored(pictures, tmp_path_factory):
    cohort = Cohort(tmp_path_factory.mktemp("scored"), pictures)
    assert cohort.score().scored == 3
    return cohort


@pytest.fixture
def cohort(scored, tmp_path, monkeypatch):
    """A scored cohort, whose model must not be run any more."""
    shutil.copytree(scored.folder, tmp_path / "c")
    made = object.__new__(Cohort)
    made.folder, made.results = tmp_path / "c", tmp_path / "c" / "results"
    made.rows = [dict(row) for row in scored.rows]
    made.score()  # its files were copied: their place is another now
    monkeypatch.setattr(ToyModel, "infer", lambda *_: pytest.fail("inferred again"))
    return made


def test_a_cohort_that_was_copied_is_not_inferred_again(cohort):
    found = cohort.ask("SELECT DISTINCT uri LIKE '%/c/slides/%' FROM slides")
    assert found == [(True,)]
    assert cohort.ask("SELECT count(*) > 10, count(DISTINCT (slide_id, cell_id)) = count(*) FROM cells") == [
        (True, True)
    ]
    again = cohort.score()
    assert (again.scored, again.skipped, again.refreshed) == (0, 3, 0)


@pytest.mark.parametrize("what", ["touch", "rewrite", "move", "site"])
def test_what_changes_no_number_is_not_inferred_again(cohort, what):
    before = cohort.ask("FROM cells ORDER BY slide_id, cell_id")
    picture = cohort.folder / "slides" / "1.png"
    if what == "touch":
        os.utime(picture)
    elif what == "rewrite":
        picture.write_bytes(picture.read_bytes())
    elif what == "move":
        picture.rename(cohort.folder / "elsewhere.png")
        cohort.rows[1]["uri"] = "elsewhere.png"
    else:
        cohort.rows[1]["site"] = "B"
    summary = cohort.score()
    assert (summary.scored, summary.skipped, summary.refreshed) == (0, 3, 1)
    uri, site = cohort.ask("SELECT uri, attributes['site'] FROM slides WHERE slide_id = 'S1'")[0]
    assert uri.endswith(cohort.rows[1]["uri"]) and site == cohort.rows[1]["site"]
    assert cohort.ask("FROM cells ORDER BY slide_id, cell_id") == before
    assert cohort.score().refreshed == 0


@pytest.mark.parametrize("joined", few([False, True], 1))
@pytest.mark.parametrize(("column", "value"), [("patient_id", "P9"), ("marker", "her 3")])
def test_another_patient_or_marker_reaches_the_cells(cohort, joined, column, value):
    if joined:
        optimize(str(cohort.results))
    before = cohort.ask(
        "SELECT * EXCLUDE (patient_id, marker, attempt) FROM cells ORDER BY slide_id, cell_id"
    )
    cohort.rows[1][column] = value
    summary = cohort.score()
    assert (summary.scored, summary.refreshed) == (0, 1)
    expected = "HER3" if column == "marker" else value
    for table in ("cells", "slides", "slide_indices"):
        assert cohort.ask(f"SELECT DISTINCT {column} FROM {table} WHERE slide_id = 'S1'") == [(expected,)]
    found = cohort.ask("SELECT * EXCLUDE (patient_id, marker, attempt) FROM cells ORDER BY slide_id, cell_id")
    assert found == before
    assert cohort.ask("SELECT count(*) FROM patient_indices") == [(2,)]
    if joined:  # and once more, when what was scored before is forgotten
        optimize(str(cohort.results), drop_superseded=True, keep_minutes=0)
        assert (
            cohort.ask("SELECT * EXCLUDE (patient_id, marker, attempt) FROM cells ORDER BY slide_id, cell_id")
            == before
        )
        assert cohort.score().refreshed == 0


def test_changed_content_is_scored_again_whatever_its_times_say(cohort, monkeypatch):
    picture = cohort.folder / "slides" / "1.png"
    times = picture.stat()
    content = bytearray(picture.read_bytes())
    content[-20] ^= 1  # same size, damaged
    picture.write_bytes(content)
    os.utime(picture, ns=(times.st_atime_ns, times.st_mtime_ns))
    monkeypatch.undo()
    summary = cohort.score()
    assert (summary.scored + summary.failed, summary.skipped) == (1, 2)


def test_cells_that_are_gone_are_made_again(cohort, monkeypatch):
    (path,) = cohort.ask("SELECT cells_path FROM slides WHERE slide_id = 'S1'")[0]
    (cohort.results / path).unlink()
    cohort.rows[1]["patient_id"] = "P9"
    monkeypatch.undo()
    assert cohort.score().scored == 1
    assert cohort.ask("SELECT DISTINCT patient_id FROM cells WHERE slide_id = 'S1'") == [("P9",)]


def test_a_slide_that_left_the_manifest(cohort):
    gone = cohort.rows.pop(1)
    cohort.rows.append(gone | {"slide_id": "fails", "uri": "slides/none.png"})
    summary = cohort.score()
    assert summary.leftovers == (("S1", None),)
    assert cohort.ask("SELECT slide_id FROM leftovers") == [("S1",)]
    assert cohort.ask("SELECT notes FROM patient_indices")[0][0].endswith(
        "1 slide not in the newest manifest"
    )
    assert cohort.ask("SELECT n_slides FROM patient_indices") == [
        (3,)
    ]  # it counts until somebody says not to
    cohort.rows.pop()
    summary = cohort.score(prune=True)
    assert (summary.retired, summary.leftovers) == (("S1", "fails"), ())
    assert cohort.ask("SELECT n_slides FROM patient_indices") == [(2,)]
    for table in ("slides", "cells", "failures", "leftovers"):
        assert cohort.ask(f"SELECT count(*) FROM {table} WHERE slide_id IN ('S1', 'fails')") == [(0,)]
    assert cohort.ask("SELECT slide_id FROM retired") == [("S1",)]
    cohort.rows.append(gone)  # and it comes back, as it was
    summary = cohort.score()
    assert (summary.scored, summary.refreshed) == (0, 1)
    assert cohort.ask("SELECT n_slides FROM patient_indices") == [(3,)]
    assert cohort.ask("SELECT count(*) > 3 FROM cells WHERE slide_id = 'S1'") == [(True,)]
    assert cohort.ask("SELECT count(*) FROM retired") == [(0,)]


def test_cells_of_retired_slides_go_when_they_are_forgotten(cohort, monkeypatch):
    (path,) = cohort.ask("SELECT cells_path FROM slides WHERE slide_id = 'S1'")[0]
    gone = cohort.rows.pop(1)
    cohort.score(prune=True)
    optimize(str(cohort.results))
    assert cohort.ask("SELECT count(*) FROM slides") == [(2,)]
    optimize(str(cohort.results), drop_superseded=True, keep_minutes=0)
    assert not (cohort.results / path).exists()
    assert cohort.ask("SELECT slide_id FROM retired") == [("S1",)]
    assert cohort.ask("SELECT count(DISTINCT slide_id) FROM cells") == [(2,)]
    cohort.rows.append(gone)
    monkeypatch.undo()
    assert cohort.score().scored == 1


def test_a_slide_that_was_renamed_is_told(cohort, monkeypatch):
    cohort.rows[1]["slide_id"] = "new name"
    monkeypatch.undo()
    assert cohort.score().leftovers == (("S1", "new name"),)
    warnings = dict(cohort.ask("SELECT slide_id, array_to_string(warnings, ' ') FROM slides"))
    assert "same content as slide 'S1' of patient 'P1'" in warnings["new name"]
    assert "same content as slide 'new name' of patient 'P1'" in warnings["S1"]
    flags = dict(cohort.ask("SELECT slide_id, flags FROM slide_quality"))
    assert "same_content" in flags["S1"] and "same_content" not in flags["S0"]
    assert cohort.score(prune=True).retired == ("S1",)
    assert "same_content" not in dict(cohort.ask("SELECT slide_id, flags FROM slide_quality"))["new name"]


def test_markers_of_the_cohort_are_kept_with_the_results(cohort):
    own = cohort.folder / "own.yaml"
    own.write_text(
        "markers:\n- {name: HER3, aliases: [ERBB3, c-erbB-3], localisation: [membranous], caution: mine}\n"
    )
    cohort.rows[1]["marker"] = "ERBB3"
    summary = cohort.score(markers=str(own))
    assert (summary.scored, summary.refreshed, summary.warnings) == (0, 1, ())
    assert cohort.ask("SELECT marker FROM slides WHERE slide_id = 'S1'") == [("HER3",)]
    assert cohort.ask("SELECT caution FROM markers WHERE list_contains(aliases, 'ERBB3')") == [("mine",)]
    cohort.rows[1]["marker"] = "c erbb 3"
    assert cohort.score().refreshed == 0
    own.write_text("markers:\n- {name: HER2b, aliases: [ERBB2], localisation: [membranous]}\n")
    with pytest.raises(ConfigError, match="'ERBB2' names both HER2b and HER2"):
        cohort.score(markers=str(own))


@pytest.mark.parametrize(
    "text, problem",
    [
        ("a: &a [x, x]\nmarkers: [*a, *a]\n", "anchors and aliases"),
        ("markers: " + "[" * 50_000, "levels of nesting"),
        ("# " + "x" * 2**20, "more than the 1,048,576 bytes"),
        ("markers: []\nmarkers: []\n", "there twice"),
    ],
)
def test_files_of_markers_are_read_within_bounds(cohort, text, problem):
    own = cohort.folder / "own.yaml"
    own.write_text(text)
    with pytest.raises(ConfigError, match=problem) as refused:
        cohort.score(markers=str(own))
    assert str(refused.value).startswith(str(own)) and len(str(refused.value)) < 400


def test_a_file_of_markers_that_is_not_there(cohort):
    with pytest.raises(ConfigError, match=r"absent\.yaml: the file of markers cannot be read"):
        cohort.score(markers=str(cohort.folder / "absent.yaml"))


def test_warnings_of_the_manifest_are_kept(cohort):
    cohort.rows[1]["marker"] = "Ki67 (30-9)"
    summary = cohort.score()
    assert summary.warnings == ("row 3: marker 'Ki67 (30-9)' is read as Ki67",)
    assert cohort.ask("SELECT warnings FROM slides WHERE slide_id = 'S1'") == [
        (["manifest: marker 'Ki67 (30-9)' is read as Ki67"],)
    ]
    cohort.rows[1]["marker"] = "Ki67"
    assert cohort.score().refreshed == 1
    assert cohort.ask("SELECT warnings FROM slides WHERE slide_id = 'S1'") == [([],)]
    (digest,) = cohort.ask("SELECT manifest_digest FROM runs ORDER BY started_at DESC LIMIT 1")[0]
    assert storage.exists(str(cohort.results / "_manifests" / f"{digest}.json"))


def test_what_the_command_line_tells(cohort, capsys):
    shutil.copy(cohort.folder / "slides" / "0.png", cohort.folder / "slides" / "copy.png")
    gone = cohort.rows.pop(1)
    cohort.rows.append(
        gone | {"slide_id": "copy", "patient_id": "P2", "uri": "slides/copy.png", "marker": "ki68"}
    )
    cohort.rows = [row | {"marker": "CD3"} if row["slide_id"] == "S2" else row for row in cohort.rows]
    cohort.write()
    manifest, results = cohort.folder / "m.csv", cohort.results
    assert run("plan", manifest, results, "--format", "json") == 0
    shown = capsys.readouterr()
    rows = {row["slide_id"]: row for row in json.loads(shown.out)}
    assert rows["S0"]["warnings"] == "same content as slide 'copy' of patient 'P2'"
    assert "did you mean Ki67?; same content as slide 'S0' of patient 'P1'" in rows["copy"]["warnings"]
    assert "warning: row 4: marker 'ki68' is not in the registry" in shown.err
    assert "1 slides of the results are not in the manifest and still count: 'S1'" in shown.err
    cohort.rows.pop()
    cohort.score()
    assert run("status", results, "--json") == 0
    assert [row["slide_id"] for row in json.loads(capsys.readouterr().out)["leftovers"]] == ["S1"]
    assert run("index", results, "--format", "json") == 0
    shown = capsys.readouterr()
    notes = {row["marker"]: row["notes"] for row in json.loads(shown.out)}
    assert notes["Ki67"].startswith("all nuclei count, not tumour alone")
    assert notes["Ki67"].endswith("1 slide not in the newest manifest")
    assert notes["CD3"].startswith("membranous/cytoplasmic stain, called on nuclei")
    assert "warning: 1 slides in these indices are not in the newest manifest" in shown.err
    assert run("index", results, "--marker", "HER3") == 0
    assert "no slides of marker 'HER3'; markers there are: CD3, Ki67" in capsys.readouterr().err
    assert run("score", manifest, results, "--model", "toy", "--engine", "local", "--prune") == 0
    assert "1 slides retired: 'S1'" in capsys.readouterr().err
