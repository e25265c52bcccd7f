"""Writes results. A slide exists in them from the moment its ``slides`` record does.

Every attempt writes to names of its own, and each record is one object written in one piece, last.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError
from deepliif_ray.tables.ledger import read_if_there, record_path, slide_key
from deepliif_ray.tables.schema import table_schema

_WRITE = {"compression": "zstd", "write_statistics": True}


def cells_path(slide_id: str, marker: str, attempt: str) -> str:
    """Return where an attempt's cells go, relative to the results."""
    return f"cells/marker={marker}/{slide_key(slide_id)}-{attempt}.parquet"


def write_cells(results: str, path: str, tables: Iterable[pa.Table]) -> None:
    """Write the cells of one slide, one row group a table, in pieces of bounded memory.

    Parameters
    ----------
    results : str
        URL of the results.
    path : str
        See `cells_path`.
    tables : iterable of pyarrow.Table
        With the columns of the ``cells`` schema.
    """
    schema = table_schema("cells")
    with tempfile.TemporaryDirectory(prefix="deepliif-ray-") as folder:
        local = Path(folder) / "cells.parquet"
        with pq.ParquetWriter(local, schema, **_WRITE) as writer:
            for table in tables:
                writer.write_table(
                    table.select(schema.names).cast(schema), row_group_size=max(table.num_rows, 1)
                )
        storage.write_file(storage.join(results, path), local)


def write_table(url: str, name: str, table: pa.Table) -> None:
    """Write rows of table ``name`` as one object."""
    storage.write_bytes(url, _encoded(table))


def create_table(url: str, name: str, table: pa.Table) -> bool:
    """Write rows of table ``name`` as an object that nobody has written yet; tell whether that was so.

    An object without a row bars its name for good: see `bar`.
    """
    if storage.create_bytes(url, _encoded(table)):
        return True
    content = read_if_there(url)  # without one it was written, though no answer came, and joined since
    return content is None or (table.num_rows > 0 and pq.read_table(pa.BufferReader(content)).equals(table))


def bar(results: str, cells: str) -> bool:
    """See to it that no record will name ``cells`` for the first time; tell whether none has.

    The attempt that wrote them may have stood still for days before its commit. Both sides create the same
    object, which only one of them can.
    """
    url = storage.join(results, record_path(cells))
    if storage.create_bytes(url, _encoded(table_schema("slides").empty_table())):
        return True
    content = read_if_there(url)
    return content is not None and pq.read_metadata(pa.BufferReader(content)).num_rows == 0


def _encoded(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_WRITE)
    return bytes(sink.getvalue().to_pybytes())


def _write_record(url: str, name: str, record: dict[str, Any]) -> None:
    write_table(url, name, pa.Table.from_pylist([record], schema=table_schema(name)))


def commit_slide(results: str, record: dict[str, Any]) -> None:
    """Make a slide part of the results; its cells must be written already.

    Raises
    ------
    ResultsError
        This comes so late that `optimize` removed the cells.
    StorageError
        The store does not answer.
    """
    name = f"{slide_key(record['slide_id'])}-{record['attempt']}.parquet"
    table = pa.Table.from_pylist([record], schema=table_schema("slides"))
    if not create_table(storage.join(results, "slides", name), "slides", table):
        raise ResultsError(
            f"{results}: the cells of slide {record['slide_id']!r} were removed before its commit, which "
            "came a day later; run again"
        )


def write_failure(results: str, record: dict[str, Any]) -> None:
    """Record that an attempt at a slide failed."""
    name = f"{slide_key(record['slide_id'])}-{record['attempt']}.parquet"
    _write_record(storage.join(results, "failures", name), "failures", record)


def write_run(results: str, record: dict[str, Any]) -> None:
    """Record a run; written once at its start and again at its end."""
    _write_record(storage.join(results, "runs", f"{record['run_id']}.parquet"), "runs", record)
