"""A record's row a second time, in the footer of its Parquet object, where reading it is cheap.

Opening a Parquet file of one row and sixty columns costs a processor about 1.5 ms, column by column; of 5,000
records that is most of the time that `connect` takes. So a record also carries its row as one Arrow message,
with a checksum, among the footer's texts: found by a search and read in a tenth of the time. Everybody else
reads the columns; `deepliif-ray check` compares both.
"""

import base64
import hashlib
import re
from functools import cache

import pyarrow as pa

from deepliif_ray.tables.schema import table_schema

ROW_KEY = "deepliif_ray.row"
_MAGIC = b"PAR1"
_ROW = re.compile(rb"row:([0-9a-f]{16}):([0-9a-f]{64}):([A-Za-z0-9+/]+={0,2});")


@cache
def _layout(name: str) -> bytes:
    """Name the columns of table ``name``: a message is read right only with those it was written with."""
    columns = "\0".join(f"{field.name}:{field.type}" for field in table_schema(name))
    return hashlib.sha256(f"{name}\0{columns}".encode()).hexdigest()[:16].encode()


def pack_row(name: str, table: pa.Table) -> bytes:
    """Return the text that stands for the rows of a record of table ``name``, under `ROW_KEY`."""
    (batch,) = table.combine_chunks().to_batches()
    message = batch.serialize().to_pybytes()
    digest = hashlib.sha256(message).hexdigest().encode()
    return b"row:%b:%b:%b;" % (_layout(name), digest, base64.b64encode(message))


def unpack_row(name: str, content: bytes) -> pa.Table | None:
    """Return the row that the object with this content carries in its footer.

    Parameters
    ----------
    name : str
        Table.
    content : bytes
        All of a Parquet object.

    Returns
    -------
    pyarrow.Table or None
        None if there is none, if it is of another version's columns, or damaged: then the columns tell.
    """
    if content[:4] != _MAGIC or content[-4:] != _MAGIC:
        return None
    match = _ROW.search(content)
    if match is None or match[1] != _layout(name):
        return None
    message = base64.b64decode(match[3])
    if hashlib.sha256(message).hexdigest().encode() != match[2]:
        return None
    schema = table_schema(name)
    return pa.Table.from_batches([pa.ipc.read_record_batch(pa.py_buffer(message), schema)], schema)
