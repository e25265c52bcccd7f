"""Texts as SQL writes them."""

from collections.abc import Iterable


def quoted(text: str) -> str:
    """Return a text as SQL has it, in quotes."""
    return "'" + text.replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    """Return the name of a database, table or column as SQL has it, in quotes."""
    return '"' + name.replace('"', '""') + '"'


def quoted_list(texts: Iterable[str]) -> str:
    """Return texts as a list in SQL, of texts even if it is empty."""
    return f"[{', '.join(map(quoted, texts))}]::VARCHAR[]"
