"""Blocks that kill the process working on them are found out and given up.

A process that dies leaves no message, only what it wrote before. So a process notes on which block of which
slide it is before it begins, and removes the note when it is through, whatever came of it; a note that stays
counts a death. Only the first blocks of a process are noted: a block that was fatal comes back to one that
has just taken the place of another, while long-lived ones pay nothing.
"""

import itertools
import os
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from deepliif_ray import storage
from deepliif_ray.engine.steps import TileFailure, TileMaps, TilePixels, TileTask
from deepliif_ray.engine.work import RunContext, StepError, load_work, step
from deepliif_ray.errors import SlideCrashedError

MOST_DEATHS = 3
"""Deaths seen by its notes after which a slide is given up."""
_NOTED = 16
"""Blocks that a process notes from its start."""
_blocks = itertools.count()

Item = TileTask | TilePixels | TileMaps | TileFailure


def attempt(
    context: RunContext, stage: str, items: Iterable[Item], do: Callable[[list[Any]], Iterable[Any]]
) -> tuple[list[Any], list[TileFailure]]:
    """Do a step on tiles of any slides.

    Parameters
    ----------
    context : RunContext
    stage : str
        Name of the step in ``failures``.
    items : iterable
        Tasks, tiles, or tiles that have failed, which are not tried.
    do : callable
        Takes a list of items, gives what it made of them.

    Returns
    -------
    done : list
        What ``do`` gave.
    failed : list of TileFailure
        Tiles that failed before, those of slides that were given up, and those of a call that raised.
    """
    tiles, failed = [], []
    for item in items:
        if isinstance(item, TileFailure):
            failed.append(item)
        else:
            tiles.append(item)
    noted = next(_blocks) < _NOTED
    done: list[Any] = []
    for group in _by_slide(tiles) if noted else [tiles]:
        try:
            with step(stage):
                if noted:
                    with _noted(context, stage, group):
                        done += do(group)
                else:
                    done += do(group)
        except StepError as error:
            failed += [TileFailure(_task(item), error.failure) for item in group]
    return done, failed


def _task(item: Item) -> TileTask:
    return item if isinstance(item, TileTask) else item.task


def _by_slide(items: Sequence[Item]) -> list[list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(_task(item).staging, []).append(item)
    return list(groups.values())


def _noted(context: RunContext, stage: str, group: Sequence[Item]) -> AbstractContextManager[None]:
    folder = _task(group[0]).staging
    ordinals = [_task(item).ordinal for item in group]
    name = f"{stage}-{min(ordinals)}-{max(ordinals)}"
    return noted(context, folder, name, load_work(folder, context.run_id).entry.uri)


@contextmanager
def noted(context: RunContext, folder: str, name: str, uri: str) -> Iterator[None]:
    """Leave a note in ``folder`` should the process die within the context.

    Parameters
    ----------
    context : RunContext
    folder : str
        Where the notes about one slide are.
    name : str
        Of the work that is begun; by this, deaths are counted.
    uri : str
        The slide's, for the message.

    Raises
    ------
    SlideCrashedError
        Too many processes died of some work on this slide in this run.
    StorageError
        The note cannot be written.
    """
    notes = storage.join(folder, "attempts", context.run_id)
    note = storage.join(notes, f"{name}.{uuid.uuid4().hex[:8]}")
    storage.write_bytes(note, f"{socket.gethostname()} {os.getpid()}".encode(), durable=False)
    keep = False
    try:
        begun = Counter(url.rpartition("/")[2].rpartition(".")[0] for url in storage.list_files(notes))
        work, deaths = max(begun.items(), key=lambda item: item[1])
        if deaths > MOST_DEATHS:
            keep = work == name  # so that every other process sees that this was one too many
            raise SlideCrashedError(
                f"{uri}: the process working on it died {MOST_DEATHS} times in a row (step and tiles "
                f"{work}): out of memory, killed, or a fault in a library; give workers more memory or leave "
                "the slide out, then run again"
            )
        yield
    finally:
        if not keep:
            storage.remove(note)
