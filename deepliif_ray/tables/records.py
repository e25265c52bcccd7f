"""Reads record objects of ``slides``, ``failures`` and ``runs``; what cannot be read is told, not raised."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError, StorageError, StorageMissingError
from deepliif_ray.tables.rows import rows_table, unpack_row
from deepliif_ray.tables.schema import TABLE_KEY, VERSION_KEY, schema_version, table_schema

RECORD_TABLES = ("slides", "failures", "runs")
ANNOTATION_TABLES = ("regions", "region_cells", "corrections")
"""What people say of slides; see `deepliif_ray.annotations`."""
_SCORE_AGAIN = "score its slide again, and `deepliif-ray check --repair` tidies up"
_READ_AHEAD, _SHARE = 2048, 128
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Damage:
    """An object of the results that cannot be used.

    Attributes
    ----------
    object : str
        Its path, relative to the results.
    kind : str
        What it is: ``slides``, ``failures``, ``runs``, ``cells``, ``regions``, ``region_cells`` or
        ``corrections``.
    slide_id : str or None
        The slide that it belongs to, where that is known.
    problem : str
        What is wrong and what to do.
    """

    object: str
    kind: str
    slide_id: str | None
    problem: str


@dataclass(frozen=True)
class Records:
    """What the objects of a table hold.

    Attributes
    ----------
    table : pyarrow.Table
        All rows, whether they count or not.
    sources : list of str
        For each row the URL of the object that holds it.
    """

    table: pa.Table
    sources: list[str]

    @property
    def objects(self) -> list[str]:
        """URLs of the objects, each once."""
        return list(dict.fromkeys(self.sources))


def read_records(results: str, name: str, damaged: list[Damage] | None = None) -> Records:
    """Return the rows of table ``name`` and the objects that hold them.

    An object may vanish between listing and reading when another job joins objects or drops superseded
    ones. What replaces it was written before, so listing again until nothing is new misses no row; some may
    be there twice.

    Parameters
    ----------
    results : str
        URL of the results.
    name : str
        ``slides``, ``failures`` or ``runs``.
    damaged : list of Damage, optional
        Objects that cannot be read are added to it; if not given, they are logged.

    Raises
    ------
    ResultsError
        A newer version of this software wrote an object.
    StorageError
        The store does not answer, or lists objects that are gone.
    """
    folder = storage.join(results, name)
    seen: set[str] = set()
    gone: set[str] = set()
    rows: list[dict[str, Any]] = []
    tables: list[pa.Table] = []
    sources: list[str] = []
    others: list[str] = []
    vanished = True
    with ThreadPoolExecutor(storage.read_threads(results)) as pool:
        while vanished:
            listed = storage.list_files(folder, ".parquet")
            new = [url for url in listed if url not in seen]
            if not new:
                if not gone.isdisjoint(listed):  # then what replaced them may be missing from it too
                    raise StorageError(
                        f"{folder}: its listing is late, it names objects that are gone; try again soon"
                    )
                break
            seen.update(new)
            vanished = False
            for url, content in _contents(pool, new):
                if content is None:
                    vanished = True
                    gone.add(url)
                elif (row := unpack_row(name, content)) is not None:
                    rows.append(row)
                    sources.append(url)
                elif isinstance(table := parse_record(url, content, name), pa.Table):
                    tables.append(table)
                    others += [url] * table.num_rows
                else:
                    _tell(Damage(f"{name}/{url[len(folder) :].lstrip('/')}", name, None, table), damaged)
    return Records(pa.concat_tables([rows_table(name, rows), *tables]), sources + others)


def _tell(damage: Damage, damaged: list[Damage] | None) -> None:
    if damaged is None:
        _log.warning("object.damaged", extra={"object": damage.object, "why": damage.problem})
    else:
        damaged.append(damage)


def _contents(pool: ThreadPoolExecutor, urls: list[str]) -> Iterator[tuple[str, bytes | None]]:
    """Yield objects and their contents, read side by side; few are held at a time.

    A thread is given several at once: passing each one on costs more than reading it from a local disk.
    """
    for begin in range(0, len(urls), _READ_AHEAD):
        part = urls[begin : begin + _READ_AHEAD]
        shares = [part[start : start + _SHARE] for start in range(0, len(part), _SHARE)]
        for share, contents in zip(shares, list(pool.map(_read_all, shares)), strict=True):
            yield from zip(share, contents, strict=True)


def _read_all(urls: list[str]) -> list[bytes | None]:
    return [read_if_there(url) for url in urls]


def read_if_there(url: str) -> bytes | None:
    """Return the content of an object, or None if it is gone."""
    try:
        return storage.read_bytes(url)
    except StorageMissingError:
        return None


def parse_record(url: str, content: bytes, name: str, advice: str = _SCORE_AGAIN) -> pa.Table | str:
    """Return the rows that an object of table ``name`` holds in its columns, or what is wrong with it.

    Parameters
    ----------
    url : str
    content : bytes
    name : str
    advice : str
        What to do about an object that is damaged.

    Raises
    ------
    ResultsError
        A newer version of this software wrote it.
    """
    schema = table_schema(name)
    try:
        # One thread and no buffering: a record is one row, and setting up costs more than reading it.
        file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
        metadata = file.schema_arrow.metadata or {}
        version = int(metadata.get(VERSION_KEY, 0))
        if metadata.get(TABLE_KEY) != name.encode() or version < 1:
            return f"not a record of table {name}; move it out of the results"
        if version > schema_version(name):
            raise ResultsError(
                f"{url}: written by a newer deepliif_ray (version {version} of table {name}, this one knows "
                f"{schema_version(name)}); update deepliif_ray"
            )
        table = file.read(use_threads=False)
        if version < schema_version(name):
            table = _with_newer_columns(table, schema)
        return table if table.schema.equals(schema) else table.select(schema.names).cast(schema)
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        said = " ".join(str(error).split())
        return f"damaged record ({said}); {advice}"


def _with_newer_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table of an older version with nulls in the columns that came later."""
    for field in schema:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table
