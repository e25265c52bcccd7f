"""Many small objects of results made few, beside readers and running jobs.

The order of what is done makes it safe at every moment. Joined cells are written first, under names of their
own; then joined records that name them; then the records that these hold go. Until then two records say the
same of a slide, and either is right. Cells that are not named any more stay for readers that learned of them
before (see `deepliif_ray.tables.retire`). Nothing of a generation that a job commits meanwhile is touched:
its record is newer and counts. Two of these at once do double work, no harm.
"""

import hashlib
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import StorageMissingError
from deepliif_ray.tables.commit import write_cells
from deepliif_ray.tables.joining import join_records
from deepliif_ray.tables.ledger import Ledger, cells_rank, joined_name, joined_rows
from deepliif_ray.tables.records import RECORD_TABLES, Damage
from deepliif_ray.tables.retire import stored_cells, sweep
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
    damaged : tuple of Damage
        Objects that cannot be used; they were left as they are.
    """

    results: str
    objects_before: int
    objects_after: int
    joined_cells: int
    joined_records: int
    removed: int
    waiting: int
    seconds: float
    damaged: tuple[Damage, ...] = ()


@dataclass
class OptimizeProgress:
    """How far it is, in cells objects to be joined."""

    objects: int = 0
    done: int = 0

    @property
    def share(self) -> float | None:
        """How much of it is done, 0 to 1; None while that is not known."""
        return self.done / self.objects if self.objects else None


class _Part(NamedTuple):
    """What the record of a slide says of its cells."""

    cells: int
    attempt: str
    digest: str | None


@dataclass
class _Group:
    """Cells objects of one marker that become one; by object the slides whose cells it holds."""

    sources: dict[str, dict[str, _Part]] = field(default_factory=dict)


class _UnusableError(Exception):
    """Cells objects do not hold what records say of them."""

    def __init__(self, damaged: list[Damage]) -> None:
        super().__init__(f"{len(damaged)} damaged")
        self.damaged = damaged


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
        There are no results here, or newer software wrote them.
    StorageError
        The store does not answer.
    """
    start = time.perf_counter()
    results = storage.absolute(results)
    ledger = Ledger(results)
    slides = ledger.slides()
    before = len(_paths(slides)) + _count_records(results)
    groups = _plan(slides, {path: size for path, (size, _) in stored_cells(results).items()}, target_bytes)
    progress = OptimizeProgress(objects=sum(len(group.sources) for group in groups))
    moved: dict[tuple[str, str], dict[str, Any]] = {}
    damaged = ledger.damaged()
    call = uuid.uuid4().hex[:16]
    for number, group in enumerate(groups):
        progress.done += len(group.sources)
        place = _join_cells(results, group, f"{number:04d}-{call}", damaged)
        if place is not None:
            moved |= {(slide, source): place for source, those in group.sources.items() for slide in those}
        if watch is not None:
            watch(progress)
    joined = join_records(results, moved, drop_superseded=drop_superseded, call=call)
    retired = sweep(results, keep_minutes)
    return OptimizeSummary(
        results=results,
        objects_before=before,
        objects_after=len(_paths(Ledger(results).slides())) + _count_records(results),
        joined_cells=len({source for _, source in moved}),
        joined_records=joined,
        removed=retired.removed,
        waiting=retired.waiting,
        seconds=time.perf_counter() - start,
        damaged=tuple(damaged),
    )


def _count_records(results: str) -> int:
    return sum(len(storage.list_files(storage.join(results, name), ".parquet")) for name in RECORD_TABLES)


def _paths(slides: pa.Table) -> set[str]:
    return {path for path in slides.column("cells_path").to_pylist() if path}


def _plan(slides: pa.Table, sizes: dict[str, int], target: int) -> list[_Group]:
    """Choose which objects become one: small ones, and those with many cells that do not count."""
    objects: dict[str, dict[str, _Part]] = defaultdict(dict)
    names = ("slide_id", "cells_path", "n_cells", "attempt", "cells_digest")
    for slide, path, *said in zip(*(slides.column(name).to_pylist() for name in names), strict=True):
        if path in sizes:
            objects[path][slide] = _Part(*said)

    def is_stale(path: str) -> bool:
        rows = joined_rows(path)
        counted = sum(part.cells for part in objects[path].values())
        return rows is not None and counted < (1 - _DEAD_SHARE) * rows

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


def _join_cells(results: str, group: _Group, name: str, damaged: list[Damage]) -> dict[str, Any] | None:
    """Write the cells of a group as one object, by slide.

    A source that is damaged leaves the group, is added to ``damaged`` and stays as it is.

    Returns
    -------
    dict or None
        As of `write_cells`; None if nothing was joined: a source is gone, or too few are left.
    """
    folder = next(iter(group.sources)).rpartition("/")[0]
    while group.sources:
        rows = sum(part.cells for those in group.sources.values() for part in those.values())
        times = 1 + max(cells_rank(source)[0] for source in group.sources)
        path = f"{folder}/{joined_name(rows, times, name)}"
        try:
            return write_cells(results, path, _regrouped(_cells_by_slide(results, group)))
        except StorageMissingError:  # joined by another call meanwhile
            return None
        except _UnusableError as problem:
            damaged += problem.damaged
            for damage in problem.damaged:
                del group.sources[damage.object]
    return None


def _cells_by_slide(results: str, group: _Group) -> Iterator[pa.Table]:
    """Yield the cells of every slide of a group, in the order of slide_id, as this version has them.

    Once a source is found damaged nothing more is yielded, but all are looked at: the error tells every one.
    """
    wanted = sorted((slide, source) for source, those in group.sources.items() for slide in those)
    shared: dict[str, pa.Table | str] = {}
    damaged: dict[str, Damage] = {}

    def read(source: str) -> pa.Table | str:
        digests = {part.digest for part in group.sources[source].values()} - {None}
        return _read_cells(results, source, digests)

    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        for begin in range(0, len(wanted), storage.READ_THREADS):
            part = wanted[begin : begin + storage.READ_THREADS]
            singles = [source for _, source in part if joined_rows(source) is None]
            tables = dict(zip(singles, pool.map(read, singles), strict=True))
            for slide, source in part:
                if source not in tables and source not in shared:
                    shared[source] = read(source)
                table = shared[source] if source in shared else tables[source]
                said = group.sources[source][slide]
                cells = table if isinstance(table, str) else _of_slide(table, slide, said)
                if isinstance(cells, str):
                    damaged[source] = Damage(source, "cells", slide, cells)
                elif not damaged:
                    yield cells
    if damaged:
        raise _UnusableError(list(damaged.values()))


def _of_slide(table: pa.Table, slide: str, said: _Part) -> pa.Table | str:
    """Return a slide's cells with the columns of this version, or what is wrong with them."""
    matches = pc.equal(table.column("slide_id"), slide)
    cells = table if pc.all(matches).as_py() else table.filter(matches)
    if cells.num_rows != said.cells:
        return f"{cells.num_rows} cells of slide {slide!r}, its record says {said.cells}"
    schema = table_schema("cells")
    if cells.schema.equals(schema):
        return cells
    for column in schema:
        if column.name not in cells.column_names and column.nullable:
            value = said.attempt if column.name == "attempt" else None
            cells = cells.append_column(column, pa.repeat(pa.scalar(value, column.type), cells.num_rows))
    return cells.select(schema.names).cast(schema)


def _read_cells(results: str, path: str, digests: set[str | None]) -> pa.Table | str:
    """Return what a cells object holds, or what is wrong with it: a copy would hide that."""
    content = storage.read_bytes(storage.join(results, path))
    if digests and digests != {hashlib.sha256(content).hexdigest()}:
        return "damaged cells (another checksum than when they were written)"
    try:
        return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
    except (pa.ArrowException, ValueError, OSError) as error:
        return f"damaged cells ({' '.join(str(error).split())})"


def _regrouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables of about a row group each: small slides share one, a large one has several."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        for begin in range(0, table.num_rows, _ROW_GROUP):
            waiting.append(table.slice(begin, _ROW_GROUP))
            rows += waiting[-1].num_rows
            if rows >= _ROW_GROUP:
                yield pa.concat_tables(waiting)
                waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)
