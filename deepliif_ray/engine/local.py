"""The steps of a run in this process, slide by slide, without Ray."""

import threading
import time
from collections.abc import Generator
from contextlib import suppress
from itertools import zip_longest

from deepliif_ray import storage
from deepliif_ray.engine.finalize import Scored, finalize
from deepliif_ray.engine.run.progress import Progress
from deepliif_ray.engine.steps import (
    BLOCK_TILES,
    SlideReader,
    TileTask,
    first_failure,
    infer_tiles,
    stage_tiles,
)
from deepliif_ray.engine.work import Failure, RunContext, StepError, prepare
from deepliif_ray.errors import DeepliifRayError
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.models import Model
from deepliif_ray.slide_access import fetch


def run(
    context: RunContext, model: Model, entries: list[SlideEntry], progress: Progress
) -> Generator[tuple[SlideEntry, Scored | Failure], None, None]:
    """Score slides one after the other; yield what became of each as soon as it is known.

    While one is scored, the next is downloaded.
    """
    for entry, following in zip_longest(entries, entries[1:]):
        if following is not None and not storage.is_local(following.uri):
            # A daemon: stopping does not wait for it, and what it got so far is there the next time.
            threading.Thread(target=_prefetch, args=(following,), daemon=True).start()
        try:
            yield entry, _score(context, model, entry, progress)
        except StepError as error:
            yield entry, error.failure


def _prefetch(entry: SlideEntry) -> None:
    with suppress(DeepliifRayError):  # the slide's own turn tells what is wrong
        fetch(entry)


def _score(context: RunContext, model: Model, entry: SlideEntry, progress: Progress) -> Scored:
    start = time.perf_counter()
    work, ordinals = prepare(context, entry)
    progress.spend({"plan": time.perf_counter() - start})
    progress.add(planned=1, tiles_planned=len(ordinals))
    reader = SlideReader(context)
    try:
        for start in range(0, len(ordinals), BLOCK_TILES):
            tasks = [TileTask(work.staging, ordinal) for ordinal in ordinals[start : start + BLOCK_TILES]]
            failures = []
            for staged in stage_tiles(context, infer_tiles(context, model, reader.read(tasks))):
                progress.spend(staged.seconds, staged.outcomes)
                progress.add(tiles_done=staged.tiles)
                if staged.failure is not None:
                    failures.append(staged.failure)
            if failures:
                raise StepError(first_failure(failures))
    finally:
        reader.close()
    return finalize(context, work.staging)
