"""SIGKILL at random moments: running again must end where an undisturbed run ends."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from deepliif_ray import Execution, connect, score
from deepliif_ray.synthetic import write_cohort
from tests.engine.results import assert_same

RUN = (
    "import sys; from deepliif_ray import Execution, score; "
    "score(sys.argv[1], sys.argv[2], model='stain', execution=Execution(engine=sys.argv[3]))"
)


def start(manifest, results, engine) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, str(manifest), str(results), engine]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def runs(results) -> int:
    """Return how many runs have begun."""
    return len(list((results / "runs").glob("*.parquet")))


def kill_until_done(manifest, results, engine, wait, rng, most) -> int:
    """Start runs, each killed a random while after it began to work, until one gets through.

    Return how many were killed; after ``most`` the next one is left alone.
    """
    killed = 0
    while True:
        before = runs(results)
        process = start(manifest, results, engine)
        while process.poll() is None and runs(results) == before:
            time.sleep(0.02)
        try:
            assert process.wait(None if killed == most else rng.uniform(*wait)) == 0
            return killed
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1


def check_kills(folder, manifest, engine, wait, kills) -> None:
    """Kill at least ``kills`` runs, beginning anew whenever one got through, and compare each time."""
    score(str(manifest), str(folder / "undisturbed"), model="stain", execution=Execution(engine="local"))
    rng = random.Random(0)
    killed = rounds = 0
    while killed < kills:
        rounds += 1
        results = folder / f"round-{rounds}"
        killed += kill_until_done(manifest, results, engine, wait, rng, kills - killed)
        assert_same(folder / "undisturbed", results)
        assert not [p for p in (results / "_staging").rglob("*") if p.is_file()]


@pytest.mark.slow
def test_killed_local_runs_end_like_undisturbed_ones(tmp_path):
    """One kill is in the suite: ``test_lease.py::test_after_kill_9_the_next_run_goes_on_at_once``."""
    manifest = write_cohort(tmp_path / "cohort", side=2000)
    check_kills(tmp_path, manifest, "local", (0, 0.8), 10)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_ray_runs_end_like_undisturbed_ones(tmp_path):
    manifest = write_cohort(tmp_path / "cohort", side=3000)
    check_kills(tmp_path, manifest, "ray", (4, 16), 10)


def test_a_finished_slide_is_not_repeated(tmp_path):
    manifest = write_cohort(tmp_path / "cohort", side=1100)
    results = tmp_path / "results"
    process = start(manifest, results, "local")
    while process.poll() is None and not list((results / "slides").glob("*.parquet")):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with connect(results) as connection:
        done = connection.execute("SELECT slide_id, attempt FROM slides").fetchall()
    assert (
        score(str(manifest), str(results), model="stain", execution=Execution(engine="local")).skipped
        == len(done)
        >= 1
    )
    with connect(results) as connection:
        assert set(done) <= set(connection.execute("SELECT slide_id, attempt FROM slides").fetchall())
