"""Many small objects of results made few, beside readers and running jobs.

The order of what is done makes it safe at every moment. Joined cells are written first, under names of their
own; then joined records that name them; then the records that these hold go. Until then two records say the
same of a slide, and either is right. Cells that are not named any more stay for readers that learned of them
before (see `deepliif_ray.tables.retire`). Nothing of a generation that a job commits meanwhile is touched:
its record is newer and counts. Two of these at once do double work, no harm.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError, StorageError
from deepliif_ray.tables.commit import write_cells, write_table
from deepliif_ray.tables.ledger import Ledger, joined_name, joined_rows, newest, read_objects
from deepliif_ray.tables.retire import note, stored_cells, sweep
from deepliif_ray.tables.schema import table_schema

TARGET_BYTES = 128 * 2**20
KEEP_MINUTES = 60.0
_ROW_GROUP = 65_536
_DEAD_SHARE = 0.25
"""An object is written anew when more of its cells than this belong to no record."""


@dataclass(frozen=True)
class OptimizeSummary:
    """What was joined.

    Attributes
    ----------
    results : str
        URL of the results.
    objects_before, objects_after : int
        Objects that a reader opens: cells, slides, failures and runs.
    joined_cells, joined_records : int
        Objects that went into others.
    removed : int
        Cells objects removed that no record named any more.
    waiting : int
        Cells objects that no record names any more and that a later call removes.
    seconds : float
    """

    results: str
    objects_before: int
    objects_after: int
    joined_cells: int
    joined_records: int
    removed: int
    waiting: int
    seconds: float


@dataclass
class OptimizeProgress:
    """How far it is, in cells objects to be joined."""

    objects: int = 0
    done: int = 0


@dataclass
class _Group:
    """Cells objects of one marker that become one; slides and their counts by object."""

    sources: dict[str, dict[str, int]] = field(default_factory=dict)


def optimize(
    results: str,
    *,
    target_bytes: int = TARGET_BYTES,
    keep_minutes: float = KEEP_MINUTES,
    drop_superseded: bool = False,
    watch: Callable[[OptimizeProgress], None] | None = None,
) -> OptimizeSummary:
    """Join the small objects of results into few; queries answer as before.

    It may run beside readers, running jobs and itself, and may be killed at any time; calling it again does
    what is left, or nothing.

    Parameters
    ----------
    results : str
        URL of the results.
    target_bytes : int
        Size of the joined cells objects; those of at least half of it are left as they are.
    keep_minutes : float
        How long cells that are not named any more stay for readers that opened the results before. 0 only
        when nobody else reads or writes these results.
    drop_superseded : bool
        Forget the older generations of slides that were scored again.
    watch : callable, optional
        Called with an `OptimizeProgress` after every object.

    Returns
    -------
    OptimizeSummary

    Raises
    ------
    ResultsError
        There are no results here, or an object of them is damaged.
    StorageError
        The store does not answer.
    """
    start = time.perf_counter()
    results = storage.absolute(results)
    slides = Ledger(results).slides()
    records = {name: read_objects(results, name) for name in ("slides", "failures", "runs")}
    before = len(_paths(slides)) + sum(map(len, records.values()))
    groups = _plan(slides, {path: size for path, (size, _) in stored_cells(results).items()}, target_bytes)
    progress = OptimizeProgress(objects=sum(len(group.sources) for group in groups))
    moved: dict[tuple[str, str], str] = {}
    for group in groups:
        path = _join_cells(results, group)
        if path is not None:
            moved |= {(slide, source): path for source, those in group.sources.items() for slide in those}
        progress.done += len(group.sources)
        if watch is not None:
            watch(progress)
    joined = _join_slides(results, moved, drop_superseded)
    joined += _join_others(results, "failures", drop_superseded)
    joined += _join_others(results, "runs", False)
    retired = sweep(results, keep_minutes)
    after = len(_paths(Ledger(results).slides()))
    after += sum(len(storage.list_files(storage.join(results, name), ".parquet")) for name in records)
    return OptimizeSummary(
        results=results,
        objects_before=before,
        objects_after=after,
        joined_cells=len({source for _, source in moved}),
        joined_records=joined,
        removed=retired.removed,
        waiting=retired.waiting,
        seconds=time.perf_counter() - start,
    )


def _paths(slides: pa.Table) -> set[str]:
    return {path for path in slides.column("cells_path").to_pylist() if path}


def _plan(slides: pa.Table, sizes: dict[str, int], target: int) -> list[_Group]:
    """Choose which objects become one: small ones, and those with many cells that do not count."""
    objects: dict[str, dict[str, int]] = defaultdict(dict)
    for slide, path, count in zip(
        *(slides.column(name).to_pylist() for name in ("slide_id", "cells_path", "n_cells")), strict=True
    ):
        if path in sizes:
            objects[path][slide] = count

    def is_stale(path: str) -> bool:
        rows = joined_rows(path)
        return rows is not None and sum(objects[path].values()) < (1 - _DEAD_SHARE) * rows

    folders: dict[str, list[str]] = defaultdict(list)
    for path in sorted(objects, key=lambda path: min(objects[path])):
        if sizes[path] < target / 2 or is_stale(path):
            folders[path.rpartition("/")[0]].append(path)
    groups = []
    for paths in folders.values():
        group, size = _Group(), 0
        for path in paths:
            if size + sizes[path] > target and group.sources:
                groups.append(group)
                group, size = _Group(), 0
            group.sources[path] = objects[path]
            size += sizes[path]
        groups.append(group)
    return [group for group in groups if len(group.sources) > 1 or any(map(is_stale, group.sources))]


def _join_cells(results: str, group: _Group) -> str | None:
    """Write the cells of a group as one object, by slide; return its path, None if a source is gone."""
    folder = next(iter(group.sources)).rpartition("/")[0]
    rows = sum(sum(those.values()) for those in group.sources.values())
    path = f"{folder}/{joined_name(rows, uuid.uuid4().hex[:16])}"
    try:
        write_cells(results, path, _regrouped(_cells_by_slide(results, group)))
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):  # joined by another call meanwhile
            return None
        raise
    return path


def _cells_by_slide(results: str, group: _Group) -> Iterator[pa.Table]:
    """Yield the cells of every slide of a group, in the order of slide_id."""
    wanted = sorted((slide, source) for source, those in group.sources.items() for slide in those)
    shared: dict[str, pa.Table] = {}
    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        for begin in range(0, len(wanted), storage.READ_THREADS):
            part = wanted[begin : begin + storage.READ_THREADS]
            singles = [source for _, source in part if joined_rows(source) is None]
            tables = dict(zip(singles, pool.map(lambda p: _read_cells(results, p), singles), strict=True))
            for slide, source in part:
                if source not in tables and source not in shared:
                    shared[source] = _read_cells(results, source)
                table = shared[source] if source in shared else tables[source]
                cells = table.filter(pc.equal(table.column("slide_id"), slide))
                if cells.num_rows != group.sources[source][slide]:
                    raise ResultsError(
                        f"{storage.join(results, source)}: {cells.num_rows} cells of slide {slide!r}, its "
                        f"record says {group.sources[source][slide]}; delete the record and score it again"
                    )
                yield cells


def _read_cells(results: str, path: str) -> pa.Table:
    url = storage.join(results, path)
    content = storage.read_bytes(url)
    try:
        return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ResultsError(
            f"{url}: damaged cells ({error}); delete the records of its slides and score them again"
        ) from error


def _regrouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables of about a row group each: small slides share one, a large one has several."""
    waiting: list[pa.Table] = []
    for table in tables:
        for begin in range(0, table.num_rows, _ROW_GROUP):
            waiting.append(table.slice(begin, _ROW_GROUP))
            if sum(part.num_rows for part in waiting) >= _ROW_GROUP:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _join_slides(results: str, moved: dict[tuple[str, str], str], drop_superseded: bool) -> int:
    """Make all commit records one object, naming the joined cells; return how many it replaced."""
    objects = read_objects(results, "slides")  # again: others may have joined or committed meanwhile
    everything = pa.concat_tables([table_schema("slides").empty_table(), *objects.values()])
    ids, paths = (everything.column(name).to_pylist() for name in ("slide_id", "cells_path"))
    new_paths = [moved.get((slide, path), path) for slide, path in zip(ids, paths, strict=True)]
    position = everything.schema.get_field_index("cells_path")
    table = everything.set_column(
        position, everything.schema.field(position), pa.array(new_paths, pa.string())
    )
    kept = _forgotten(newest(_once(table), "committed_at")) if drop_superseded else _once(table)
    same = new_paths == paths and kept.num_rows == everything.num_rows and _paths(kept) == _paths(table)
    if (len(objects) < 2 and same) or not objects:
        return 0
    _write_joined(results, "slides", kept)
    note(results, {path for path in paths if path} - _paths(kept))
    _remove(list(objects))
    return len(objects)


def _forgotten(table: pa.Table) -> pa.Table:
    """Return records of which those of retired slides name no cells any more."""
    position = table.schema.get_field_index("cells_path")
    paths = pc.if_else(pc.is_valid(table.column("retired")), None, table.column("cells_path"))
    return table.set_column(position, table.schema.field(position), paths)


def _once(table: pa.Table) -> pa.Table:
    """Keep the newest record of each attempt; of those that say the same, the one that names joined cells."""
    best: dict[tuple[str, str], int] = {}
    columns = [
        table.column(name).to_pylist() for name in ("slide_id", "attempt", "cells_path", "committed_at")
    ]
    rank = [
        (at, joined_rows(path or "") is not None, path or "")
        for path, at in zip(columns[2], columns[3], strict=True)
    ]
    for row, key in enumerate(zip(columns[0], columns[1], strict=True)):
        if key not in best or rank[row] > rank[best[key]]:
            best[key] = row
    return table.take(pa.array(sorted(best.values()), pa.int64()))


def _join_others(results: str, name: str, drop_superseded: bool) -> int:
    """Make the records of a table one object; a run's own is left while it may be written again."""
    objects = read_objects(results, name)
    if name == "runs":
        objects = {url: t for url, t in objects.items() if "running" not in t.column("status").to_pylist()}
    if len(objects) < 2:
        return 0
    table = pa.concat_tables(objects.values())
    key = ["run_id"] if name == "runs" else ["slide_id", "attempt"]
    seen = {tuple(row.values()): n for n, row in enumerate(table.select(key).to_pylist())}
    table = table.take(pa.array(sorted(seen.values()), pa.int64()))
    _write_joined(results, name, newest(table, "failed_at") if drop_superseded else table)
    _remove(list(objects))
    return len(objects)


def _write_joined(results: str, name: str, table: pa.Table) -> None:
    write_table(storage.join(results, name, f"joined-{uuid.uuid4().hex[:16]}.parquet"), name, table)


def _remove(urls: list[str]) -> None:
    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        list(pool.map(storage.remove, urls))
