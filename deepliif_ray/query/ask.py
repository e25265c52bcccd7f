"""Questions and the tables that answer them; a question changes nothing."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from deepliif_ray.errors import QueryError
from deepliif_ray.query.views import connect

_READING = {
    duckdb.StatementType.SELECT,
    duckdb.StatementType.MULTI,
}  # MULTI: PIVOT, which looks at values first
_UNTRANSLATED = re.compile(r"\b(UHUGEINT|BIT|BIGNUM|VARINT)\b")
_GAP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_EXPLAIN = re.compile(
    rf"{_GAP}explain\b{_GAP}(?:analyze\b{_GAP})?(?:\([^)]*\){_GAP})?", re.IGNORECASE | re.DOTALL
)


def ask(results: str, query: str, *, sandbox: bool = False) -> pa.Table:
    """Return what a SQL query over committed results gives.

    Parameters
    ----------
    results : str
        URL of the results.
    query : str
        SQL, one statement that reads; see `connect` for the views.
    sandbox : bool
        As for `connect`.

    Raises
    ------
    QueryError
        DuckDB does not understand the query or cannot answer it, or the query is none: it would write.
    ResultsError, StorageError
        See `connect`.
    """
    return ask_all(results, {"": query}, sandbox=sandbox)[""]


def ask_all(results: str, queries: Mapping[str, str], *, sandbox: bool = False) -> dict[str, pa.Table]:
    """Return the answers to several queries, of one moment; parameters and errors as of `ask`."""
    with connect(results, sandbox=sandbox) as connection:
        try:
            for query in queries.values():
                _check_reads(connection, query)
            with _reading(connection):
                return {name: _answer(connection.sql(query)) for name, query in queries.items()}
        except duckdb.Error as error:
            raise QueryError(f"{results}: {error}") from error


def _answer(relation: duckdb.DuckDBPyRelation) -> pa.Table:
    """Return rows as a table, every column by a name of its own and with its right values."""
    names: list[str] = []
    for name, kind in zip(relation.columns, map(str, relation.types), strict=True):
        if _UNTRANSLATED.search(kind):  # Arrow has no such type; what comes out is another number
            raise QueryError(
                f"column {name!r} is of type {kind}, which cannot be handed on; cast it to VARCHAR"
            )
        number = names.count(name)
        while (unique := f"{name}_{number}" if number else name) in names:
            number += 1
        names.append(unique)
    return relation.to_arrow_table().rename_columns(names)


@contextmanager
def _reading(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Refuse what writes inside: DuckDB tells apart what the text of a query does not, as in a WITH."""
    connection.execute("BEGIN TRANSACTION READ ONLY")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _check_reads(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse what is not one statement that reads.

    Raises
    ------
    QueryError
        It is empty, several statements, or one that writes or changes settings.
    """
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise QueryError(f"{len(statements)} statements in the query; ask one SELECT at a time")
    kind = statements[0].type
    if kind == duckdb.StatementType.EXPLAIN:
        # What ANALYZE runs counts. There is no way to ask for it but to take the first words off.
        inner = _EXPLAIN.sub("", statements[0].query, count=1)
        kinds = [statement.type for statement in connection.extract_statements(inner)]
    else:
        kinds = [kind]
    for kind in kinds:
        if kind not in _READING:
            raise QueryError(
                f"{kind.name.replace('_', ' ')} is refused, nothing was changed: questions only read. Ask "
                "with SELECT (or DESCRIBE, SHOW), write answers with --output, and use deepliif_ray.connect "
                "for tables of your own"
            )
