"""SIGKILL at random moments: running again must end where an undisturbed run ends."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from deepliif_ray import connect, score
from deepliif_ray.slides.cohort import write_cohort
from tests.engine.results import assert_same

RUN = "import sys; from deepliif_ray import score; score(sys.argv[1], sys.argv[2], engine=sys.argv[3])"


def start(manifest, results, engine) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, str(manifest), str(results), engine]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def runs(results) -> int:
    """Return how many runs have begun."""
    return len(list((results / "runs").glob("*.parquet")))


def kill_until_done(manifest, results, engine, kills, wait, seed) -> int:
    """Start runs and kill each a random while after it began to work; return how many were killed."""
    rng = random.Random(seed)
    killed = 0
    for _ in range(kills):
        before = runs(results)
        process = start(manifest, results, engine)
        while process.poll() is None and runs(results) == before:
            time.sleep(0.02)
        try:
            process.wait(rng.uniform(*wait))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    return killed


def test_killed_local_runs_end_like_undisturbed_ones(tmp_path):
    manifest = write_cohort(tmp_path / "cohort", side=2000)
    score(str(manifest), str(tmp_path / "undisturbed"), engine="local")
    results = tmp_path / "results"
    killed = kill_until_done(manifest, results, "local", 12, (0, 1.2), seed=0)
    assert killed >= 10
    summary = score(str(manifest), str(results), engine="local")
    assert summary.scored + summary.skipped == 6
    with connect(results) as connection:
        commits = connection.execute("SELECT count(DISTINCT run_id) FROM slides").fetchone()[0]
    assert commits > 1  # what killed runs had finished was kept
    assert_same(tmp_path / "undisturbed", results)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_ray_runs_end_like_undisturbed_ones(tmp_path):
    manifest = write_cohort(tmp_path / "cohort", side=3000)
    score(str(manifest), str(tmp_path / "undisturbed"), engine="local")
    results = tmp_path / "results"
    killed = kill_until_done(manifest, results, "ray", 10, (4, 16), seed=1)
    assert killed >= 5
    score(str(manifest), str(results), engine="ray")
    assert_same(tmp_path / "undisturbed", results)
