"""Power is lost at any moment: what was reported is there, nothing is wrong, and running again ends the same.

A run, one that scores a slide again, and `optimize` are watched; every prefix of what they did to the disk is
replayed in several ways (`tests.engine.disk.crashed`), read, and some of it is run on.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from deepliif_ray import optimize
from deepliif_ray.errors import DeepliifRayError
from tests.engine.disk import KINDS, Op, Watch, crashed, on_disk, put
from tests.engine.generations import Generations, score_local

SEEDS = int(os.environ.get("DEEPLIIF_RAY_POWER_SEEDS", "3"))
"""How many of the random kinds, for each prefix, the slow test looks at."""


class _Marks(logging.Handler):
    """Notes in the list of what was done that a slide was reported as committed."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.INFO)
        self.watch = watch
        self.generation = "first"

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "slide.committed":
            self.watch.mark(f"{record.slide_id} {self.generation}")


@dataclass(frozen=True)
class State:
    """What a disk may hold after a loss of power, and which slides were reported as committed before."""

    name: str
    files: dict[str, bytes | None]
    promised: dict[str, str]


@pytest.fixture(scope="module")
def ops(generations, tmp_path_factory) -> list[Op]:
    """What was done to a disk."""
    root = tmp_path_factory.mktemp("power") / "disk"
    root.mkdir()
    watch = Watch(root)
    marks = _Marks(watch)
    results = str(root / "results")
    logger = logging.getLogger("deepliif_ray")
    level = logger.level
    logger.addHandler(marks)
    logger.setLevel(logging.INFO)
    try:
        with watch.on():
            score_local(generations.first, results)
            marks.generation = "second"
            score_local(generations.second, results)
            optimize(results, keep_minutes=0, drop_superseded=True)
    finally:
        logger.removeHandler(marks)
        logger.setLevel(level)
    assert crashed(watch.ops, "killed") == on_disk(root), "something was done that was not seen"
    assert generations.differs(results) is None
    reported = [op.path for op in watch.ops if op.kind == "mark"]
    assert reported == ["P01-Ki67 first", "P02-Ki67 first", "P01-Ki67 second"]
    return watch.ops


def states(ops: list[Op], seeds: int) -> Iterator[State]:
    """Yield what may be on the disk, each state once."""
    seen = set()
    for done in range(len(ops) + 1):
        promised = dict(op.path.split() for op in ops[:done] if op.kind == "mark")
        for kind in KINDS:
            for seed in range(seeds if kind in ("ordered", "free") else 1):
                files = crashed(ops[:done], kind, seed)
                key = (tuple(promised.items()), frozenset(files.items()))
                if key not in seen:
                    seen.add(key)
                    after = f"{ops[done - 1].kind} {ops[done - 1].path}" if done else "nothing"
                    yield State(f"{done} {kind} {seed}, after {after}", files, promised)


def heal_fails(generations: Generations, results: Path) -> str | None:
    """Run again; return in what the tables differ from those of an undisturbed run, None if in nothing."""
    try:
        summary = score_local(generations.second, str(results), take_over=True)
        if summary.failed:
            return f"failed: {summary.failures}"
        problem = generations.differs(str(results))
        optimize(str(results), keep_minutes=0)
        return problem or generations.differs(str(results))
    except (DeepliifRayError, duckdb.Error, ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def replay(
    ops: list[Op], generations: Generations, folder: Path, *, seeds: int, every: int, heal_every: int
) -> None:
    counts, failures = Counter(), []
    for number, state in enumerate(list(states(ops, seeds))[::every]):
        results = put(state.files, folder / str(number)) / "results"
        counts["read"] += 1
        problem = generations.wrong(str(results), state.promised)
        if problem is None and number % heal_every == 0:
            counts["run again"] += 1
            problem = heal_fails(generations, results)
            problem = problem and f"run again: {problem}"
        if problem is not None:
            counts["wrong"] += 1
            failures.append(f"{state.name}: {problem}")
    print(f"{len(ops)} operations, {dict(counts)}")
    assert not failures, "\n".join([f"{len(failures)} of {dict(counts)}:", *failures[:40]])


@pytest.mark.slow
def test_a_loss_of_power_costs_nothing_that_was_reported(ops, generations, tmp_path):
    replay(ops, generations, tmp_path, seeds=1, every=13, heal_every=10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_loss_of_power_at_any_moment(ops, generations, tmp_path):
    replay(ops, generations, tmp_path, seeds=SEEDS, every=1, heal_every=7)


@pytest.mark.slow
def test_files_that_are_not_synced_are_found(ops, generations, tmp_path):
    """The replay shows what is wrong where nothing is synced."""
    unsynced = [op for op in ops if op.kind != "sync"]
    with pytest.raises(AssertionError, match=r"reported as committed|cannot be read"):
        replay(unsynced, generations, tmp_path, seeds=1, every=29, heal_every=10**6)
