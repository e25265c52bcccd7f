"""SQL that is not trusted, in a process of its own: its limits hold and are named, and it has no secrets."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from deepliif_ray.errors import QueryError, StorageError
from deepliif_ray.query import Limits, ask, connect, sandbox
from deepliif_ray.query.rooted import RootedFileSystem
from tests.few import few
from tests.query import fake_results as fake
from tests.query.test_connect import VIEWS

MB = 1_000_000
SMALL = Limits(seconds=30, memory=400 * MB)


def results(root):
    fake.run(root, "r1")
    fake.commit(root, "a", [fake.cell(0, positive=True), fake.cell(1)], attempt="x")
    fake.commit(root, "b", [fake.cell()], marker="CD8", attempt="x")
    fake.fail(root, "c")
    return root


@pytest.fixture(params=few(["local", "glob[1]*? marker=x '", "memory"], 2))
def root(request, tmp_path):
    if request.param == "memory":
        return results(f"memory://sandboxed/{tmp_path.name}")
    return results(str(tmp_path / request.param))


@pytest.fixture
def one(tmp_path):
    fake.commit(str(tmp_path), "a", [fake.cell()])
    return str(tmp_path)


class Peak:
    """The most memory that the sandbox's process had while inside, bytes."""

    def __enter__(self):
        self.bytes, self._on = 0, True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while self._on:
            for children in Path("/proc/self/task").glob("*/children"):
                for child in children.read_text().split():
                    try:
                        # First: until it is the other program, what it has is a part of this process.
                        if b"sandbox_child" not in Path(f"/proc/{child}/cmdline").read_bytes():
                            continue
                        status = Path(f"/proc/{child}/status").read_text()
                    except OSError:
                        continue
                    peak = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
                    self.bytes = max(self.bytes, *(int(found) * 1024 for found in peak), 0)
            time.sleep(0.01)

    def __exit__(self, *_):
        self._on = False
        self._thread.join()


def test_cells_answer_as_outside(root):
    query = (
        "SELECT *, m.aliases FROM cells JOIN slides USING (slide_id) JOIN slide_indices USING (slide_id) "
        "JOIN markers m ON m.name = slides.marker ORDER BY slide_id, cell_id"
    )
    inside = ask(root, query, sandbox=True)
    assert inside.num_rows == 3
    assert inside.equals(ask(root, query))


def test_every_view_answers_as_outside(tmp_path):
    root = results(str(tmp_path / "results"))
    with connect(root) as connection:
        names = "SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main'"
        every = sorted(name for (name,) in connection.execute(names).fetchall())
    assert {*every} >= {
        *VIEWS, "leftovers", "retired", "markers", "slide_quality", "slide_notes", "patient_notes"
    }  # fmt: skip
    query = " UNION ALL ".join(f"SELECT '{view}' AS view, count(*) AS n FROM {view}" for view in every)
    assert ask(root, query, sandbox=True).equals(ask(root, query))


def test_no_results(tmp_path):
    (tmp_path / "empty").mkdir()
    none = ask(str(tmp_path / "empty"), "SELECT slide_id FROM cells", sandbox=True)
    assert none.num_rows == 0
    assert none.column_names == ["slide_id"]


@pytest.mark.parametrize(
    "query",
    few(
        [
            # These take memory that DuckDB does not count: with its own limit alone the first succeeds.
            "SELECT length(repeat('x', 1000000000))",
            "SELECT repeat('x', 300000000) FROM range(12)",
            # These it counts.
            "SELECT length(string_agg(repeat('x', 1000000), ',')) FROM range(4000)",
            "SELECT len(range(0, 700000000))",
            "SELECT count(*) FROM (SELECT repeat(range::VARCHAR, 100) AS a FROM range(9000000) GROUP BY ALL)",
        ],
        2,
    ),
)
def test_too_much_memory_is_refused_and_not_taken(one, query):
    with Peak() as peak, pytest.raises(QueryError, match=r"more memory than the sandbox gives, 0.4 GB"):
        ask(one, query, sandbox=SMALL)
    assert 0 < peak.bytes < SMALL.memory + 200 * MB  # and what the process starts with


def test_too_much_time(one):
    began = time.monotonic()
    with pytest.raises(QueryError, match="more than the 1 s of the sandbox"):
        ask(one, "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b", sandbox=Limits(1))
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_too_large_an_answer(one):
    limits = Limits(answer=10 * MB)
    for query in ("SELECT repeat('x', 20000000)", "SELECT range FROM range(10000000)"):
        with pytest.raises(QueryError, match=r"answer has more than the 0.01 GB"):
            ask(one, query, sandbox=limits)
    assert ask(one, "SELECT range FROM range(1000000)", sandbox=limits).num_rows == 1_000_000


@pytest.mark.parametrize(
    "query",
    few(
        [
            "FROM read_text('/etc/passwd')",
            "COPY (SELECT 1) TO '/tmp/sandbox-was-here'",
            "FROM '/proc/self/environ'",
            "INSTALL httpfs",
            "SET memory_limit = '1TB'",
            "SET threads = 64",
            "SELECT getenv('PATH')",
            "FROM read_parquet('results://slides/*.parquet')",
            "SELECT",
        ],
        4,
    ),
)
def test_what_is_not_allowed_is_a_query_error(one, query):
    with pytest.raises(QueryError):
        ask(one, query, sandbox=True)
    assert not list(Path("/tmp").glob("sandbox-was-here*"))


def test_a_process_that_dies_is_a_query_error(one, monkeypatch, tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(sandbox.child, "__file__", str(bad))
    with pytest.raises(QueryError, match="SIGSEGV"):
        ask(one, "SELECT 1", sandbox=True)


TAKEN_OVER = """
import json, runpy, duckdb
from tests.attempts import attempts, is_refused

def take_over(**_):
    tried = attempts(PATH)
    raise duckdb.Error(json.dumps(sorted(name for name in tried if not is_refused(tried[name]))))

duckdb.connect = take_over
runpy.run_path(CHILD, run_name="__main__")
"""


def test_a_process_that_a_query_took_over_is_alone(one, monkeypatch, tmp_path):
    """It talks to nobody, starts nothing, and opens no file, on a kernel that has the means."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame-open")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "sesame-too")
    path = tmp_path / "file"
    path.write_text("x")
    bad = tmp_path / "bad.py"
    bad.write_text(TAKEN_OVER.replace("PATH", repr(str(path))).replace("CHILD", repr(sandbox.child.__file__)))
    monkeypatch.setattr(sandbox.child, "__file__", str(bad))
    told = []
    monkeypatch.setattr(sandbox._log, "warning", lambda form, words: told.append(words))
    with pytest.raises(QueryError) as caught:
        ask(one, "SELECT 1", sandbox=True)
    succeeded = json.loads(str(caught.value).removeprefix(f"{one}: "))
    assert "environment" not in succeeded
    if told:
        pytest.skip(f"the process that runs SQL {told[0]}")
    assert succeeded == []
    assert path.read_text() == "x"


OPENING = """
import json, os, runpy, sys, duckdb

def tried(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        return False
    return True

def take_over(**_):
    cells, others, link = PATHS
    raise duckdb.Error(json.dumps({
        "reads": tried(open, cells, "rb"),
        "reads through a link": tried(open, link, "rb"),
        "changes": [
            tried(open, cells, "r+b"), tried(open, cells, "ab"), tried(os.truncate, cells, 0),
            tried(os.unlink, cells), tried(os.rename, cells, cells + "x"), tried(os.link, cells, cells + "y"),
            tried(os.chmod, cells, 0o666), tried(os.open, cells, os.O_RDWR),
            tried(open, "/proc/self/fd/%d" % os.open(cells, os.O_RDONLY), "r+b"),
        ],
        "reads others": [other for other in others if tried(open, other, "rb") or tried(os.listdir, other)],
    }))

duckdb.connect = take_over
runpy.run_path(CHILD, run_name="__main__")
"""


def test_a_process_that_a_query_took_over_reads_these_cells_and_nothing_beside_them(tmp_path, monkeypatch):
    root = tmp_path / "results"
    lost = fake.commit(str(root), "a", [fake.cell()], second=1)
    kept = fake.commit(str(root), "a", [fake.cell()], second=2)
    cells = root / kept["cells_path"]
    before = cells.read_bytes()
    link = tmp_path / "link"
    link.symlink_to(cells)
    others = [cells.parent, root, root / lost["cells_path"], *(root / "slides").iterdir(), "/etc/passwd"]
    paths = (str(cells), [*map(str, others), f"{root}/slides/../{lost['cells_path']}"], str(link))
    bad = tmp_path / "bad.py"
    bad.write_text(OPENING.replace("PATHS", repr(paths)).replace("CHILD", repr(sandbox.child.__file__)))
    monkeypatch.setattr(sandbox.child, "__file__", str(bad))
    told = []
    monkeypatch.setattr(sandbox._log, "warning", lambda form, words: told.append(words))
    with pytest.raises(QueryError) as caught:
        ask(str(root), "SELECT 1", sandbox=True)
    found = json.loads(str(caught.value).removeprefix(f"{root}: "))
    if told:
        pytest.skip(f"the process that runs SQL {told[0]}")
    # A link to them is another name of theirs: what counts is the file.
    assert found["reads"] and found["reads through a link"]
    assert found["reads others"] == [] and not any(found["changes"])
    assert cells.read_bytes() == before and sorted(cells.parent.iterdir()) == sorted(
        root / record["cells_path"] for record in (kept, lost)
    )


@pytest.mark.slow
def test_more_cells_objects_than_files_that_it_may_have_open(tmp_path, monkeypatch):
    root = str(tmp_path)
    record = fake.commit(root, "s", [fake.cell(k) for k in range(3)], attempt="x")
    content = (tmp_path / record["cells_path"]).read_bytes()
    paths = [f"cells/marker={'CD3' if i % 2 else 'Ki67'}/{i}.parquet" for i in range(300)]
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    records = [{**record, "slide_id": f"s{i}", "cells_path": path} for i, path in enumerate(paths)]
    fake.write(f"{root}/slides/all.parquet", "slides", records)
    query = "SELECT marker, count(*), sum(area_px), max(boundary) FROM cells GROUP BY ALL ORDER BY ALL"
    outside = ask(root, query)
    assert ask(root, query, sandbox=True).equals(outside)
    # A system that gives a process few has them served.
    monkeypatch.setattr(sandbox.resource, "getrlimit", lambda _: (256, 256))
    assert ask(root, query, sandbox=True).equals(outside)


ASKING = """
import json, sys
from multiprocessing.connection import Connection
link = Connection(int(sys.argv[1]))
link.send_bytes(b"[]")
task = json.loads(link.recv_bytes())
for _ in task["tables"]:
    link.recv_bytes()
link.send_bytes(b".")
link.send_bytes(b"?" + json.dumps(["../secret", 0, 9]).encode())
link.send_bytes(b"!" + link.recv_bytes())
"""


def test_only_cells_are_served_and_a_process_that_is_not_alone_is_told(one, monkeypatch, tmp_path, caplog):
    (tmp_path.parent / "secret").write_text("sesame")
    bad = tmp_path / "bad.py"
    bad.write_text(ASKING)
    monkeypatch.setattr(sandbox.child, "__file__", str(bad))
    with pytest.raises(QueryError, match="-no such object"):
        ask(one, "SELECT 1", sandbox=True)
    assert "the process that runs this query is not confined by this system" in caplog.text


def test_trouble_with_the_store_stays_what_it_is(tmp_path, monkeypatch):
    one = f"memory://trouble/{tmp_path.name}"
    fake.commit(one, "a", [fake.cell()])

    def fail(self, path, start=None, end=None, **_):
        raise StorageError(f"{path}: cannot be read (gone)")

    monkeypatch.setattr(RootedFileSystem, "cat_file", fail)
    kept = sandbox._task
    monkeypatch.setattr(sandbox, "_task", lambda *args: _with_reads(kept, args, monkeypatch, fail))
    with pytest.raises(StorageError, match="gone"):
        ask(one, "SELECT sum(area_px) FROM cells", sandbox=True)


def _with_reads(task, args, monkeypatch, fail):
    """Let the parent's own look at the cells pass."""
    with monkeypatch.context() as patch:
        patch.delattr(RootedFileSystem, "cat_file")
        return task(*args)


def test_the_environment_of_a_helper_holds_no_secret(monkeypatch):
    from deepliif_ray import confine

    for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "DEEPLIIF_RAY_STORAGE_OPTIONS", "HOME"):
        monkeypatch.setenv(name, "x")
    assert set(confine.environment()) <= {
        "PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    }  # fmt: skip
    assert os.environ["HOME"] == "x"
