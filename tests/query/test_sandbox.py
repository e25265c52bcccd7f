"""SQL that is not trusted: the views answer, nothing else does."""

import socket
import threading

import duckdb
import pytest

from deepliif_ray.errors import QueryError
from deepliif_ray.query import ask, connect
from deepliif_ray.query.views import SANDBOX
from tests.few import few
from tests.query import fake_results as fake
from tests.query.test_connect import VIEWS


@pytest.fixture(params=few(["local", "glob[1]*? marker=x '", "memory"], 2))
def root(request, tmp_path):
    root = str(tmp_path / request.param)
    if request.param == "memory":
        root = f"memory://sandbox/{tmp_path.name}"
    fake.run(root, "r1")
    fake.commit(root, "a", [fake.cell(0, positive=True), fake.cell(1)], attempt="x")
    fake.commit(root, "b", [fake.cell()], marker="CD8", attempt="x")
    fake.fail(root, "c")
    return root


def test_views_answer_as_outside(root):
    inside, outside = connect(root, sandbox=True), connect(root)
    for view in VIEWS:
        both = [sorted(c.execute(f"FROM {view}").fetchall(), key=repr) for c in (inside, outside)]
        assert both[0] == both[1] != []
    macro = "SELECT * FROM patient_indices({'size_thresh': 50})"
    assert inside.execute(macro).fetchall() == outside.execute(macro).fetchall()
    assert inside.cursor().sql("SELECT count(*) FROM cells").fetchall() == [(3,)]
    assert inside.sql(
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 9) SELECT sum(n) FROM t"
    ).fetchall() == [(45,)]


def test_files_network_extensions_and_settings_are_out_of_reach(root, tmp_path):
    secret, target = tmp_path / "secret.csv", tmp_path / "written"
    secret.write_text("secret\n1\n")
    duckdb.connect(tmp_path / "other.db").close()
    connection = connect(root, sandbox=True)
    inside = connection.execute("SELECT cells_path FROM slides ORDER BY slide_id").fetchall()[0][0]
    mine = "secret"  # noqa: F841  # a Python variable, which DuckDB would find
    with socket.create_server(("127.0.0.1", 0)) as server:
        called = threading.Event()

        def listen():
            try:
                server.accept()
            except OSError:
                return
            called.set()

        threading.Thread(target=listen, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.csv"
        for query in [
            "SELECT * FROM read_text('/etc/passwd')",
            "FROM '/etc/passwd'",
            f"SELECT * FROM read_csv('{secret}')",
            f"FROM '{secret}'",
            f"FROM 'file://{secret}'",
            f"SELECT * FROM read_blob('{tmp_path}/*')",
            f"SELECT * FROM glob('{tmp_path}/*')",
            "SELECT * FROM glob('/etc/*')",
            "SELECT * FROM read_parquet('results://slides/*.parquet')",
            "SELECT * FROM read_text('results://../secret.csv')",
            "SELECT * FROM read_text('memory://sandbox/x')",
            f"COPY (SELECT 1) TO '{target}'",
            f"COPY cells TO '{target}.parquet'",
            "COPY (SELECT 1) TO '/dev/stdout'",
            "COPY (SELECT 1) TO 'results://cells/new.parquet'",
            f"COPY (SELECT 1) TO 'results://{inside}'",
            f"EXPORT DATABASE '{target}'",
            f"IMPORT DATABASE '{tmp_path}'",
            f"ATTACH '{tmp_path}/other.db'",
            f"ATTACH '{target}.db'",
            "INSTALL httpfs",
            "LOAD httpfs",
            f"LOAD '{tmp_path}/x.duckdb_extension'",
            f"SELECT * FROM read_csv('{address}')",
            f"FROM '{address}'",
            "FROM mine",
            "CREATE SECRET (TYPE s3, KEY_ID 'a')",
            "SET enable_external_access = true",
            "RESET enable_external_access",
            "SET allowed_directories = ['/']",
            "SET lock_configuration = false",
            f"SET temp_directory = '{tmp_path}'",
            "SET memory_limit = '1TB'",
            "SET python_enable_replacements = true",
            f"PRAGMA profiling_output = '{target}'",
            f"SET log_query_path = '{target}'",
            "CALL enable_logging(storage => 'file')",
        ]:
            with pytest.raises(duckdb.Error):
                connection.execute(query).fetchall()
        assert not called.is_set()
    assert not list(tmp_path.glob("written*"))
    assert connection.execute("SELECT count(*) FROM cells").fetchall() == [(3,)]
    assert connect(root).sql("SELECT count(*) FROM cells").fetchall() == [(3,)]


def test_too_much_memory_fails_the_query_only(tmp_path, monkeypatch):
    monkeypatch.setitem(SANDBOX, "memory_limit", "'100MB'")
    fake.commit(str(tmp_path), "a", [fake.cell()])
    connection = connect(tmp_path, sandbox=True)
    with pytest.raises(duckdb.OutOfMemoryException):
        connection.execute("SELECT list(range) FROM range(100_000_000)").fetchall()
    assert connection.execute("SELECT count(*) FROM cells").fetchall() == [(1,)]


def test_empty_results(tmp_path):
    (tmp_path / "empty").mkdir()
    assert ask(str(tmp_path / "empty"), "SELECT count(*) AS n FROM cells", sandbox=True).to_pylist() == [
        {"n": 0}
    ]
    with pytest.raises(QueryError, match="disabled by configuration"):
        ask(str(tmp_path / "empty"), "FROM read_text('/etc/passwd')", sandbox=True)
