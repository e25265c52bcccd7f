"""The steps of a run as a Ray Data graph over a cluster.

Slides are planned in parallel; blocks of their tiles go to any worker. Where models run on GPUs, CPU tasks
read for them, and measure and stage what they infer; where they run on CPUs, a model's own process does it
all. Each block reports back to the driver (see `deepliif_ray.engine.ray.rounds`), which has a slide finalized
as soon as its last tile is staged.

Between the stages a row is a pickled list of items (see `deepliif_ray.engine.steps`): tasks, tiles, failures,
or the note that a slide was planned, which later stages pass on. Every row is a Ray Data block of its own, so
the tiles of one slide spread over all workers.
"""

import pickle
import time
from collections.abc import Generator, Iterable, Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from deepliif_ray import logs, storage
from deepliif_ray.engine.ray import rounds
from deepliif_ray.engine.ray.attempts import attempt, noted
from deepliif_ray.engine.ray.rounds import Batches, Outcome, Planned
from deepliif_ray.engine.run.progress import Progress
from deepliif_ray.engine.steps import (
    BLOCK_TILES,
    SlideReader,
    TileTask,
    WaitClock,
    infer_tiles,
    stage_tiles,
)
from deepliif_ray.engine.work import RunContext, StepError, prepare, step
from deepliif_ray.errors import ModelError
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.tables.ledger import slide_key

TASK_CPUS = 0.25
ACTOR_CPUS = (0.75, 0.5, 0.375, 0.25)
"""On CPUs every core runs a model and still has room for the tasks that feed it. On several nodes
models ask for less, so that all find room again when a node is lost."""
GPU_BLOCKS = 4
"""Blocks that a model on a GPU is given together, so that small slides fill its batches together."""
MAX_PLAN_TOGETHER = 16
"""Slides that one task plans, in large cohorts; each is passed on as soon as it is planned."""
NO_PROGRESS_TIMEOUT_S = 900.0
"""Seconds without a block moving after which a round is ended; more than the slowest block takes."""


def _pack(items: Iterable[object]) -> pa.Table:
    return pa.table({"items": pa.array([pickle.dumps(list(items), protocol=5)], pa.large_binary())})


def _unpack(table: pa.Table) -> tuple[list[Planned], list[Any]]:
    """Return the notes of planned slides, and the other items."""
    items = [item for row in table["items"] for item in pickle.loads(row.as_buffer())]
    return (
        [item for item in items if isinstance(item, Planned)],
        [item for item in items if not isinstance(item, Planned)],
    )


def _plan(table: pa.Table, context: RunContext, entries: Any, number: int) -> Iterator[pa.Table]:
    """Turn slides into notes that they are planned, and their tiles still to be read."""
    logs.name_run(context.run_id, context.log)
    rows: list[SlideEntry] = ray.get(entries)
    for slide in table["id"].to_pylist():
        start = time.perf_counter()
        entry = rows[slide]
        folder = storage.join(context.results, "_staging", slide_key(entry.slide_id))
        try:
            with step("plan"), noted(context, folder, "plan", entry.uri):
                work, ordinals = prepare(context, entry, number)
        except StepError as error:
            yield _pack([Planned(slide, "", 0, error.failure, time.perf_counter() - start)])
            continue
        note = Planned(slide, work.staging, len(ordinals), None, time.perf_counter() - start)
        tasks = [TileTask(work.staging, n) for n in ordinals]
        if len(tasks) <= BLOCK_TILES:  # in a row of its own, the note would cost as much as a small slide
            yield _pack([note, *tasks])
            continue
        yield _pack([note])
        for first in range(0, len(tasks), BLOCK_TILES):
            yield _pack(tasks[first : first + BLOCK_TILES])


@lru_cache(maxsize=1)
def _reader(context: RunContext) -> SlideReader:
    """Return this process's reader, which keeps slides open from block to block."""
    logs.name_run(context.run_id, context.log)
    return SlideReader(context)


def _read(table: pa.Table, context: RunContext) -> pa.Table:
    planned, tasks = _unpack(table)
    done, failed = attempt(context, "read", tasks, _reader(context).read)
    return _pack([*planned, *done, *failed])


class _Infer:
    """A model on one worker."""

    def __init__(self, context: RunContext) -> None:
        from deepliif_ray.models import load_model  # slow to import, and needed here alone

        logs.name_run(context.run_id, context.log)
        self._context = context
        self._model = load_model(
            context.model_uri, context.device, context.precision, batch_size=context.batch_size
        )
        if self._model.digest != context.model_digest:
            raise ModelError(
                f"{context.model_uri}: the model changed after the run began; start the run again"
            )
        self._clock = WaitClock()

    def __call__(self, table: pa.Table) -> pa.Table:
        planned, tiles = _unpack(table)
        with self._clock:
            done, failed = attempt(self._context, "infer", tiles, self._do)
            return _pack([*planned, *done, *failed])

    def _do(self, items: list[Any]) -> Iterator[Any]:
        return self._clock.charge(infer_tiles(self._context, self._model, items))


class _ReadInferStage(_Infer):
    """All steps on one worker: where the model has no GPU to keep busy, no pixel need leave its process."""

    def __call__(self, table: pa.Table) -> pa.Table:
        planned, tasks = _unpack(table)
        with self._clock:
            done, failed = attempt(self._context, "infer", tasks, self._do)
            return _pack([*planned, *done, *stage_tiles(self._context, failed)])

    def _do(self, items: list[Any]) -> Iterator[Any]:
        return stage_tiles(self._context, super()._do(list(_reader(self._context).read(items))))


def _stage(table: pa.Table, context: RunContext) -> pa.Table:
    logs.name_run(context.run_id, context.log)
    planned, tiles = _unpack(table)
    done, failed = attempt(context, "measure", tiles, lambda items: stage_tiles(context, items))
    return _pack([*planned, *done, *stage_tiles(context, failed)])


def _actor_cpus() -> float:
    """Return how much of a CPU each model asks for, so that all find room without the largest node."""
    nodes = sorted(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
    nodes = [cpus for cpus in nodes if cpus]
    models = int(sum(nodes))
    for cpus in ACTOR_CPUS:
        if len(nodes) < 2 or sum(int((free - TASK_CPUS) / cpus) for free in nodes[:-1]) >= models:
            return cpus
    return ACTOR_CPUS[-1]


def _plan_together(entries: list[SlideEntry]) -> int:
    """Return how many slides one task plans: more in large cohorts, as the driver tracks every block."""
    return min(MAX_PLAN_TOGETHER, 1 + len(entries) // 256)


def _graph(
    context: RunContext, entries: list[SlideEntry], number: int, actors: int | None, separate: bool | None
) -> Any:
    gpus = context.device is not None and context.device.startswith("cuda")
    resources = ray.cluster_resources()
    pool = {
        "fn_constructor_kwargs": {"context": context},
        "compute": ActorPoolStrategy(size=actors or max(1, int(resources.get("GPU" if gpus else "CPU", 1)))),
        "batch_format": "pyarrow",
        "num_cpus": 1 if gpus else _actor_cpus(),
        "num_gpus": 1 if gpus else None,
    }
    task = {
        "fn_kwargs": {"context": context},
        "batch_format": "pyarrow",
        "batch_size": None,
        "num_cpus": TASK_CPUS,
    }
    # Stages that ask for the same resources become one, and then a slide would be one task.
    arguments = {"context": context, "entries": ray.put(entries), "number": number}
    first = task | {"fn_kwargs": arguments, "num_cpus": TASK_CPUS - 0.01}
    # Not ray.data.range: its read tasks ask for a whole CPU, which the actors may never leave free.
    slides = ray.data.from_items(
        [{"id": i} for i in range(len(entries))],
        override_num_blocks=-(-len(entries) // _plan_together(entries)),
    )
    slides.context.enable_progress_bars = False
    slides.context.print_on_execution_start = False
    slides.context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S
    slides.context.max_errored_blocks = -1  # what the cluster loses for good is counted, and done again
    slides.context.target_max_block_size = 1  # byte: every row is a block
    blocks = slides.map_batches(_plan, **first)
    if not (gpus if separate is None else separate):
        return blocks.map_batches(_ReadInferStage, batch_size=1, **pool)
    tiles = blocks.map_batches(_read, **task)
    return tiles.map_batches(_Infer, batch_size=GPU_BLOCKS, **pool).map_batches(_stage, **task)


def run(
    context: RunContext,
    entries: list[SlideEntry],
    progress: Progress,
    *,
    actors: int | None = None,
    separate: bool | None = None,
) -> Generator[Outcome, None, None]:
    """Score slides on the connected cluster; yield what became of each as soon as it is known.

    Parameters
    ----------
    context : RunContext
    entries : list of SlideEntry
    progress : Progress
    actors : int, optional
        Models to run side by side; by default one per GPU, or per CPU without GPUs.
    separate : bool, optional
        Whether tasks of their own read and measure; by default if the models run on GPUs.
    """

    def batches(left: list[SlideEntry], number: int) -> Batches:
        graph = _graph(context, left, number, actors, separate)
        for table in graph.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield _unpack(table)

    return rounds.run(context, entries, progress, batches)
