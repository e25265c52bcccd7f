"""One question, one table."""

import duckdb
import pyarrow as pa

from deepliif_ray.errors import QueryError
from deepliif_ray.query.sandbox import Limits, ask_sandboxed
from deepliif_ray.query.views import connect


def ask(results: str, query: str, *, sandbox: bool | Limits = False) -> pa.Table:
    """Return what a SQL query over committed results gives.

    Parameters
    ----------
    results : str
        URL of the results.
    query : str
        SQL; see `connect` for the views.
    sandbox : bool or Limits
        For SQL that is not trusted: it runs in a process of its own, with limits on time, memory and the size
        of the answer (`Limits`; True takes its defaults), which reads these results and nothing else.

    Raises
    ------
    QueryError
        DuckDB does not understand the query or cannot answer it, or not within the sandbox's limits.
    ResultsError, StorageError
        See `connect`.
    """
    if sandbox:
        return ask_sandboxed(results, query, Limits() if sandbox is True else sandbox)
    with connect(results) as connection:
        try:
            answer = connection.sql(query)
            if answer is None:
                raise QueryError("the query returns no rows; ask with SELECT")
            return answer.to_arrow_table()
        except duckdb.Error as error:
            raise QueryError(f"{results}: {error}") from error
