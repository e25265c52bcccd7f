import io
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from deepliif_ray import cli, connect, doctor
from deepliif_ray.cells.contours import decode_wkb
from deepliif_ray.synthetic import write_cohort


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> tuple[Path, Path]:
    """Manifest of one patient's two slides, and their results."""
    folder = tmp_path_factory.mktemp("cli")
    manifest = write_cohort(folder / "cohort", patients=1, side=700)
    assert run("score", manifest, folder / "results", "--engine", "local") == 0
    return manifest, folder / "results"


def run(*arguments) -> int:
    """Run the command line in this process; return its exit code."""
    command = ["deepliif-ray", *(str(a) for a in arguments)]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", command)
        cli.main()
    return exit_.value.code or 0


def test_score_says_what_it_did_and_what_is_next(scored, capsys):
    assert run("score", *scored, "--engine", "local") == 0
    assert "0 scored, 2 done before, 0 failed" in capsys.readouterr().err


def test_optimize_says_what_became_few_and_what_is_kept(scored, tmp_path, capsys):
    results = tmp_path / "results"
    shutil.copytree(scored[1], results)
    assert run("sql", results, "FROM slide_indices", "--format", "csv") == 0
    before = capsys.readouterr().out
    assert run("optimize", results, "--keep-minutes", "30") == 0
    said = capsys.readouterr().err
    assert "objects are now" in said
    assert run("sql", results, "FROM slide_indices", "--format", "csv") == 0
    assert capsys.readouterr().out == before
    assert run("optimize", tmp_path / "nowhere") == 2


def test_some_failed_is_exit_code_3(scored, tmp_path, capsys):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        f"slide_id,patient_id,marker,uri\na,p,Ki67,{scored[0].parent}/P01-Ki67.tiff\nb,p,Ki67,b.svs\n"
    )
    assert run("score", manifest, tmp_path / "results", "--engine", "local") == 3
    assert "failed: 'b'" in capsys.readouterr().err
    assert run("status", tmp_path / "results") == 0
    assert "missing" in capsys.readouterr().out
    assert run("status", tmp_path / "results", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert status["run"][0]["n_failed"] == 1 and status["failures"][0]["slide_id"] == "b"
    assert run("plan", manifest) == 3
    assert "no such file" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "nowhere.csv", "results"],
        ["score", "{manifest}", "{results}", "--model", "no/such/model", "--engine", "local"],
        ["score", "{manifest}", "{results}", "--engine", "spark"],
        ["score", "{manifest}", "{results}", "--model", "nope"],
        ["score", "{manifest}", "{results}", "--device", "gpu"],
        ["score", "{manifest}", "{results}", "--precision", "int8"],
        ["score", "{manifest}", "{results}", "--address", "not an address"],
        ["sql", "{results}", "DELETE FROM slides"],
        ["sql", "{results}", "SELECT 1", "--output", "no/such/folder/a.csv"],
        ["index", "{results}", "--output", "a.doc"],
        ["check", "no/results"],
        ["score", "{manifest}", "{results}", "--large-noise-thresh", "huge", "--engine", "local"],
        ["score", "{manifest}"],
        ["plan", "{manifest}", "--overlap", "-1"],
        ["status", "no/results"],
        ["sql", "{results}", "SELEKT"],
        ["sql", "{results}", "SELECT 1", "--format", "xml"],
        ["unknown"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_exit_code_2(scored, arguments):
    values = {"manifest": str(scored[0]), "results": str(scored[1])}
    assert run(*(a.format(**values) for a in arguments)) == 2


@pytest.mark.parametrize(
    "options", [["--model", "nope"], ["--address", "nope"], ["--precision", "x"], ["in the way"]]
)
def test_what_cannot_work_is_refused_before_anything_starts(scored, tmp_path, options, monkeypatch, capsys):
    monkeypatch.setattr("deepliif_ray.cluster.cluster", lambda _: pytest.fail("Ray was started"))
    results = tmp_path / "results"
    if options == ["in the way"]:
        (tmp_path / "file").write_text("")
        results, options = tmp_path / "file" / "results", []
    assert run("score", scored[0], results, *options) != 0
    assert not results.exists()
    said = capsys.readouterr().err
    assert "error: " in said and ("compact" in said or "--model" not in options)


def test_nothing_staged_is_left(scored):
    assert not (scored[1] / "_staging").exists()


def test_sql_formats_hold_the_same(scored, tmp_path, capsys):
    query = "SELECT slide_id, n_cells, committed_at, attributes FROM slides ORDER BY slide_id"
    found = {}
    for form in ("csv", "json", "table"):
        assert run("sql", scored[1], query, "--format", form) == 0
        found[form] = capsys.readouterr().out
    assert run("sql", scored[1], query, "--format", "parquet", "--output", tmp_path / "a.parquet") == 0
    parquet = pl.read_parquet(tmp_path / "a.parquet")
    rows = json.loads(found["json"])
    assert [row["slide_id"] for row in rows] == ["P01-CD3", "P01-Ki67"]
    assert rows[0]["attributes"] == {"site": "breast"}
    assert pl.read_csv(io.StringIO(found["csv"]))["n_cells"].to_list() == parquet["n_cells"].to_list()
    assert "P01-Ki67" in found["table"]


def test_outlines_are_polygons_and_no_digits(scored, capsys):
    query = "SELECT boundary FROM cells ORDER BY slide_id, cell_id LIMIT 1"
    with connect(scored[1]) as connection:
        ((polygon,),) = connection.execute(query).fetchall()
    points = decode_wkb(polygon).tolist()
    wanted = ", ".join(f"{x} {y}" for x, y in [*points, points[0]])
    assert run("sql", scored[1], query, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == [{"boundary": f"POLYGON (({wanted}))"}]
    assert run("sql", scored[1], query, "--format", "csv") == 0
    assert capsys.readouterr().out == f'boundary\n"POLYGON (({wanted}))"\n'
    assert run("sql", scored[1], query) == 0
    assert f"POLYGON of {len(points) + 1} points" in capsys.readouterr().out
    assert run("sql", scored[1], "SELECT '\\x01\\x03'::BLOB AS b", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == [{"b": "0103"}]


def test_index_takes_aliases(scored, capsys):
    assert run("index", scored[1], "--marker", "MIB-1", "--format", "json") == 0
    assert [row["marker"] for row in json.loads(capsys.readouterr().out)] == ["Ki67"]
    assert run("index", scored[1], "--slides", "--format", "json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_plan_tells_tiles_and_resolution(scored, capsys):
    assert run("plan", scored[0], "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["resolution"], row["tile_px"], row["problem"]) for row in rows] == [
        ("40x", 512, None),
        ("20x", 256, None),
    ]


def test_demo_shows_the_truth(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("deepliif_ray.demo.write_demo_cohort", partial(write_cohort, side=700))
    assert run("demo", tmp_path / "demo", "--engine", "local") == 0
    shown = capsys.readouterr().out
    assert "true_index_percent" in shown and "next, for instance" in shown
    assert len([line for line in shown.splitlines() if line.startswith("P0")]) == 6


@pytest.mark.parametrize("ray", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_doctor_finds_nothing_wrong(capsys, monkeypatch, ray):
    """Without Ray in the quick one: `test_graph.py` starts a cluster, too."""
    if not ray:
        monkeypatch.setattr(doctor, "_ray", lambda: "not started")
    assert run("doctor", "--format", "json") == 0
    checks = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    assert all(row["ok"] for row in checks.values())
    assert "bfloat16" in checks["networks"]["finding"]
    assert {"model compact", "model stain"} <= set(checks)


def test_models_and_version(capsys):
    assert run("models") == 0
    assert "stain" in capsys.readouterr().out
    assert run("--version") == 0


def test_the_installed_command_runs():
    command = shutil.which("deepliif-ray", path=Path(sys.executable).parent)
    assert command is not None
    assert subprocess.run([command, "--help"], check=False, capture_output=True).returncode == 0
