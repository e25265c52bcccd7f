"""Randomised kills: whatever is killed whenever, running again ends as an undisturbed run does.

``DEEPLIIF_RAY_KILL_SEED`` replays a seed, ``DEEPLIIF_RAY_KILL_TRIALS`` says how many. What happened
is written to standard output: ``pytest -m slow -s tests/integration/test_trials.py``.
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from deepliif_ray.engine.run.lease import read_lease
from tests.engine.results import assert_same
from tests.integration.nodes import Nodes, Run, send, staged

SEED = int(os.environ.get("DEEPLIIF_RAY_KILL_SEED", "0"))
TRIALS = int(os.environ.get("DEEPLIIF_RAY_KILL_TRIALS", "50"))
WITHIN_S = (0.0, 12.0)
"""When kills happen: seconds after the run has taken its lease."""
MOST_KILLS = 3


@dataclass
class Trial:
    """What was killed when (kind, seconds since the lease), how many runs it took, and how long."""

    seed: str
    kills: list[tuple[str, float]] = field(default_factory=list)
    runs: int = 0
    missed: int = 0
    seconds: float = 0.0


def victims(nodes: Nodes, run: Run) -> dict[str, list[int]]:
    """Return the processes that may be killed now, by kind; the head's raylet holds the cluster itself."""
    return {
        "driver": [run.process.pid],
        "actor": nodes.workers(named="MapWorker"),
        "task": nodes.workers(named=r"(MapBatches\(_|_finalize)") or nodes.workers(named="_plan"),
        "node": [1] if nodes.others else [],
    }


def disturb(nodes: Nodes, run: Run, trial: Trial, rng: random.Random, results) -> None:
    """Kill one thing at a random moment of a run."""
    kind, moment = rng.choice(("driver", "actor", "task", "node")), rng.uniform(*WITHIN_S)
    pick = rng.random()
    while run.process.poll() is None and read_lease(str(results)) is None:
        time.sleep(0.02)
    begun = time.monotonic()
    while run.process.poll() is None and time.monotonic() - begun < moment:
        time.sleep(0.02)
    while run.process.poll() is None:  # from then on, as soon as there is such a process
        found = victims(nodes, run)[kind]
        if found:
            if kind == "driver":
                run.kill()
            elif kind == "node":
                nodes.kill(nodes.others[0])
            elif not send(found[int(pick * len(found))], signal.SIGKILL):
                continue
            trial.kills.append((kind, time.monotonic() - begun))
            return
        time.sleep(0.005)
    trial.missed += 1


def one(nodes: Nodes, cohort, results, seed: str) -> Trial:
    """Start runs, with one to three kills among them, until one ends by itself with all slides scored."""
    rng, trial, began = random.Random(seed), Trial(seed), time.monotonic()
    planned = rng.randint(1, MOST_KILLS)
    code = None
    while code != 0:
        assert trial.runs <= planned + 1, f"no end: {trial}"
        while len(nodes.others) < 1:
            nodes.add()
        run = Run(nodes.address, cohort, results, faults={"tile_s": 0.1})
        trial.runs += 1
        while len(trial.kills) + trial.missed < planned and run.process.poll() is None:
            disturb(nodes, run, trial, rng, results)
        if run.process.returncode == -signal.SIGKILL:
            continue
        code = run.end()
        assert code in (0, 3), run.said[-3000:]
    trial.seconds = time.monotonic() - began
    return trial


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_random_kills_end_like_an_undisturbed_run(cohort, undisturbed, tmp_path):
    nodes, done = Nodes(2), []
    try:
        for number in range(TRIALS):
            results = tmp_path / f"trial-{number}"
            results.mkdir()
            trial = one(nodes, cohort, results, f"{SEED}/{number}")
            assert_same(undisturbed, results)
            assert not staged(results)
            assert read_lease(str(results)) is None
            done.append(trial)
            kills = ", ".join(f"{kind} at {moment:.1f} s" for kind, moment in trial.kills) or "none in time"
            line = f"{trial.seed:>8}  {trial.runs} runs  {trial.seconds:5.1f} s  same tables  {kills}\n"
            sys.stdout.write(line)
            sys.stdout.flush()
    finally:
        nodes.shutdown()
    counts = Counter(kind for trial in done for kind, _ in trial.kills)
    sys.stdout.write(f"{len(done)} trials, {sum(counts.values())} kills: {dict(counts)}\n")
    assert sum(counts.values()) >= TRIALS // 2
