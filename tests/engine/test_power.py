"""Power is lost at any moment: what was reported is there, nothing is wrong, and running again ends the same.

A run, one that scores a slide again, and `optimize` are watched; every prefix of what they did to the disk is
replayed in several ways (`tests.engine.disk.crashed`), read, and some of it is run on.
"""

import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl
import pytest

from deepliif_ray import connect, optimize, score
from deepliif_ray.errors import DeepliifRayError
from deepliif_ray.slides.cohort import write_cohort
from tests.engine.disk import KINDS, Op, Watch, crashed, on_disk, put
from tests.engine.results import tables

SEEDS = int(os.environ.get("DEEPLIIF_RAY_POWER_SEEDS", "6"))
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


@dataclass
class Recorded:
    """What was done to a disk, and what should be on it."""

    manifest: str
    ops: list[Op]
    generations: dict[str, dict[str, tuple]]
    """What connect shows of a slide, by slide_id and generation (``first``, ``second``)."""
    final: dict


def shown(results: Path) -> tuple[dict[str, tuple], set[str]]:
    """Return what is shown of each slide, and which slides or objects are said to be damaged."""
    with connect(results) as connection:
        names = {name for (name,) in connection.execute("SELECT view_name FROM duckdb_views()").fetchall()}
        damaged = set()
        if "damaged" in names:
            for row in connection.execute("SELECT slide_id, object FROM damaged").fetchall():
                damaged.update(filter(None, row))
        cells = {
            slide: tuple(rest)
            for slide, *rest in connection.execute(
                "SELECT slide_id, count(*), sum(area_px), sum(x), sum(y), count(DISTINCT cell_id) FROM cells "
                "GROUP BY slide_id"
            ).fetchall()
        }
        indices = connection.execute(
            "SELECT slide_id, n_cells, n_positive, index_percent FROM slide_indices"
        ).fetchall()
        again = connection.execute(
            "SELECT slide_id, n_cells, n_positive, index_percent FROM slide_indices_at(size_thresh := 20)"
        ).fetchall()
    assert {row[0] for row in indices} == {row[0] for row in again} >= cells.keys()
    by_id = {row[0]: row[1:] for row in again}
    return {slide: (cells.get(slide), tuple(rest), by_id[slide]) for slide, *rest in indices}, damaged


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Recorded:
    folder = tmp_path_factory.mktemp("power")
    manifest = write_cohort(folder / "cohort", patients=2, markers=("Ki67",), side=400)
    other = write_cohort(folder / "other", patients=2, markers=("Ki67",), side=420, seed=5)
    table = pl.read_csv(manifest)
    second = manifest.with_name("second.csv")
    uris = [str(other.parent / table["uri"][0]), *table["uri"][1:]]
    table.with_columns(uri=pl.Series(uris)).write_csv(second)
    generations: dict[str, dict[str, tuple]] = {}
    for name, file in (("first", manifest), ("second", second)):
        results = folder / name
        score(str(file), str(results), model="stain", engine="local")
        for slide, what in shown(results)[0].items():
            generations.setdefault(slide, {})[name] = what
    assert generations["P01-Ki67"]["first"] != generations["P01-Ki67"]["second"]

    (folder / "disk").mkdir()
    watch = Watch(folder / "disk")
    marks = _Marks(watch)
    logger = logging.getLogger("deepliif_ray")
    level = logger.level
    logger.addHandler(marks)
    logger.setLevel(logging.INFO)
    results = str(folder / "disk" / "results")
    try:
        with watch.on():
            score(str(manifest), results, model="stain", engine="local")
            marks.generation = "second"
            score(str(second), results, model="stain", engine="local")
            optimize(results, keep_minutes=0, drop_superseded=True)
    finally:
        logger.removeHandler(marks)
        logger.setLevel(level)
    assert crashed(watch.ops, "killed") == on_disk(watch.root), "something was done that was not seen"
    assert [op.path for op in watch.ops if op.kind == "mark"] == [
        "P01-Ki67 first", "P02-Ki67 first", "P01-Ki67 second"
    ]  # fmt: skip
    return Recorded(str(second), watch.ops, generations, tables(folder / "second"))


def wrong(recorded: Recorded, done: int, results: Path) -> str | None:
    """Return what is wrong with results after a loss of power, None if nothing is."""
    promised = dict(op.path.split() for op in recorded.ops[:done] if op.kind == "mark")
    begun = any(op.path.startswith("results/slides") for op in recorded.ops[:done])
    try:
        found, damaged = shown(results)
    except DeepliifRayError as error:
        if promised:
            return f"promised slides cannot be read: {error}"
        return None if str(results) in str(error) else f"does not say where: {error}"
    except (duckdb.Error, ValueError, OSError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    for slide, generation in promised.items():
        known = recorded.generations[slide]
        later = [what for name, what in known.items() if name >= generation]
        if found.get(slide) not in later:
            said = " (and said so)" if slide in damaged else ""
            return f"{slide}: reported as committed ({generation}), now {found.get(slide)}{said}"
    for slide, what in found.items():
        if what not in recorded.generations[slide].values() and slide not in damaged:
            return f"{slide}: {what} is of no generation, and nothing is said"
    assert begun or not found
    return None


def heal_fails(recorded: Recorded, results: Path) -> str | None:
    """Run again; return in what the tables differ from those of an undisturbed run, None if in nothing."""
    try:
        summary = score(recorded.manifest, str(results), model="stain", engine="local", take_over=True)
        if summary.failed:
            return f"failed: {summary.failures}"
        for again in range(2):
            if again:
                optimize(str(results), keep_minutes=0)
            found = tables(results)
            for name, table in recorded.final.items():
                if not found[name].equals(table):
                    return f"{name} differ{' after optimize' * again}"
    except (DeepliifRayError, duckdb.Error, ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def states(recorded: Recorded, seeds: int, every: int = 1):
    """Yield prefixes with the kind and seed of a crash, and what is then on the disk; each state once."""
    seen = set()
    for done in range(0, len(recorded.ops) + 1, every):
        for kind in KINDS:
            for seed in range(seeds if kind in ("ordered", "free") else 1):
                state = crashed(recorded.ops[:done], kind, seed)
                promised = sum(op.kind == "mark" for op in recorded.ops[:done])
                key = (promised, frozenset(state.items()))
                if key not in seen:
                    seen.add(key)
                    yield done, kind, seed, state


def replay(recorded: Recorded, folder: Path, seeds: int, heal_every: int, every: int = 1) -> None:
    counts, failures = Counter(), []
    for number, (done, kind, seed, state) in enumerate(states(recorded, seeds, every)):
        results = put(state, folder / str(number)) / "results"
        counts["read"] += 1
        problem = wrong(recorded, done, results)
        if problem is None and number % heal_every == 0:
            counts["run again"] += 1
            problem = heal_fails(recorded, results)
            problem = problem and f"run again: {problem}"
        if problem is not None:
            counts["wrong"] += 1
            after = recorded.ops[done - 1]
            failures.append(f"{done} {kind} {seed}, after {after.kind} {after.path} {after.to}: {problem}")
    print(f"{len(recorded.ops)} operations, {dict(counts)}")
    assert counts["read"] > 50
    assert not failures, "\n".join([f"{len(failures)} of {dict(counts)}:", *failures[:40]])


def test_a_loss_of_power_costs_nothing_that_was_reported(recorded, tmp_path):
    replay(recorded, tmp_path, seeds=1, heal_every=25, every=3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_loss_of_power_at_any_moment(recorded, tmp_path):
    replay(recorded, tmp_path, seeds=SEEDS, heal_every=5)
