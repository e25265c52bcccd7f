"""Questions only read: what is none is refused, and answers have names and values that are right."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from deepliif_ray.errors import QueryError

_READING = {
    duckdb.StatementType.SELECT,
    duckdb.StatementType.MULTI,
}  # MULTI: PIVOT, which looks at values first
_UNTRANSLATED = re.compile(r"\b(UHUGEINT|BIT|BIGNUM|VARINT)\b")
_GAP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_EXPLAIN = re.compile(
    rf"{_GAP}explain\b{_GAP}(?:analyze\b{_GAP})?(?:\([^)]*\){_GAP})?", re.IGNORECASE | re.DOTALL
)

# See `answer`.
warnings.filterwarnings("ignore", "Arrow output on a DB-API result", UserWarning)


def answer(connection: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any] = ()) -> pa.Table:
    """Return what a query of this software's own gives, as `answer_of` does.

    DuckDB looks into views and macros once here, and twice for a relation: when it is made and when it is
    read. That is half the time of most questions, and costs one copy of the rows, which are few. The answer
    is the connection's until it is read, so threads that share one ask in turn.
    """
    connection.execute(query, list(values))
    described = connection.description or []
    columns = [column[0] for column in described]
    check_types(columns, [str(column[1]) for column in described])
    table = connection.to_arrow_table()
    assert table is not None  # of the statement above
    return table.rename_columns(unique_names(columns))


def answer_of(relation: duckdb.DuckDBPyRelation) -> pa.Table:
    """Return rows as a table, every column by a name of its own and with its right values."""
    check_types(relation.columns, list(map(str, relation.types)))
    return relation.to_arrow_table().rename_columns(unique_names(relation.columns))


def check_types(columns: Sequence[str], types: Sequence[str]) -> None:
    """Refuse columns that would come out as other numbers, since Arrow has no such type."""
    for name, kind in zip(columns, types, strict=True):
        if _UNTRANSLATED.search(kind):
            raise QueryError(
                f"column {name!r} is of type {kind}, which cannot be handed on; cast it to VARCHAR"
            )


def unique_names(columns: Sequence[str]) -> list[str]:
    """Return names of columns, repeated ones numbered."""
    names: list[str] = []
    for name in columns:
        number = names.count(name)
        while (unique := f"{name}_{number}" if number else name) in names:
            number += 1
        names.append(unique)
    return names


@contextmanager
def reading(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Refuse what writes inside: DuckDB tells apart what the text of a query does not, as in a WITH."""
    connection.execute("BEGIN TRANSACTION READ ONLY")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def check_reads(connection: duckdb.DuckDBPyConnection, query: str) -> None:
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
