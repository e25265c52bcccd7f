"""What annotations results hold, as tables for people."""

from typing import Any

import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.annotations import objects
from deepliif_ray.annotations.current import Attached, attach, newest_imports
from deepliif_ray.tables.ledger import Ledger
from deepliif_ray.tables.records import Damage

CURRENT, STALE, REPLACED, NO_SLIDE = "current", "stale", "replaced", "no slide"
_REGIONS = pa.schema(
    [
        ("slide_id", pa.string()),
        ("class", pa.string()),
        ("regions", pa.int64()),
        ("cells", pa.int64()),
        ("area_mm2", pa.float64()),
        ("tissue_mm2", pa.float64()),
        ("state", pa.string()),
        ("author", pa.string()),
        ("imported_at", pa.timestamp("us", tz="UTC")),
        ("source", pa.string()),
        ("import_id", pa.string()),
    ]
)


def list_regions(results: str, *, history: bool = False) -> tuple[pa.Table, list[Damage]]:
    """Return a row for each slide, class and import of regions, and what is damaged.

    ``state`` is ``current``; ``stale``, of a slide that was scored again (it is measured anew when somebody
    asks, and for good by `refresh`); ``replaced`` by a newer import; or ``no slide``, where results do not
    hold it any more. ``cells``, ``area_mm2`` and ``tissue_mm2`` are of all regions of the class together,
    less those that exclude, as they were last measured.

    Parameters
    ----------
    results : str
        URL of the results.
    history : bool
        Also those that do not count: replaced, or without a slide.

    Raises
    ------
    ResultsError, StorageError
        See `attach`.
    """
    results = storage.absolute(results)
    attempts = dict(
        zip(
            *(Ledger(results).slides().column(name).to_pylist() for name in ("slide_id", "attempt")),
            strict=True,
        )
    )
    damaged: list[Damage] = []
    imports = objects.read(results, objects.REGIONS, damaged)
    counting = newest_imports(imports, attempts)
    listed: dict[tuple[str, str, str], dict[str, Any]] = {}
    for held in imports:
        for region in held.table.drop_columns(["geometry"]).to_pylist():
            slide_id = region["slide_id"]
            if slide_id not in attempts:
                state = NO_SLIDE
            elif counting[slide_id] != held.import_id:
                state = REPLACED
            else:
                state = CURRENT if attempts[slide_id] == region["attempt"] else STALE
            if state in (CURRENT, STALE) or history:
                key = slide_id, region["class"].lower(), held.import_id
                row = listed.setdefault(key, region | {"regions": 0, "state": state})
                row["regions"] += 1
                row["cells"], row["area_mm2"] = region["class_n_cells"], region["class_area_mm2"]
                row["tissue_mm2"] = region["class_tissue_mm2"]
    rows = [listed[key] for key in sorted(listed)]
    return pa.Table.from_pylist(rows, _REGIONS), damaged


def list_corrections(results: str) -> tuple[pa.Table, list[Damage]]:
    """Return all corrections with the cells that they match now, ordered by time, and what is damaged.

    Raises
    ------
    ResultsError, StorageError
        See `attach`.
    """
    results = storage.absolute(results)
    found: Attached = attach(results, Ledger(results).slides())
    names = ("slide_id", "x", "y", "call", "cell_id", "distance_um", "is_current", "author", "note")
    return found.corrections.select([*names, "imported_at", "source", "import_id"]), found.damaged
