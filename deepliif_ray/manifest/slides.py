"""What the rows of a manifest say of slides, refused as a whole while anything in it is wrong."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from typing import TypeVar

from deepliif_ray import contracts, storage
from deepliif_ray.errors import ConfigError, ManifestError
from deepliif_ray.manifest.columns import column_problems, column_warnings, mangled
from deepliif_ray.manifest.rows import NumberedRecord, Problem, Record, read_table
from deepliif_ray.manifest.values import is_nothing
from deepliif_ray.scoring.markers import Registry, builtin

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LISTED = 5
_COUNT = re.compile(r"\d{1,6}(\.0)?", re.ASCII)

T = TypeVar("T")


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
    warnings : tuple of str
        What is doubtful about the row.
    """

    slide_id: str
    patient_id: str
    marker: str
    uri: str
    mpp: float | None
    attributes: dict[str, str]
    series: int | None = None
    plane: int | None = None
    warnings: tuple[str, ...] = ()

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
    warnings : list of str
        What is doubtful, by row; the rows' own warnings among them.
    """

    url: str
    slides: list[SlideEntry]
    warnings: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Short text that changes when a row does; the order of rows makes no difference."""
        rows = sorted(
            (asdict(entry) | {"warnings": None} for entry in self.slides), key=itemgetter("slide_id")
        )
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]

    def chosen(self, slide_ids: Collection[str]) -> list[SlideEntry]:
        """Return the named slides in the order of the rows; all when none is named.

        Raises
        ------
        ConfigError
            One of them is not in the manifest.
        """
        known = {entry.slide_id for entry in self.slides}
        unknown = sorted(slide_id for slide_id in slide_ids if slide_id not in known)
        if unknown:
            raise ConfigError(
                f"{self.url}: there is no slide {', '.join(map(repr, unknown[:_LISTED]))}"
                f"{f' and {len(unknown) - _LISTED} more' if len(unknown) > _LISTED else ''}; give slide_ids "
                "exactly as the manifest has them"
            )
        return [entry for entry in self.slides if not slide_ids or entry.slide_id in slide_ids]


def read_manifest(url: str, registry: Registry | None = None) -> Manifest:
    """Read and check a manifest.

    Parameters
    ----------
    url : str
        CSV, Parquet or JSON Lines at any fsspec URL; text may be gzip-compressed. The extension tells the
        format, and the content where the extension does not.
    registry : Registry, optional
        The markers that have a name; by default those of ``schemas/markers.yaml``.

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
    table = read_table(url, problems)
    if table.columns or not problems:
        problems += column_problems(table.columns)
    if table.columns and not table.records and not problems:
        problems.append((0, "there are no rows; give one row a slide"))
    warnings = list(column_warnings(table))
    slides = _check_rows(table.records, storage.parent(url), problems, warnings, registry or builtin())
    if problems:
        raise ManifestError(url, _told(problems))
    return Manifest(url, slides, _told_together(warnings))


def _told(notes: list[Problem]) -> list[str]:
    ordered = sorted(notes, key=lambda note: note[0])
    return [f"row {row}: {text}" if row else text for row, text in ordered]


def _told_together(notes: list[Problem]) -> list[str]:
    """Return notes with the rows that each is about: what is said of every row of a cohort is said once."""
    rows: dict[str, list[int]] = {}
    for row, text in notes:
        rows.setdefault(text, []).append(row)
    return [
        _told([(listed[0], text)])[0]
        if len(listed) == 1
        else f"rows {', '.join(map(str, listed[:_LISTED]))}"
        + (f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else "")
        + f": {text}"
        for text, listed in sorted(rows.items(), key=lambda item: item[1][0])
    ]


def check_rows(
    records: list[Record], folder: str = "", registry: Registry | None = None
) -> dict[int, list[str]]:
    """Return what is wrong with rows of a manifest that is not written yet, by their place in the list."""
    problems: list[Problem] = []
    _check_rows(list(enumerate(records)), folder, problems, [], registry or builtin())
    found: dict[int, list[str]] = {}
    for row, problem in problems:
        found.setdefault(row, []).append(problem)
    return found


def _required() -> list[str]:
    return [column["name"] for column in contracts.load("manifest")["columns"] if column["required"]]


def _check_rows(
    records: list[NumberedRecord],
    folder: str,
    problems: list[Problem],
    warnings: list[Problem],
    registry: Registry,
) -> list[SlideEntry]:
    """Return the rows that are right; of all, append what is wrong and what is to be told."""
    columns = {name for _, record in records for name in record}
    required = [name for name in _required() if name in columns]
    first_row: dict[str, int] = {}
    good: list[tuple[int, SlideEntry]] = []
    told: dict[int, list[str]] = {}
    markers = _Markers(registry)
    mangled_rows = mangled(records, required, told)
    for number, record in records:
        found = mangled_rows.get(number, [])
        slide_id = record.get("slide_id", "")
        if not is_nothing(slide_id) and first_row.setdefault(slide_id, number) != number:
            found.append(f"slide_id {_shorten(slide_id)} is already used in row {first_row[slide_id]}")
        entry = _entry(record, required, markers, folder, found)
        problems += [(number, problem) for problem in found]
        if not found and entry is not None:
            good.append((number, replace(entry, warnings=(*entry.warnings, *told.get(number, ())))))
    good = _check_same_slides(good, problems)
    warnings += [(number, note) for number, entry in good for note in entry.warnings]
    return [entry for _, entry in good]


def _tried(found: list[str], call: Callable[[], T]) -> T | None:
    """Return what ``call`` gives; what is wrong goes to ``found``."""
    try:
        return call()
    except ConfigError as error:
        found.append(str(error))
        return None


class _Markers:
    """Reads the markers of a manifest, each spelling once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[str, tuple[str, str | None]] = {}

    def read(self, text: str) -> tuple[str, str | None]:
        """Return canonical name and note of a marker; of none, which is reported as empty, nothing."""
        if is_nothing(text, "marker"):
            return "", None
        if text not in self._known:
            marker, note = self._registry.read(text.strip())
            self._known[text] = marker.name, note
        return self._known[text]


def _check_same_slides(
    rows: list[tuple[int, SlideEntry]], problems: list[Problem]
) -> list[tuple[int, SlideEntry]]:
    """Refuse rows that name the slide of an earlier row; return the rows, with what is doubtful noted.

    Several images of one file are several slides if the rows say which (``series``). Files of one DICOM
    folder may be of one slide or of several.
    """
    firsts: dict[str, list[tuple[int, SlideEntry, str]]] = {}
    kept = []
    for number, entry in rows:
        place = storage.place(entry.uri)
        folder = place.rpartition("/")[0] if place.lower().endswith(".dcm") else place
        earlier = firsts.setdefault(folder, [])
        same = [
            (row, e)
            for row, e, where in earlier
            if where == place and (e.series, e.plane) == (entry.series, entry.plane)
        ]
        near = [
            (row, e) for row, e, _ in earlier if e.series == entry.series or None in (e.series, entry.series)
        ]
        if same:
            row, first = same[0]
            differs = [
                f"{name} {getattr(first, name)!r} there, {getattr(entry, name)!r} here"
                for name in ("patient_id", "marker", "uri")
                if getattr(first, name) != getattr(entry, name)
            ]
            problems.append(
                (
                    number,
                    f"it is the slide of row {row} again ({'; '.join(differs) or 'the same uri'}); keep one",
                )
            )
        elif near:
            note = f"it may be the image of row {near[0][0]} again; its cells would count twice"
            entry = replace(entry, warnings=(*entry.warnings, note))  # noqa: PLW2901
        earlier.append((number, entry, place))
        kept.append((number, entry))
    return kept


def _entry(
    record: Record, required: list[str], markers: _Markers, folder: str, found: list[str]
) -> SlideEntry | None:
    """Return what a row says of a slide; to ``found`` goes what is wrong with it by itself."""
    for name in required:
        if is_nothing(text := record.get(name, ""), name):
            found.append(
                f"{name} is empty" + (f" ({_shorten(text.strip())} is no value)" if text.strip() else "")
            )
    found += [f"{name!r} is not valid Unicode" for name, text in record.items() if _is_broken(name + text)]
    uri = record.get("uri", "").strip()
    if "\0" in uri:
        found.append("uri holds a NUL character, which no file name can; correct it")
    marker = _tried(found, lambda: markers.read(record.get("marker", "")))
    _tried(found, lambda: storage.refuse_credentials(uri))
    mpp = _tried(found, lambda: _mpp(record.get("mpp", "").strip()))
    series = _tried(found, lambda: _count("series", record.get("series", "").strip()))
    plane = _tried(found, lambda: _count("plane", record.get("plane", "").strip()))
    if found or marker is None or len(required) < len(_required()):
        return None
    known = {column["name"] for column in contracts.load("manifest")["columns"]}
    return SlideEntry(
        slide_id=record["slide_id"],
        patient_id=record["patient_id"].strip(),
        marker=marker[0],
        uri=storage.resolve(uri, folder),
        mpp=mpp,
        attributes={name: text for name, text in record.items() if name not in known and text.strip()},
        series=series,
        plane=plane,
        warnings=() if marker[1] is None else (marker[1],),
    )


def _is_broken(text: str) -> bool:
    r"""Tell whether ``text`` holds half a character, as the JSON escape ``"\ud800"`` does."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def _count(name: str, text: str) -> int | None:
    """Return a number from 0, or None where none is given; raises as `_mpp`."""
    if not text:
        return None
    if not _COUNT.fullmatch(text):
        raise ConfigError(f"{name} {_shorten(text)} cannot be used; give a number from 0, or leave it empty")
    return int(float(text))


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
