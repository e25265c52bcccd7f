"""Writes results. A slide exists in them from the moment its ``slides`` record does.

Every attempt writes to names of its own, and each record is one object written in one piece, last.
"""

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError, StorageMissingError
from deepliif_ray.tables.ledger import record_path, slide_key
from deepliif_ray.tables.records import parse_record, read_if_there
from deepliif_ray.tables.rows import ROW_KEY, pack_row
from deepliif_ray.tables.schema import schema_version, table_schema

_WRITE: dict[str, Any] = {"compression": "zstd"}
_WRITE_ONE: dict[str, Any] = {"compression": "none", "write_statistics": False, "use_dictionary": False}
"""Of one row: none of this makes it smaller or faster to read."""


def cells_path(slide_id: str, marker: str, attempt: str) -> str:
    """Return where an attempt's cells go, relative to the results."""
    return f"cells/marker={marker}/{slide_key(slide_id)}-{attempt}.parquet"


def cells_layout(schema: pa.Schema) -> dict[str, Any]:
    """Return how a Parquet file of cells is written: small, and fast where questions read it.

    A measurement hardly ever occurs twice, so a dictionary of them only adds to its size. Their bytes by rank
    (``BYTE_STREAM_SPLIT``) compress better. The optical densities, from which every score by strength of the
    stain is counted anew, stay plain: they take 5 % more of the file, and are read in half the time.
    """
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    plain = [name for name in floats if name.endswith("od_mean")]
    repeated = [field.name for field in schema if field.name not in floats and field.type != pa.binary()]
    return {
        "compression": {name: "none" if name in plain else "zstd" for name in schema.names},
        "use_dictionary": repeated,
        "column_encoding": {name: "BYTE_STREAM_SPLIT" for name in floats if name not in plain},
    }


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
        The columns of a commit record that say where its cells are: ``cells_path``, ``cells_bytes``,
        ``cells_digest`` and ``cells_version``.
    """
    schema = table_schema("cells")
    with tempfile.TemporaryDirectory(prefix="deepliif-ray-") as folder:
        local = Path(folder) / "cells.parquet"
        with pq.ParquetWriter(local, schema, **cells_layout(schema)) as writer:
            for table in tables:
                writer.write_table(
                    table.select(schema.names).cast(schema), row_group_size=max(table.num_rows, 1)
                )
        with local.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = local.stat().st_size
        storage.write_file(storage.join(results, path), local)
    return {
        "cells_path": path,
        "cells_bytes": size,
        "cells_digest": digest,
        "cells_version": schema_version("cells"),
    }


def write_table(url: str, name: str, table: pa.Table) -> None:
    """Write rows of table ``name`` as one object."""
    storage.write_bytes(url, _encoded(name, table))


def create_table(url: str, name: str, table: pa.Table) -> bool:
    """Write rows of table ``name`` as an object that nobody has written yet; tell whether that was so.

    An object without a row bars its name for good: see `bar`.
    """
    if storage.create_bytes(url, _encoded(name, table)):
        return True
    content = read_if_there(url)
    if content is None:  # it was written, though no answer came, and joined since
        return True
    there = parse_record(url, content, name)
    return isinstance(there, pa.Table) and there.num_rows > 0 and there.equals(table)


def bar(results: str, cells: str) -> bool:
    """See to it that no record will name ``cells`` for the first time; tell whether none has.

    The attempt that wrote them may have stood still for days before its commit. Both sides create the same
    object, which only one of them can.
    """
    url = storage.join(results, record_path(cells))
    if storage.create_bytes(url, _encoded("slides", table_schema("slides").empty_table())):
        return True
    content = read_if_there(url)
    there = None if content is None else parse_record(url, content, "slides")
    return isinstance(there, pa.Table) and there.num_rows == 0  # one that is damaged may name them


def _encoded(name: str, table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    single = table.num_rows == 1
    with pq.ParquetWriter(sink, table.schema, **(_WRITE_ONE if single else _WRITE)) as writer:
        writer.write_table(table)
        if single:
            writer.add_key_value_metadata({ROW_KEY: pack_row(name, table.to_pylist()[0])})
    return bytes(sink.getvalue().to_pybytes())


def _write_record(url: str, name: str, record: dict[str, Any]) -> None:
    write_table(url, name, pa.Table.from_pylist([record], schema=table_schema(name)))


def commit_slide(results: str, record: dict[str, Any], again: str = "") -> None:
    """Make a slide part of the results; its cells must be written already.

    ``again`` tells records of one attempt apart: a later one replaces none, it counts by its time.

    Raises
    ------
    ResultsError
        Its cells are not there as they were written: somebody removed or replaced them. Or this comes so
        late that `optimize` barred it.
    StorageError
        The store does not answer.
    """
    if record.get("cells_path") is not None:
        url = storage.join(results, record["cells_path"])
        expected = record.get("cells_bytes")
        try:
            found = storage.size(url)
        except StorageMissingError as error:
            raise ResultsError(
                f"{url}: the cells of slide {record['slide_id']!r} are gone before its commit; run again"
            ) from error
        if None not in (found, expected) and found != expected:
            raise ResultsError(
                f"{url}: {found} bytes, {expected} were written, before the commit of slide "
                f"{record['slide_id']!r}; run again"
            )
    name = f"{slide_key(record['slide_id'])}-{record['attempt']}{again and f'-{again}'}.parquet"
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
