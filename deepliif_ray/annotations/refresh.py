"""Annotations of slides that were scored again, measured anew and kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deepliif_ray import storage
from deepliif_ray.annotations import objects
from deepliif_ray.annotations.current import matched_anew, newest_imports, refuse_resized, whole_cells
from deepliif_ray.annotations.measure import with_areas, with_cells
from deepliif_ray.annotations.objects import CORRECTIONS, REGION_CELLS, REGIONS, Held, with_column
from deepliif_ray.annotations.regions import write_measured
from deepliif_ray.errors import AnnotationError, ResultsError
from deepliif_ray.tables.ledger import Ledger
from deepliif_ray.tables.records import Damage

ORPHAN_AGE = timedelta(hours=1)
"""Objects of region_cells older than this without regions are of imports that were killed."""


@dataclass
class Refreshed:
    """What was measured anew.

    Attributes
    ----------
    regions, corrections : list of str
        Slides.
    left : list of Damage
        What cannot be used, or could not be measured.
    removed : int
        Objects that nothing needs any more, as of imports that were killed.
    """

    regions: list[str] = field(default_factory=list)
    corrections: list[str] = field(default_factory=list)
    left: list[Damage] = field(default_factory=list)
    removed: int = 0


def refresh(results: str, *, read_slides: bool = True) -> Refreshed:
    """Measure the annotations of slides that were scored again anew, and keep that.

    New objects are written first, then those that they replace go. Imports keep their names and their order,
    so what counts stays the same. It may be killed at any time.

    Parameters
    ----------
    results : str
        URL of the results.
    read_slides : bool
        Whether to read slides whose tissue is not known, or whose file or pixel size changed.

    Raises
    ------
    ResultsError
        There are no results, or newer software wrote them.
    StorageError
        A store does not answer.
    """
    results = storage.absolute(results)
    rows = {row["slide_id"]: row for row in Ledger(results).slides().to_pylist()}
    report = Refreshed()
    imports = objects.read(results, REGIONS, report.left)
    counting = newest_imports(imports, rows)
    whole = whole_cells(results, imports, [])  # what is not whole is mended here
    for held in imports:
        mine = {slide_id: rows[slide_id] for slide_id, its in counting.items() if its == held.import_id}
        _refresh_regions(results, held, mine, whole[held.import_id], read_slides, report)
    for held in objects.read(results, CORRECTIONS, report.left):
        anew: list[str] = []
        table = matched_anew(results, rows, held.table, report.left, anew)
        if not table.equals(held.table):
            report.corrections += anew
            _replace(results, CORRECTIONS, held, _writer(results, table))
    report.removed = _tidy(results)
    return report


def _refresh_regions(
    results: str,
    held: Held,
    rows: Mapping[str, dict[str, Any]],
    whole: bool | None,
    read_slides: bool,
    report: Refreshed,
) -> None:
    """Measure what is stale of an import; ``rows`` are the records of the slides for which it counts."""
    tables = []
    anew: set[str] = set()
    for slide_id in sorted(pc.unique(held.table.column("slide_id")).to_pylist()):
        table = held.table.filter(pc.equal(held.table.column("slide_id"), slide_id))
        row = rows.get(slide_id)
        problem = None if row is None else refuse_resized(row, table)
        if row is not None and problem is None:
            renewed = _with_new_areas(row, table, read_slides)
            if (
                whole is False
                or not renewed.equals(table)
                or table.column("attempt")[0].as_py() != row["attempt"]
            ):
                anew.add(slide_id)
                table = renewed
        elif problem is not None:
            report.left.append(Damage(objects.path_of(REGIONS, held.name), REGIONS, slide_id, problem))
        tables.append((slide_id, table))
    if not anew:
        return

    def measured() -> Any:
        for slide_id, table in tables:
            if slide_id in anew:
                yield _measured(results, rows[slide_id], table, held, report)
            elif whole:
                yield table, objects.read_region_cells(results, held.name, [slide_id])
            elif whole is None:  # none of its slides has a cell in a region
                yield table, _no_cells()
            else:  # it counts for nothing now; were it to, it would be measured
                yield with_column(table, "attempt", None), _no_cells()

    _replace(results, REGIONS, held, lambda name: write_measured(results, name, measured()))
    report.regions += sorted(anew - {damage.slide_id for damage in report.left})


def _with_new_areas(row: dict[str, Any], regions: pa.Table, read_slides: bool) -> pa.Table:
    regions = with_column(regions, "patient_id", row["patient_id"])
    said = ("mpp", "slide_fingerprint")
    is_other = any(regions.column(name)[0].as_py() != row[name] for name in said)
    reason = regions.column("tissue_reason")[0].as_py()
    if not is_other and (reason is None or not read_slides):
        return regions
    renewed = with_areas(row, regions, read_slide=read_slides)
    found = renewed.column("tissue_reason")[0].as_py() is None
    return renewed if is_other or found else regions


def _measured(
    results: str, row: dict[str, Any], regions: pa.Table, held: Held, report: Refreshed
) -> tuple[pa.Table, pa.Table]:
    try:
        return with_cells(results, row, regions)
    except (AnnotationError, ResultsError) as error:
        path = objects.path_of(REGIONS, held.name)
        report.left.append(Damage(path, REGIONS, row["slide_id"], f"not measured: {error}"))
    for name in ("n_cells", "class_n_cells", "attempt"):
        regions = with_column(regions, name, None)
    return regions, _no_cells()


def _no_cells() -> pa.Table:
    return objects.empty(REGION_CELLS)


def _writer(results: str, table: pa.Table) -> Callable[[str], None]:
    return lambda name: objects.write(results, CORRECTIONS, name, table)


def _replace(results: str, kind: str, held: Held, write: Callable[[str], None]) -> None:
    """Write an object under a new name and remove the one that it replaces."""
    name = objects.new_name()
    write(name)
    if not storage.exists(storage.join(results, objects.path_of(kind, held.name))):
        objects.remove(results, kind, [name])  # somebody dropped the import meanwhile
        return
    objects.remove(results, kind, [held.name])


def _tidy(results: str) -> int:
    """Remove objects that were replaced, and cells of regions that never came; return how many."""
    removed = 0
    for kind in (REGIONS, CORRECTIONS):
        newest: dict[str, str] = {}
        for held in objects.read_all(results, kind, []):
            if held.import_id in newest:
                objects.remove(results, kind, [newest[held.import_id]])
                removed += 1
            newest[held.import_id] = held.name
    cells = objects.names(results, REGION_CELLS)
    regions = objects.names(results, REGIONS)
    now = datetime.now(UTC)
    for name, stored in cells.items():
        if name not in regions and now - stored.written > ORPHAN_AGE:
            storage.remove(storage.join(results, objects.path_of(REGION_CELLS, name)))
            removed += 1
    return removed
