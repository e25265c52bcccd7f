"""Looks at every object of results: is it there, whole, what its record says, and does anything need it."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import StorageMissingError
from deepliif_ray.tables.ledger import Ledger, joined_rows
from deepliif_ray.tables.records import (
    ANNOTATION_TABLES,
    RECORD_TABLES,
    Damage,
    parse_record,
    read_if_there,
    read_records,
)
from deepliif_ray.tables.retire import ORPHAN_AGE, read_notes, stored_cells
from deepliif_ray.tables.rows import carries_row, rows_table, unpack_row
from deepliif_ray.tables.schema import TABLE_KEY

DAMAGED_FOLDER = "_damaged"
FORGET_FOLDER = "_forget"
_THEN = {
    "runs": "",
    "regions": "import their file again",
    "corrections": "import their file again",
    "region_cells": "`regions refresh` measures them anew",
}
"""What brings back what was moved away, where scoring does not."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes
    ----------
    object : str
        Path, relative to the results.
    kind : str
        ``slides``, ``failures``, ``runs``, ``cells``, ``regions``, ``region_cells``, ``corrections``,
        ``note``, ``staging``, ``forget`` or ``temporary``.
    slide_id : str or None
        The slide that it belongs to, where it is one that is known.
    problem : str
    is_wrong : bool
        Whether answers lack something by it; else it only takes room.
    mended : str or None
        What was done about it.
    """

    object: str
    kind: str
    slide_id: str | None
    problem: str
    is_wrong: bool = True
    mended: str | None = None


@dataclass
class CheckReport:
    """What was looked at, as numbers of objects by kind, and what was found."""

    checked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.is_wrong for finding in self.findings)


def verify(
    results: str, *, repair: bool = False, watch: Callable[[CheckReport], None] | None = None
) -> CheckReport:
    """Read every object of results and compare it with what is known of it.

    Parameters
    ----------
    results : str
        URL of the results.
    repair : bool
        Move what is damaged to ``_damaged/``, so that scoring the manifest again measures it anew. No run may
        be at work.
    watch : callable, optional
        Called with the report so far after every object.

    Raises
    ------
    ResultsError
        There are no results here, or newer software wrote them.
    StorageError
        The store does not answer.
    """
    report = CheckReport()
    Ledger(results)
    for found in _all(results, report):
        report.findings.append(_mend(results, found) if repair else found)
        if watch is not None:
            watch(report)
    return report


def _all(results: str, report: CheckReport) -> Iterator[Finding]:
    for name in RECORD_TABLES:
        yield from _check_records(results, name, report)
    yield from _check_cells(results, report)
    yield from _check_annotations(results, report)
    damaged: list[Damage] = []
    report.checked["note"] = len(read_notes(results, damaged)) + len(damaged)
    for damage in damaged:
        yield Finding(damage.object, "note", None, damage.problem, is_wrong=False)
    yield from _left_over(results, report)


def _check_records(results: str, name: str, report: CheckReport) -> Iterator[Finding]:
    folder = storage.join(results, name)
    for url in storage.list_files(folder, ".parquet"):
        content = read_if_there(url)
        if content is None:  # joined meanwhile
            continue
        report.checked[name] += 1
        table = parse_record(url, content, name)
        row = unpack_row(name, content)
        if isinstance(table, str):
            problem = table
        elif row is None and carries_row(content):
            problem = "damaged record (its row in the footer has another checksum)"
        elif row is not None and not rows_table(name, [row]).equals(table):
            problem = "damaged record (its columns and its row in the footer differ)"
        else:
            continue
        yield Finding(f"{name}/{url[len(folder) :].lstrip('/')}", name, None, problem)


def _check_cells(results: str, report: CheckReport) -> Iterator[Finding]:
    damaged: list[Damage] = []
    records = read_records(results, "slides", damaged).table
    newest = {(r["slide_id"], r["cells_path"]) for r in Ledger(results).slides().to_pylist()}
    named: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in records.to_pylist():
        if row["cells_path"]:
            named[row["cells_path"]].append(row)
    for path, rows in sorted(named.items()):
        report.checked["cells"] += 1
        counting = [row for row in rows if (row["slide_id"], path) in newest]
        problem = _cells_problem(storage.join(results, path), path, rows)
        if problem is None:
            continue
        slide = counting[0]["slide_id"] if len(counting) == 1 else None
        if len(counting) > 1:
            problem += f"; it holds {len(counting)} slides"
        elif not counting:
            problem += "; only superseded generations of slides need it"
        yield Finding(path, "cells", slide, problem, is_wrong=bool(counting))
    noted = {path for _, paths in read_notes(results, damaged).values() for path in paths}
    now = datetime.now(UTC)
    for path, (_, at) in sorted(stored_cells(results).items()):
        if path not in named and path not in noted and now - at > ORPHAN_AGE:
            yield Finding(
                path, "cells", None, "no record names it; `optimize` removes it in time", is_wrong=False
            )


def _cells_problem(url: str, path: str, rows: list[dict[str, Any]]) -> str | None:
    """Return what is wrong with a cells object that ``rows`` name; None if it is sound."""
    try:
        content = storage.read_bytes(url)
    except StorageMissingError:
        return "the cells are gone"
    sizes = {row["cells_bytes"] for row in rows} - {None, len(content)}
    if sizes:
        return f"the cells are damaged: {len(content)} bytes, {sizes.pop()} were written"
    if {row["cells_digest"] for row in rows} - {None, hashlib.sha256(content).hexdigest()}:
        return "the cells are damaged: another checksum than when they were written"
    try:
        file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
        if (file.schema_arrow.metadata or {}).get(TABLE_KEY) != b"cells":
            return "this is no object of cells"
        counts: dict[str, int] = defaultdict(int)
        for batch in file.iter_batches():  # all columns: where there is no checksum, this is what tells
            for item in batch.column("slide_id").value_counts().to_pylist():
                counts[item["values"]] += item["counts"]
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        return f"the cells are damaged ({' '.join(str(error).split())})"
    for row in rows:
        found = counts[row["slide_id"]]
        if found != row["n_cells"]:
            return f"{found} cells of slide {row['slide_id']!r}, its record says {row['n_cells']}"
    total, expected = sum(counts.values()), joined_rows(path)
    if expected is not None and total != expected:
        return f"{total} cells, its name says {expected}"
    return None


def _check_annotations(results: str, report: CheckReport) -> Iterator[Finding]:
    """Read the objects of regions and corrections; regions say how many rows their region_cells have."""
    expected: dict[str, int] = {}
    for kind in ANNOTATION_TABLES:
        folder = storage.join(results, kind)
        for url in storage.list_files(folder, ".parquet"):
            name = url[len(folder) :].lstrip("/")
            content = read_if_there(url)
            if content is None:  # dropped, or measured anew meanwhile
                continue
            report.checked[kind] += 1
            table = parse_record(url, content, kind, "import the file again")
            if isinstance(table, str):
                problem = table
                if kind == "regions":
                    expected[name] = -1  # its cells are not left over
            elif kind == "regions":
                expected[name] = pc.sum(table.column("n_cells"), min_count=0).as_py()
                continue
            elif kind == "region_cells" and name not in expected:
                problem = "no regions belong to it: its import was stopped; `regions refresh` removes it"
                yield Finding(f"{kind}/{name}", kind, None, problem, is_wrong=False)
                continue
            elif kind == "region_cells" and table.num_rows != expected[name] >= 0:
                problem = f"{table.num_rows} rows, its regions have {expected[name]} cells; `regions refresh`"
            else:
                continue
            yield Finding(f"{kind}/{name}", kind, None, problem)
    for name in (name for name, rows in expected.items() if rows):
        if not storage.exists(storage.join(results, "region_cells", name)):
            problem = "it is gone, but there are its regions; `regions refresh` measures them anew"
            yield Finding(f"region_cells/{name}", "region_cells", None, problem)


def _left_over(results: str, report: CheckReport) -> Iterator[Finding]:
    """Find staged work, which the next run goes on from, and what was begun and never finished."""
    folder = storage.join(results, "_staging")
    staged: dict[str, int] = defaultdict(int)
    for url in storage.list_files(folder):
        staged[url[len(folder) :].lstrip("/").split("/")[0]] += 1
    report.checked["staging"] = sum(staged.values())
    for name, count in sorted(staged.items()):
        problem = f"{count} objects of unfinished work, from which the next run of `score` goes on"
        yield Finding(f"_staging/{name}", "staging", None, problem, is_wrong=False)
    folder = storage.join(results, FORGET_FOLDER)
    for url in storage.list_files(folder):
        name = f"{FORGET_FOLDER}/{url[len(folder) :].lstrip('/')}"
        problem = "a `forget` that was not finished; run it again, for whomever, and it is"
        yield Finding(name, "forget", None, problem, is_wrong=False)
    if storage.is_local(results):
        root = Path(storage.local_path(results))
        then = (datetime.now(UTC) - ORPHAN_AGE).timestamp()
        for path in sorted(root.rglob(".*.tmp")):
            if path.is_file() and path.stat().st_mtime < then:
                name = path.relative_to(root).as_posix()
                yield Finding(name, "temporary", None, "a file that was never finished", is_wrong=False)


def _mend(results: str, found: Finding) -> Finding:
    """Do what can be done about a finding."""
    url = storage.join(results, found.object)
    if found.kind in ("note", "temporary"):
        storage.remove(url)
        return replace(found, mended="removed")
    if not found.is_wrong:
        return found
    content = read_if_there(url)
    then = _THEN.get(found.kind, "scoring the manifest again measures its slides anew")
    if content is None:
        return replace(found, mended=then)
    storage.write_bytes(storage.join(results, DAMAGED_FOLDER, found.object), content)
    storage.remove(url)
    return replace(found, mended=f"moved to {DAMAGED_FOLDER}/{then and '; ' + then}")
