"""What is to be done with the tables of results so that they hold nothing of some slides or patients.

The order makes it safe at every moment. Joined cells are written without the rows first, then joined records
that name them, then the old records go, and only then the old cells: each slide that stays always has a
record whose cells exist. Nothing waits for readers, as it does when `optimize` replaces objects.
"""

import hashlib
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError, StorageMissingError
from deepliif_ray.tables.commit import bar, cells_layout, create_table, write_table
from deepliif_ray.tables.ledger import cells_rank, joined_name, joined_rows, record_path, settled
from deepliif_ray.tables.records import Damage, Records
from deepliif_ray.tables.survey import Survey, kind_of
from deepliif_ray.tables.traces import Holders, Target, naming_columns

BY_HAND = "look at it by hand"
_KEYED = re.compile(r"-[0-9a-f]{12}-[^/]*$")
_TEXTS = frozenset(("uri", "warnings", "attributes", "message", "manifest_uri", "results_uri"))
"""Columns of records in which a text of others may name somebody; the rest is this software's own words."""


@dataclass(frozen=True)
class Change:
    """What is done with one object: removed, or written again without ``rows`` of its rows."""

    kind: str
    path: str
    rows: int = 0
    is_rewritten: bool = False


@dataclass
class Plan:
    """What is to be done, in this order; and what only a person can decide about.

    Attributes
    ----------
    results : str
        URL of the results.
    changes : list of Change
        All of it, for telling.
    steps : list of callable
        What does it.
    left : list of Damage
    """

    results: str
    changes: list[Change] = field(default_factory=list)
    steps: list[Callable[[], None]] = field(default_factory=list)
    left: list[Damage] = field(default_factory=list)

    def url(self, path: str) -> str:
        """Return the URL of an object."""
        return storage.join(self.results, path)

    def remove(self, kind: str, path: str, rows: int = 0) -> None:
        """Have an object removed."""
        self.changes.append(Change(kind, path, rows))
        self.steps.append(lambda: storage.remove(self.url(path)))

    def write(self, kind: str, path: str, rows: int, content: bytes) -> None:
        """Have an object replaced, at once for whoever reads it."""
        self.changes.append(Change(kind, path, rows, is_rewritten=True))
        self.steps.append(lambda: storage.write_bytes(self.url(path), content))

    def leave(self, path: str, problem: str, slide: str | None = None) -> None:
        """Name an object that a person has to look at."""
        self.left.append(Damage(path, kind_of(path), slide, problem))


def last_part(path: str) -> str:
    """Return the file name of a path."""
    return path.rpartition("/")[2]


def may_hold(path: str, target: Target) -> bool:
    """Tell whether an object that cannot be read may hold something of the target, by its name.

    A name tells the slide, so it is another one's; but whose that was in an older generation is not known.
    """
    return bool(target.patients) or joined_rows(path) is not None or _KEYED.search(last_part(path)) is None


def plan_tables(plan: Plan, found: Survey, target: Target) -> None:
    """Plan for records and cells."""
    _SlidesPlan(plan, found, target).make()
    _plan_failures(plan, found, target)
    for name in ("slides", "failures"):
        for path in _without_rows(found, name):
            if target.names(last_part(path)):
                plan.remove(name, path)
    for damage in found.damaged:
        if target.names(last_part(damage.object)):
            plan.remove(damage.kind, damage.object)
        elif damage.kind != "runs" and may_hold(damage.object, target):
            plan.leave(damage.object, f"it may hold them: {damage.problem}")
    _tell_of_texts(plan, found.records["runs"], found.records["runs"].table, "runs", target)


def _without_rows(found: Survey, name: str) -> list[str]:
    """Return the paths of record objects that hold no row: they only bar their name."""
    filled = set(_paths(found.results, name, found.records[name].sources))
    filled |= {damage.object for damage in found.damaged}
    return [path for path in found.paths(name) if path not in filled]


def _paths(results: str, name: str, urls: Iterable[str]) -> list[str]:
    folder = storage.join(results, name)
    return [f"{name}/{url[len(folder) :].lstrip('/')}" for url in urls]


class _SlidesPlan:
    """Plans for commit records and cells, which hang together."""

    def __init__(self, plan: Plan, found: Survey, target: Target) -> None:
        self._plan, self._found, self._target = plan, found, target
        self._call = uuid.uuid4().hex[:16]
        self._places: dict[str, dict[str, Any]] = {}
        self._sources = _paths(found.results, "slides", found.records["slides"].sources)

    def make(self) -> None:
        """Add to the plan what is to be done."""
        plan, target = self._plan, self._target
        raw = self._found.records["slides"].table
        stays = pc.invert(target.mask(raw))
        kept = settled(raw.filter(stays))
        told = _without_notes(kept, target)
        needed = {path for path in kept.column("cells_path").to_pylist() if path}
        named = {path for path in raw.column("cells_path").to_pylist() if path}
        going, moving = self._sorted_cells(kept, needed, named)
        for number, (path, rows, left) in enumerate(moving.values()):
            name = joined_name(left, 1 + cells_rank(path)[0], f"{number:04d}-{self._call}")
            plan.changes.append(Change("cells", path, rows, is_rewritten=True))
            plan.steps.append(self._rewriting(path, f"{path.rpartition('/')[0]}/{name}", left))
        self._replace_records(told, stays, moving.keys())
        for path, rows in going.items():
            plan.changes.append(Change("cells", path, rows))
            plan.steps.append(self._removing(path, is_named=path in named))
        plan.steps += [self._removing(path, is_named=True) for path in moving]
        _tell_of_texts(plan, self._found.records["slides"], told, "slides", target, stays)

    def _sorted_cells(
        self, kept: pa.Table, needed: set[str], named: set[str]
    ) -> tuple[dict[str, int], dict[str, tuple[str, int, int]]]:
        """Return the cells objects that go with their rows, and those of which some rows go."""
        plan, target = self._plan, self._target
        going: dict[str, int] = {}
        moving: dict[str, tuple[str, int, int]] = {}
        for path in self._found.paths("cells"):
            holders = self._found.parquet[path]
            is_theirs = target.names(last_part(path)) and path not in needed
            if isinstance(holders, str):
                is_one = joined_rows(path) is None
                if is_theirs or (is_one and path in named - needed):
                    going[path] = 0
                elif may_hold(path, target) and not (is_one and path in needed):
                    plan.leave(path, f"it may hold them, but {holders}; {BY_HAND}")
                continue
            rows = target.count(holders)
            if path not in needed:
                if rows or is_theirs:
                    going[path] = rows
            elif rows:
                problem = _contradiction(kept, path, holders, target) or self._damage(kept, path)
                if problem is None:
                    moving[path] = path, rows, sum(holders.values()) - rows
                else:
                    plan.leave(path, problem)
        return going, moving

    def _damage(self, kept: pa.Table, path: str) -> str | None:
        """Return what is wrong with cells that are to be copied: the copy would hide it."""
        rows = kept.filter(pc.equal(kept.column("cells_path"), path))
        digests = set(rows.column("cells_digest").to_pylist()) - {None}
        try:
            content = storage.read_bytes(self._plan.url(path)) if digests else b""
        except StorageMissingError:
            return "its cells went just now; run this again"
        if digests and digests != {hashlib.sha256(content).hexdigest()}:
            return (
                "it holds them, and it is damaged (another checksum than when it was written), so it is not "
                "copied; `deepliif-ray check --repair` moves it away, then run this again"
            )
        return None

    def _rewriting(self, path: str, new: str, left: int) -> Callable[[], None]:
        """Return what writes joined cells as object ``new``, without the rows of the target."""

        def write() -> None:
            with tempfile.TemporaryDirectory(prefix="deepliif-ray-") as folder:
                local = Path(folder) / "cells.parquet"
                count = _copied(storage.read_bytes(self._plan.url(path)), local, self._target)
                if count != left:
                    raise ResultsError(f"{self._plan.url(path)}: changed meanwhile; run this again")
                with local.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = local.stat().st_size
                storage.write_file(self._plan.url(new), local)
            self._places[path] = {"cells_path": new, "cells_bytes": size, "cells_digest": digest}

        return write

    def _replace_records(self, kept: pa.Table, stays: pa.ChunkedArray, moving: Iterable[str]) -> None:
        """Plan that one object takes the place of all that hold a row which goes or changes."""
        records, moving = self._found.records["slides"], set(moving)
        sources = self._sources
        staying = stays.to_pylist()
        before = records.table.filter(stays).select(["cells_path", "warnings"]).to_pylist()
        after = kept.select(["cells_path", "warnings"]).to_pylist()
        source_of = [source for source, stays_ in zip(sources, staying, strict=True) if stays_]
        lost: dict[str, int] = {source: 0 for source in sources if self._target.names(last_part(source))}
        for source, stays_ in zip(sources, staying, strict=True):
            if not stays_:
                lost[source] = lost.get(source, 0) + 1
        for source, old, new in zip(source_of, before, after, strict=True):
            if old != new or new["cells_path"] in moving:
                lost.setdefault(source, 0)
        rest = kept.filter(pa.array([source in lost for source in source_of], pa.bool_()))
        filled = set(source_of)
        for source, rows in lost.items():
            self._plan.changes.append(Change("slides", source, rows, is_rewritten=source in filled))
        if lost:
            self._plan.steps.append(lambda: self._write_records(rest, list(lost)))

    def _write_records(self, rest: pa.Table, sources: list[str]) -> None:
        places = [self._places.get(path) for path in rest.column("cells_path").to_pylist()]
        for name in ("cells_path", "cells_bytes", "cells_digest"):
            old = rest.column(name).to_pylist()
            values = [v if place is None else place[name] for v, place in zip(old, places, strict=True)]
            position = rest.schema.get_field_index(name)
            column = rest.schema.field(position)
            rest = rest.set_column(position, column, pa.array(values, column.type))
        url = self._plan.url(f"slides/joined-{self._call}.parquet")
        if rest.num_rows and not create_table(url, "slides", rest):
            raise ResultsError(f"{url}: this stood still for so long that others tidied up; run it again")
        _remove_all(self._plan, sources)

    def _removing(self, path: str, *, is_named: bool) -> Callable[[], None]:
        """Return what removes cells.

        Those that no record names may be of an `optimize` that is about to: it is barred from that first.
        """

        def remove() -> None:
            is_settled = is_named or joined_rows(path) is None or record_path(path) in self._sources
            if is_settled or bar(self._plan.results, path):
                storage.remove(self._plan.url(path))

        return remove


def _remove_all(plan: Plan, paths: Iterable[str]) -> None:
    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        list(pool.map(storage.remove, map(plan.url, paths)))


def _copied(content: bytes, local: Path, target: Target) -> int:
    """Write cells to a local file without the rows of the target; return how many."""
    file, count = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False), 0
    with pq.ParquetWriter(local, file.schema_arrow, **cells_layout(file.schema_arrow)) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            table = table.filter(pc.invert(target.mask(table)))
            count += table.num_rows
            if table.num_rows:
                writer.write_table(table, row_group_size=table.num_rows)
    return count


def _contradiction(kept: pa.Table, path: str, holders: Holders, target: Target) -> str | None:
    """Say if cells that a staying record counts are of the target: both differ about the patient."""
    for row in kept.filter(pc.equal(kept.column("cells_path"), path)).to_pylist():
        for slide, patient in holders:
            if slide == row["slide_id"] and target.holds(slide, patient):
                return (
                    f"its cells of slide {slide!r} name patient {patient!r}, the slide's record "
                    f"{row['patient_id']!r}; score that slide again, then run this again"
                )
    return None


def _without_notes(kept: pa.Table, target: Target) -> pa.Table:
    """Return records without the warnings that name one of the target: notes of names that look alike."""
    notes = [
        [note for note in warnings if not target.is_quoted_in(note)]
        for warnings in kept.column("warnings").to_pylist()
    ]
    position = kept.schema.get_field_index("warnings")
    column = kept.schema.field(position)
    return kept.set_column(position, column, pa.array(notes, column.type))


def _plan_failures(plan: Plan, found: Survey, target: Target) -> None:
    records = found.records["failures"]
    stays = pc.invert(target.mask(records.table))
    sources = _paths(found.results, "failures", records.sources)
    lost: dict[str, int] = {source: 0 for source in sources if target.names(last_part(source))}
    for source, stays_ in zip(sources, stays.to_pylist(), strict=True):
        if not stays_:
            lost[source] = lost.get(source, 0) + 1
    left = [stays_ and source in lost for source, stays_ in zip(sources, stays.to_pylist(), strict=True)]
    rest = records.table.filter(pa.array(left, pa.bool_()))
    filled = {source for source, is_left in zip(sources, left, strict=True) if is_left}
    for source, rows in lost.items():
        plan.changes.append(Change("failures", source, rows, is_rewritten=source in filled))

    def replace() -> None:
        if rest.num_rows:
            write_table(plan.url(f"failures/joined-{uuid.uuid4().hex[:16]}.parquet"), "failures", rest)
        _remove_all(plan, lost)

    if lost:
        plan.steps.append(replace)
    _tell_of_texts(plan, records, records.table.filter(stays), "failures", target, stays)


def _tell_of_texts(
    plan: Plan,
    records: Records,
    kept: pa.Table,
    name: str,
    target: Target,
    stays: pa.ChunkedArray | None = None,
) -> None:
    """Name the records that stay and say something of the target in a text, as a folder called like it."""
    columns = naming_columns(target, kept.select([name for name in kept.column_names if name in _TEXTS]))
    if not columns:
        return
    marks = [True] * len(records.sources) if stays is None else stays.to_pylist()
    sources = _paths(
        plan.results, name, (s for s, stays_ in zip(records.sources, marks, strict=True) if stays_)
    )
    for number, source in enumerate(sources):
        row = kept.slice(number, 1)
        said = naming_columns(target, row.select(columns))
        if said:
            slide = row.column("slide_id")[0].as_py() if "slide_id" in kept.column_names else None
            whose = "of a run" if slide is None else f"of slide {slide!r}"
            plan.leave(source, f"{', '.join(said)} {whose} names them; {BY_HAND}", slide)
