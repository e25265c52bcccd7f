"""Objects that no record names any more: noted down first, removed later.

A reader may have learned of an object just before it was replaced, so nothing is removed at once. A note says
since when objects are not needed; they go when the note is old enough and still no record names them.
"""

import json
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from deepliif_ray import storage
from deepliif_ray.tables.ledger import read_if_there, read_objects

ORPHAN_AGE = timedelta(hours=24)
"""Cells older than this that no record names are of attempts that never committed, not of a job at work."""
_NOTES = "_optimize"


@dataclass(frozen=True)
class Retired:
    """What became of objects that are not needed: removed now, or waiting for a later time."""

    removed: int
    waiting: int


def stored_cells(results: str) -> dict[str, storage.Stored]:
    """Return what the store says of every cells object, by its path in the results."""
    found = storage.list_stored(storage.join(results, "cells"), ".parquet")
    return {f"cells/{name}": stored for name, stored in found.items()}


def note(results: str, paths: Iterable[str]) -> None:
    """Note down that objects are not needed from now on."""
    listed = sorted(paths)
    if listed:
        now = datetime.now(UTC)
        url = storage.join(results, _NOTES, f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}.json")
        storage.write_bytes(url, json.dumps({"at": now.isoformat(), "cells": listed}).encode())


def sweep(results: str, keep_minutes: float) -> Retired:
    """Remove cells that are not needed since ``keep_minutes``, and note down those found now."""
    there = stored_cells(results)  # before the records: what a job commits meanwhile is newer than this list
    now = datetime.now(UTC)
    notes = _read_notes(results)
    named = _named(results)
    noted = {path for _, paths in notes.values() for path in paths}
    note(
        results,
        (p for p, (_, at) in there.items() if now - at > ORPHAN_AGE and p not in named and p not in noted),
    )
    notes = _read_notes(results)
    until = datetime.now(UTC) - timedelta(minutes=keep_minutes)
    due = {url: paths for url, (at, paths) in notes.items() if at <= until}
    going = {path for paths in due.values() for path in paths} & there.keys() - named
    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        list(pool.map(lambda path: storage.remove(storage.join(results, path)), going))
        list(pool.map(storage.remove, due))
    waiting = {path for url, (_, paths) in notes.items() if url not in due for path in paths}
    return Retired(len(going), len(waiting & there.keys() - going))


def _named(results: str) -> set[str]:
    """Return every cells object that some record names, of whatever generation."""
    tables = read_objects(results, "slides").values()
    return {path for table in tables for path in table.column("cells_path").to_pylist() if path}


def _read_notes(results: str) -> dict[str, tuple[datetime, list[str]]]:
    notes = {}
    for url in storage.list_files(storage.join(results, _NOTES), ".json"):
        content = read_if_there(url)
        if content is None:  # another call was faster
            continue
        document = json.loads(content)
        notes[url] = datetime.fromisoformat(document["at"]), list(document["cells"])
    return notes
