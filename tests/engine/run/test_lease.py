"""One run at a time on the same results, told apart by their beats; two at once do no harm."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

from deepliif_ray import Execution, ScoreConfig, optimize, score, storage
from deepliif_ray.engine import finalize
from deepliif_ray.engine.run import holder as who
from deepliif_ray.engine.run import lease as module
from deepliif_ray.engine.run.lease import Lease, fence, lease_url, older_lease_url, read_lease
from deepliif_ray.errors import LeaseLostError, ResultsInUseError
from deepliif_ray.tables.ledger import Ledger
from tests.engine.results import assert_same, tables
from tests.query import fake_results as fake

RUN = """
import sys, time
from deepliif_ray import Execution, ScoreConfig, cli, score
from deepliif_ray.engine.run import lease
from deepliif_ray.models.stain import Stain
lease.BEAT_S, lease._LOOK_S = 0.2, 0.2
infer = Stain.infer
def slow(self, tiles, modalities=()):
    time.sleep(float(sys.argv[3]) * len(tiles))
    return infer(self, tiles, modalities)
Stain.infer = slow
if sys.argv[4] == "blind":
    lease.Lease.__enter__ = lambda self: self
    lease.Lease.__exit__ = lambda self, *_: None
    lease._other_holder = lambda *_: None
def run():
    take_over = sys.argv[4] == "take-over"
    config = ScoreConfig(seg_thresh=100 if sys.argv[4] == "stops" else 120)
    execution = Execution(engine="local", take_over=take_over)
    print(score(sys.argv[1], sys.argv[2], model="stain", config=config, execution=execution))
sys.exit(cli.common._guarded(run))
"""


def start(cohort, results, seconds=0.0, how="plain") -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, str(cohort), str(results), str(seconds), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "BEAT_S", 0.1)
    monkeypatch.setattr(module, "_LOOK_S", 0.1)
    monkeypatch.setattr(module, "STALE_S", 3.0)


@pytest.mark.slow
def test_the_second_run_is_told_and_the_first_not_disturbed(cohort, undisturbed, tmp_path):
    first = start(cohort, tmp_path, 0.3)
    wait_for(lambda: read_lease(str(tmp_path)))
    holder = read_lease(str(tmp_path))
    second = start(cohort, tmp_path)
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"in use by run {holder['run_id']}" in said
    assert "--take-over" in said and "wait" in said
    said, _ = first.communicate(timeout=240)
    assert first.returncode == 0, said
    assert_same(undisturbed, tmp_path)
    assert read_lease(str(tmp_path)) is None


def test_after_kill_9_the_next_run_goes_on_at_once(cohort, undisturbed, tmp_path):
    first = start(cohort, tmp_path, 0.3)
    wait_for(lambda: list(tmp_path.glob("_staging/*/*/*.arrow")))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert read_lease(str(tmp_path)) is not None
    before = time.monotonic()
    with Lease(str(tmp_path), "next", dict):
        assert time.monotonic() - before < module.STALE_S / 2
    assert score(str(cohort), str(tmp_path), model="stain", execution=Execution(engine="local")).failed == 0
    assert_same(undisturbed, tmp_path)


@pytest.mark.slow
def test_taking_over_ends_the_first_run(cohort, undisturbed, tmp_path):
    first = start(cohort, tmp_path, 0.5)
    wait_for(lambda: list(tmp_path.glob("_staging/*/*/*.arrow")))
    second = start(cohort, tmp_path, how="take-over")
    said, _ = first.communicate(timeout=240)
    assert first.returncode == 1
    assert "took these results over" in said
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 0, said
    assert_same(undisturbed, tmp_path)


@pytest.mark.slow
def test_two_runs_that_know_nothing_of_each_other_do_no_harm(cohort, undisturbed, tmp_path):
    both = [start(cohort, tmp_path, seconds, "blind") for seconds in (0.02, 0.05)]
    for run in both:
        said, _ = run.communicate(timeout=280)
        assert run.returncode == 0, said
        assert " failed=0" in said
    assert_same(undisturbed, tmp_path)
    assert tables(tmp_path)["failures"].num_rows == 0


def test_a_silent_run_of_another_host_is_waited_for_whatever_its_clock_says(tmp_path, quick):
    silent = {"run_id": "old", "host": "elsewhere", "pid": 1, "beat_at": "2099-01-01T00:00:00+00:00"}
    storage.write_bytes(lease_url(str(tmp_path), 1), json.dumps(silent).encode())
    before = time.monotonic()
    with Lease(str(tmp_path), "new", dict):
        assert time.monotonic() - before >= module.STALE_S
        assert read_lease(str(tmp_path))["run_id"] == "new"
    assert read_lease(str(tmp_path)) is None


def test_it_beats_and_tells_how_far_the_run_is(tmp_path, quick):
    done = iter(range(10**9))
    with Lease(str(tmp_path), "run", lambda: {"done": next(done)}):
        first = read_lease(str(tmp_path))
        wait_for(lambda: read_lease(str(tmp_path))["progress"]["done"] > first["progress"]["done"] + 1)
        assert (first["host"], first["pid"]) == (socket.gethostname(), os.getpid())
        assert read_lease(str(tmp_path))["beat_at"] > first["started_at"]


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_of_many_that_start_at_once_one_gets_it(tmp_path, quick, where):
    results = str(tmp_path) if where == "disk" else f"memory://{tmp_path.name}"
    got, told, barrier = [], [], threading.Barrier(8)
    finished = threading.Event()

    def take(n):
        barrier.wait()
        try:
            with Lease(results, f"run-{n}", dict) as lease:
                got.append(n)
                finished.wait(60)
                lease.check()
        except ResultsInUseError:
            told.append(n)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(told) == 7)
    finished.set()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_who_stood_still_for_longer_than_the_bound_does_not_take_over(tmp_path, quick, monkeypatch):
    with Lease(str(tmp_path), "first", dict) as first:
        monkeypatch.setattr(module, "STALE_S", 0.3)
        monkeypatch.setattr(module, "_LOOK_S", 0.6)
        with pytest.raises(ResultsInUseError), Lease(str(tmp_path), "second", dict):
            pass
        first.check()
        assert read_lease(str(tmp_path))["run_id"] == "first"


def test_where_all_stood_still_the_holder_gets_time_to_beat(tmp_path, monkeypatch):
    holder = {"run_id": "first", "host": "elsewhere", "pid": 1, "beat_at": "1"}
    storage.write_bytes(lease_url(str(tmp_path), 1), json.dumps(holder).encode())
    naps = []

    def nap(_):
        naps.append(1)
        if len(naps) == 1:
            sleep(0.5)
        elif len(naps) == 2:
            beat = json.dumps(holder | {"beat_at": "2"}).encode()
            storage.write_bytes(lease_url(str(tmp_path), 1, "beat"), beat)

    sleep = time.sleep
    monkeypatch.setattr(module, "STALE_S", 0.3)
    monkeypatch.setattr(module, "_LOOK_S", 0.1)
    monkeypatch.setattr(module.time, "sleep", nap)
    with pytest.raises(ResultsInUseError), Lease(str(tmp_path), "second", dict):
        pass
    assert read_lease(str(tmp_path))["run_id"] == "first"


def test_a_holder_that_was_taken_over_sees_it_and_may_not_commit(tmp_path, quick):
    root = str(tmp_path)
    with Lease(root, "first", dict) as first:
        fence(root, first.epoch, "first")
        with Lease(root, "second", dict, take_over=True) as second:
            assert (first.epoch, second.epoch) == (1, 2)
            with pytest.raises(LeaseLostError, match="run second"):
                fence(root, first.epoch, "first")
            wait_for(lambda: first._holder is not None)
            with pytest.raises(LeaseLostError, match="run second"):
                first.check()
        assert read_lease(root) is None
    with pytest.raises(LeaseLostError, match="run second"):
        fence(root, 1, "first")  # nobody else holds it, and yet it is lost
    with Lease(root, "third", dict) as third:
        assert third.epoch == 3


def test_the_one_it_was_taken_from_leaves_it_to_the_other(tmp_path, quick):
    first = Lease(str(tmp_path), "first", dict)
    first.__enter__()
    with Lease(str(tmp_path), "second", dict, take_over=True):
        first.__exit__()
        assert read_lease(str(tmp_path))["run_id"] == "second"


def test_a_lease_that_somebody_removed_is_lost(quick):
    with Lease("memory://removed", "run", dict) as lease:
        storage.remove("memory://removed/_lease")
        wait_for(lambda: lease._holder is not None)
        with pytest.raises(LeaseLostError, match="removed"):
            lease.check()
        with pytest.raises(LeaseLostError, match="removed"):
            fence("memory://removed", lease.epoch, "run")


def test_where_two_got_the_same_number_one_of_them_sees_it(tmp_path, quick):
    """As on a store that does not know conditions: the second wrote over the first."""
    first = Lease(str(tmp_path), "first", dict)
    first.take()
    storage.write_bytes(lease_url(str(tmp_path), 1), json.dumps({"run_id": "second"}).encode())
    first.beat()
    with pytest.raises(LeaseLostError, match="run second"):
        first.check()
    with pytest.raises(LeaseLostError, match="run second"):
        fence(str(tmp_path), 1, "first")


def test_after_a_lease_was_removed_epochs_go_on_from_those_of_the_records(tmp_path, quick):
    fake.commit(str(tmp_path), "s", [fake.cell()], epoch=41)
    fake.run(str(tmp_path), "r", epoch=7)
    with Lease(str(tmp_path), "next", dict) as lease:
        assert lease.epoch == 42
    with Lease(str(tmp_path), "and next", dict) as lease:
        assert lease.epoch == 43


def test_a_beat_that_arrives_late_does_not_undo_a_take_over(tmp_path, quick, monkeypatch):
    """It is sent before, and written after."""
    first = Lease(str(tmp_path), "first", dict)
    first.take()
    late = []
    monkeypatch.setattr(storage, "write_bytes", lambda *sent: late.append(sent))
    first.beat()
    monkeypatch.undo()
    with Lease(str(tmp_path), "second", dict, take_over=True) as second:
        storage.write_bytes(*late[0])
        assert read_lease(str(tmp_path))["run_id"] == "second"
        fence(str(tmp_path), second.epoch, "second")
        with pytest.raises(LeaseLostError):
            fence(str(tmp_path), first.epoch, "first")


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_listings_that_come_late_do_not_matter(tmp_path, monkeypatch, lag):
    """The store lists nothing of the last epochs; it tells of each when asked."""
    for number in range(6):
        with Lease(str(tmp_path), f"run{number}", dict):
            pass
    holder = Lease(str(tmp_path), "holder", dict)
    holder.take()
    listed = storage.list_stored
    monkeypatch.setattr(
        storage, "list_stored", lambda *a: dict(list(listed(*a).items())[:-lag]) if listed(*a) else {}
    )
    assert read_lease(str(tmp_path))["run_id"] == "holder"
    fence(str(tmp_path), holder.epoch, "holder")
    other = Lease(str(tmp_path), "other", dict, take_over=True)
    other.take()
    assert other.epoch == holder.epoch + 1
    with pytest.raises(LeaseLostError, match="run other"):
        fence(str(tmp_path), holder.epoch, "holder")


def test_an_answer_that_was_lost_is_no_other_run(tmp_path, monkeypatch):
    create = storage.create_bytes
    monkeypatch.setattr(storage, "create_bytes", lambda *a: create(*a) and False)
    lease = Lease(str(tmp_path), "run", dict)
    lease.take()
    assert lease.epoch == 1


@pytest.mark.slow
def test_a_lease_of_older_software_is_waited_for_and_its_run_ends(tmp_path, quick):
    """It looks for its own name in one object, as version 0.1 did before every commit."""
    url = older_lease_url(str(tmp_path))
    storage.write_bytes(url, json.dumps({"run_id": "old", "host": "h", "pid": 1, "beat_at": "1"}).encode())
    before = time.monotonic()
    with Lease(str(tmp_path), "new", dict):
        assert time.monotonic() - before >= module.STALE_S
        assert json.loads(storage.read_bytes(url))["run_id"] == "new"
    before = time.monotonic()
    with Lease(str(tmp_path), "next", dict):
        assert time.monotonic() - before < module.STALE_S / 2
    storage.write_bytes(url, json.dumps({"run_id": "old", "host": "h", "pid": 1, "beat_at": "2"}).encode())
    assert read_lease(str(tmp_path))["run_id"] == "old"


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({}, True),
        ({"boot": "another"}, False),  # a machine of the same name, whose processes are numbered alike
        ({"boot": None}, False),
        ({"host": "elsewhere"}, False),
        ({"processes": "pid:[1]"}, False),
        ({"pid": None}, False),
        ({"pid": -1}, False),
    ],
    ids=str,
)
def test_who_is_gone(change, gone):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert who.is_gone(who.this_process() | {"pid": ended.pid} | change) is gone


def test_who_lives_though_another_had_its_number():
    me = who.this_process()
    assert not who.is_gone(me)
    assert who.is_gone(me | {"pid_started": me["pid_started"] - 1})
    ended = subprocess.Popen([sys.executable, "-c", ""])
    wait_for(lambda: who._state(ended.pid)[0] == "Z")  # nobody has asked how it ended
    assert who.is_gone(me | {"pid": ended.pid})
    ended.wait()


def test_a_machine_of_the_same_name_is_waited_for(tmp_path, quick):
    """Its processes are numbered alike, and nobody here has the number of its run."""
    twin = who.this_process() | {"run_id": "twin", "boot": "another", "pid": 2**22 + 1}
    storage.write_bytes(lease_url(str(tmp_path), 1), json.dumps(twin).encode())
    beats, lease = iter(range(10**6)), Lease(str(tmp_path), "new", dict)

    def beat():
        document = json.dumps(twin | {"beat": next(beats)}).encode()
        storage.write_bytes(lease_url(str(tmp_path), 1, "beat"), document)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "sleep", lambda _: beat())
        with pytest.raises(ResultsInUseError, match="run twin"):
            lease.take()


@pytest.mark.slow
def test_a_run_that_stood_still_changes_nothing_that_another_did(cohort, undisturbed, tmp_path):
    """SIGSTOP in the middle of a run with other options; SIGCONT once another has finished."""
    first = start(cohort, tmp_path, 0.3, "stops")
    wait_for(lambda: list(tmp_path.glob("_staging/*/*/*.arrow")))
    first.send_signal(signal.SIGSTOP)
    try:
        second = start(cohort, tmp_path, how="take-over")
        said, _ = second.communicate(timeout=240)
        assert second.returncode == 0, said
        assert_same(undisturbed, tmp_path)
        before = {name: (tmp_path / name).read_bytes() for name in objects(tmp_path, "slides", "cells")}
    finally:
        first.send_signal(signal.SIGCONT)
    said, _ = first.communicate(timeout=240)
    assert first.returncode == 1, said
    assert "took these results over" in said
    assert_same(undisturbed, tmp_path)
    after = {name: (tmp_path / name).read_bytes() for name in objects(tmp_path, "slides")}
    assert after == {name: content for name, content in before.items() if name.startswith("slides")}
    runs = tables_of_runs(tmp_path)
    assert [(run["epoch"], run["status"]) for run in runs] == [(1, "failed"), (2, "finished")]


def objects(results, *names):
    return [str(p.relative_to(results)) for name in names for p in results.glob(f"{name}/**/*.parquet")]


def tables_of_runs(results):
    return sorted(Ledger(str(results)).runs().to_pylist(), key=lambda run: run["epoch"])


@pytest.mark.slow
def test_a_commit_on_its_way_when_another_took_over_counts_less(cohort, tmp_path, quick):
    """It passed the fence; the other run, whose clock is hours behind, is done before it is written."""
    root, waiting, going = str(tmp_path), threading.Event(), threading.Event()
    commit = finalize.commit_slide

    def slow(results, record):
        waiting.set()
        assert going.wait(60)
        commit(results, record | {"committed_at": record["committed_at"] + timedelta(hours=2)})

    lost = []

    def first():
        try:
            score(
                str(cohort),
                root,
                model="stain",
                config=ScoreConfig(seg_thresh=100),
                execution=Execution(engine="local"),
            )
        except LeaseLostError as error:
            lost.append(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finalize, "commit_slide", slow)
        thread = threading.Thread(target=first)
        thread.start()
        assert waiting.wait(60)
        patch.setattr(finalize, "commit_slide", commit)
        assert (
            score(
                str(cohort), root, model="stain", execution=Execution(engine="local", take_over=True)
            ).failed
            == 0
        )
        going.set()
        thread.join()
    assert lost
    assert len(objects(tmp_path, "slides")) == 7
    assert set(Ledger(root).slides().column("seg_thresh").to_pylist()) == {120}
    assert score(str(cohort), root, model="stain", execution=Execution(engine="local")).skipped == 6
    optimize(root, keep_minutes=0, drop_superseded=True)
    assert set(Ledger(root).slides().column("seg_thresh").to_pylist()) == {120}
