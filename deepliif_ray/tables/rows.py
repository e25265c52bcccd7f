"""A record's row a second time, as JSON in the footer of its Parquet object, where reading it is cheap.

Opening a Parquet file of one row and sixty columns costs a processor about 1.5 ms, column by column; of 5,000
records that is most of the time that `connect` takes. So a record also carries its row among the footer's
texts, with a checksum: found by a search and read in a tenth of the time. Everybody else reads the columns;
`deepliif-ray check` compares both.
"""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from deepliif_ray.tables.schema import schema_version, table_schema

ROW_KEY = "deepliif_ray.row"
_MAGIC = b"PAR1"
_ROW = re.compile(rb"row:([a-z]+):(\d{1,9}):([0-9a-f]{64}):(\d{1,9}):")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def pack_row(name: str, row: dict[str, Any]) -> bytes:
    """Return the text that stands for a row of table ``name``, under `ROW_KEY`; times are microseconds."""
    plain = {
        key: (value - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value
        for key, value in row.items()
    }
    text = json.dumps(plain).encode()
    digest = hashlib.sha256(text).hexdigest()
    return f"row:{name}:{schema_version(name)}:{digest}:{len(text)}:".encode() + text


def unpack_row(name: str, content: bytes) -> dict[str, Any] | None:
    """Return the row that the object with this content carries in its footer.

    Parameters
    ----------
    name : str
        Table.
    content : bytes
        All of a Parquet object.

    Returns
    -------
    dict or None
        By column, for `rows_table`. None if there is none, if newer software wrote it, or if it is damaged:
        then the columns tell.
    """
    if content[:4] != _MAGIC or content[-4:] != _MAGIC:
        return None
    match = _ROW.search(content)
    if match is None or match[1] != name.encode() or int(match[2]) > schema_version(name):
        return None
    text = content[match.end() : match.end() + int(match[4])]
    if hashlib.sha256(text).hexdigest().encode() != match[3]:
        return None
    row: dict[str, Any] = json.loads(text.decode())
    return row


def carries_row(content: bytes) -> bool:
    """Tell whether an object carries a row in its footer, damaged or not."""
    return _ROW.search(content) is not None


def rows_table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows of table ``name`` as a table; columns that a row lacks, being older, are null."""
    schema = table_schema(name)
    maps = [field.name for field in schema if pa.types.is_map(field.type)]
    for row in rows:
        for column in maps:  # JSON has no pairs, and Arrow insists on them
            row[column] = [tuple(pair) for pair in row.get(column) or []]
    return pa.Table.from_pylist(rows, schema=schema)
