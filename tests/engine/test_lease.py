"""One run at a time on the same results, told apart by their beats; two at once do no harm."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import fsspec
import pytest

from deepliif_ray import score, storage
from deepliif_ray.engine import lease as module
from deepliif_ray.engine.lease import Lease, fence, lease_url, read_lease
from deepliif_ray.errors import LeaseLostError, ResultsInUseError
from tests.engine.results import assert_same, tables

RUN = """
import sys, time
from deepliif_ray import cli, score
from deepliif_ray.engine import lease
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
    sys.modules["deepliif_ray.engine.finalize"].fence = lambda *_: None
def run():
    take_over = sys.argv[4] == "take-over"
    print(score(sys.argv[1], sys.argv[2], model="stain", engine="local", take_over=take_over))
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


def test_the_second_run_is_told_and_the_first_not_disturbed(cohort, undisturbed, tmp_path):
    first = start(cohort, tmp_path, 0.3)
    wait_for((tmp_path / "_lease.json").exists)
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
    assert score(str(cohort), str(tmp_path), model="stain", engine="local").failed == 0
    assert_same(undisturbed, tmp_path)


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
    (tmp_path / "_lease.json").write_text(json.dumps(silent))
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
        assert (first["host"], first["pid"]) == (module.socket.gethostname(), os.getpid())
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
    storage.write_bytes(lease_url(str(tmp_path)), json.dumps(holder).encode())
    naps = []

    def nap(_):
        naps.append(1)
        if len(naps) == 1:
            sleep(0.5)
        elif len(naps) == 2:
            storage.write_bytes(lease_url(str(tmp_path)), json.dumps(holder | {"beat_at": "2"}).encode())

    sleep = time.sleep
    monkeypatch.setattr(module, "STALE_S", 0.3)
    monkeypatch.setattr(module, "_LOOK_S", 0.1)
    monkeypatch.setattr(module.time, "sleep", nap)
    with pytest.raises(ResultsInUseError), Lease(str(tmp_path), "second", dict):
        pass
    assert read_lease(str(tmp_path))["run_id"] == "first"


def test_a_holder_that_was_taken_over_sees_it_and_may_not_commit(tmp_path, quick):
    with Lease(str(tmp_path), "first", dict) as first:
        fence(str(tmp_path), "first")
        with Lease(str(tmp_path), "second", dict, take_over=True):
            with pytest.raises(LeaseLostError, match="run second"):
                fence(str(tmp_path), "first")
            wait_for(lambda: first._holder is not None)
            with pytest.raises(LeaseLostError, match="run second"):
                first.check()
        assert read_lease(str(tmp_path)) is None
    fence(str(tmp_path), "first")  # nobody else holds it


def test_the_one_it_was_taken_from_leaves_it_to_the_other(tmp_path, quick):
    first = Lease(str(tmp_path), "first", dict)
    first.__enter__()
    with Lease(str(tmp_path), "second", dict, take_over=True):
        first.__exit__()
        assert read_lease(str(tmp_path))["run_id"] == "second"


def test_a_lease_that_somebody_removed_is_taken_again(quick):
    with Lease("memory://removed", "run", dict):
        fsspec.filesystem("memory").rm(lease_url("memory://removed").removeprefix("memory:/"))
        wait_for(lambda: read_lease("memory://removed") is not None)
