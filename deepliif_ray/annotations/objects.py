"""The objects that annotations are kept in: named, written, read, found.

Below the results lie::

    regions/<name>.parquet         regions of one import; it is written last, and the import exists with it
    region_cells/<name>.parquet    which cells lie in them
    corrections/<name>.parquet     corrections of one import

The first object of an import is named by its ``import_id``. When it is measured anew, it gets a new name and
keeps the ``import_id``; of two objects of one import the greater name counts.
"""

import io
import re
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import AnnotationError, ResultsError
from deepliif_ray.tables.records import Damage, parse_record, read_if_there
from deepliif_ray.tables.schema import table_schema

REGIONS, REGION_CELLS, CORRECTIONS = "regions", "region_cells", "corrections"
_ADVICE = "import the file again; `deepliif-ray check --repair` tidies up"
_NAME = re.compile(r"\d{8}T\d{12}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Held:
    """An object of annotations and what it holds."""

    name: str
    table: pa.Table

    @property
    def import_id(self) -> str:
        """The import it came with."""
        return str(self.table.column("import_id")[0].as_py())


def new_name(now: datetime | None = None) -> str:
    """Return a name for an import or object, such that names sort by time."""
    return f"{now or datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"


def path_of(kind: str, name: str) -> str:
    """Return the path of an object, relative to the results."""
    return f"{kind}/{name}.parquet"


def write(results: str, kind: str, name: str, rows: pa.Table) -> None:
    """Write the rows of a table of annotations as an object."""
    sink = io.BytesIO()
    schema = table_schema(kind)
    pq.write_table(rows.select(schema.names).cast(schema), sink, compression="zstd")
    storage.write_bytes(storage.join(results, path_of(kind, name)), sink.getvalue())


def names(results: str, kind: str) -> dict[str, storage.Stored]:
    """Return the names of the objects of a kind, and what the store says of them."""
    found = storage.list_stored(storage.join(results, kind), ".parquet")
    known = {name.removesuffix(".parquet"): stored for name, stored in found.items()}
    return {name: stored for name, stored in known.items() if _NAME.fullmatch(name)}


def read(results: str, kind: str, damaged: list[Damage]) -> list[Held]:
    """Return the newest object of every import, ordered by import_id; what is damaged is told, not raised.

    Raises
    ------
    ResultsError
        A newer version of this software wrote one.
    StorageError
        The store does not answer.
    """
    newest: dict[str, Held] = {}
    for held in read_all(results, kind, damaged):
        newest[held.import_id] = held
    return [newest[import_id] for import_id in sorted(newest)]


def read_all(results: str, kind: str, damaged: list[Damage]) -> list[Held]:
    """Return every object of a kind, ordered by name; parameters and errors as of `read`."""
    found = sorted(names(results, kind))
    if not found:
        return []
    urls = [storage.join(results, path_of(kind, name)) for name in found]
    with ThreadPoolExecutor(storage.read_threads(results)) as pool:
        contents = list(pool.map(read_if_there, urls))
    objects = []
    for name, url, content in zip(found, urls, contents, strict=True):
        if content is None:  # dropped meanwhile
            continue
        table = parse_record(url, content, kind, _ADVICE)
        if isinstance(table, str):
            damaged.append(Damage(path_of(kind, name), kind, None, table))
        elif table.num_rows:
            objects.append(Held(name, table))
    return objects


def read_region_cells(results: str, name: str, slide_ids: Iterable[str]) -> pa.Table:
    """Return the rows of some slides of an object of ``region_cells``.

    Raises
    ------
    ResultsError
        It is gone or damaged.
    StorageError
        The store does not answer.
    """
    url, schema = storage.join(results, path_of(REGION_CELLS, name)), table_schema(REGION_CELLS)
    content = read_if_there(url)
    if content is None:
        raise ResultsError(f"{url}: the cells of regions are gone")
    try:
        wanted = pc.field("slide_id").isin(list(slide_ids))
        found = pq.read_table(pa.BufferReader(content), filters=wanted)
        return found.select(schema.names).cast(schema)
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        said = " ".join(str(error).split())
        raise ResultsError(f"{url}: the cells of regions are damaged ({said})") from error


def count_rows(content: bytes) -> int | None:
    """Return how many rows a Parquet object has, by its footer; None if that cannot be read."""
    try:
        return int(pq.read_metadata(pa.BufferReader(content)).num_rows)
    except (pa.ArrowException, ValueError, OSError):
        return None


def drop(results: str, kind: str, import_id: str) -> int:
    """Remove an import; return how many rows it had.

    Raises
    ------
    AnnotationError
        There is none of this name.
    StorageError
        It cannot be removed.
    """
    objects = [held for held in read_all(results, kind, []) if held.import_id == import_id]
    if not objects:
        raise AnnotationError(
            f"{results}: there is no import {import_id!r} of {kind}; `deepliif-ray {kind} list` names them"
        )
    remove(results, kind, (held.name for held in objects))
    return int(objects[-1].table.num_rows)


def remove(results: str, kind: str, gone: Iterable[str]) -> None:
    """Remove objects, what makes them count first."""
    for name in gone:
        storage.remove(storage.join(results, path_of(kind, name)))
        if kind == REGIONS:
            storage.remove(storage.join(results, path_of(REGION_CELLS, name)))


def empty(kind: str) -> pa.Table:
    """Return a table of annotations without rows."""
    return table_schema(kind).empty_table()


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Return a table with other values in a column; a single value stands for all rows."""
    place = table.schema.get_field_index(name)
    field = table.schema.field(place)
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.repeat(pa.scalar(values, field.type), table.num_rows)
    return table.set_column(place, field, values.cast(field.type))
