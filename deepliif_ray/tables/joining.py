"""Makes the many record objects of results few: joined ones are written first, then those they hold go."""

import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deepliif_ray import storage
from deepliif_ray.tables.commit import create_table, write_table
from deepliif_ray.tables.ledger import cells_rank, newest, settled
from deepliif_ray.tables.records import RECORD_TABLES, read_records
from deepliif_ray.tables.retire import note

_CELLS = frozenset(("cells_path", "cells_bytes", "cells_digest", "cells_version"))
"""What a record says of where its cells are; the rest of it stays as it is when they are joined."""


def join_records(
    results: str,
    moved: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
    *,
    drop_superseded: bool = False,
    least: int = 2,
    call: str | None = None,
) -> int:
    """Make the records of each table one object; what is damaged stays as it is.

    Parameters
    ----------
    results : str
        URL of the results.
    moved : mapping, optional
        By slide_id and old ``cells_path`` where cells were moved to: see `write_cells`.
    drop_superseded : bool
        Forget older generations.
    least : int
        Leave a table of fewer objects as it is, unless cells of it were moved.
    call : str, optional
        Name of the call, which the objects with moved cells have in theirs (see `record_path`).

    Returns
    -------
    int
        How many objects were replaced.
    """
    call = call or uuid.uuid4().hex[:16]
    few = {name: least > 2 and _count(results, name) < least for name in RECORD_TABLES}
    replaced = 0 if few["slides"] and not moved else join_slides(results, moved or {}, drop_superseded, call)
    for name in ("failures", "runs"):
        if not few[name]:
            replaced += _join_others(results, name, drop_superseded and name == "failures")
    return replaced


def _count(results: str, name: str) -> int:
    return len(storage.list_files(storage.join(results, name), ".parquet"))


def join_slides(
    results: str, moved: Mapping[tuple[str, str], Mapping[str, Any]], drop_superseded: bool, call: str
) -> int:
    """Make all commit records one object, naming the joined cells; return how many it replaced."""
    records = read_records(results, "slides")  # again: others may have joined or committed meanwhile
    rows = records.table.select(["slide_id", "cells_path"]).to_pylist()
    moved = _without_forgotten(results, moved, {row["slide_id"] for row in rows})
    places = [moved.get((row["slide_id"], row["cells_path"])) for row in rows]
    table = _moved(records.table, places)
    kept = _forgotten(newest(_once(table), "committed_at")) if drop_superseded else _once(table)
    is_as_before = (
        len(records.objects) < 2
        and not any(places)
        and kept.num_rows == table.num_rows
        and _paths(kept) == _paths(table)
    )
    if is_as_before or not records.objects:
        return 0
    url = storage.join(results, "slides", f"joined-{call}.parquet")
    if not create_table(url, "slides", kept):
        return 0  # this call stood still for so long that what it joined was removed
    _without_removed(results, "slides", url, kept, records.objects)
    _remove(records.objects)
    # Only now: readers' time begins when no record names them. Killed before this, they go as orphans.
    note(results, _paths(records.table) - _paths(kept))
    return len(records.objects)


def _without_forgotten(
    results: str, moved: Mapping[tuple[str, str], Mapping[str, Any]], there: set[str]
) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """Return what was moved, without joined cells of a slide that is forgotten since: those go at once."""
    spoilt = {place["cells_path"] for (slide, _), place in moved.items() if slide not in there}
    for path in spoilt:
        storage.remove(storage.join(results, path))
    return {key: place for key, place in moved.items() if place["cells_path"] not in spoilt}


def _moved(table: pa.Table, places: list[Mapping[str, Any] | None]) -> pa.Table:
    """Return records with the new place of the cells of those that have one."""
    for name in next((place for place in places if place), {}):
        position = table.schema.get_field_index(name)
        values = table.column(name).to_pylist()
        values = [old if place is None else place[name] for old, place in zip(values, places, strict=True)]
        field = table.schema.field(position)
        table = table.set_column(position, field, pa.array(values, field.type))
    return table


def _paths(slides: pa.Table) -> set[str]:
    return {path for path in slides.column("cells_path").to_pylist() if path}


def _forgotten(table: pa.Table) -> pa.Table:
    """Return records of which those of retired slides name no cells any more."""
    position = table.schema.get_field_index("cells_path")
    paths = pc.if_else(pc.is_valid(table.column("retired")), None, table.column("cells_path"))
    return table.set_column(position, table.schema.field(position), paths)


def _once(table: pa.Table) -> pa.Table:
    """Keep the newest record of each attempt, with the place that its cells were moved to last."""
    names = ("slide_id", "attempt", "cells_path", "epoch", "committed_at")
    slides, attempts, paths, epochs, moments = (table.column(name).to_pylist() for name in names)
    ages = [
        (-1 if epoch is None else epoch, at, cells_rank(path))
        for epoch, at, path in zip(epochs, moments, paths, strict=True)
    ]
    newest_row: dict[tuple[str, str], int] = {}
    for row, key in enumerate(zip(slides, attempts, strict=True)):
        if key not in newest_row or ages[row] > ages[newest_row[key]]:
            newest_row[key] = row
    return settled(table).take(pa.array(sorted(newest_row.values()), pa.int64()))


def _join_others(results: str, name: str, drop_superseded: bool) -> int:
    """Make the records of a table one object; a run's own is left while it may be written again."""
    records = read_records(results, name)
    table, objects = records.table, records.objects
    if name == "runs":
        running = [status == "running" for status in table.column("status").to_pylist()]
        table = table.filter(pa.array([not goes_on for goes_on in running], pa.bool_()))
        objects = list(dict.fromkeys(u for u, on in zip(records.sources, running, strict=True) if not on))
    if len(objects) < 2:
        return 0
    key = ["run_id"] if name == "runs" else ["slide_id", "attempt"]
    seen = {tuple(row.values()): n for n, row in enumerate(table.select(key).to_pylist())}
    table = table.take(pa.array(sorted(seen.values()), pa.int64()))
    url = storage.join(results, name, f"joined-{uuid.uuid4().hex[:16]}.parquet")
    table = newest(table, "failed_at") if drop_superseded else table
    write_table(url, name, table)
    if name == "failures":
        _without_removed(results, name, url, table, objects)
    _remove(objects)
    return len(objects)


def _without_removed(results: str, name: str, url: str, table: pa.Table, sources: list[str]) -> None:
    """Write a joined object again without rows that somebody removed since they were read: a slide forgotten.

    Its own sources still hold all that was in them, and what another call joined is in what that wrote. A
    `forget` that has not come so far finds the joined object when it looks for the last time.
    """
    if set(sources) <= set(storage.list_files(storage.join(results, name), ".parquet")):
        return
    said = [column for column in table.column_names if column not in _CELLS]
    others = read_records(results, name)
    rows = zip(others.table.select(said).to_pylist(), others.sources, strict=True)
    known = {repr(row) for row, source in rows if source != url}
    stays = [repr(row) in known for row in table.select(said).to_pylist()]
    if not all(stays):
        rest = table.filter(pa.array(stays, pa.bool_()))
        if rest.num_rows:
            write_table(url, name, rest)
        else:
            storage.remove(url)


def _remove(urls: list[str]) -> None:
    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        list(pool.map(storage.remove, urls))
