"""A DuckDB connection in which committed results are views."""

import os
from pathlib import Path
from string import Template

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError
from deepliif_ray.tables.ledger import Ledger, joined_rows
from deepliif_ray.tables.rooted import RootedFileSystem, needs_root
from deepliif_ray.tables.schema import column_names, table_schema

_SQL = Path(__file__).parent / "sql"


SANDBOX = {
    "temp_directory": "''",
    "memory_limit": "'4GB'",
    "python_enable_replacements": "false",
    "enable_external_access": "false",
    "lock_configuration": "true",
}
"""Settings of a locked connection, in this order. What needs more memory fails instead of going to disk."""


def connect(results: str | os.PathLike[str], *, sandbox: bool = False) -> duckdb.DuckDBPyConnection:
    """Open results for SQL.

    The connection is a snapshot of what is committed now; connect again to see later commits. It is an
    in-memory database of its own: nothing done on it changes the results.

    Parameters
    ----------
    results : str or path
        URL of the results.
    sandbox : bool
        Lock the connection: no files but the cells of these results, and those read-only; no network, no
        extensions, no Python variables, and no setting can be changed back. DuckDB holds itself to 4 GB, but
        some functions take memory that it does not count, and time is not limited: for SQL of people who are
        not trusted use `deepliif_ray.query.ask`, which runs it in a process with limits.

    Returns
    -------
    duckdb.DuckDBPyConnection
        With ``cells``, ``slides``, ``failures``, ``runs``, ``called_cells``, ``slide_indices``,
        ``patient_indices`` and ``slide_quality``; and for other thresholds the table macros
        ``call_cells(…)``, ``slide_indices_at(…)``, ``patient_indices_at(…)`` (see
        ``query/sql/called_cells.sql``) and ``slide_quality_at(…)`` (see ``query/sql/quality.sql``). Times
        are UTC, ``boundary`` is WKB.

    Raises
    ------
    ResultsError
        There are no results here, a newer version of this software wrote them, or cells are missing.
    StorageError
        The store does not answer.
    """
    url = os.fspath(results)
    ledger = Ledger(url)
    tables = {"slides": ledger.slides(), "failures": ledger.failures(), "runs": ledger.runs()}
    # Extensions come from the network; nothing here needs one that is not built in.
    connection = duckdb.connect(
        config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    # Leaves boundary as WKB: the geometry type is not in every version, and few readers understand it.
    connection.execute("SET enable_geoparquet_conversion = false")
    for name, table in tables.items():
        _create_table(connection, name, table)
    places = _create_cells(connection, url, tables["slides"], rooted=sandbox or needs_root(url))
    for statement in derived():
        connection.execute(statement)
    if sandbox:
        connection.execute(f"SET allowed_paths = [{places}]")
        for name, value in SANDBOX.items():
            connection.execute(f"SET {name} = {value}")
    return connection


def derived() -> list[str]:
    """Return the statements that make the views and macros which rest on ``cells`` and the tables."""
    return [_sql(name) for name in ("intervals", "called_cells", "indices", "quality")]


def _sql(name: str) -> str:
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")


def _create_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Copy an Arrow table into the database, times as plain UTC (reading zoned ones would need pytz)."""
    for position, field in enumerate(table.schema):
        if isinstance(field.type, pa.TimestampType):
            table = table.set_column(position, field.name, table.column(position).cast(pa.timestamp("us")))
    connection.register("arriving", table)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM arriving")
    connection.unregister("arriving")


def _create_cells(connection: duckdb.DuckDBPyConnection, url: str, slides: pa.Table, *, rooted: bool) -> str:
    """Make the view of cells; return the files behind it as SQL."""
    columns = ", ".join(column_names("cells"))
    # Several slides may share an object, which is read once.
    paths = list(dict.fromkeys(path for path in slides.column("cells_path").to_pylist() if path))
    if not paths:
        _create_table(connection, "no_cells", table_schema("cells").empty_table())
        connection.execute(Template(_sql("no_cells")).substitute(columns=columns))
        return ""
    if rooted:
        connection.register_filesystem(RootedFileSystem(url))
        places = [f"{RootedFileSystem.protocol}://{path}" for path in paths]
    else:
        root = storage.filesystem(url)[1]
        places = [storage.join(root, path) for path in paths]
    # An object of several slides may still hold one that was scored again since: then its slides are picked.
    partial = {n: path for n, path in enumerate(paths) if _holds_more(slides, path)}
    whole = ", ".join(_quoted(place) for n, place in enumerate(places) if n not in partial)
    selects = [Template(_sql("cells_of_files")).substitute(columns=columns, files=whole)] if whole else []
    selects += [
        Template(_sql("cells_of_some")).substitute(
            columns=columns, file=_quoted(places[n]), path=_quoted(path)
        )
        for n, path in partial.items()
    ]
    try:
        connection.execute(Template(_sql("cells")).substitute(selects="\nUNION ALL\n".join(selects)))
    except duckdb.Error as error:
        raise ResultsError(
            f"{url}: the cells of committed slides cannot be read ({error}); connect again if a job is "
            "tidying these results, else restore what was deleted or score those slides again"
        ) from error
    return ", ".join(map(_quoted, places))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _holds_more(slides: pa.Table, path: str) -> bool:
    """Tell whether an object of several slides holds cells that no record counts any more."""
    rows = joined_rows(path)
    if rows is None:
        return False
    counted = pc.sum(slides.filter(pc.equal(slides.column("cells_path"), path)).column("n_cells")).as_py()
    return bool(counted != rows)
