"""Makes the many record objects of results few: joined ones are written first, then those they hold go."""

import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.tables.commit import write_table
from deepliif_ray.tables.ledger import joined_rows, newest
from deepliif_ray.tables.records import RECORD_TABLES, read_records
from deepliif_ray.tables.retire import note


def join_records(
    results: str,
    moved: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
    *,
    drop_superseded: bool = False,
    least: int = 2,
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

    Returns
    -------
    int
        How many objects were replaced.
    """
    few = {name: least > 2 and _count(results, name) < least for name in RECORD_TABLES}
    replaced = 0 if few["slides"] and not moved else join_slides(results, moved or {}, drop_superseded)
    for name in ("failures", "runs"):
        if not few[name]:
            replaced += _join_others(results, name, drop_superseded and name == "failures")
    return replaced


def _count(results: str, name: str) -> int:
    return len(storage.list_files(storage.join(results, name), ".parquet"))


def join_slides(
    results: str, moved: Mapping[tuple[str, str], Mapping[str, Any]], drop_superseded: bool
) -> int:
    """Make all commit records one object, naming the joined cells; return how many it replaced."""
    records = read_records(results, "slides")  # again: others may have joined or committed meanwhile
    rows = records.table.select(["slide_id", "cells_path"]).to_pylist()
    places = [moved.get((row["slide_id"], row["cells_path"])) for row in rows]
    table = _moved(records.table, places)
    kept = newest(_once(table), "committed_at") if drop_superseded else _once(table)
    is_as_before = len(records.objects) < 2 and not any(places) and kept.num_rows == table.num_rows
    if is_as_before or not records.objects:
        return 0
    _write_joined(results, "slides", kept)
    note(results, _paths(records.table) - _paths(kept))
    _remove(records.objects)
    return len(records.objects)


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


def _once(table: pa.Table) -> pa.Table:
    """Drop records that say the same again of one attempt, keeping those that name joined cells."""
    best: dict[tuple[str, str], int] = {}
    columns = [table.column(name).to_pylist() for name in ("slide_id", "attempt", "cells_path")]
    rank = [(joined_rows(path or "") is not None, path or "") for path in columns[2]]
    for row, key in enumerate(zip(columns[0], columns[1], strict=True)):
        if key not in best or rank[row] > rank[best[key]]:
            best[key] = row
    return table.take(pa.array(sorted(best.values()), pa.int64()))


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
    _write_joined(results, name, newest(table, "failed_at") if drop_superseded else table)
    _remove(objects)
    return len(objects)


def _write_joined(results: str, name: str, table: pa.Table) -> None:
    write_table(storage.join(results, name, f"joined-{uuid.uuid4().hex[:16]}.parquet"), name, table)


def _remove(urls: list[str]) -> None:
    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        list(pool.map(storage.remove, urls))
