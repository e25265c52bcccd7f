"""The lease on a real S3 server: conditions, deaths, take-overs, and a network that is late and forgetful."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deepliif_ray import Execution, score, storage
from deepliif_ray.engine.run import lease as module
from deepliif_ray.engine.run.lease import Lease, fence, older_lease_url, read_lease
from deepliif_ray.errors import LeaseLostError, ResultsInUseError, StorageError
from deepliif_ray.storage import client
from deepliif_ray.storage.answers import answer_of
from deepliif_ray.synthetic import write_cohort
from deepliif_ray.tables.ledger import Ledger
from tests.engine.run.test_lease import RUN, wait_for
from tests.integration.faulty_proxy import FaultyProxy
from tests.integration.test_s3 import assert_same_but_place

HOLD = """
import sys, time
from deepliif_ray.engine.run.lease import Lease
with Lease(sys.argv[1], "held", dict):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "BEAT_S", 0.2)
    monkeypatch.setattr(module, "_LOOK_S", 0.2)
    monkeypatch.setattr(module, "STALE_S", 4.0)


@pytest.fixture
def root(s3) -> str:
    return f"{s3.bucket()}/results"


def hold(root) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, root], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_an_object_that_is_there_is_not_created_again(root):
    assert storage.create_bytes(f"{root}/a", b"1")
    assert not storage.create_bytes(f"{root}/a", b"2")
    assert storage.read_bytes(f"{root}/a") == b"1"


def test_what_s3fs_makes_of_a_condition_that_fails(root):
    """If a release changes this, `storage.create_bytes` wants another look."""
    fs, path = client.filesystem(f"{root}/a")
    fs.pipe_file(path, b"1", mode="create")
    with pytest.raises(OSError) as refused:
        fs.pipe_file(path, b"2", mode="create")
    assert not isinstance(refused.value, FileExistsError)
    assert refused.value.errno == errno.EINVAL
    answer = answer_of(refused.value)
    assert (answer.code, answer.status, answer.operation) == ("PreconditionFailed", 412, "PutObject")


def test_what_s3fs_makes_of_a_head_that_is_refused(root, monkeypatch):
    """It has no body, so the code is a number, and the operation says that it is of a HEAD."""
    storage.write_bytes(f"{root}/a", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-another")
    client.filesystem(root)[0].clear_instance_cache()
    try:
        fs, path = client.filesystem(f"{root}/a")
        with pytest.raises(PermissionError) as refused:
            fs.info(path)
        answer = answer_of(refused.value)
        assert (answer.code, answer.status, answer.is_bare) == ("403", 403, True)
        with pytest.raises(StorageError, match="check the credentials"):
            storage.size(f"{root}/a")
    finally:
        client.filesystem(root)[0].clear_instance_cache()


def test_after_a_holder_was_killed_the_next_gets_it_at_once(root):
    holder = hold(root)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert read_lease(root)["run_id"] == "held"
    began = time.monotonic()
    with Lease(root, "next", dict) as lease:
        assert time.monotonic() - began < module.STALE_S / 2
        assert lease.epoch == 2
        fence(root, 2, "next")
    assert read_lease(root) is None


def test_one_that_stands_still_is_waited_for_and_then_ends(root, quick):
    first = Lease(root, "first", dict)
    first.take()
    began = time.monotonic()
    with Lease(root, "second", dict) as second:
        assert time.monotonic() - began >= module.STALE_S
        with pytest.raises(LeaseLostError, match="run second"):
            fence(root, first.epoch, "first")
        first.beat()
        first.release()
        assert read_lease(root)["run_id"] == "second"
        fence(root, second.epoch, "second")


def test_one_that_lives_is_named(root, quick):
    with Lease(root, "first", dict) as first:
        with pytest.raises(ResultsInUseError, match="in use by run first"), Lease(root, "second", dict):
            pass
        with Lease(root, "third", dict, take_over=True):
            wait_for(lambda: first._holder is not None)
            with pytest.raises(LeaseLostError, match="run third"):
                first.check()


@pytest.mark.slow
def test_of_many_that_start_at_once_on_s3_one_gets_it(root, quick):
    got, told = [], []
    finished, barrier = threading.Event(), threading.Barrier(5)

    def take(n):
        barrier.wait()
        try:
            with Lease(root, f"run-{n}", dict):
                got.append(n)
                finished.wait(60)
        except ResultsInUseError:
            told.append(n)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(told) == 4)
    finished.set()
    for thread in threads:
        thread.join()
    assert len(got) == 1


@pytest.mark.slow
def test_a_lease_of_older_software_on_s3(root, quick):
    storage.write_bytes(older_lease_url(root), json.dumps({"run_id": "old", "host": "h", "pid": 1}).encode())
    began = time.monotonic()
    with Lease(root, "new", dict):
        assert time.monotonic() - began >= module.STALE_S
        assert json.loads(storage.read_bytes(older_lease_url(root)))["run_id"] == "new"


@pytest.fixture
def through(s3, monkeypatch):
    """Give a way to S3 through a proxy, for this process."""
    opened = []

    def connect(**options) -> FaultyProxy:
        proxy = FaultyProxy(s3.ports["s3"], **options)
        proxy.__enter__()
        opened.append(proxy)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        client.filesystem("s3://a/b")[0].clear_instance_cache()
        return proxy

    yield connect
    monkeypatch.undo()
    client.filesystem("s3://a/b")[0].clear_instance_cache()
    for proxy in opened:
        proxy.__exit__()


@pytest.mark.parametrize(
    "fault", ["late", *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("lost", "twice"))]
)
def test_a_lease_whose_requests_are_late_lost_or_doubled(root, through, quick, fault, monkeypatch):
    monkeypatch.setattr("tests.integration.faulty_proxy.FAULTS", (fault,))
    proxy = through(share=1.0, late_s=1.0)
    proxy_share = iter([1.0] + [0.0] * 10**6)  # what happens, happens to the first write of each step

    def draw(method, original=proxy._draw):
        if method == "PUT":
            proxy.share = next(proxy_share)
        return original(method)

    monkeypatch.setattr(proxy, "_draw", draw)
    first = Lease(root, "first", dict)
    first.take()
    proxy_share = iter([1.0] + [0.0] * 10**6)
    first.beat()
    second = Lease(root, "second", dict, take_over=True)
    proxy_share = iter([1.0] + [0.0] * 10**6)
    second.take()
    time.sleep(1.5)  # all that is late arrives
    assert (first.epoch, second.epoch) == (1, 2)
    assert read_lease(root)["run_id"] == "second"
    fence(root, 2, "second")
    with pytest.raises(LeaseLostError, match="run second"):
        fence(root, 1, "first")
    assert proxy.counts[fault] == 3


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Manifest of three synthetic slides of four tiles."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), patients=3, markers=("Ki67",), side=900)


def start(manifest, results, seconds, how, endpoint) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, str(manifest), str(results), str(seconds), how]
    environment = {**os.environ, "AWS_ENDPOINT_URL": endpoint}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_of_two_scores_at_once_the_second_names_the_first_and_ends(s3, small, tmp_path, root):
    first = start(small, root, 0.5, "plain", s3.endpoint)
    wait_for(lambda: read_lease(root) is not None)
    holder = read_lease(root)
    second = start(small, root, 0.0, "plain", s3.endpoint)
    said, _ = second.communicate(timeout=120)
    assert first.poll() is None, "the first has ended before the second came"
    assert second.returncode == 2, said
    assert f"in use by run {holder['run_id']} on {holder['host']} (process {first.pid})" in said
    said, _ = first.communicate(timeout=240)
    assert first.returncode == 0, said
    score(str(small), str(tmp_path), model="stain", execution=Execution(engine="local"))
    assert_same_but_place(tmp_path, root)
    assert len(Ledger(root).runs()) == 1
    assert read_lease(root) is None


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_zombies_and_kills_through_a_bad_network(s3, small, tmp_path):
    """Random moments and faults; each time the tables are those of an undisturbed run."""
    trials = int(os.environ.get("DEEPLIIF_RAY_LEASE_TRIALS", "6"))
    seed = int(os.environ.get("DEEPLIIF_RAY_LEASE_SEED", "0"))
    undisturbed = tmp_path / "undisturbed"
    score(str(small), str(undisturbed), model="stain", execution=Execution(engine="local"))
    figures = dict.fromkeys(("kills", "zombies", "faults", "unequal", "lost_cells", "hangs"), 0)
    for trial in range(trials):
        rng = random.Random(seed * 1000 + trial)
        results = f"{s3.bucket()}/results"
        with FaultyProxy(s3.ports["s3"], share=0.15, seed=rng.randrange(2**30)) as proxy:
            first = start(small, results, 0.7, "stops", proxy.endpoint)
            wait_for(lambda r=results: read_lease(r) is not None)
            time.sleep(rng.uniform(0, 5))
            zombie = rng.random() < 0.6
            first.send_signal(signal.SIGSTOP if zombie else signal.SIGKILL)
            figures["zombies" if zombie else "kills"] += 1
            second = start(small, results, 0.0, "take-over", proxy.endpoint)
            try:
                said, _ = second.communicate(timeout=300)
                assert second.returncode == 0, said
                first.send_signal(signal.SIGCONT)
                said, _ = first.communicate(timeout=300)
                assert first.returncode == (1 if zombie else -9), said
            except subprocess.TimeoutExpired:
                figures["hangs"] += 1
                second.kill()
            finally:
                first.kill()
            time.sleep(proxy.late_s + 0.5)
            figures["faults"] += proxy.counts.total() - proxy.counts["none"]
        try:
            assert_same_but_place(undisturbed, results)
        except AssertionError:
            figures["unequal"] += 1
        slides = Ledger(results).slides().to_pylist()
        figures["lost_cells"] += sum(not storage.exists(f"{results}/{row['cells_path']}") for row in slides)
    print(f"trials={trials} seed={seed} {figures}")
    assert (figures["unequal"], figures["lost_cells"], figures["hangs"]) == (0, 0, 0)
