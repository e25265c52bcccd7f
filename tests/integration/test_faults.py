"""Faults on a cluster of several nodes: each run ends as an undisturbed one, or says why a slide did not.

Most are slow; one alone: ``pytest -m slow tests/integration/test_faults.py -k preempted``.
"""

import os
import signal
import subprocess
import time

import pyarrow.compute as pc
import pytest

from deepliif_ray import Execution, connect, score
from deepliif_ray.engine.run.lease import read_lease
from infra.s3 import S3Server, weed
from tests.engine.results import assert_same, tables
from tests.integration.nodes import Run, send, staged

SLOW = {"tile_s": 0.3}
"""Time for a fault to happen in the middle."""


def is_held(results) -> bool:
    return read_lease(str(results)) is not None


def statuses(results) -> list[str]:
    with connect(results) as connection:
        rows = connection.execute("SELECT status FROM runs ORDER BY started_at").fetchall()
    return [status for (status,) in rows]


def assert_same_without(undisturbed, results, slide_id) -> None:
    """Assert that all slides but one are as undisturbed."""
    expected, found = tables(undisturbed), tables(results)
    for name in ("cells", "slides"):
        kept = expected[name].filter(pc.field("slide_id") != slide_id)
        assert kept.num_rows > 0
        assert found[name].equals(kept), name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_inference_actor_killed(nodes, cohort, undisturbed, tmp_path):
    run = Run(nodes.address, cohort, tmp_path, faults=SLOW)
    run.until(lambda: staged(tmp_path) > 1)
    assert send(nodes.workers(named="MapWorker")[0], signal.SIGKILL)
    assert run.end() == 0
    assert_same(undisturbed, tmp_path)
    assert statuses(tmp_path) == ["finished"]
    assert not is_held(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_that_stood_still_changes_nothing(nodes, cohort, undisturbed, tmp_path):
    """Its workers go on meanwhile, and another run takes over and finishes."""
    run = Run(nodes.address, cohort, tmp_path, faults=SLOW)
    run.until(lambda: staged(tmp_path) > 1)
    send(run.process.pid, signal.SIGSTOP)
    try:
        assert (
            score(
                str(cohort), str(tmp_path), model="stain", execution=Execution(engine="local", take_over=True)
            ).failed
            == 0
        )
        assert_same(undisturbed, tmp_path)
    finally:
        send(run.process.pid, signal.SIGCONT)
    assert run.end() == 1
    assert_same(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_told_to_stop_does_so_in_time_and_keeps_its_work(nodes, cohort, undisturbed, tmp_path):
    run = Run(nodes.address, cohort, tmp_path, faults=SLOW)
    run.until(lambda: staged(tmp_path) > 1)
    assert is_held(tmp_path)
    before = time.monotonic()
    send(run.process.pid, signal.SIGTERM)
    assert run.end() == 1
    assert time.monotonic() - before < 30
    assert statuses(tmp_path) == ["interrupted"]
    assert not is_held(tmp_path)
    kept = staged(tmp_path)
    assert kept > 1
    again = Run(nodes.address, cohort, tmp_path)
    assert again.end() == 0
    assert_same(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_reader_killed_for_memory(nodes, cohort, undisturbed, tmp_path):
    """The kernel ends a process that is out of memory with SIGKILL, whatever it was doing."""
    run = Run(nodes.address, cohort, tmp_path, faults=SLOW, separate=True)
    killed = 0
    while killed < 3 and run.process.poll() is None:
        for pid in nodes.workers(named=r"MapBatches\(_read\)")[:1]:
            killed += send(pid, signal.SIGKILL)
            time.sleep(1)
        time.sleep(0.01)
    assert killed >= 1
    assert run.end() == 0
    assert_same(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_lost(nodes, cohort, undisturbed, tmp_path):
    run = Run(nodes.address, cohort, tmp_path, faults=SLOW)
    run.until(lambda: staged(tmp_path) > 1 and nodes.workers(nodes.others[0], "MapWorker"))
    nodes.kill(nodes.others[0])
    assert run.end() == 0
    assert_same(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_preempted_and_returned(nodes, cohort, undisturbed, tmp_path):
    run = Run(nodes.address, cohort, tmp_path, faults=SLOW)
    run.until(lambda: staged(tmp_path) > 1 and nodes.workers(nodes.others[0], "MapWorker"))
    nodes.kill(nodes.others[0])
    time.sleep(3)
    nodes.add()
    assert run.end() == 0
    assert_same(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_slow_node(nodes, cohort, undisturbed, tmp_path):
    run = Run(nodes.address, cohort, tmp_path, faults=SLOW)
    run.until(lambda: staged(tmp_path) > 1 and nodes.workers(nodes.others[0], "MapWorker"))
    halted = nodes.workers(nodes.others[0])
    for pid in halted:
        send(pid, signal.SIGSTOP)
    time.sleep(15)
    for pid in halted:
        send(pid, signal.SIGCONT)
    assert run.end() == 0
    assert_same(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_driver_killed(nodes, cohort, undisturbed, tmp_path):
    run = Run(nodes.address, cohort, tmp_path, faults=SLOW)
    run.until(lambda: staged(tmp_path) > 1)
    run.kill()
    assert is_held(tmp_path)
    again = Run(nodes.address, cohort, tmp_path)
    assert again.end() == 0
    assert "lease.taken_over" in again.said
    assert_same(undisturbed, tmp_path)
    assert statuses(tmp_path) == ["running", "finished"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("where", ["deadly", "deadly_end"])
def test_a_slide_that_kills_its_process_every_time(nodes, cohort, undisturbed, tmp_path, where):
    run = Run(nodes.address, cohort, tmp_path, faults={where: "P02-Ki67"})
    assert run.end() == 3
    (failure,) = tables(tmp_path)["failures"].to_pylist()
    assert (failure["slide_id"], failure["reason"]) == ("P02-Ki67", "crashed")
    assert failure["stage"] == ("infer" if where == "deadly" else "finalize")
    assert "died 3 times" in failure["message"]
    assert_same_without(undisturbed, tmp_path, "P02-Ki67")
    again = Run(nodes.address, cohort, tmp_path)
    assert again.end() == 0
    assert_same(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_that_stands_still(nodes, cohort, undisturbed, tmp_path):
    run = Run(nodes.address, cohort, tmp_path, faults={**SLOW, "no_progress_s": 10})
    run.until(lambda: staged(tmp_path) > 1)
    halted = set()
    try:
        while run.process.poll() is None:  # whatever process takes over stands still as well
            for pid in set(nodes.workers(named="MapWorker")) - halted:
                send(pid, signal.SIGSTOP)
                halted.add(pid)
            time.sleep(0.1)
        assert run.end() == 3
    finally:
        for pid in halted:
            send(pid, signal.SIGKILL)
    failures = tables(tmp_path)["failures"].to_pylist()
    assert failures
    assert {row["reason"] for row in failures} == {"stalled"}
    again = Run(nodes.address, cohort, tmp_path)
    assert again.end() == 0
    assert_same(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_disk(nodes, cohort, undisturbed, tmp_path):
    def mount(size: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(tmp_path)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    if not mount("size=300k"):
        pytest.skip("only root may mount a small disk")
    try:
        run = Run(nodes.address, cohort, tmp_path)
        assert run.end() in (1, 3)
        told = run.said + str(tables(tmp_path)["failures"].to_pylist())
        assert "No space left" in told
        assert mount("remount,size=100m")
        again = Run(nodes.address, cohort, tmp_path)
        assert again.end() == 0
        assert_same(undisturbed, tmp_path)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_object_storage_away_for_half_a_minute(cohort, undisturbed, tmp_path, monkeypatch):
    if weed() is None:
        pytest.skip("seaweedfs is not installed")
    from tests.integration.nodes import Nodes

    server = S3Server(tmp_path)
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    nodes = Nodes(2)  # its processes inherit the environment
    try:
        results = f"{server.bucket()}/results"
        run = Run(nodes.address, cohort, results, faults=SLOW)
        run.until(lambda: nodes.workers(named="MapWorker"))
        time.sleep(5)
        server.stop()
        time.sleep(30)
        server.start()
        assert run.end() in (0, 3)
        with connect(results) as connection:
            failures = connection.execute("SELECT slide_id, reason FROM failures").fetchall()
        assert all(reason == "storage" for _, reason in failures)
        if failures:
            assert Run(nodes.address, cohort, results).end() == 0
        assert_same(undisturbed, results)
    finally:
        nodes.shutdown()
        server.stop()
        for name in server.environment:
            os.environ.pop(name, None)
