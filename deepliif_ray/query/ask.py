"""One question, one table."""

import duckdb
import pyarrow as pa

from deepliif_ray.errors import QueryError
from deepliif_ray.query.views import connect


def ask(results: str, query: str, *, sandbox: bool = False) -> pa.Table:
    """Return what a SQL query over committed results gives.

    Parameters
    ----------
    results : str
        URL of the results.
    query : str
        SQL; see `connect` for the views.
    sandbox : bool
        As for `connect`.

    Raises
    ------
    QueryError
        DuckDB does not understand the query or cannot answer it.
    ResultsError, StorageError
        See `connect`.
    """
    with connect(results, sandbox=sandbox) as connection:
        try:
            answer = connection.sql(query)
            if answer is None:
                raise QueryError("the query returns no rows; ask with SELECT")
            return answer.to_arrow_table()
        except duckdb.Error as error:
            raise QueryError(f"{results}: {error}") from error
