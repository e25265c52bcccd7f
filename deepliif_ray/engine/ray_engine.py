"""The steps of a job as a Ray Data graph over a cluster.

Slides are planned in parallel; blocks of their tiles go to any worker. Where models run on GPUs, CPU tasks
read for them, and measure and stage what they infer; where they run on CPUs, a model's own process does it
all. Each block reports back to the driver, which has a slide finalized as soon as its last tile is staged.

Between the stages a row is a pickled list of items (see `deepliif_ray.engine.steps`): tasks, tiles, failures,
or the note that a slide was planned, which later stages pass on. Every row is a Ray Data block of its own, so
the tiles of one slide spread over all workers.
"""

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from deepliif_ray.engine.finalize import Scored, finalize
from deepliif_ray.engine.progress import Progress
from deepliif_ray.engine.steps import (
    BLOCK_TILES,
    SlideReader,
    Staged,
    TileTask,
    first_failure,
    infer_tiles,
    stage_tiles,
)
from deepliif_ray.engine.work import Failure, Job, StepError, prepare
from deepliif_ray.errors import ModelError
from deepliif_ray.manifest import SlideEntry

ACTOR_CPUS, TASK_CPUS = 0.75, 0.25
"""On CPUs every core runs a model and still has room for the tasks that feed it."""
GPU_BLOCKS = 4
"""Blocks that a model on a GPU is given together, so that small slides fill its batches together."""
MAX_FINALIZING = 4
MAX_PLAN_TOGETHER = 16
"""Slides that one task plans, in large cohorts; each is passed on as soon as it is planned."""
NO_PROGRESS_TIMEOUT_S = 600


@dataclass(frozen=True)
class Planned:
    """A slide of the cohort was planned: ``tiles`` of it are on their way, or it failed."""

    slide: int
    staging: str
    tiles: int
    failure: Failure | None = None


@dataclass
class _Pending:
    """What the driver knows of a slide that is under way."""

    slide: int | None = None
    expected: int | None = None
    done: int = 0
    failures: list[Failure] = field(default_factory=list)


def _pack(items: Iterable[object]) -> pa.Table:
    return pa.table({"items": pa.array([pickle.dumps(list(items), protocol=5)], pa.large_binary())})


def _unpack(table: pa.Table) -> tuple[list[Planned], list[Any]]:
    """Return the notes of planned slides, and the other items."""
    items = [item for row in table["items"] for item in pickle.loads(row.as_buffer())]
    return (
        [item for item in items if isinstance(item, Planned)],
        [item for item in items if not isinstance(item, Planned)],
    )


def _plan(table: pa.Table, job: Job, entries: Any) -> Iterator[pa.Table]:
    """Turn slides into notes that they are planned, and their tiles still to be read."""
    rows: list[SlideEntry] = ray.get(entries)
    for slide in table["id"].to_pylist():
        try:
            work, ordinals = prepare(job, rows[slide])
        except StepError as error:
            yield _pack([Planned(slide, "", 0, error.failure)])
            continue
        note = Planned(slide, work.staging, len(ordinals))
        tasks = [TileTask(work.staging, n) for n in ordinals]
        if len(tasks) <= BLOCK_TILES:  # in a row of its own, the note would cost as much as a small slide
            yield _pack([note, *tasks])
            continue
        yield _pack([note])
        for start in range(0, len(tasks), BLOCK_TILES):
            yield _pack(tasks[start : start + BLOCK_TILES])


@lru_cache(maxsize=1)
def _reader(job: Job) -> SlideReader:
    """Return this process's reader, which keeps slides open from block to block."""
    return SlideReader(job)


def _read(table: pa.Table, job: Job) -> pa.Table:
    planned, tasks = _unpack(table)
    return _pack([*planned, *_reader(job).read(tasks)])


class _Infer:
    """A model on one worker."""

    def __init__(self, job: Job) -> None:
        from deepliif_ray.models import load_model  # slow to import, and needed here alone

        self._job = job
        self._model = load_model(job.model_uri, job.device, job.precision, batch_size=job.batch_size)
        if self._model.digest != job.model_digest:
            raise ModelError(f"{job.model_uri}: the model changed after the run began; start the run again")

    def __call__(self, table: pa.Table) -> pa.Table:
        planned, tiles = _unpack(table)
        return _pack([*planned, *infer_tiles(self._job, self._model, tiles)])


class _ReadInferStage(_Infer):
    """All steps on one worker: where the model has no GPU to keep busy, no pixel need leave its process."""

    def __call__(self, table: pa.Table) -> pa.Table:
        planned, tasks = _unpack(table)
        tiles = infer_tiles(self._job, self._model, _reader(self._job).read(tasks))
        return _pack([*planned, *stage_tiles(self._job, tiles)])


def _stage(table: pa.Table, job: Job) -> pa.Table:
    planned, tiles = _unpack(table)
    return _pack([*planned, *stage_tiles(job, tiles)])


def _plan_together(entries: list[SlideEntry]) -> int:
    """Return how many slides one task plans: more in large cohorts, as the driver tracks every block."""
    return min(MAX_PLAN_TOGETHER, 1 + len(entries) // 256)


def _graph(job: Job, entries: list[SlideEntry], actors: int | None, separate: bool | None) -> Any:
    gpus = job.device is not None and job.device.startswith("cuda")
    resources = ray.cluster_resources()
    pool = {
        "fn_constructor_kwargs": {"job": job},
        "compute": ActorPoolStrategy(size=actors or max(1, int(resources.get("GPU" if gpus else "CPU", 1)))),
        "batch_format": "pyarrow",
        "num_cpus": 1 if gpus else ACTOR_CPUS,
        "num_gpus": 1 if gpus else None,
    }
    task = {
        "fn_kwargs": {"job": job},
        "batch_format": "pyarrow",
        "batch_size": None,
        "num_cpus": TASK_CPUS,
    }
    # Stages that ask for the same resources become one, and then a slide would be one task.
    first = task | {"fn_kwargs": {"job": job, "entries": ray.put(entries)}, "num_cpus": TASK_CPUS - 0.01}
    # Not ray.data.range: its read tasks ask for a whole CPU, which the actors may never leave free.
    slides = ray.data.from_items(
        [{"id": i} for i in range(len(entries))],
        override_num_blocks=-(-len(entries) // _plan_together(entries)),
    )
    slides.context.enable_progress_bars = False
    slides.context.print_on_execution_start = False
    slides.context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S
    slides.context.target_max_block_size = 1  # byte: every row is a block
    blocks = slides.map_batches(_plan, **first)
    if not (gpus if separate is None else separate):
        return blocks.map_batches(_ReadInferStage, batch_size=1, **pool)
    tiles = blocks.map_batches(_read, **task)
    return tiles.map_batches(_Infer, batch_size=GPU_BLOCKS, **pool).map_batches(_stage, **task)


def run(
    job: Job,
    entries: list[SlideEntry],
    progress: Progress,
    *,
    actors: int | None = None,
    separate: bool | None = None,
) -> Iterator[tuple[SlideEntry, Scored | Failure]]:
    """Score slides on the connected cluster; yield what became of each as soon as it is known.

    Parameters
    ----------
    job : Job
    entries : list of SlideEntry
    progress : Progress
    actors : int, optional
        Models to run side by side; by default one per GPU, or per CPU without GPUs.
    separate : bool, optional
        Whether tasks of their own read and measure; by default if the models run on GPUs.
    """
    finalize_task = ray.remote(num_cpus=0)(_finalize)
    finalizing: dict[Any, int] = {}
    pending: dict[str, _Pending] = {}

    def collect(most: int) -> Iterator[tuple[SlideEntry, Scored | Failure]]:
        """Yield finalized slides; wait until at most ``most`` are left."""
        while finalizing:
            waiting = len(finalizing) > most
            ready, _ = ray.wait(list(finalizing), timeout=None if waiting else 0)
            if not ready:
                return
            for reference in ready:
                yield entries[finalizing.pop(reference)], ray.get(reference)

    for batch in _graph(job, entries, actors, separate).iter_batches(
        batch_size=None, batch_format="pyarrow", prefetch_batches=0
    ):
        planned, reports = _unpack(batch)
        touched = set()
        for note in planned:
            progress.add(planned=1, tiles_planned=note.tiles)
            if note.failure is not None:
                yield entries[note.slide], note.failure
                continue
            state = pending.setdefault(note.staging, _Pending())
            state.slide, state.expected = note.slide, note.tiles
            touched.add(note.staging)
        for report in reports:
            _count(pending.setdefault(report.staging, _Pending()), report)
            progress.add(tiles_done=report.tiles)
            touched.add(report.staging)
        for staging in touched:
            state = pending[staging]
            if state.slide is None or state.done != state.expected:
                continue
            del pending[staging]
            if state.failures:
                yield entries[state.slide], first_failure(state.failures)
            else:
                yield from collect(MAX_FINALIZING - 1)
                finalizing[finalize_task.remote(job, staging)] = state.slide
        yield from collect(MAX_FINALIZING)
    yield from collect(0)


def _count(state: _Pending, report: Staged) -> None:
    state.done += report.tiles
    if report.failure is not None:
        state.failures.append(report.failure)


def _finalize(job: Job, staging: str) -> Scored | Failure:
    try:
        return finalize(job, staging)
    except StepError as error:
        return error.failure
