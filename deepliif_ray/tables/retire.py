"""Objects that no record names any more: noted down first, removed later.

A reader may have learned of an object just before it was replaced, so nothing is removed at once. A note says
since when objects are not needed; they go when the note is old enough and still no record names them.
"""

import json
import logging
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from deepliif_ray import storage
from deepliif_ray.tables.commit import bar
from deepliif_ray.tables.records import Damage, read_if_there, read_records

ORPHAN_AGE = timedelta(hours=24)
"""Cells older than this that no record names are of attempts that never committed, not of a job at work."""
_NOTES = "_optimize"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retired:
    """What became of objects that are not needed: removed now, or waiting for a later time."""

    removed: int
    waiting: int


def stored_cells(results: str) -> dict[str, storage.Stored]:
    """Return what the store says of every cells object, by its path in the results."""
    found = storage.list_stored(storage.join(results, "cells"), ".parquet")
    return {f"cells/{name}": stored for name, stored in found.items()}


def note(results: str, paths: Iterable[str], *, orphans: bool = False) -> None:
    """Note down that objects are not needed from now on; ``orphans`` are those that no record ever named."""
    listed = sorted(paths)
    if listed:
        now = datetime.now(UTC)
        url = storage.join(results, _NOTES, f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}.json")
        document = {"at": now.isoformat(), "cells": listed, "orphans": orphans}
        storage.write_bytes(url, json.dumps(document).encode())


def sweep(results: str, keep_minutes: float) -> Retired:
    """Remove cells that are not needed since ``keep_minutes``, and note down those found now."""
    there = stored_cells(results)  # before the records: what a job commits meanwhile is newer than this list
    now = datetime.now(UTC)
    named, sure = _named(results)
    noted = {path for _, found in read_notes(results).values() for path in found}
    if not sure:
        return Retired(0, len(noted & there.keys() - named))
    old = (path for path, stored in there.items() if now - stored.written > ORPHAN_AGE)
    note(results, (path for path in old if path not in named and path not in noted), orphans=True)
    notes = read_notes(results)
    until = datetime.now(UTC) - timedelta(minutes=keep_minutes)
    due = {url: found for url, (at, found) in notes.items() if at <= until}
    if due:
        named, sure = _named(results)  # again: hours may have gone by
        if not sure:
            due = {}
    going = {path: orphan for found in due.values() for path, orphan in found.items() if path not in named}
    going = {path: orphan for path, orphan in going.items() if path in there}

    def go(path: str) -> bool:
        if going[path] and not bar(results, path):
            return False  # it was committed this moment
        storage.remove(storage.join(results, path))
        return True

    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        removed = sum(pool.map(go, going))
        list(pool.map(storage.remove, due))
    waiting = {path for url, (_, found) in notes.items() if url not in due for path in found}
    return Retired(removed, len(waiting & there.keys() - going.keys()))


def _named(results: str) -> tuple[set[str], bool]:
    """Return every cells object that some record names, of whatever generation, and whether these are all.

    A record that cannot be read names cells that nobody knows: then nothing may be removed.
    """
    damaged: list[Damage] = []
    paths = read_records(results, "slides", damaged).table.column("cells_path").to_pylist()
    return {path for path in paths if path}, not damaged


def read_notes(
    results: str, damaged: list[Damage] | None = None
) -> dict[str, tuple[datetime, dict[str, bool]]]:
    """Return for each note by its URL since when which objects are not needed, and whether they are orphans.

    One that cannot be read, as after a power loss, is passed over: what it named is noted down again.
    """
    notes = {}
    folder = storage.join(results, _NOTES)
    for url in storage.list_files(folder, ".json"):
        content = read_if_there(url)
        if content is None:  # another call was faster
            continue
        try:
            document = json.loads(content)
            at = datetime.fromisoformat(document["at"]).astimezone(UTC)
            orphans = bool(document.get("orphans", False))  # older notes do not tell
            notes[url] = at, dict.fromkeys(document["cells"], orphans)
        except (ValueError, KeyError, TypeError) as error:
            if damaged is None:
                _log.warning("object.damaged", extra={"object": url, "why": str(error)})
            else:
                path = f"{_NOTES}/{url[len(folder) :].lstrip('/')}"
                damaged.append(Damage(path, "note", None, f"damaged note ({error}); it may be deleted"))
    return notes
