"""What a results location holds: which slides are committed, which failed, which runs there were.

Layout, below any fsspec URL::

    cells/marker=<Marker>/<slide_key>-<attempt>.parquet
    slides/<slide_key>-<attempt>.parquet        one row: the commit record
    failures/<slide_key>-<attempt>.parquet      one row
    runs/<run_id>.parquet                       one row
    cells/marker=<Marker>/joined-<rows>-<name>.parquet, slides/joined-<name>.parquet, …
                                                what `optimize` made of many of these
    _staging/…, _optimize/…                     work in progress, not part of the results
"""

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError, StorageError
from deepliif_ray.tables.schema import TABLE_KEY, VERSION_KEY, schema_version, table_schema

_SLUG_LENGTH = 40
_DIGEST_LENGTH = 12
RETIRED = "retired"
"""Reason of a failure that takes back an earlier one, of a slide that a manifest lists no more."""
_JOINED = re.compile(r"/joined-(\d+)-[^/]*\.parquet$")


def slide_key(slide_id: str) -> str:
    """Return a name for the slide's objects that is safe in any path and differs between slides.

    Parameters
    ----------
    slide_id : str
        Any text.

    Returns
    -------
    str
        At most 53 characters of ``A-Z a-z 0-9 . _ -``, not starting with a dot or hyphen: what can be
        kept of the slide's name, a hyphen, and 12 hexadecimal digits of its SHA-256.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", slide_id)[:_SLUG_LENGTH].lstrip(".-") or "slide"
    digest = hashlib.sha256(slide_id.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{slug}-{digest}"


def joined_name(rows: int, name: str) -> str:
    """Return the file name of an object that holds ``rows`` cells of several slides."""
    return f"joined-{rows:012d}-{name}.parquet"


def joined_rows(path: str) -> int | None:
    """Return how many cells a cells object of several slides holds; None for one slide's own object.

    Records tell which slides of it count: fewer once a slide was scored again.
    """
    match = _JOINED.search(path)
    return None if match is None else int(match[1])


class Ledger:
    """The committed state of a results location.

    It is a snapshot: a table is read when first asked for and kept. Make a new ledger to see later commits.

    Parameters
    ----------
    results : str
        URL of the results.
    must_exist : bool
        Refuse a location that does not exist; if false, such a location is an empty one.

    Raises
    ------
    ResultsError
        The location does not exist. Later, from any method: an object is not a record of this software, or
        of a newer version of it.
    StorageError
        The store does not answer.
    """

    def __init__(self, results: str, *, must_exist: bool = True) -> None:
        self.results = results
        if must_exist and not storage.exists(results):
            raise ResultsError(
                f"{results}: there are no results here; check the location, or score to it first"
            )

    def slides(self) -> pa.Table:
        """Return the commit records, the newest of each slide that is not retired, ordered by slide_id."""
        return self._slides.filter(pc.is_null(self._slides.column("retired")))

    def generations(self) -> pa.Table:
        """Return the newest commit record of each slide, ordered by slide_id, those of retired slides too."""
        return self._slides

    def failures(self) -> pa.Table:
        """Return the newest failure of each slide that was not committed since, ordered by slide_id."""
        return self._failures

    def runs(self) -> pa.Table:
        """Return all runs, ordered by their start."""
        return self._runs

    @cached_property
    def _slides(self) -> pa.Table:
        return newest(self._read("slides"), "committed_at")

    @cached_property
    def _failures(self) -> pa.Table:
        failed = newest(self._read("failures"), "failed_at")
        committed = dict(_pairs(self._slides, "slide_id", "committed_at"))
        standing = [
            slide_id not in committed or failed_at > committed[slide_id]
            for slide_id, failed_at in _pairs(failed, "slide_id", "failed_at")
        ]
        failed = failed.filter(pa.array(standing, pa.bool_()))
        return failed.filter(pc.not_equal(failed.column("reason"), RETIRED))

    @cached_property
    def _runs(self) -> pa.Table:
        runs = self._read("runs").sort_by([("finished_at", "ascending")])  # without one: last
        ids = runs.column("run_id").to_pylist()  # twice, while objects are being joined
        once = runs.take(pa.array([ids.index(run_id) for run_id in dict.fromkeys(ids)], pa.int64()))
        return once.sort_by([("started_at", "ascending"), ("run_id", "ascending")])

    def _read(self, name: str) -> pa.Table:
        """Return all rows of table ``name``."""
        return pa.concat_tables(
            [table_schema(name).empty_table(), *read_objects(self.results, name).values()]
        )


def read_objects(results: str, name: str) -> dict[str, pa.Table]:
    """Return the rows of table ``name`` by the URL of the object that holds them.

    An object may vanish between listing and reading when another job joins objects or drops superseded
    ones. What replaces it was written before, so listing again until nothing is new misses no row; some may
    be there twice.

    Raises
    ------
    ResultsError
        An object is not a record of this software, or of a newer version of it.
    StorageError
        The store does not answer.
    """
    folder = storage.join(results, name)
    seen: set[str] = set()
    tables: dict[str, pa.Table] = {}
    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        while new := [url for url in storage.list_files(folder, ".parquet") if url not in seen]:
            seen.update(new)
            contents = list(pool.map(read_if_there, new))
            for url, content in zip(new, contents, strict=True):
                if content is not None:
                    tables[url] = _parse(url, content, name)
            if None not in contents:
                break
    return tables


def read_if_there(url: str) -> bytes | None:
    """Return the content of an object, or None if it is gone."""
    try:
        return storage.read_bytes(url)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _parse(url: str, content: bytes, name: str) -> pa.Table:
    """Return the rows of one object of table ``name``."""
    schema = table_schema(name)
    try:
        # One thread and no buffering: a record is one row, and setting up costs more than reading it.
        file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
        metadata = file.schema_arrow.metadata or {}
        version = int(metadata.get(VERSION_KEY, 0))
        if metadata.get(TABLE_KEY) != name.encode() or version < 1:
            raise ResultsError(f"{url}: not a record of table {name}; move it out of the results")
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
        raise ResultsError(f"{url}: damaged record ({error}); delete it and score the slide again") from error


def _with_newer_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table of an older version with nulls in the columns that came later."""
    for field in schema:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def _pairs(table: pa.Table, *names: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def newest(table: pa.Table, moment: str) -> pa.Table:
    """Keep the row with the greatest (``moment``, attempt) of each slide, ordered by slide_id."""
    table = table.combine_chunks()  # of thousands of records, each a chunk
    order = pc.sort_indices(
        table, sort_keys=[("slide_id", "ascending"), (moment, "ascending"), ("attempt", "ascending")]
    )
    ordered = table.take(order)
    ids = ordered.column("slide_id").to_pylist()
    last = [row for row, slide_id in enumerate(ids) if row + 1 == len(ids) or ids[row + 1] != slide_id]
    return ordered.take(pa.array(last, pa.int64()))
