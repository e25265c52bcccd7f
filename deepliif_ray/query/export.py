"""Results as a DuckDB database file, for people and tools without this package."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import duckdb

from deepliif_ray import __version__, storage
from deepliif_ray.errors import ConfigError, QueryError, StorageError
from deepliif_ray.query.described import entries
from deepliif_ray.query.ranges import RangesFileSystem
from deepliif_ray.query.views import Place, make_tables, make_views

_REMOTE = ("s3://", "gs://")
_PATTERN = frozenset("*?[=")


def export_duckdb(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    relative: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write results as a DuckDB database file, which is opened without this package.

    It has the tables, views and macros of `connect`, as they are now; slides that are scored later are not in
    it. Cells are not copied: the view ``cells`` reads the Parquet files where they lie, so they must stay
    there (``optimize`` and scoring again move them: export again). The table ``stored.exported`` says when,
    from where and by which version it was written.

    The file appears whole or not at all. It is opened by the version of DuckDB that is installed here and by
    later ones; older ones refuse it, because they misread macros of newer ones. For results on S3 or Google
    Cloud Storage the DuckDB that opens it needs its extension ``httpfs`` and a secret of its own; no
    credentials are in the file.

    Parameters
    ----------
    results : str or path
        URL of the results: a local folder, ``s3://`` or ``gs://``.
    output : str or path
        The local file to write.
    relative : bool
        Name cells relative to the folder of ``output``, so that both can be moved together. They are then
        found by a DuckDB that was started in that folder, or after ``SET file_search_path = '<folder>'``.
    overwrite : bool
        Replace the file if there is one.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    QueryError
        DuckDB cannot name the objects: the path holds one of ``* ? [ =``, or the store is another.
    ConfigError
        The file exists, or its folder does not; or ``relative`` for results elsewhere.
    ResultsError, StorageError
        See `connect`; or the file cannot be written.
    """
    url, target = os.fspath(results), Path(output).absolute()
    if not target.parent.is_dir() or target.is_dir():
        raise ConfigError(f"{target}: there is no such folder to write this file to; make it first")
    if "?" in str(target):
        raise ConfigError(
            f"{target}: DuckDB takes the ? for the end of the name; choose another folder or name"
        )
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; --overwrite replaces it")
    place = _places(url, target.parent if relative else None)
    with _whole(target) as unfinished:
        try:
            _write(unfinished, url, place, target.parent if relative else None)
        except duckdb.Error as error:
            raise QueryError(f"{target}: cannot be written ({error})") from error
    return target


def needed() -> str:
    """Return the oldest version of DuckDB that opens what this process exports."""
    return ".".join(duckdb.__version__.split(".")[:2])


def _places(url: str, folder: Path | None) -> Place:
    """Return what names objects for a DuckDB that knows nothing of this package."""
    root = storage.absolute(url)
    if storage.is_local(url):
        local = storage.local_path(url).absolute()
        root = str(local) if folder is None else os.path.relpath(local.resolve(), folder.resolve())
        if folder is not None and "," in str(folder.resolve()):
            raise QueryError(
                f"{folder}: DuckDB would take the comma for the end of the path; rename the folder"
            )
    elif folder is not None:
        raise ConfigError(
            f"{url}: is in a store, and has no place relative to a file here; leave out --relative"
        )
    elif not root.startswith(_REMOTE):
        raise QueryError(
            f"{url}: an exported file can name results in a local folder and on {' or '.join(_REMOTE)} only"
        )
    if found := "".join(sorted(_PATTERN & set(root))):
        raise QueryError(
            f"{url}: DuckDB would take {' '.join(found)} in this path for a pattern; rename the folder"
            + ("" if folder is not None or not storage.is_local(url) else ", or use --relative from below it")
        )
    return partial(storage.join, root) if folder is None else lambda path: f"{root}/{path}"


def _write(file: Path, url: str, place: Place, folder: Path | None) -> None:
    with duckdb.connect(
        file, config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    ) as connection:
        if not storage.is_local(url):
            connection.register_filesystem(_Remote(storage.absolute(url)))
        if folder is not None:
            connection.execute("SET file_search_path = ?", [str(folder.resolve())])
        cells, _ = make_tables(connection, url, place)
        make_views(connection, cells)
        connection.execute(
            "CREATE TABLE stored.exported AS SELECT ?::TIMESTAMP AS exported_at, ? AS results, "
            "? AS deepliif_ray_version, ? AS duckdb_version, ? AS is_relative",
            [
                datetime.now(UTC).replace(tzinfo=None),
                storage.absolute(url),
                __version__,
                duckdb.__version__,
                folder is not None,
            ],
        )
        for entry in entries():
            if entry.parameters is None:
                connection.execute(
                    f"COMMENT ON VIEW {entry.name} IS '{entry.says.replace(chr(39), chr(39) * 2)}'"
                )


class _Remote(RangesFileSystem):
    """A store under its own protocol: the names that DuckDB's ``httpfs`` gives to the same objects."""

    def __init__(self, url: str) -> None:
        self.protocol = url.partition("://")[0]
        whole = f"{self.protocol}://{{}}".format
        super().__init__(
            lambda path: storage.size(whole(path)),
            lambda path, start, end: storage.read_range(whole(path), start, end),
        )


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Give a file to write, which becomes ``target`` once it is finished and else is removed."""
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield unfinished
        # What an earlier file of this name had not taken in yet would be put into this one.
        _log_of(target).unlink(missing_ok=True)
        unfinished.replace(target)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
            _log_of(unfinished).unlink(missing_ok=True)


def _log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.wal")
