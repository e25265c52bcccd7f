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
from typing import Any

from deepliif_ray import storage
from deepliif_ray.errors import StorageError
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


def stored_cells(results: str) -> dict[str, tuple[int, datetime]]:
    """Return size in bytes and time of writing of every cells object, by its path in the results."""
    fs, root = storage.filesystem(results)
    folder = storage.join(root, "cells")
    try:
        found = fs.find(folder, detail=True)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"{results}: cells cannot be listed ({error})") from error
    return {
        f"cells/{name[len(folder) :].lstrip('/')}": (int(info["size"]), _written(info))
        for name, info in found.items()
        if name.endswith(".parquet")
    }


def _written(info: dict[str, Any]) -> datetime:
    """Return when an object was written; a store that does not tell makes it new, so that it stays."""
    moment = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("created")
    if isinstance(moment, (int, float)):
        return datetime.fromtimestamp(moment, UTC)
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if not isinstance(moment, datetime):
        return datetime.now(UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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
    notes = read_notes(results)
    named, sure = _named(results)
    noted = {path for _, paths in notes.values() for path in paths}
    if not sure:
        return Retired(0, len(noted & there.keys() - named))
    note(
        results,
        (p for p, (_, at) in there.items() if now - at > ORPHAN_AGE and p not in named and p not in noted),
    )
    notes = read_notes(results)
    until = datetime.now(UTC) - timedelta(minutes=keep_minutes)
    due = {url: paths for url, (at, paths) in notes.items() if at <= until}
    going = {path for paths in due.values() for path in paths} & there.keys() - named
    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        list(pool.map(lambda path: storage.remove(storage.join(results, path)), going))
        list(pool.map(storage.remove, due))
    waiting = {path for url, (_, paths) in notes.items() if url not in due for path in paths}
    return Retired(len(going), len(waiting & there.keys() - going))


def _named(results: str) -> tuple[set[str], bool]:
    """Return every cells object that some record names, of whatever generation, and whether these are all.

    A record that cannot be read names cells that nobody knows: then nothing may be removed.
    """
    damaged: list[Damage] = []
    paths = read_records(results, "slides", damaged).table.column("cells_path").to_pylist()
    return {path for path in paths if path}, not damaged


def read_notes(results: str, damaged: list[Damage] | None = None) -> dict[str, tuple[datetime, list[str]]]:
    """Return for each note by its URL since when which objects are not needed.

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
            notes[url] = at, list(document["cells"])
        except (ValueError, KeyError, TypeError) as error:
            if damaged is None:
                _log.warning("object.damaged", extra={"object": url, "why": str(error)})
            else:
                path = f"{_NOTES}/{url[len(folder) :].lstrip('/')}"
                damaged.append(Damage(path, "note", None, f"damaged note ({error}); it may be deleted"))
    return notes
