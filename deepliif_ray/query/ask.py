"""Questions and their answers, each a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from deepliif_ray.errors import QueryError
from deepliif_ray.query.literals import quoted
from deepliif_ray.query.reading import answer, answer_of, check_reads, reading
from deepliif_ray.query.sandbox import Limits, ask_sandboxed
from deepliif_ray.query.views import connect


def ask(results: str, query: str, *, sandbox: bool | Limits = False) -> pa.Table:
    """Return what a SQL query over committed results gives.

    Parameters
    ----------
    results : str
        URL of the results.
    query : str
        SQL, one statement that reads; see `connect` for the views.
    sandbox : bool or Limits
        For SQL that is not trusted: it runs in a process of its own, with limits on time, memory and the size
        of the answer (`Limits`; True takes its defaults), which reads these results and nothing else.

    Raises
    ------
    QueryError
        DuckDB does not understand the query or cannot answer it, or not within the sandbox's limits, or the
        query is none: it would write.
    ResultsError, StorageError
        See `connect`.
    """
    if sandbox:
        return ask_sandboxed(results, query, Limits() if sandbox is True else sandbox)
    return ask_all(results, {"": query})[""]


def ask_all(results: str, queries: Mapping[str, str]) -> dict[str, pa.Table]:
    """Return the answers to several queries, of one moment; parameters and errors as of `ask`."""
    with connect(results) as connection:
        try:
            for query in queries.values():
                check_reads(connection, query)
            with reading(connection):
                return {name: answer_of(connection.sql(query)) for name, query in queries.items()}
        except duckdb.Error as error:
            raise QueryError(f"{results}: {error}") from error


def scored(
    name: str,
    *,
    cutoffs: str | Mapping[str, float | str] | None = None,
    region: str | None = None,
    corrections: bool = True,
) -> str:
    """Return SQL for a view, or the table macro of this name with what is given; see docs/scores.md.

    Parameters
    ----------
    name : str
        ``called_cells``, ``slide_indices``, …
    cutoffs : str or mapping, optional
        The name of a set that is kept with the results, or values.
    region : str, optional
        Class of regions.
    corrections : bool
        Whether corrections count.
    """
    given = []
    if isinstance(cutoffs, Mapping):
        values = ", ".join(f"{quoted(key)}: {_value(value)}" for key, value in cutoffs.items())
        given.append(f"cutoffs := {{{values}}}")
    elif cutoffs is not None:
        given.append(f"cutoffs := {quoted(cutoffs)}")
    if region is not None:
        given.append(f"region := {quoted(region)}")
    if not corrections:
        given.append("corrections := false")
    return f"{name}({', '.join(given)})" if given else name


def _value(value: float | str) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)


@contextmanager
def asking(results: str) -> Iterator[Callable[..., pa.Table]]:
    """Open results for many questions of this software's own.

    What is given is a function of SQL and of the values of its parameters, which returns a table. All are
    answered of one moment. Questions of others are for `ask`, which looks at what they do.

    Raises
    ------
    QueryError
        DuckDB cannot answer.
    ResultsError, StorageError
        See `connect`.
    """
    with connect(results) as connection:

        def its_answer(query: str, values: Sequence[Any] = ()) -> pa.Table:
            try:
                return answer(connection, query, values)
            except duckdb.Error as error:
                raise QueryError(f"{results}: {error}") from error

        yield its_answer
