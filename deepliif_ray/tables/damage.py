"""What of the results is damaged: found by one listing, without opening what is sound."""

import pyarrow as pa
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import StorageMissingError
from deepliif_ray.tables.ledger import Ledger
from deepliif_ray.tables.records import Damage
from deepliif_ray.tables.retire import stored_cells

_TAIL = 2**16


def sound_ledger(results: str, *, must_exist: bool = True) -> tuple[Ledger, list[Damage]]:
    """Return the committed state and all that is damaged in it, records and cells.

    Cells that are gone may have been joined since their records were read: then the newer records tell.

    Raises
    ------
    ResultsError, StorageError
        See `Ledger`.
    """
    before: list[Damage] | None = None
    while True:
        ledger = Ledger(results, must_exist=must_exist)
        lost = lost_cells(results, ledger.slides())
        if not lost or lost == before:
            return ledger, [*ledger.damaged(), *lost]
        before = lost


def lost_cells(results: str, slides: pa.Table) -> list[Damage]:
    """Return slides whose cells are gone, or are not of the size in their record; ordered as ``slides``.

    Parameters
    ----------
    results : str
        URL of the results.
    slides : pyarrow.Table
        Commit records.
    """
    names = ("slide_id", "cells_path", "cells_bytes")
    rows = list(zip(*(slides.column(name).to_pylist() for name in names), strict=True))
    there = {path: size for path, (size, _) in stored_cells(results).items()} if rows else {}
    lost, checked = [], {}
    for slide, path, expected in rows:
        if path is None:
            continue
        size = there.get(path)
        if size is None:  # a listing may lag behind: the object itself knows
            if path not in checked:
                checked[path] = _size(storage.join(results, path))
            size = checked[path]
        problem = _wrong_size(size, expected)
        if problem is not None:
            lost.append(Damage(path, "cells", slide, f"{problem}; score the slide again"))
    return lost


def _size(url: str) -> int | None:
    try:
        return storage.size(url)
    except StorageMissingError:
        return None


def _wrong_size(size: int | None, expected: int | None) -> str | None:
    if size is None:
        return "the cells are gone"
    if size == 0:
        return "the cells are an empty file"
    if expected not in (None, size):
        return f"the cells are damaged: {size} bytes, {expected} were written"
    return None


def footer_problem(url: str) -> str | None:
    """Return what is wrong with the footer of a Parquet object; None if it can be read.

    Raises
    ------
    StorageError
        The store does not answer.
    """
    size = _size(url)
    if size is None:
        return "the cells are gone"
    try:
        tail = storage.read_range(url, max(0, size - _TAIL), size)
        footer = int.from_bytes(tail[-8:-4], "little") + 8
        if len(tail) < footer <= size:
            tail = storage.read_range(url, size - footer, size)
        pq.read_metadata(pa.BufferReader(tail))
    except (pa.ArrowException, ValueError, OSError) as error:
        return f"the cells are damaged ({' '.join(str(error).split())})"
    return None
