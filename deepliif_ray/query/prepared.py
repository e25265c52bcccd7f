"""Views and macros that were made before, in a file that a connection copies them from.

DuckDB looks into each view and macro when SQL makes it, which takes a quarter of a second for all of them.
Those of most results are the same, and copied they take a hundredth. The file holds no results.
"""

import hashlib
import logging
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import duckdb

from deepliif_ray import storage
from deepliif_ray.errors import StorageError
from deepliif_ray.query.literals import quoted, quoted_name

_FOLDER = "views"
_ALIAS = "deepliif_ray_prepared"
"""What the file's database is called while it is open: the one in use may have any other name."""
_log = logging.getLogger(__name__)


def prepared(connection: duckdb.DuckDBPyConnection, statements: Sequence[str]) -> Path | None:
    """Return the file of what ``statements`` make, which is made if there is none; None if it cannot be.

    Parameters
    ----------
    connection : DuckDBPyConnection
        With what the statements rest on: its views are not in the file, nor is a table.
    statements : sequence of str
    """
    folder = storage.default_cache() / _FOLDER
    text = "\0".join((duckdb.__version__, *statements))
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.duckdb"
    try:
        storage.own_folder(folder.parent)
        storage.own_folder(folder)
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=folder) as own:
                file = Path(own, path.name)
                _make(connection, statements, file)
                file.replace(path)
    except (OSError, StorageError, duckdb.Error) as error:
        _log.debug("views are not prepared: %s", error)
        return None
    return path


def _make(connection: duckdb.DuckDBPyConnection, statements: Sequence[str], file: Path) -> None:
    below = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    name = _current(connection)
    connection.execute(f"ATTACH {quoted(str(file))} AS {_ALIAS}")
    try:
        connection.execute(f"COPY FROM DATABASE {name} TO {_ALIAS} (SCHEMA)")
        connection.execute(f"USE {_ALIAS}")
        for statement in statements:
            connection.execute(statement)
        for (view,) in below:
            connection.execute(f"DROP VIEW {quoted_name(view)}")
        connection.execute("DROP SCHEMA stored CASCADE")
        connection.execute(f"CHECKPOINT {_ALIAS}")
    finally:
        connection.execute(f"USE {name}")
        connection.execute(f"DETACH {_ALIAS}")


def copying(file: Path, into: str = "memory") -> list[str]:
    """Return the statements that copy the views and macros of a file into a database without them."""
    return [
        f"ATTACH {quoted(str(file))} AS {_ALIAS} (READ_ONLY)",
        f"COPY FROM DATABASE {_ALIAS} TO {into} (SCHEMA)",
        f"DETACH {_ALIAS}",
    ]


def copy_prepared(connection: duckdb.DuckDBPyConnection, file: Path) -> bool:
    """Copy them into this connection; tell whether that worked, else nothing is changed."""
    try:
        for statement in copying(file, _current(connection)):
            connection.execute(statement)
    except duckdb.Error as error:
        _log.debug("prepared views are not used: %s", error)
        with suppress(duckdb.Error):
            connection.execute(f"DETACH {_ALIAS}")
        with suppress(OSError):
            file.unlink()  # it may be damaged; the next who asks makes it anew
        return False
    return True


def _current(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the name of the database in use, in quotes."""
    ((name,),) = connection.execute("SELECT current_database()").fetchall()
    return quoted_name(name)
