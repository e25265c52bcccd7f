"""Answers that are larger than memory, handed out a part at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from deepliif_ray.errors import QueryError
from deepliif_ray.query.literals import quoted
from deepliif_ray.query.reading import answer
from deepliif_ray.query.views import connect

MEMORY = "1GB"
"""What DuckDB may hold; more, as in sorting, goes to disk."""


class Stream:
    """Results as they were when this was opened; `streaming` makes one."""

    def __init__(self, results: str, connection: duckdb.DuckDBPyConnection) -> None:
        self._results, self._connection = results, connection

    def table(self, query: str, values: Sequence[Any] = ()) -> pa.Table:
        """Return what a query of this software's own gives, given the values of its parameters.

        Raises
        ------
        QueryError
            DuckDB cannot answer it.
        """
        try:
            return answer(self._connection, query, values)
        except duckdb.Error as error:
            raise self._trouble(error) from error

    def give(self, name: str, table: pa.Table) -> None:
        """Let queries know a table by a name."""
        self._connection.register(name, table)

    def batches(self, query: str, values: Sequence[Any], rows: int) -> Iterator[pa.Table]:
        """Yield the answer in parts of ``rows`` rows, the last one smaller; ask nothing else meanwhile.

        Raises
        ------
        QueryError
            DuckDB cannot answer it.
        """
        try:
            reader = self._connection.sql(query, params=list(values)).to_arrow_reader(rows)
            waiting: list[pa.RecordBatch] = []
            count = 0
            for batch in reader:
                waiting.append(batch)
                count += batch.num_rows
                while count >= rows:
                    table = pa.Table.from_batches(waiting, reader.schema)
                    yield table.slice(0, rows)
                    waiting, count = table.slice(rows).to_batches(), count - rows
            if count:
                yield pa.Table.from_batches(waiting, reader.schema)
        except (duckdb.Error, pa.ArrowException) as error:
            raise self._trouble(error) from error

    def _trouble(self, error: Exception) -> QueryError:
        return QueryError(f"{self._results}: {error}")


@contextmanager
def streaming(results: str, memory: str = MEMORY) -> Iterator[Stream]:
    """Open results for questions of this software's own whose answers may be large.

    Parameters
    ----------
    results : str
        URL of the results.
    memory : str
        What DuckDB may hold, as it reads sizes.

    Raises
    ------
    ResultsError, StorageError
        See `deepliif_ray.connect`.
    """
    with TemporaryDirectory(prefix="deepliif-ray-") as folder, connect(results) as connection:
        connection.execute(f"SET memory_limit = {quoted(memory)}")
        connection.execute(f"SET temp_directory = {quoted(folder)}")
        yield Stream(results, connection)
