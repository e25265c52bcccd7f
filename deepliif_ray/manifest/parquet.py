"""Tables in Parquet, read so that a small file that unpacks to a huge one is refused before it does."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepliif_ray.errors import ManifestError
from deepliif_ray.manifest.content import MAX_BYTES, MAX_COLUMNS, MAX_ROWS

_BATCH_BYTES = 512 * 2**20
_MOST_NESTED = 2**32
"""Bytes that the lists of a column may unpack to at worst."""


def parquet_bytes(columns: list[str], rows: list[dict[str, str]]) -> bytes:
    """Return rows of text as a Parquet file."""
    sink = pa.BufferOutputStream()
    table = pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in columns})
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def parquet_rows(url: str, content: bytes) -> tuple[list[str], list[list[Any]]]:
    """Return the columns of a Parquet file and its rows.

    Raises
    ------
    ManifestError
        It is damaged, or has more rows, columns or bytes than a manifest may.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
        batch_rows = _refuse_bombs(url, file)
        rows = [row for batch in _batches(url, file, batch_rows) for row in batch]
    except (pa.ArrowException, OSError, ValueError, MemoryError, RecursionError) as error:
        raise ManifestError(url, [f"not a readable Parquet file ({str(error)[:300]})"]) from error
    return [name.strip() for name in file.schema_arrow.names], rows


def _refuse_bombs(url: str, file: pq.ParquetFile) -> int:
    """Check what the file says of itself; return how many rows may be read at once.

    A value that is stored once may stand in every row: a column unpacks to at most as many bytes as it has
    values times those it takes in the file.
    """
    metadata = file.metadata
    if metadata.num_rows > MAX_ROWS:
        raise ManifestError(url, [f"it has more than {MAX_ROWS:,} rows; split it into several manifests"])
    if metadata.num_columns > MAX_COLUMNS:
        raise ManifestError(url, [f"it has more than {MAX_COLUMNS:,} columns; give one row a slide"])
    flat = 0
    for group in range(metadata.num_row_groups):
        sizes = 0
        for n in range(metadata.num_columns):
            column = metadata.row_group(group).column(n)
            size = max(column.total_uncompressed_size, column.total_compressed_size)
            sizes += size
            nested = "." in column.path_in_schema
            if nested and size * column.num_values > _MOST_NESTED and column.num_values > metadata.num_rows:
                raise ManifestError(
                    url, [f"the lists of column {column.path_in_schema!r} are too large; write them as text"]
                )
        flat = max(flat, sizes)
    if flat > MAX_BYTES:
        raise _too_large(url)
    return max(1, min(4096, _BATCH_BYTES // max(flat, 1)))


def _batches(url: str, file: pq.ParquetFile, batch_rows: int) -> Iterator[list[list[Any]]]:
    rows = size = 0
    for batch in file.iter_batches(batch_size=batch_rows, use_threads=False):
        rows += batch.num_rows
        size += sum(_bytes(column) for column in batch.columns)
        if rows > MAX_ROWS or size > MAX_BYTES:
            raise _too_large(url)
        values = [column.to_pylist() for column in batch.columns]
        yield [list(row) for row in zip(*values, strict=True)]


def _bytes(column: pa.Array) -> int:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return int(column.nbytes)


def _too_large(url: str) -> ManifestError:
    return ManifestError(
        url, [f"it holds more than {MAX_BYTES // 2**20} MiB, unpacked; split it into several manifests"]
    )
