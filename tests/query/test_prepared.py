"""Views that were made before are those that SQL makes, and a connection never fails for want of them."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from deepliif_ray import connect
from deepliif_ray.query import ask, views
from deepliif_ray.query.export import export_duckdb
from deepliif_ray.storage import CACHE_VARIABLE
from deepliif_ray.tables.cutoffs import write_cutoffs
from tests.query import fake_results as fake

ALL = """
SELECT view_name, sql FROM duckdb_views() WHERE NOT internal
UNION ALL
SELECT function_name, parameters::VARCHAR || macro_definition FROM duckdb_functions() WHERE NOT internal
ORDER BY ALL
"""


SIZED = {"n_called": 1, "n_positive": 0}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    root = str(tmp_path / "results")
    fake.commit(root, "a-secret-slide", [fake.cell()], patient_id="a-secret-patient", **SIZED)
    return root


def made(root):
    with connect(root) as connection:
        # DuckDB writes the names after EXCLUDE in any order.
        text = re.compile(r"EXCLUDE \(([^)]*)\)")
        return [
            (name, text.sub(lambda found: "".join(sorted(found[1].split(", "))), sql))
            for name, sql in connection.execute(ALL).fetchall()
        ]


def prepared_files(tmp_path):
    return list((tmp_path / "cache" / "views").glob("*"))


def test_they_are_those_that_sql_makes(results, tmp_path, monkeypatch):
    first, again = made(results), made(results)
    assert len(prepared_files(tmp_path)) == 1
    monkeypatch.setattr(views, "prepared", lambda *_: None)
    assert first == again == made(results) and len(first) > 80


def test_the_file_is_used_and_holds_no_results(results, tmp_path, monkeypatch):
    connect(results).close()
    (file,) = prepared_files(tmp_path)
    content = file.read_bytes()
    assert b"patient_indices" in content
    assert b"secret" not in content and str(tmp_path).encode() not in content
    with duckdb.connect(str(file), read_only=True) as connection:
        assert connection.execute("FROM duckdb_tables()").fetchall() == []
    monkeypatch.setattr(views, "layers", lambda _: (["this is no SQL"], file))
    connect(results).close()
    monkeypatch.setattr(views, "copy_prepared", lambda *_: False)
    with pytest.raises(duckdb.Error, match="this is no SQL"):
        connect(results)


@pytest.mark.parametrize(
    "content", [b"x" * 5000, *(pytest.param(content, marks=pytest.mark.slow) for content in (b"", None))]
)
def test_a_damaged_file_is_passed_over_and_made_anew(results, tmp_path, content):
    connect(results).close()
    (file,) = prepared_files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:100_000] if content is None else content)
    query = "SELECT slide_id, index_percent FROM slide_indices"
    expected = [("a-secret-slide", 0.0)]
    assert list(ask(results, query, sandbox=True).to_pylist()[0].values()) == list(expected[0])
    with connect(results) as connection:
        assert connection.execute(query).fetchall() == expected
    with connect(results) as connection:
        assert connection.execute(query).fetchall() == expected
    assert len(prepared_files(tmp_path)[0].read_bytes()) == len(whole)


def test_no_cache_is_needed(results, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with connect(results) as connection:
        assert connection.execute("SELECT count(*) FROM patient_indices").fetchall() == [(1,)]
    Path(tmp_path, "shared").mkdir(mode=0o777)
    Path(tmp_path, "shared").chmod(0o777)  # others could put other views there
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "shared"))
    with connect(results) as connection:
        assert connection.execute("SELECT count(*) FROM patient_indices").fetchall() == [(1,)]
    assert list(Path(tmp_path, "shared").iterdir()) == []


@pytest.mark.slow
def test_many_at_once(results, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        assert len({str(found) for found in pool.map(made, [results] * 16)}) == 1
    assert len(prepared_files(tmp_path)) == 1


def test_results_that_somebody_annotated_have_views_of_their_own(results, tmp_path):
    connect(results).close()
    write_cutoffs(results, "mine", [{"size_thresh": 10.0}], author="a", note="n")
    with connect(results) as connection:
        found = connection.execute("SELECT n_called FROM slide_counts(cutoffs := 'mine')").fetchall()
    assert found == [(1,)] and len(prepared_files(tmp_path)) == 1


@pytest.mark.parametrize(
    "name", ['a"b', *(pytest.param(name, marks=pytest.mark.slow) for name in ("prepared", "it's"))]
)
def test_a_database_may_have_any_name(results, tmp_path, name):
    for _ in range(2):  # the views are made, and then copied
        file = export_duckdb(results, tmp_path / f"{name}.duckdb", overwrite=True)
        with duckdb.connect(str(file), read_only=True) as connection:
            assert connection.execute("SELECT n_called FROM patient_indices").fetchall() == [(1,)]
            attached = connection.sql("FROM duckdb_databases() SELECT database_name WHERE NOT internal")
            assert attached.fetchall() == [(name,)]
    assert len(prepared_files(tmp_path)) == 1
