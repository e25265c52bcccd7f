"""The cohort manifest: one row a slide, refused as a whole while anything in it is wrong."""

import csv
import difflib
import gzip
import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepliif_ray import contracts, storage
from deepliif_ray.errors import ConfigError, ManifestError, StorageError
from deepliif_ray.scoring.markers import resolve_marker

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

Record = dict[str, str]
NumberedRecord = tuple[int, Record]
Problem = tuple[int, str]  # row, 0 for the file as a whole


@dataclass(frozen=True)
class SlideEntry:
    """One row of a manifest.

    Attributes
    ----------
    slide_id : str
        Name of the slide, exactly as in the manifest.
    patient_id : str
        Patient, without surrounding white space.
    marker : str
        Canonical name of the marker.
    uri : str
        Absolute URL of the slide.
    mpp : float or None
        Micrometres per level-0 pixel, if the manifest gives it.
    attributes : dict of str to str
        All other columns that have a value.
    """

    slide_id: str
    patient_id: str
    marker: str
    uri: str
    mpp: float | None
    attributes: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """A manifest in which everything is right.

    Attributes
    ----------
    url : str
        Where it was read from.
    slides : list of SlideEntry
        In the order of the rows.
    """

    url: str
    slides: list[SlideEntry]


def read_manifest(url: str) -> Manifest:
    """Read and check a manifest.

    Parameters
    ----------
    url : str
        CSV, Parquet or JSON Lines at any fsspec URL; text may be gzip-compressed. The extension tells the
        format, and the content where the extension does not.

    Returns
    -------
    Manifest
        At least one slide.

    Raises
    ------
    ManifestError
        The file cannot be read, or rows are wrong; the message lists every problem by row. Rows of CSV are
        counted as a spreadsheet does, the header being row 1; rows of JSON Lines are lines; rows of Parquet
        count from 1.
    """
    storage.refuse_credentials(url)
    problems: list[Problem] = []
    columns, records = _read_rows(url, problems)
    problems += _column_problems(columns)
    if columns and not records and not problems:
        problems.append((0, "there are no rows; give one row a slide"))
    slides = _check_rows(records, set(columns), storage.parent(url), problems)
    if problems:
        ordered = sorted(problems, key=lambda problem: problem[0])
        raise ManifestError(url, [f"row {row}: {text}" if row else text for row, text in ordered])
    return Manifest(url, slides)


def read_rows(url: str) -> tuple[list[str], list[NumberedRecord]]:
    """Return the columns of a manifest, and its rows as they are written, numbered as in messages.

    Raises
    ------
    ManifestError
        The file cannot be read as a table; the rows themselves are not checked.
    """
    problems: list[Problem] = []
    columns, records = _read_rows(url, problems)
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


def check_row(record: Record) -> list[str]:
    """Return what is wrong with one row of a manifest."""
    problems: list[Problem] = []
    _check_rows([(1, record)], set(record), "", problems)
    return [problem for _, problem in problems]


def _read_rows(url: str, problems: list[Problem]) -> tuple[list[str], list[NumberedRecord]]:
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


def _column_problems(columns: list[str]) -> Iterator[Problem]:
    for name, count in Counter(columns).items():
        if count > 1:
            yield 0, f"column {name!r} is there {count} times; keep one"
    for name in _required():
        if name not in columns:
            close = difflib.get_close_matches(name, columns, n=1)
            hint = f"rename {close[0]!r}" if close else f"columns found: {', '.join(columns)[:300] or 'none'}"
            yield 0, f"column {name!r} is missing; {hint}"


def _required() -> list[str]:
    return [column["name"] for column in contracts.load("manifest")["columns"] if column["required"]]


def _check_rows(
    records: list[NumberedRecord], columns: set[str], folder: str, problems: list[Problem]
) -> list[SlideEntry]:
    """Return the rows that are right; of the others, append what is wrong."""
    required = [name for name in _required() if name in columns]
    first_row: dict[str, int] = {}
    slides: list[SlideEntry] = []
    for number, record in records:
        found = [f"{name} is empty" for name in required if not record.get(name, "").strip()]
        found += [
            f"{name!r} is not valid Unicode" for name, text in record.items() if _is_broken(name + text)
        ]
        if "\0" in record.get("uri", ""):
            found.append("uri holds a NUL character, which no file name can; correct it")
        slide_id = record.get("slide_id", "")
        if slide_id.strip() and first_row.setdefault(slide_id, number) != number:
            found.append(f"slide_id {_shorten(slide_id)} is already used in row {first_row[slide_id]}")
        try:
            marker = _marker(record.get("marker", "").strip())
        except ConfigError as error:
            found.append(str(error))
        try:
            storage.refuse_credentials(record.get("uri", ""))
        except ConfigError as error:
            found.append(str(error))
        try:
            mpp = _mpp(record.get("mpp", "").strip())
        except ConfigError as error:
            found.append(str(error))
        if found or len(required) < len(_required()):
            problems += [(number, problem) for problem in found]
        else:
            slides.append(_entry(record, marker, mpp, folder))
    return slides


def _entry(record: Record, marker: str, mpp: float | None, folder: str) -> SlideEntry:
    known = {column["name"] for column in contracts.load("manifest")["columns"]}
    return SlideEntry(
        slide_id=record["slide_id"],
        patient_id=record["patient_id"].strip(),
        marker=marker,
        uri=storage.resolve(record["uri"].strip(), folder),
        mpp=mpp,
        attributes={name: text for name, text in record.items() if name not in known and text.strip()},
    )


def _marker(text: str) -> str:
    """Return the canonical name of a marker; nothing for nothing, which is reported as empty."""
    return resolve_marker(text).name if text else ""


def _is_broken(text: str) -> bool:
    r"""Tell whether ``text`` holds half a character, as the JSON escape ``"\ud800"`` does."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def _mpp(text: str) -> float | None:
    """Return the resolution, µm per px, or None where none is given.

    Raises
    ------
    ConfigError
        It is not a number a slide can have.
    """
    if not text:
        return None
    limits = next(column for column in contracts.load("manifest")["columns"] if column["name"] == "mpp")
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if limits["minimum"] <= value <= limits["maximum"]:
        return value
    raise ConfigError(
        f"mpp {_shorten(text)} cannot be used; give micrometres per pixel with a decimal point, between "
        f"{limits['minimum']} and {limits['maximum']} (40x is about 0.25), or leave it empty"
    )


def _shorten(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")
