"""Joining objects: answers stay, objects become few, at every moment and whoever else is at work."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from threading import Lock, Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray import optimize, storage
from deepliif_ray.errors import DeepliifRayError, ResultsError
from deepliif_ray.query import connect
from deepliif_ray.tables import joining, retire
from deepliif_ray.tables.commit import commit_slide
from deepliif_ray.tables.joining import join_records, join_slides
from deepliif_ray.tables.ledger import Ledger, joined_rows, record_path
from tests.few import few
from tests.query import fake_results as fake

MARKERS = ("Ki67", "CD8")


@pytest.fixture(params=few(["local", "memory"], 1))
def root(request, tmp_path):
    return str(tmp_path / "res=1") if request.param == "local" else f"memory://{tmp_path.name}/res"


def fill(root, slides=12, second=0, **more):
    """Commit slides of two markers, one of them without a cell, with a failure and two runs each time."""
    for i in range(slides):
        cells = [fake.cell(k, area_px=40 + i + k + second, positive=k > 1) for k in range(i % 5)]
        marker = MARKERS[i % 2]
        fake.commit(root, f"s{i:03d}", cells, f"P{i % 3}", marker, second, attempt=f"a{second}-{i}", **more)
    fake.fail(root, f"bad{second}", second=second)
    fake.fail(root, "s001", second=second - 1, attempt=f"f{second}")
    fake.run(root, f"r{second}", status="finished", finished_at=fake.moment(second + 1), results_uri="r")
    fake.run(root, f"killed{second}", second=second, results_uri="r")


def answer(root):
    """Return what queries give: everything but where the cells lie."""
    with connect(root) as connection:
        return {
            "cells": connection.execute("SELECT * FROM cells ORDER BY slide_id, cell_id").fetchall(),
            "slides": connection.sql(
                "SELECT * EXCLUDE (cells_path, cells_bytes, cells_digest, cells_version) FROM slides "
                "ORDER BY slide_id"
            ).fetchall(),
            **{
                name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall()
                for name in ("failures", "runs", "called_cells", "patient_indices")
            },
            "again": connection.execute("FROM slide_indices({'size_thresh': 50}) ORDER BY ALL").fetchall(),
        }


def objects(root, name="cells"):
    return [url.removeprefix(root) for url in storage.list_files(f"{root}/{name}", ".parquet")]


def test_few_objects_the_same_answers(root):
    fill(root)
    before = answer(root)
    summary = optimize(root, keep_minutes=0)
    assert answer(root) == before
    # Cells: one object a marker. Records: one each, and the run that may still be written.
    assert (summary.objects_before, summary.objects_after) == (9 + 12 + 2 + 2, 2 + 1 + 1 + 2)
    assert (summary.joined_cells, summary.removed, summary.waiting) == (9, 9, 0)
    assert [joined_rows(path) for path in objects(root)] == [
        sum(i % 5 for i in range(k, 12, 2)) for k in (1, 0)
    ]
    listed = [objects(root, name) for name in ("cells", "slides", "failures", "runs")]
    again = optimize(root, keep_minutes=0)
    assert (again.joined_cells, again.joined_records, again.removed) == (0, 0, 0)
    assert [objects(root, name) for name in ("cells", "slides", "failures", "runs")] == listed


def test_readers_that_opened_before_go_on(tmp_path):
    root = str(tmp_path)
    fill(root)
    with connect(root) as early:
        assert optimize(root).waiting == 9
        assert optimize(root).waiting == 9
        assert len(early.execute("FROM cells").fetchall()) == len(answer(root)["cells"])
    assert optimize(root, keep_minutes=0).removed == 9
    assert not storage.list_files(f"{root}/_optimize")
    assert len(objects(root)) == 2


def test_a_slide_scored_again_leaves_its_cells_in_the_joined_object_uncounted(root):
    """The object then holds cells that do not count; it is written anew once they are many."""
    fill(root)
    optimize(root, keep_minutes=0)
    fake.commit(root, "s004", [fake.cell(0, area_px=999)], "P1", second=5, attempt="new")
    rescored = answer(root)
    with connect(root) as connection:
        found = connection.execute("SELECT area_px FROM cells WHERE slide_id = 's004'").fetchall()
    assert found == [(999,)]
    assert len(rescored["cells"]) == sum(i % 5 for i in range(12)) - 4 + 1
    optimize(root, keep_minutes=0)
    assert answer(root) == rescored
    generations = "SELECT count(*) FROM slides"
    optimize(root, keep_minutes=0, drop_superseded=True)
    assert answer(root) == rescored
    assert len(objects(root)) == 2
    with connect(root) as connection:
        assert connection.execute(generations).fetchall() == [(12,)]
    for path in objects(root):
        assert joined_rows(path) == sum(row[2] in path for row in rescored["cells"])


def test_older_generations_stay_unless_dropped(tmp_path):
    root = str(tmp_path)
    fill(root, second=0)
    fill(root, second=3)
    before = answer(root)
    optimize(root, keep_minutes=0)
    assert len(objects(root)) == 2 + 9  # the older cells are still named by their records
    assert answer(root) == before
    assert optimize(root, keep_minutes=0, drop_superseded=True).removed == 9
    assert len(objects(root)) == 2
    assert answer(root) == before


def test_only_old_cells_of_no_record_are_orphans(tmp_path):
    root = str(tmp_path)
    fill(root, slides=3)
    young, old = (tmp_path / f"cells/marker=Ki67/{name}-0.parquet" for name in ("young", "old"))
    for path in (young, old):
        rows = [{"slide_id": "x", "patient_id": "P1", **fake.cell()}]
        fake.write(str(path), "cells", rows)
    then = time.time() - retire.ORPHAN_AGE.total_seconds() - 60
    os.utime(old, (then, then))
    assert optimize(root).waiting == 1  # noted; the two with a record are each alone in their marker
    assert old.exists()
    optimize(root, keep_minutes=0)
    assert (young.exists(), old.exists()) == (True, False)


def aged(path, hours):
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


def test_a_commit_that_comes_a_day_late_is_refused(tmp_path):
    """Its cells were removed as nobody's; a record of them would have made every query fail."""
    root = str(tmp_path)
    fill(root, slides=4)
    expected = answer(root)
    record = fake.commit(root, "late", [fake.cell()], attempt="x")
    storage.remove(storage.join(root, record_path(record["cells_path"])))
    aged(tmp_path / record["cells_path"], 25)
    cells = tmp_path / record["cells_path"]
    content = cells.read_bytes()
    optimize(root, keep_minutes=0)
    assert not cells.exists()
    with pytest.raises(ResultsError, match="gone before its commit"):
        commit_slide(root, record)
    cells.write_bytes(content)  # as a commit found it that looked just before it was removed
    with pytest.raises(ResultsError, match="removed before its commit"):
        commit_slide(root, record)
    assert answer(root) == expected
    optimize(root, keep_minutes=0, drop_superseded=True)
    with pytest.raises(ResultsError, match="removed before its commit"):
        commit_slide(root, record)


def test_a_commit_at_the_last_moment_keeps_its_cells(tmp_path, monkeypatch):
    """It comes after the sweep has looked at the records, just before it removes."""
    root = str(tmp_path)
    fill(root, slides=4)
    record = fake.commit(root, "late", [fake.cell()], attempt="x")
    storage.remove(storage.join(root, record_path(record["cells_path"])))
    aged(tmp_path / record["cells_path"], 25)
    real = retire.bar
    monkeypatch.setattr(retire, "bar", lambda *a: commit_slide(root, record) or real(*a))
    optimize(root, keep_minutes=0)
    assert ("late", 0) in {(row[0], row[2]) for row in cells_of(root)}


def cells_of(root):
    with connect(root) as connection:
        return connection.execute("SELECT slide_id, patient_id, cell_id FROM cells").fetchall()


@pytest.mark.slow
def test_an_optimize_that_stood_still_for_a_day_names_no_cells_that_are_gone(tmp_path, monkeypatch):
    """It has joined cells; before it writes its records, another call finds them to be nobody's."""
    root = str(tmp_path)
    fill(root)
    expected = answer(root)
    real, nested = joining.join_slides, []

    def stand_still(*arguments):
        if not nested:
            nested.append(True)
            for path in tmp_path.glob("cells/*/joined-*"):
                aged(path, 25)
            assert optimize(root, keep_minutes=0).removed > 2
            assert answer(root) == expected
        return real(*arguments)

    monkeypatch.setattr(joining, "join_slides", stand_still)
    optimize(root, keep_minutes=0)
    assert nested
    assert answer(root) == expected
    optimize(root, keep_minutes=0)
    assert answer(root) == expected


def test_readers_have_their_time_though_an_optimize_was_killed(tmp_path, monkeypatch):
    """It is killed before it removes the records that it joined; an hour later somebody opens them."""
    root = str(tmp_path)
    fill(root)

    def killed(*_):
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(joining, "_remove", killed)
        with pytest.raises(_Killed):
            optimize(root)
    for path in tmp_path.glob("_optimize/*.json"):
        old = json.loads(path.read_text())
        path.write_text(json.dumps(old | {"at": "2026-01-01T00:00:00+00:00"}))
    early = list(tmp_path.glob("cells/*/*.parquet"))
    optimize(root)
    assert all(path.exists() for path in early)


def test_large_objects_are_left_alone(tmp_path):
    root = str(tmp_path)
    fill(root)
    names = objects(root)
    assert optimize(root, target_bytes=1).joined_cells == 0
    assert objects(root) == names
    with pytest.raises(ResultsError, match="no results here"):
        optimize(str(tmp_path / "typo"))


def test_cells_that_do_not_fit_their_record_stay_and_are_named(tmp_path):
    """Joined, they would look sound; the others are joined."""
    root = str(tmp_path)
    fill(root)
    records = [fake.commit(root, "liar", [fake.cell(0)], n_cells=7)]
    records += [fake.commit(root, name, [fake.cell(0)], cells_digest="0" * 64) for name in ("half", "rotten")]
    storage.write_bytes(f"{root}/{records[1]['cells_path']}", b"half")
    summary = optimize(root, keep_minutes=0)
    assert {d.object for d in summary.damaged} == {record["cells_path"] for record in records}
    assert summary.joined_cells == 9
    assert all(storage.exists(f"{root}/{record['cells_path']}") for record in records)


@pytest.mark.parametrize(
    "content",
    [
        b"half",
        *(
            pytest.param(text, marks=pytest.mark.slow)
            for text in (b"", b"{}", b"[]", b'{"at": 3, "cells": []}')
        ),
    ],
)
def test_a_damaged_note_is_passed_over(tmp_path, content):
    root = str(tmp_path)
    fill(root)
    before = answer(root)
    storage.write_bytes(f"{root}/_optimize/20260101T000000-a.json", content)
    assert optimize(root, keep_minutes=0).removed == 9
    assert answer(root) == before


def test_nothing_is_removed_beside_a_damaged_record(tmp_path):
    """Nobody knows which cells it names."""
    root = str(tmp_path)
    fill(root)
    cells = objects(root)
    storage.write_bytes(f"{root}/slides/joined-x.parquet", b"")
    summary = optimize(root, keep_minutes=0)
    assert (summary.removed, [d.object for d in summary.damaged]) == (0, ["slides/joined-x.parquet"])
    assert set(cells) <= set(objects(root))


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [3, 8])
def test_two_at_once_and_a_job_beside_them(tmp_path, rounds):
    """Two join on in threads while slides are scored anew; then everything is as without them.

    Cells that are not needed go at once, while nobody reads: how long a query takes is up to the machine.
    """
    root, alone = str(tmp_path / "r"), str(tmp_path / "alone")
    for place in (root, alone):
        fill(place, slides=15)
    stop, errors = [], []

    def join_on():
        try:
            while not stop:
                optimize(root)
        except DeepliifRayError as error:
            errors.append(error)

    threads = [Thread(target=join_on, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for second in range(1, rounds + 1):
        for place in (root, alone):
            for i in range(second, 15, 5):
                cells = [fake.cell(k, area_px=100 + second) for k in range(second)]
                fake.commit(place, f"s{i:03d}", cells, "P", second=second, attempt=f"n{second}-{i}")
        assert answer(root)["cells"] == answer(alone)["cells"]
        optimize(root, keep_minutes=0)
    stop.append(True)
    for thread in threads:
        thread.join()
    assert errors == []
    optimize(root, keep_minutes=0, drop_superseded=True)
    assert answer(root) == answer(alone)
    assert len(objects(root, "slides")) == 1


CALLS = ("create_bytes", "write_bytes", "write_file", "read_bytes", "remove", "list_files", "list_stored")


def at_call(number, action, patch):
    """Have ``action`` happen before the storage call of that number; return how many there were."""
    count, lock = [0], Lock()

    def watched(call):
        def watching(*arguments, **options):
            with lock:
                count[0] += 1
                now = count[0] == number
            if now:
                action()
            return call(*arguments, **options)

        return watching

    for name in CALLS:
        patch.setattr(storage, name, watched(getattr(storage, name)))
    return count


def refreshed_at(number, root, monkeypatch):
    """Refresh a slide's record, read two hours ago, at one moment of an optimize; return its calls."""
    fill(root, slides=4)
    stale = next(row for row in Ledger(root).slides().to_pylist() if row["slide_id"] == "s003")
    if number % 2:  # its cells were joined meanwhile, and may go now
        optimize(root)
        for url in storage.list_files(f"{root}/_optimize"):
            note = json.loads(storage.read_bytes(url))
            storage.write_bytes(url, json.dumps(note | {"at": "2026-01-01T00:00:00+00:00"}).encode())
    fake.commit(root, "s001", [fake.cell(7)], second=2, attempt="new", epoch=2)  # there is something to join
    before = cells_named(root)
    again = stale | {"attributes": [("site", "B")], "epoch": 3, "committed_at": fake.moment(9)}

    def refresh():
        try:
            commit_slide(root, again, again="x")
        except ResultsError:  # then it is scored
            refused.append(True)

    refused = []
    with monkeypatch.context() as patch:
        count = at_call(number, refresh, patch)
        optimize(root)
    if count[0] < number:
        return False
    for keep in (60, 0):
        row = next(row for row in Ledger(root).slides().to_pylist() if row["slide_id"] == "s003")
        assert refused or row["attributes"] == [("site", "B")]
        assert cells_named(root) == before
        optimize(root, keep_minutes=keep, drop_superseded=not keep)
    return True


def cells_named(root):
    """Return the cells by slide, as the newest records name them; one whose object is gone is an error."""
    found = {}
    for row in Ledger(root).slides().to_pylist():
        if row["cells_path"]:
            content = storage.read_bytes(storage.join(root, row["cells_path"]))
            cells = pq.read_table(pa.BufferReader(content)).to_pylist()
            found[row["slide_id"]] = [c["cell_id"] for c in cells if c["slide_id"] == row["slide_id"]]
            assert len(found[row["slide_id"]]) == row["n_cells"]
    return found


@pytest.mark.parametrize("number", [14, 41])  # the cells that it names go at call 41
def test_metadata_refreshed_beside_optimize_stay_and_so_do_the_cells(number, tmp_path, monkeypatch):
    assert refreshed_at(number, f"memory://{tmp_path.name}", monkeypatch)


@pytest.mark.slow
def test_metadata_refreshed_at_any_moment_of_optimize_stay(tmp_path, monkeypatch):
    """Also where the cells that the refreshed record names go that moment."""
    reached = [n for n in range(1, 200) if refreshed_at(n, f"memory://{tmp_path.name}/{n}", monkeypatch)]
    print(f"{len(reached)} moments")
    assert len(reached) > 40


def test_what_another_joined_meanwhile_is_left_to_it(tmp_path):
    root = str(tmp_path)
    fill(root)
    before = answer(root)
    moved = {(f"s{i:03d}", "other"): {"cells_path": "cells/marker=Ki67/gone.parquet"} for i in range(12)}
    optimize(root, keep_minutes=0)
    assert join_slides(root, moved, False, "0123") == 0
    assert answer(root) == before


def test_a_run_joins_its_records_once_they_are_many(root):
    fill(root)
    before = answer(root)
    join_records(root, least=13)
    assert len(objects(root, "slides")) == 12
    assert join_records(root, least=12) == 12
    assert answer(root) == before
    assert [len(objects(root, name)) for name in ("slides", "failures", "runs", "cells")] == [1, 2, 2, 9]


STEP = st.one_of(
    st.tuples(st.just("commit"), st.integers(0, 5), st.integers(0, 4)),
    st.tuples(st.just("optimize"), st.booleans(), st.sampled_from([1, 4000, 2**27])),
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.lists(STEP, max_size=8))
def test_any_order_of_commits_and_joins(steps):
    check_steps(steps)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=40, deadline=None)
@given(st.lists(STEP, max_size=14))
def test_any_long_order_of_commits_and_joins(steps):
    check_steps(steps)


def check_steps(steps) -> None:
    """Take the steps and compare, after each, with what was committed."""
    root = f"memory://steps/{uuid.uuid4().hex}"
    expected = {}
    fake.run(root, "r")
    for second, (step, a, b) in enumerate(steps):
        if step == "commit":
            cells = [fake.cell(k, area_px=100 + second) for k in range(b)]
            fake.commit(root, f"s{a}", cells, marker=MARKERS[a % 2], second=second)
            expected[f"s{a}"] = [(f"s{a}", k, 100 + second) for k in range(b)]
        else:
            optimize(root, keep_minutes=0, drop_superseded=a, target_bytes=b)
        with connect(root) as connection:
            found = connection.execute("SELECT slide_id, cell_id, area_px FROM cells ORDER BY ALL").fetchall()
            assert found == sorted(row for rows in expected.values() for row in rows)
            assert connection.execute("SELECT count(*) FROM slides").fetchall() == [(len(expected),)]


JOIN = "import sys; from deepliif_ray import optimize; optimize(sys.argv[1], keep_minutes=0)"


class _Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_before_any_write_or_removal(tmp_path, monkeypatch, every):
    """It is stopped before each of its calls to the store in turn, and once more when it goes on."""
    reference = str(tmp_path / "reference")
    fill(reference, slides=5)
    expected = answer(reference)
    assert len(expected["slides"]) == 5
    calls, at = [0], [0]
    for name in ("write_bytes", "write_file", "remove"):
        real = getattr(storage, name)

        def counted(*arguments, real=real):
            calls[0] += 1
            if calls[0] == at[0]:
                raise _Killed
            return real(*arguments)

        monkeypatch.setattr(storage, name, counted)
    monkeypatch.setattr(storage, "READ_THREADS", 1)
    finished = False
    while not finished:
        at[0] += every
        root = str(tmp_path / f"killed-{at[0]}")
        shutil.copytree(reference, root)
        limit, calls[0] = at[0], 0
        try:
            optimize(root, keep_minutes=0)
            finished = True
        except _Killed:
            assert answer(root) == expected, limit
        limit, at[0] = at[0], 0
        optimize(root, keep_minutes=0)
        assert answer(root) == expected, limit
        assert len(objects(root, "slides")) == 1
        at[0] = limit
    assert at[0] > 12


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_processes(tmp_path):
    """SIGKILL at random moments; what is there answers as before each time, and it gets done in the end."""
    root = str(tmp_path)
    fill(root, slides=300)
    expected = answer(root)
    rng = random.Random(0)
    killed = 0
    while killed < 12:
        process = subprocess.Popen([sys.executable, "-c", JOIN, root], env={**os.environ})
        try:
            assert process.wait(rng.uniform(0.5, 6)) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            assert answer(root) == expected
    optimize(root, keep_minutes=0)
    assert answer(root) == expected
    assert len(list(Path(root, "slides").iterdir())) == 1
