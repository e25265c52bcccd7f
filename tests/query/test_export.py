"""Exported databases answer in a DuckDB that knows nothing of this package."""

import json
import subprocess
import sys

import duckdb
import fsspec
import pytest

from deepliif_ray.errors import ConfigError, QueryError, ResultsError
from deepliif_ray.query import connect, export
from deepliif_ray.query.export import export_duckdb
from tests.query import fake_results as fake

QUESTIONS = [
    "FROM patient_indices",
    "SELECT slide_id, cell_id, positive, marker, attempt, hex(boundary) "
    "FROM called_cells({'size_thresh': 50}) ORDER BY ALL",
    "FROM slide_indices({'marker_thresh': 'default'})",
    "FROM patient_h_scores()",
    "FROM described('called_cells')",
    "SELECT * EXCLUDE (warnings, attributes, timings) FROM slides ORDER BY slide_id",
    "SELECT count(*) FROM cells WHERE marker = 'CD8'",
    "SELECT name, aliases FROM markers ORDER BY name",
    "SELECT slide_id, flags FROM slide_quality ORDER BY slide_id",
    "SELECT count(*) FROM failures",
]
PLAIN = """
import json, sys
sys.modules["deepliif_ray"] = None  # whoever opens it has none
import duckdb
file, *questions = json.loads(sys.argv[1])
connection = duckdb.connect(file, read_only=True)
print(json.dumps([[list(map(str, row)) for row in connection.execute(q).fetchall()] for q in questions]))
"""


def fill(root):
    fake.run(root, "r1")
    fake.commit(root, "it's", [fake.cell(0, positive=True), fake.cell(1, area_px=55)], second=1)
    fake.commit(root, "it's", [fake.cell(i) for i in range(3)], second=2)
    fake.commit(root, "b", [fake.cell()], marker="CD8", patient_id='P"2')
    fake.fail(root, "x")
    return root


@pytest.fixture
def root(tmp_path):
    return fill(str(tmp_path / "it's a cohort #1"))


def answers(file, cwd=None):
    """Return what the questions give in a process of its own."""
    asked = json.dumps([str(file), *QUESTIONS])
    command = [sys.executable, "-I", "-c", PLAIN, asked]
    return json.loads(subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout)


def expected(root):
    with connect(root) as connection:
        return [[list(map(str, row)) for row in connection.execute(q).fetchall()] for q in QUESTIONS]


def test_it_answers_without_this_package(root, tmp_path):
    file = export_duckdb(root, tmp_path / "out.duckdb")
    assert answers(file) == expected(root)
    with duckdb.connect(file, read_only=True) as connection:
        told = connection.execute("SELECT results, is_relative, exported_at FROM stored.exported").fetchall()
        assert told[0][:2] == (root, False) and told[0][2].year >= 2026
        said = "SELECT comment FROM duckdb_views() WHERE view_name = 'called_cells'"
        assert "counted" in connection.execute(said).fetchall()[0][0]
        # The type that is told is the one that there is, whatever a session is set to.
        assert connection.execute("SELECT typeof(boundary) FROM cells LIMIT 1").fetchall() == [("BLOB",)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it's a cohort #1", "out.duckdb"]


@pytest.mark.slow
def test_relative_ones_move_with_their_results(root, tmp_path):
    file = export_duckdb(root, tmp_path / "out.duckdb", relative=True)
    before = expected(root)
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in list(tmp_path.iterdir()):
        if path != moved:
            path.rename(moved / path.name)
    assert answers(moved / file.name, cwd=moved) == before
    with duckdb.connect(moved / file.name, read_only=True) as connection:
        connection.execute("SET file_search_path = ?", [str(moved)])
        assert connection.execute("SELECT count(*) FROM cells").fetchall() == [(4,)]
    (tmp_path / "a,b").mkdir()
    with pytest.raises(QueryError, match="comma"):
        export_duckdb(moved, tmp_path / "a,b" / "out.duckdb", relative=True)


def test_remote_results_keep_their_urls(tmp_path, monkeypatch):
    """With a store of this process in S3's place, and its file system in that of httpfs."""
    root = fill(f"memory://export/{tmp_path.name}")
    with pytest.raises(QueryError, match="s3://"):
        export_duckdb(root, tmp_path / "out.duckdb")
    monkeypatch.setattr(export, "_REMOTE", ("memory://",))
    file = export_duckdb(root, tmp_path / "out.duckdb")
    with pytest.raises(ConfigError, match="leave out --relative"):
        export_duckdb(root, tmp_path / "b.duckdb", relative=True)
    with duckdb.connect(file, read_only=True) as connection:
        ((view,),) = connection.execute("SELECT sql FROM duckdb_views() WHERE view_name = 'cells'").fetchall()
        assert f"'{root}/cells/marker=CD8/" in view
        connection.register_filesystem(fsspec.filesystem("memory"))
        found = [[list(map(str, row)) for row in connection.execute(q).fetchall()] for q in QUESTIONS]
    assert found == expected(root)


@pytest.mark.parametrize("name", ["a[1]", "marker=CD3", "what?", "*"])
def test_a_path_that_duckdb_misreads_is_refused(name, tmp_path):
    with pytest.raises(QueryError, match="for a pattern; rename"):
        export_duckdb(tmp_path / name / "results", tmp_path / "out.duckdb")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_does_not_matter_what_is_above_relative_ones(tmp_path):
    folder = tmp_path / "a[1]* marker=CD3"
    root = fill(str(folder / "results"))
    file = export_duckdb(root, folder / "out.duckdb", relative=True)
    assert answers(file, cwd=folder) == expected(root)
    (tmp_path / "what?").mkdir()
    with pytest.raises(ConfigError, match="another folder"):  # nor can DuckDB have a file of its own there
        export_duckdb(root, tmp_path / "what?" / "out.duckdb")


def test_a_file_is_whole_or_not_there(root, tmp_path, monkeypatch):
    file = tmp_path / "out.duckdb"
    file.write_text("mine")
    log = tmp_path / "out.duckdb.wal"
    log.write_text("of mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        export_duckdb(root, file)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export, "entries", _interrupted)
        export_duckdb(root, file, overwrite=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert file.read_text() == "mine" and names == {"it's a cohort #1", file.name, log.name}
    export_duckdb(root, file, overwrite=True)
    with duckdb.connect(file, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM cells").fetchall() == [(4,)] and not log.exists()
    with pytest.raises(ConfigError, match="no such folder"):
        export_duckdb(root, tmp_path / "no" / "a.duckdb")
    with pytest.raises(ResultsError):
        export_duckdb(tmp_path / "typo", tmp_path / "b.duckdb")


def _interrupted():
    raise KeyboardInterrupt


def test_damage_is_told_and_passed_over(root, tmp_path, caplog):
    record = fake.commit(root, "lost", [fake.cell()], cells_bytes=7)
    file = export_duckdb(root, tmp_path / "out.duckdb")
    assert record["cells_path"] in caplog.text
    with duckdb.connect(file, read_only=True) as connection:
        assert connection.execute("SELECT object FROM damaged").fetchall() == [(record["cells_path"],)]
        assert connection.execute("SELECT count(*) FROM cells").fetchall() == [(4,)]
