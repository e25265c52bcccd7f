"""A DuckDB connection in which committed results are views."""

import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from string import Template

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from deepliif_ray import storage
from deepliif_ray.annotations.current import attach
from deepliif_ray.query.committed import CellsObjects, cells_objects
from deepliif_ray.query.derived import derived, read_sql
from deepliif_ray.query.described import described
from deepliif_ray.query.literals import quoted, quoted_list, quoted_name
from deepliif_ray.query.prepared import copy_prepared, prepared
from deepliif_ray.query.rooted import RootedFileSystem, needs_root
from deepliif_ray.scoring.markers import Registry, intensity, registry_with
from deepliif_ray.tables.cohort import leftovers, read_markers
from deepliif_ray.tables.cutoffs import BUILTIN, VALUES, read_cutoffs
from deepliif_ray.tables.damage import sound_ledger
from deepliif_ray.tables.ledger import Ledger
from deepliif_ray.tables.records import Damage
from deepliif_ray.tables.schema import column_names, later_columns, table_schema

# GEOMETRY to whoever opens an exported database, unless he says what is said below.
_OWN = {"boundary": "c.boundary::BLOB AS boundary"}
_DAMAGED = pa.schema([(name, pa.string()) for name in ("object", "kind", "slide_id", "problem")])
_SQL_TYPES = {
    "string": "VARCHAR", "large_string": "VARCHAR", "binary": "BLOB", "bool": "BOOLEAN", "double": "DOUBLE",
    "float": "FLOAT", "int64": "BIGINT", "int32": "INTEGER", "int8": "TINYINT", "uint8": "UTINYINT",
}  # fmt: skip
_LISTED = 3
_log = logging.getLogger(__name__)
Place = Callable[[str], str]

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
    in-memory database of its own, where tables may be made; nothing done on it changes the results, and what
    shows them are views, which cannot be written to.

    Objects that are damaged are passed over: a warning is logged, the view ``damaged`` lists them. A slide
    whose cells are lost stays in ``slides`` and in the indices at published thresholds, which its record
    holds. It has no cells in ``cells``; where indices at other thresholds need them, they are null.

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
        ``patient_indices``, ``slide_quality``, ``damaged``, ``leftovers``, ``retired``, ``markers``,
        ``cutoff_sets``, ``regions`` and ``corrections``. The scores are table macros, such as
        ``patient_h_scores()`` or ``hans()``; with parentheses ``called_cells(…)``, ``slide_indices(…)`` and
        ``patient_indices(…)`` take cut-offs, a region and whether corrections count, as the others do (see
        docs/scores.md). Times are UTC, ``boundary`` is WKB.

    Raises
    ------
    ResultsError
        There are no results here, or a newer version of this software wrote them.
    StorageError
        The store does not answer.
    """
    url = os.fspath(results)
    connection, cells, places = opened(url, rooted=sandbox or needs_root(url))
    make_views(connection, cells)
    if sandbox:
        lock(connection, places)
    return connection


def opened(url: str, *, rooted: bool) -> tuple[duckdb.DuckDBPyConnection, str, list[str]]:
    """Open results in a database in memory, the tables alone; errors as of `connect`.

    Parameters
    ----------
    url : str
        URL of the results.
    rooted : bool
        Let DuckDB read cells through `RootedFileSystem`, and not by their own paths.

    Returns
    -------
    DuckDBPyConnection, str, list of str
        The connection, and what `make_tables` returns.
    """
    # Extensions come from the network; nothing here needs one that is not built in.
    connection = duckdb.connect(
        config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    if not rooted:
        return connection, *make_tables(connection, url, partial(storage.join, storage.absolute(url)))
    connection.register_filesystem(RootedFileSystem(url))
    return connection, *make_tables(connection, url, RootedFileSystem.place)


def make_views(connection: duckdb.DuckDBPyConnection, cells: str) -> None:
    """Make the views and macros of `connect`, given what `make_tables` returns."""
    statements, file = layers(connection)
    if file is None or not copy_prepared(connection, file):
        for statement in statements:
            connection.execute(statement)
    connection.execute(cells)


def make_tables(connection: duckdb.DuckDBPyConnection, url: str, place: Place) -> tuple[str, list[str]]:
    """Make the tables of `connect` in a database that is empty; `make_views` makes the rest.

    Parameters
    ----------
    connection : DuckDBPyConnection
    url : str
        URL of the results.
    place : function of str
        What DuckDB is to call an object of the results, given its path in them.

    Returns
    -------
    str, list of str
        The statement that makes the view ``cells``, and what DuckDB calls the objects of cells, and of cells
        of regions, that are read.
    """
    ledger, damaged = sound_ledger(url)
    tables = {"slides": ledger.slides(), "failures": ledger.failures(), "runs": ledger.runs()}
    tables |= {"retired": _retired(ledger), "leftovers": leftovers(ledger), "markers": _markers(url)}
    said = attach(url, tables["slides"])
    damaged += said.damaged
    tables |= {"regions": said.regions, "corrections": said.corrections, "described": described()}
    # Leaves boundary as WKB: the geometry type is not in every version, and few readers understand it.
    connection.execute("SET enable_geoparquet_conversion = false")
    connection.begin()  # thirty statements take a third less time in one transaction
    connection.execute("CREATE SCHEMA stored")
    for name, table in tables.items():
        _create_table(connection, name, table)
        connection.execute(f"CREATE VIEW {name} AS FROM stored.{name}")
    _create_table(connection, "cutoff_sets", _cutoff_sets(url))
    _create_table(connection, "region_cells", said.region_cells)
    of_regions = [place(path) for path in said.region_cells_paths]
    connection.execute(_annotations(of_regions))
    cells, places = _cells_view(connection, url, tables["slides"], damaged, place)
    _create_table(connection, "damaged", pa.Table.from_pylist(list(map(asdict, damaged)), _DAMAGED))
    connection.execute("CREATE VIEW damaged AS FROM stored.damaged")
    connection.execute(
        "CREATE TABLE stored.lost AS SELECT DISTINCT slide_id FROM damaged WHERE kind = 'cells'"
    )
    warn(url, damaged)
    if _has_same_content(tables["slides"]):
        # It changes the table: once, and not where it is handed on to.
        connection.execute(read_sql("same_content"))
    connection.commit()
    return cells, [*places, *of_regions]


def _annotations(files: list[str]) -> str:
    """Return the statements that make tables and views of annotations; ``files`` hold cells of regions."""
    part = Template(read_sql("parts/region_cells")).substitute(files=", ".join(map(quoted, files)))
    return Template(read_sql("annotations")).substitute(region_cells=part if files else "")


def lock(connection: duckdb.DuckDBPyConnection, places: list[str]) -> None:
    """Leave a connection no file but ``places``, and nothing that could be changed back."""
    connection.execute(f"SET allowed_paths = {quoted_list(places)}")
    for name, value in SANDBOX.items():
        connection.execute(f"SET {name} = {value}")


def layers(connection: duckdb.DuckDBPyConnection) -> tuple[list[str], Path | None]:
    """Return the statements that make all views and macros but ``cells``, which is to be made after them.

    DuckDB looks into a view when another is made on it, and into each file behind it; so until all are made
    ``cells`` has none.

    Returns
    -------
    list of str, Path or None
        The statements, and a file of what they make, for `copy_prepared`, if there is one.
    """
    made, is_usual = derived(connection)
    statements = [_cells_of([]), *made, "DROP VIEW cells"]
    return statements, prepared(connection, statements) if is_usual else None


def _retired(ledger: Ledger) -> pa.Table:
    """Return slides that a manifest listed no more when somebody said to leave such slides out."""
    table = ledger.generations()
    table = table.filter(pc.is_valid(table.column("retired")))
    columns = ("slide_id", "patient_id", "marker", "uri", "committed_at")
    return table.select(columns).rename_columns([*columns[:-1], "retired_at"])


def _markers(url: str) -> pa.Table:
    """Return the markers that have a name: the usual, and those that were given with these results."""
    kept = read_markers(url)
    return _usual_markers() if kept is None else _marker_table(registry_with(kept, url))


@cache
def _usual_markers() -> pa.Table:
    return _marker_table(registry_with(None, ""))


def _marker_table(registry: Registry) -> pa.Table:
    rows = []
    for marker in registry.markers.values():
        ranges = [{"category": c.name, **asdict(c)} for c in marker.scoring.categories]
        scoring = asdict(marker.scoring) | {"categories": ranges}
        rows.append(asdict(marker) | scoring | {"brief": marker.brief})
    texts = pa.list_(pa.string())
    category = {"category": pa.string(), "to_percent": pa.float64(), "inclusive": pa.bool_()}
    fields = dict.fromkeys(("name", "note", "caution", "brief"), pa.string())
    fields |= {"aliases": texts, "localisation": texts, "score": pa.string(), "min_cells": pa.int64()}
    fields |= {"positive_from_percent": pa.float64(), "categories": pa.list_(pa.struct(category))}
    return pa.Table.from_pylist(rows, schema=pa.schema(fields | {"source": pa.string()}))


def _cutoff_sets(url: str) -> pa.Table:
    """Return the sets of cut-offs that have a name: what holds without one, and those with the results."""
    builtin = {"name": BUILTIN, **intensity()}
    builtin["note"] = builtin.pop("source")
    texts = ("name", "marker", "attribute", "value", "note", "author", "made_at", "marker_thresh")
    fields = {key: pa.float64() for key in VALUES} | {key: pa.string() for key in texts}
    rows = []
    for row in (builtin, *read_cutoffs(url)):
        thresh = row.get("marker_thresh")  # a number, or 'default'
        rank = 2 * (row.get("marker") is not None) + (row.get("attribute") is not None)
        rows.append({**row, "marker_thresh": None if thresh is None else str(thresh), "rank": rank})
    order = ("name", "marker", "attribute", "value", *VALUES, "note", "author", "made_at")
    schema = pa.schema([(key, fields[key]) for key in order] + [("rank", pa.int64())])
    return pa.Table.from_pylist(rows, schema=schema)


def _has_same_content(slides: pa.Table) -> bool:
    """Tell whether some fingerprint is that of several slides: most results need no look at which."""
    return bool(pc.count_distinct(slides.column("slide_fingerprint")).as_py() < slides.num_rows)


def warn(url: str, damaged: list[Damage]) -> None:
    """Log one line that says what is damaged, if anything is, and what that means for answers."""
    if not damaged:
        return
    named = ", ".join(list(dict.fromkeys(damage.object for damage in damaged))[:_LISTED])
    cells = len({damage.slide_id for damage in damaged if damage.kind == "cells"})
    without = f"; cells and called_cells lack those of {cells} slides" * (cells > 0)
    more = ", …" * (len({damage.object for damage in damaged}) > _LISTED)
    _log.warning(
        "%s: damaged and passed over: %s%s%s; list all with `deepliif-ray check`, mend with `deepliif-ray "
        "check --repair` and by scoring the manifest again",
        url,
        named,
        more,
        without,
    )


def _create_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Copy an Arrow table into the database, times as plain UTC (reading zoned ones would need pytz)."""
    if not table.num_rows:  # most are: spelt out, that takes a quarter of the time
        columns = ", ".join(f"{quoted_name(field.name)} {_sql_type(field.type)}" for field in table.schema)
        connection.execute(f"CREATE TABLE stored.{name} ({columns})")
        return
    for position, field in enumerate(table.schema):
        if isinstance(field.type, pa.TimestampType):
            table = table.set_column(position, field.name, table.column(position).cast(pa.timestamp("us")))
    connection.register("arriving", table)
    connection.execute(f"CREATE TABLE stored.{name} AS SELECT * FROM arriving")
    connection.unregister("arriving")


def _sql_type(kind: pa.DataType) -> str:
    """Return DuckDB's type of an Arrow type that tables of results have."""
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({_sql_type(kind.key_type)}, {_sql_type(kind.item_type)})"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{quoted_name(field.name)} {_sql_type(field.type)}' for field in kind)})"
    return "TIMESTAMP" if pa.types.is_timestamp(kind) else _SQL_TYPES[str(kind)]


def _cells_view(
    connection: duckdb.DuckDBPyConnection, url: str, slides: pa.Table, damaged: list[Damage], place: Place
) -> tuple[str, list[str]]:
    """Return what makes the view of cells, without those that are damaged, and the files behind it."""
    _create_table(connection, "no_cells", table_schema("cells").empty_table())
    found = cells_objects(url, slides, damaged)
    selects = [_select(objects, place) for objects in found]
    return _cells_of(selects), [place(path) for objects in found for path in objects.paths]


def _cells_of(selects: list[str]) -> str:
    columns = ", ".join(column_names("cells"))
    return Template(read_sql("cells")).substitute(columns=columns, selects="".join(selects))


def _select(objects: CellsObjects, place: Place) -> str:
    """Return what reads cells objects, as one part of the view."""
    later = later_columns("cells", objects.version)
    columns = [
        _OWN.get(name, f"c.{name}") if name not in later else "s.attempt" if name == "attempt" else "NULL"
        for name in column_names("cells")
    ]
    form = "cells_of_older" if later else "cells_of_some" if objects.partial else "cells_of_files"
    return Template(read_sql(form)).substitute(
        columns=", ".join(columns),
        files=", ".join(quoted(place(path)) for path in objects.paths),
        path=quoted(objects.paths[0]) if objects.partial else "NULL",
    )
