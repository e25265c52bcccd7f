"""Results follow the manifest without inference: changed metadata, slides that it lists no more."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from deepliif_ray import storage
from deepliif_ray.engine.run.lease import fence
from deepliif_ray.engine.run.todo import Refresh
from deepliif_ray.engine.work import MANIFEST_NOTE, RunContext
from deepliif_ray.errors import ResultsError
from deepliif_ray.manifest import SlideEntry, read_registry
from deepliif_ray.scoring.markers import Registry, registry_with
from deepliif_ray.tables.cohort import read_markers
from deepliif_ray.tables.commit import cells_path, commit_slide, write_cells, write_failure
from deepliif_ray.tables.ledger import RETIRED, Ledger
from deepliif_ray.tables.relabel import relabelled

Row = dict[str, Any]


def refresh(context: RunContext, items: list[Refresh]) -> list[SlideEntry]:
    """Commit scored slides as the manifest describes them now; return those that must be scored after all.

    The record keeps its attempt, and with it its cells, unless patient or marker changed: these stand in the
    cells, which are then written anew.

    Raises
    ------
    LeaseLostError
        Another run took the results over.
    StorageError
        The results cannot be written.
    """

    def one(item: Refresh) -> SlideEntry | None:
        entry, row = item.entry, item.row
        record = row | {
            "patient_id": entry.patient_id,
            "marker": entry.marker,
            "uri": entry.uri,
            "attributes": list(entry.attributes.items()),
            "warnings": _warnings(entry, row),
            "slide_version": item.version,
            "retired": None,
        }
        try:
            if (row["patient_id"], row["marker"]) != (entry.patient_id, entry.marker) and row["cells_path"]:
                record |= _written_anew(context, entry, row)
            _commit(context, record)
        except ResultsError:  # its cells are gone or damaged
            return entry
        return None

    if not items:
        return []
    fence(context.results, context.epoch, context.run_id)
    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        return [entry for entry in pool.map(one, items) if entry is not None]


def _warnings(entry: SlideEntry, row: Row) -> list[str]:
    others = [note for note in row["warnings"] if not note.startswith(MANIFEST_NOTE)]
    return [*(f"{MANIFEST_NOTE}{note}" for note in entry.warnings), *others]


def _written_anew(context: RunContext, entry: SlideEntry, row: Row) -> Row:
    attempt = uuid.uuid4().hex[:16]
    path = cells_path(entry.slide_id, entry.marker, attempt)
    tables = relabelled(context.results, row, patient_id=entry.patient_id, attempt=attempt)
    return {"attempt": attempt, **write_cells(context.results, path, tables)}


def _commit(context: RunContext, record: Row) -> None:
    now = {"committed_at": datetime.now(UTC), "epoch": context.epoch}
    commit_slide(context.results, record | now, again=uuid.uuid4().hex[:8])


def prune_slides(context: RunContext, entries: list[SlideEntry]) -> list[str]:
    """Retire what the manifest lists no more, scored or failed; return the slides.

    Retired slides are in no view and no index. Their records stay, marked as such, so that a manifest that
    lists them again brings them back; ``optimize --drop-superseded`` forgets their cells.

    Raises
    ------
    LeaseLostError
        Another run took the results over.
    StorageError
        The results cannot be written.
    """
    listed = {entry.slide_id for entry in entries}
    ledger = Ledger(context.results, must_exist=False)
    slides = [row for row in ledger.slides().to_pylist() if row["slide_id"] not in listed]
    failures = [row for row in ledger.failures().to_pylist() if row["slide_id"] not in listed]
    if not slides and not failures:
        return []
    fence(context.results, context.epoch, context.run_id)
    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        list(pool.map(lambda row: _retire(context, row), slides))
        list(pool.map(lambda row: _retire_failure(context, row), failures))
    return sorted({row["slide_id"] for row in (*slides, *failures)})


def _retire(context: RunContext, row: Row) -> None:
    try:
        _commit(context, row | {"retired": True})
    except ResultsError:  # its cells are gone, which is all the same now
        _commit(context, row | {"retired": True, "cells_path": None})


def _retire_failure(context: RunContext, row: Row) -> None:
    now = datetime.now(UTC)
    told: Row = {
        "reason": RETIRED,
        "message": "not in the manifest any more; retired",
        "run_id": context.run_id,
    }
    told |= {"attempt": uuid.uuid4().hex[:16], "failed_at": now, "epoch": context.epoch}
    write_failure(context.results, row | told)


def markers_of(results: str, own: str | None = None) -> Registry:
    """Return the markers that have a name: the usual, and those of the file ``own`` or kept with the results.

    Raises
    ------
    ConfigError
        The file cannot be used.
    ResultsError, StorageError
        What is kept cannot be read.
    """
    if own is not None:
        return read_registry(own)
    return registry_with(read_markers(results), results)
