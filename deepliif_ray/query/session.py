"""Results held open for one question after another, as a person at a terminal asks them."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa

from deepliif_ray.errors import QueryError
from deepliif_ray.query.reading import check_reads, check_types, reading, unique_names
from deepliif_ray.query.sandbox import Limits, ask_sandboxed
from deepliif_ray.query.views import connect

_BATCH_ROWS = 10_000


class Session:
    """Results as they were when this was made, and questions about them.

    Parameters
    ----------
    results : str
        URL of the results.
    sandbox : Limits, optional
        Each question runs in a process of its own with these limits, and sees the results as they are then;
        see `deepliif_ray.query.ask`.

    Raises
    ------
    ResultsError, StorageError
        See `deepliif_ray.connect`.
    """

    def __init__(self, results: str, sandbox: Limits | None = None) -> None:
        self._results, self._sandbox = results, sandbox
        self._connection = connect(results)
        self._worker = ThreadPoolExecutor(1)  # this thread hears Ctrl-C
        self._worker.submit(int).result()  # begins now: one that is interrupted while it begins is lost

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.shutdown()
        self._connection.close()

    def statements(self, text: str) -> list[str]:
        """Return the statements of ``text``, in order.

        Raises
        ------
        QueryError
            One of them is not understood, or would write: then none is to be answered.
        """
        try:
            found = [statement.query for statement in self._connection.extract_statements(text)]
            for query in found:
                check_reads(self._connection, query)
        except duckdb.Error as error:
            raise self._trouble(error) from error
        return found

    def answer(self, query: str, most: int | None = None) -> pa.Table:
        """Return what one statement gives; Ctrl-C (KeyboardInterrupt) ends it, and the session goes on.

        Parameters
        ----------
        query : str
        most : int, optional
            Rows that are wanted; of a longer answer at least one more comes, to tell that it is longer.

        Raises
        ------
        QueryError
            It cannot be answered, or would write.
        """
        if self._sandbox is not None:
            table = ask_sandboxed(self._results, query, self._sandbox)
            return table if most is None else table.slice(0, most + 1)
        try:
            return self._worker.submit(self._answer, query, most).result()
        except KeyboardInterrupt:
            self._stop()
            raise

    def _stop(self) -> None:
        """Interrupt the worker until it has nothing to do: one that comes before its query has no effect."""
        idle = self._worker.submit(int)
        while not idle.done():
            with suppress(KeyboardInterrupt):
                self._connection.interrupt()
                wait([idle], 0.1)

    def _answer(self, query: str, most: int | None) -> pa.Table:
        try:
            check_reads(self._connection, query)
            with reading(self._connection):
                return _rows(self._connection.sql(query), most)
        except duckdb.Error as error:
            raise self._trouble(error) from error

    def columns(self) -> Mapping[str, list[str]]:
        """Return the columns of each view, and the parameters of each table macro, by its name."""
        found: dict[str, list[str]] = {}
        for view, name in self._connection.execute("SELECT view, name FROM described").fetchall():
            found.setdefault(view, []).append(name)
        return found

    def views(self) -> list[str]:
        """Return the names of the views."""
        rows = self._connection.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main' ORDER BY 1"
        )
        return [name for (name,) in rows.fetchall()]

    def macros(self) -> list[str]:
        """Return the names of the table macros."""
        rows = self._connection.execute("SELECT DISTINCT view FROM described WHERE kind = 'parameter'")
        return sorted(name for (name,) in rows.fetchall())

    def keywords(self) -> list[str]:
        """Return the words that SQL keeps for itself, in capitals."""
        rows = self._connection.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved' OR "
            "keyword_name IN ('join', 'left', 'by', 'over', 'partition', 'using', 'exclude', 'explain')"
        )
        return sorted({name.upper() for (name,) in rows.fetchall()})

    def _trouble(self, error: duckdb.Error) -> QueryError:
        return QueryError(f"{self._results}: {error}")


def is_complete(text: str) -> bool:
    """Tell whether ``text`` ends in a semicolon that is not part of a quotation or a comment."""
    tokens = [start for start, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    return bool(tokens) and text.encode()[tokens[-1] : tokens[-1] + 1] == b";"


def _rows(relation: duckdb.DuckDBPyRelation, most: int | None) -> pa.Table:
    check_types(relation.columns, list(map(str, relation.types)))
    reader = relation.to_arrow_reader(_BATCH_ROWS)
    batches, left = [], float("inf") if most is None else most + 1
    while left > 0:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            break
        batches.append(batch)
        left -= batch.num_rows
    table = pa.Table.from_batches(batches, reader.schema)
    reader.close()
    return table.rename_columns(unique_names(relation.columns))
