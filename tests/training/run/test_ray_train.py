"""Training on Ray: workers that die, drivers that die, and the same numbers in the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import yaml
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import WorkerGroupError

from deepliif_ray import train
from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.training.run import checkpoints
from deepliif_ray.training.run.config import load_config
from deepliif_ray.training.run.ray_train import _cause
from deepliif_ray.training.run.records import read_metrics
from tests.training.run.test_loop import assert_same_run
from tests.training.toy import options, strip_options, write_strip

ROOT = Path(__file__).parents[3]


@pytest.fixture
def strips(tmp_path):
    """Two strips of synthetic panels, and a third to validate on."""
    return [str(write_strip(tmp_path / f"strip-{n}.png", n)) for n in range(3)]


@pytest.mark.slow
def test_local_engine_and_its_command(strips, tmp_path):
    summary = train(strip_options(strips), str(tmp_path / "library"), engine="local")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(strip_options(strips)))
    command = [sys.executable, "-m", "deepliif_ray.cli", "train", tmp_path / "c.yaml", tmp_path / "command"]
    ran = subprocess.run(
        [*command, "--engine", "local"], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert f"exported step {summary.exported_step}" in ran.stderr
    assert_same_run(tmp_path / "library", tmp_path / "command")
    ran = subprocess.run([*command, "--steps", "0"], check=False, cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, "steps is 0" in ran.stderr) == (2, True)


@pytest.mark.slow
def test_starting_over_removes_what_was_there(strips, tmp_path):
    train(strip_options(strips), str(tmp_path / "out"), engine="local")
    config = strip_options(strips, seed=1, steps=3)
    with pytest.raises(ConfigError, match="--restart"):
        train(config, str(tmp_path / "out"), engine="local")
    assert train(config, str(tmp_path / "out"), engine="local", resume=False).step == 3
    assert checkpoints.steps(str(tmp_path / "out")) == [3]
    assert load_config(str(tmp_path / "out/config.yaml")).seed == 1
    assert read_metrics(str(tmp_path / "out"))[-1]["step"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"engine": "spark"}, "engine is 'spark'"),
        ({"engine": "local", "workers": 2}, "one worker"),
        ({"device": "tpu"}, "device 'tpu'"),
    ],
)
def test_refuses(strips, tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        train(strip_options(strips), str(tmp_path), **arguments)
    with pytest.raises(ConfigError, match="memory://"):
        train(strip_options(strips), "memory://somewhere")


@pytest.fixture
def _cluster(monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    ray.init("local", include_dashboard=False, num_cpus=2, object_store_memory=2**28, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("_cluster")
def test_a_worker_that_dies_on_ray_changes_nothing(two_workers, tmp_path):
    config, undisturbed = two_workers
    (tmp_path / "pids").mkdir()
    dying = {"dropout": 0.0, "folder": str(tmp_path / "pids"), "dies_at": 7}
    seen = []
    summary = train(
        config.model_copy(update={"objective_options": dying}),
        str(tmp_path / "out"),
        workers=2,
        watch=seen.append,
    )
    assert summary.step == seen[-1].steps == 12
    assert (tmp_path / "pids/died").exists()
    assert (tmp_path / "out/metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    assert checkpoints.steps(str(tmp_path / "out")) == checkpoints.steps(str(undisturbed))
    assert not (tmp_path / "out/_ray").exists()


def test_an_error_of_ours_is_what_the_caller_gets():
    ours = ModelError("the loss l1 is nan")
    wrapped = UserExceptionWithTraceback(ours, "Traceback …")
    assert _cause(WorkerGroupError("…", {0: RuntimeError("reset by peer"), 1: wrapped})) is ours
    assert isinstance(_cause(WorkerGroupError("worker died", {0: RuntimeError()})), ModelError)


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_kills(folder, data, validation):
    """Kill a worker, then the driver; run again, and compare with a run that nobody disturbed."""
    folder.mkdir(exist_ok=True)
    config = options(
        data=[{"uri": str(uri)} for uri in data], validation=[str(uri) for uri in validation],
        steps=60, objective_options={"pause": 0.05, "folder": str(folder)},
    )  # fmt: skip
    (folder / "c.yaml").write_text(yaml.safe_dump(config))

    def start(output):
        command = [sys.executable, "-m", "deepliif_ray.cli", "train", folder / "c.yaml", output]
        return subprocess.Popen(
            [*command, "--workers", "2"], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    process = start(undisturbed)
    assert process.wait(200) == 0, process.stderr.read()

    def reached(step):
        return lambda: (checkpoints.steps(str(disturbed)) or [0])[-1] >= step

    process = start(disturbed)
    wait_for(reached(10), process)
    worker = int((folder / "pid-1").read_text())
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: (folder / "pid-1").read_text() not in ("", str(worker)), process)
    wait_for(reached(35), process)
    process.kill()
    process.wait()
    assert checkpoints.steps(str(disturbed))[-1] < 60
    process = start(disturbed)
    assert process.wait(200) == 0, process.stderr.read()
    assert_same_run(undisturbed, disturbed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_worker_then_killed_driver(strips, tmp_path):
    check_kills(tmp_path / "run", strips[:2], strips[2:])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_worker_then_killed_driver_on_real_strips(shared_data, tmp_path):
    train = shared_data / "deepliif/train"
    check_kills(tmp_path / "run", [train / "Bladder1.png"], [train / "Lung1.png"])
