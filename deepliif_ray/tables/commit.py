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
from deepliif_ray.tables.ledger import slide_key
from deepliif_ray.tables.schema import table_schema

_WRITE = {"compression": "zstd", "write_statistics": True}


def cells_path(slide_id: str, marker: str, attempt: str) -> str:
    """Return where an attempt's cells go, relative to the results."""
    return f"cells/marker={marker}/{slide_key(slide_id)}-{attempt}.parquet"


def write_cells(results: str, path: str, tables: Iterable[pa.Table]) -> dict[str, Any]:
    """Write the cells of one slide, one row group a table, in pieces of bounded memory.

    Parameters
    ----------
    results : str
        URL of the results.
    path : str
        See `cells_path`.
    tables : iterable of pyarrow.Table
        With the columns of the ``cells`` schema.

    Returns
    -------
    dict
        The columns of a commit record that say where its cells are.
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
    return {"cells_path": path}


def write_table(url: str, name: str, table: pa.Table) -> None:
    """Write rows of table ``name`` as one object."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_WRITE)
    storage.write_bytes(url, sink.getvalue().to_pybytes())


def _write_record(url: str, name: str, record: dict[str, Any]) -> None:
    write_table(url, name, pa.Table.from_pylist([record], schema=table_schema(name)))


def commit_slide(results: str, record: dict[str, Any], again: str = "") -> None:
    """Make a slide part of the results; its cells must be written already.

    ``again`` tells records of one attempt apart: a later one replaces none, it counts by its time.
    """
    name = f"{slide_key(record['slide_id'])}-{record['attempt']}{again and f'-{again}'}.parquet"
    _write_record(storage.join(results, "slides", name), "slides", record)


def write_failure(results: str, record: dict[str, Any]) -> None:
    """Record that an attempt at a slide failed."""
    name = f"{slide_key(record['slide_id'])}-{record['attempt']}.parquet"
    _write_record(storage.join(results, "failures", name), "failures", record)


def write_run(results: str, record: dict[str, Any]) -> None:
    """Record a run; written once at its start and again at its end."""
    _write_record(storage.join(results, "runs", f"{record['run_id']}.parquet"), "runs", record)
