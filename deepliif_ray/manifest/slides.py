"""What the rows of a manifest say of slides, refused as a whole while anything in it is wrong."""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from deepliif_ray import contracts, storage
from deepliif_ray.errors import ConfigError, ManifestError
from deepliif_ray.manifest.rows import NumberedRecord, Problem, Record, numbered_rows
from deepliif_ray.scoring.markers import resolve_marker

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

_COUNT = re.compile(r"\d{1,6}(\.0)?", re.ASCII)


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
    series, plane : int, optional
        Which image of the file and which focal plane is meant, from 0, if the manifest says.
    """

    slide_id: str
    patient_id: str
    marker: str
    uri: str
    mpp: float | None
    attributes: dict[str, str]
    series: int | None = None
    plane: int | None = None

    @property
    def image_asked(self) -> str | None:
        """What the manifest says of series and plane, as text; None if it says nothing."""
        asked = {"series": self.series, "plane": self.plane}
        return " ".join(f"{name}={number}" for name, number in asked.items() if number is not None) or None


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
    columns, records = numbered_rows(url, problems)
    problems += _column_problems(columns)
    if columns and not records and not problems:
        problems.append((0, "there are no rows; give one row a slide"))
    slides = _check_rows(records, set(columns), storage.parent(url), problems)
    if problems:
        ordered = sorted(problems, key=lambda problem: problem[0])
        raise ManifestError(url, [f"row {row}: {text}" if row else text for row, text in ordered])
    return Manifest(url, slides)


def check_row(record: Record) -> list[str]:
    """Return what is wrong with one row of a manifest."""
    problems: list[Problem] = []
    _check_rows([(1, record)], set(record), "", problems)
    return [problem for _, problem in problems]


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
        numbers: dict[str, int | None] = {}
        for name in ("series", "plane"):
            text = record.get(name, "").strip()
            numbers[name] = int(float(text)) if _COUNT.fullmatch(text) else None
            if text and numbers[name] is None:
                found.append(
                    f"{name} {_shorten(text)} cannot be used; give a number from 0, or leave it empty"
                )
        if found or len(required) < len(_required()):
            problems += [(number, problem) for problem in found]
        else:
            slides.append(
                replace(_entry(record, marker, mpp, folder), series=numbers["series"], plane=numbers["plane"])
            )
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
