"""A manifest's file as a table of text: CSV with any usual separator, JSON Lines or Parquet."""

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from deepliif_ray import contracts, storage
from deepliif_ray.errors import ConfigError, ManifestError
from deepliif_ray.manifest.content import MAX_COLUMNS, MAX_ROWS, decode, read_content
from deepliif_ray.manifest.parquet import parquet_bytes, parquet_rows

_PARQUET = b"PAR1"
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_SEPARATOR_LINE = re.compile(r"\s*\"?sep=(.)\"?[ \t]*(\r\n|\r|\n)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"\s*\d+,\d+\s*", re.ASCII)

Record = dict[str, str]
NumberedRecord = tuple[int, Record]
Problem = tuple[int, str]  # row, 0 for the file as a whole


@dataclass(frozen=True)
class Table:
    """A table of text: its columns, its rows as numbered in messages, and the columns that held numbers."""

    columns: list[str]
    records: list[NumberedRecord]
    numeric: set[str]


def read_rows(url: str) -> tuple[list[str], list[NumberedRecord]]:
    """Return the columns of a manifest, and its rows as they are written, numbered as in messages.

    Raises
    ------
    ManifestError
        The file cannot be read as a table; the rows themselves are not checked.
    """
    problems: list[Problem] = []
    table = read_table(url, problems)
    if problems:
        raise ManifestError(url, [f"row {row}: {text}" if row else text for row, text in problems])
    return table.columns, table.records


def write_rows(url: str, columns: list[str], rows: list[Record]) -> None:
    """Write a table of text that `read_rows` reads.

    Parameters
    ----------
    url : str
        Its extension tells the format: CSV, JSON Lines or Parquet; text is compressed if it ends in ``.gz``.
    columns : list of str
        The first columns; others follow as they first occur in a row.
    rows : list of dict

    Raises
    ------
    ConfigError
        The extension is none of a manifest's.
    StorageError
        The file cannot be written.
    """
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    kind = _format_by_name(url)
    if kind == "csv":
        text = io.StringIO(newline="")
        separator = "\t" if PurePosixPath(url.lower().removesuffix(".gz")).suffix == ".tsv" else ","
        writer = csv.DictWriter(text, names, restval="", delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
    elif kind == "jsonl":
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    elif kind == "parquet" and not url.lower().endswith(".gz"):
        content = parquet_bytes(names, rows)
    else:
        formats = contracts.load("manifest")["formats"]
        known = ", ".join(suffix for suffixes in formats.values() for suffix in suffixes)
        raise ConfigError(f"{url}: a manifest's name ends in one of {known}")
    storage.write_bytes(url, gzip.compress(content) if url.lower().endswith(".gz") else content)


def read_table(url: str, problems: list[Problem]) -> Table:
    """Return a file as a table; append what is wrong with it."""
    content = read_content(url)
    if content.startswith(_PARQUET) or _format_by_name(url) == "parquet":
        columns, rows = parquet_rows(url, content)
        numeric = {
            name for row in rows for name, value in zip(columns, row, strict=True) if _is_number(value)
        }
        texts = enumerate(([_text(value) for value in row] for row in rows), start=1)
        return Table(columns, [(n, dict(zip(columns, row, strict=True))) for n, row in texts], numeric)
    text = decode(url, content)
    is_json = _format_by_name(url) == "jsonl" or text.lstrip()[:1] in ("{", "[")
    table = Table([], [], set())
    for record in _read_jsonl(text, problems, table) if is_json else _read_csv(text, problems, table):
        if len(table.columns) > MAX_COLUMNS:
            raise ManifestError(url, [f"it has more than {MAX_COLUMNS:,} columns; give one row a slide"])
        if len(table.records) == MAX_ROWS:
            raise ManifestError(url, [f"it has more than {MAX_ROWS:,} rows; split it into several manifests"])
        table.records.append(record)
    _drop_empty_columns(table, problems)
    return table


def _format_by_name(url: str) -> str | None:
    suffix = PurePosixPath(url.lower().removesuffix(".gz")).suffix
    formats = contracts.load("manifest")["formats"]
    return next((str(name) for name, suffixes in formats.items() if suffix in suffixes), None)


def _drop_empty_columns(table: Table, problems: list[Problem]) -> None:
    """Drop columns without a name if they hold nothing, as spreadsheets leave them at the right."""
    if "" not in table.columns:
        return
    if any(record.get("", "").strip() for _, record in table.records):
        where = table.columns.index("") + 1
        problems.append((0, f"column {where} has values but no name; name it or remove it"))
    table.columns[:] = [name for name in table.columns if name]
    for _, record in table.records:
        record.pop("", None)


def _read_csv(text: str, problems: list[Problem], table: Table) -> Iterator[NumberedRecord]:
    """Yield rows, the header's names in the table; rows without any value, as at a sheet's end, are none."""
    told = _SEPARATOR_LINE.match(text)
    if told:
        text = text[told.end() :]
    separator = told[1] if told else _separator(text)
    name = _SEPARATORS.get(separator, repr(separator))
    # The csv module can say which row has a field too many or a quote unclosed; faster readers cannot.
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    header = table.columns
    start = number = 2 if told else 1
    try:
        for number, fields in enumerate(rows, start):
            if not any(field.strip() for field in fields):
                continue
            if not header:
                header += [field.strip() for field in fields]
            elif len(fields) != len(header):
                problem = (
                    f"{len(fields)} fields where the header has {len(header)} (separated by a {name}); "
                    f"a value that holds a {name} or a line break needs double quotes"
                )
                problems.append((number, problem))
            else:
                record = dict(zip(header, fields, strict=True))
                for empty in (n for n, column in enumerate(header) if not column and fields[n].strip()):
                    record[""] = fields[empty]
                if separator != "," and _DECIMAL_COMMA.fullmatch(record.get("mpp", "")):
                    record["mpp"] = record["mpp"].replace(
                        ",", "."
                    )  # where commas part nothing, it is a decimal
                yield number, record
    except csv.Error as error:
        problems.append((number + bool(header), f"not valid CSV ({error}); check its double quotes"))


def _separator(text: str) -> str:
    """Return the separator by which the header has most of a manifest's columns, then most columns at all."""
    # Lines may end in a carriage return alone.
    line = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    known = {column["name"] for column in contracts.load("manifest")["columns"]}

    def worth(separator: str) -> tuple[int, int]:
        try:
            fields = next(csv.reader([line], delimiter=separator), [])
        except csv.Error:  # a field without end, say; told of where rows are read
            return 0, 0
        names = {field.strip().strip('"').casefold().replace(" ", "_") for field in fields}
        return len(names & known), len(fields)

    return max(_SEPARATORS, key=worth)


def _read_jsonl(text: str, problems: list[Problem], table: Table) -> Iterator[NumberedRecord]:
    """Yield rows, the names found so far in the table."""
    columns: dict[str, None] = {}
    # Not splitlines(): that also breaks at characters which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_Pairs)
            if not isinstance(row, _Pairs):
                problems.append((number, "not a JSON object; write one object a line"))
                continue
            record = {name.strip(): _text(value) for name, value in row}
        except (ValueError, RecursionError) as error:
            why = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
            problems.append((number, f"not valid JSON ({why}); write one object a line"))
            continue
        twice = [name for name, count in Counter(name.strip() for name, _ in row).items() if count > 1]
        if twice:
            problems += [(number, f"key {name!r} is there twice; keep one") for name in twice]
            continue
        if record.keys() - columns.keys():
            columns.update(dict.fromkeys(record))
            table.columns[:] = columns
        table.numeric.update(name.strip() for name, value in row if _is_number(value))
        yield number, record


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written, repeated keys included."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    """Return any value as text: nothing as an empty one, nested values as JSON."""
    if value is None:
        return ""
    if isinstance(value, bytes):  # some writers of Parquet do not mark text as text
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, bool | dict | list):
        return json.dumps(_plain(value), ensure_ascii=False, default=str)
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _plain(inner) for name, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
