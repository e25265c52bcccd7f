"""A manifest's file as a table of text: CSV, JSON Lines or Parquet."""

import csv
import gzip
import io
import json
import zlib
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepliif_ray import contracts, storage
from deepliif_ray.errors import ConfigError, ManifestError, StorageError

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"

Record = dict[str, str]
NumberedRecord = tuple[int, Record]
Problem = tuple[int, str]  # row, 0 for the file as a whole


def read_rows(url: str) -> tuple[list[str], list[NumberedRecord]]:
    """Return the columns of a manifest, and its rows as they are written, numbered as in messages.

    Raises
    ------
    ManifestError
        The file cannot be read as a table; the rows themselves are not checked.
    """
    problems: list[Problem] = []
    columns, records = numbered_rows(url, problems)
    if problems:
        raise ManifestError(url, [f"row {row}: {text}" for row, text in problems])
    return columns, records


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
    suffix = PurePosixPath(url.lower().removesuffix(".gz")).suffix
    formats = contracts.load("manifest")["formats"]
    kind = next((name for name, suffixes in formats.items() if suffix in suffixes), None)
    if kind == "csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
    elif kind == "jsonl":
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    elif kind == "parquet" and not url.lower().endswith(".gz"):
        sink = pa.BufferOutputStream()
        pq.write_table(
            pa.table({n: pa.array([row.get(n) for row in rows], pa.string()) for n in names}), sink
        )
        content = sink.getvalue().to_pybytes()
    else:
        known = ", ".join(suffix for suffixes in formats.values() for suffix in suffixes)
        raise ConfigError(f"{url}: a manifest's name ends in one of {known}")
    storage.write_bytes(url, gzip.compress(content) if url.lower().endswith(".gz") else content)


def numbered_rows(url: str, problems: list[Problem]) -> tuple[list[str], list[NumberedRecord]]:
    """Return the columns and the numbered rows, all values as text."""
    try:
        content = storage.read_bytes(url)
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except (StorageError, OSError, EOFError, zlib.error) as error:
        raise ManifestError(url, [str(error)]) from error
    if not content.strip():
        raise ManifestError(url, ["the file is empty; give a header and one row a slide"])
    readers = {"csv": _read_csv, "parquet": _read_parquet, "jsonl": _read_jsonl}
    return readers[_format(url, content)](content, url, problems)


def _format(url: str, content: bytes) -> str:
    suffix = PurePosixPath(url.lower().removesuffix(".gz")).suffix
    for name, suffixes in contracts.load("manifest")["formats"].items():
        if suffix in suffixes:
            return str(name)
    if content.startswith(_PARQUET):
        return "parquet"
    return "jsonl" if content.lstrip().startswith(b"{") else "csv"


def _decode(content: bytes, url: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"line {line} is not UTF-8 text; save the manifest as CSV in UTF-8, JSON Lines or Parquet"
        raise ManifestError(url, [problem]) from error


def _read_csv(content: bytes, url: str, problems: list[Problem]) -> tuple[list[str], list[NumberedRecord]]:
    """Return header and rows; rows without any value, as spreadsheets leave them at the end, are no rows."""
    # The csv module can say which row has a field too many or a quote unclosed; faster readers cannot.
    rows = csv.reader(io.StringIO(_decode(content, url), newline=""), strict=True)
    header: list[str] = []
    records: list[NumberedRecord] = []
    number = 0
    try:
        for number, fields in enumerate(rows, start=1):
            if not any(field.strip() for field in fields):
                continue
            if not header:
                header = [name.strip() for name in fields]
            elif len(fields) != len(header):
                problem = (
                    f"{len(fields)} fields where the header has {len(header)}; "
                    "a value that holds a comma or a line break needs double quotes"
                )
                problems.append((number, problem))
            else:
                records.append((number, dict(zip(header, fields, strict=True))))
    except csv.Error as error:
        problems.append((number + 1, f"not valid CSV ({error}); check its double quotes"))
    return header, records


def _read_jsonl(content: bytes, url: str, problems: list[Problem]) -> tuple[list[str], list[NumberedRecord]]:
    """Return the names found in any row, and the rows."""
    columns: dict[str, None] = {}
    records: list[NumberedRecord] = []
    # Not splitlines(): that also breaks at characters which JSON allows inside a string.
    for number, line in enumerate(_decode(content, url).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append((number, f"not valid JSON ({error}); write one object a line"))
            continue
        if not isinstance(row, dict):
            problems.append((number, "not a JSON object; write one object a line"))
            continue
        record = {name.strip(): _text(value) for name, value in row.items()}
        columns.update(dict.fromkeys(record))
        records.append((number, record))
    return list(columns), records


def _read_parquet(
    content: bytes, url: str, problems: list[Problem]
) -> tuple[list[str], list[NumberedRecord]]:
    try:
        table = pq.read_table(pa.BufferReader(content))
        values = [column.to_pylist() for column in table.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ManifestError(url, [f"not a readable Parquet file ({error})"]) from error
    columns = [name.strip() for name in table.column_names]
    rows = enumerate(zip(*values, strict=True), start=1)
    return columns, [(number, dict(zip(columns, map(_text, row), strict=True))) for number, row in rows]


def _text(value: Any) -> str:
    """Return any value as text: nothing as an empty one, nested values as JSON."""
    if value is None:
        return ""
    if isinstance(value, bytes):  # some writers of Parquet do not mark text as text
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
