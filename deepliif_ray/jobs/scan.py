"""Build or extend a manifest from the slides that lie in a folder or bucket."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, StorageError
from deepliif_ray.jobs.dicom_head import read_identifiers
from deepliif_ray.jobs.find import Found, find_slides
from deepliif_ray.jobs.pattern import PathPattern
from deepliif_ray.manifest import (
    Record,
    check_rows,
    read_manifest,
    read_registry,
    read_rows,
    write_rows,
)
from deepliif_ray.scoring.markers import Registry, builtin

REQUIRED = ("slide_id", "patient_id", "marker")


@dataclass(frozen=True)
class ScanReport:
    """What a scan did.

    Attributes
    ----------
    rows : int
        Rows of the manifest now.
    added : int
        Of them new.
    known : int
        Slides that were in the manifest already; their rows are as they were.
    unplaced : list of (str, str)
        URL of each slide that has no row, and why.
    other_files : int
        Files that are not slides by their names, companions of slides among them.
    hidden_files : int
        Files passed over because they, or a folder of theirs, are hidden or made by a system.
    lab_rows_unused : int
        Rows of the joined table that name no slide here.
    """

    rows: int
    added: int
    known: int
    unplaced: list[tuple[str, str]]
    other_files: int
    hidden_files: int
    lab_rows_unused: int

    @property
    def table(self) -> pa.Table:
        """The unplaced slides: ``uri`` and ``why``."""
        schema = pa.schema({"uri": pa.string(), "why": pa.string()})
        return pa.Table.from_pylist([{"uri": uri, "why": why} for uri, why in self.unplaced], schema=schema)


def scan(
    source: str,
    patterns: Sequence[str],
    output: str,
    *,
    extend: str | None = None,
    join: str | None = None,
    on: str | None = None,
    constants: Record | None = None,
    markers: str | None = None,
) -> ScanReport:
    """Find slides and write a manifest of those whose patient, marker and name are known.

    Parameters
    ----------
    source : str
        URL of the folder that is scanned, with all folders below it.
    patterns : sequence of str
        See `PathPattern`; of several the first that fits counts. Fields other than those of a manifest become
        attributes.
    output : str
        URL of the manifest to write: CSV, JSON Lines or Parquet, by its extension.
    extend : str, optional
        URL of a manifest whose rows are kept exactly as they are, and to which new slides are added. It may
        be ``output`` itself, and then need not exist yet.
    join : str, optional
        URL of a table (CSV, Parquet, JSON Lines) with further columns, from a laboratory system say.
    on : str, optional
        Column of it that holds the slide's file name, its path below ``source``, or its URL.
    constants : dict, optional
        Columns that are the same for all new slides: ``marker``, ``mpp``.
    markers : str, optional
        URL of a YAML file of the cohort's own markers.

    Returns
    -------
    ScanReport

    Raises
    ------
    ConfigError
        An option cannot be used, there is nothing to write, or ``output`` would be overwritten.
    ManifestError
        The manifest to extend, or the table to join, cannot be used.
    StorageError
        The folder cannot be listed.
    """
    if (join is None) != (on is None):
        raise ConfigError("give join (--join) and the column to join on (--on) together")
    compiled = [PathPattern(text) for text in patterns]
    constants = constants or {}
    for name in constants:
        if any(name in pattern.names for pattern in compiled):
            raise ConfigError(f"{name} is given, and is in a pattern too; leave out one")
    registry = builtin() if markers is None else read_registry(markers)
    source, output = storage.absolute(source).rstrip("/"), storage.absolute(output)
    columns, rows = _existing(output, extend, registry)
    known = {storage.resolve(row["uri"].strip(), storage.parent(output)): row["slide_id"] for row in rows}
    found = find_slides(source, compiled)
    slides, other_files = found.slides, found.others
    for slide in slides:
        slide.row |= constants
    new = [slide for slide in slides if slide.uri not in known]
    unused = 0
    if join is not None and on is not None:
        unused = _join(slides, *read_rows(join), join, on)
    _fill_from_dicom(new)
    for slide in new:
        slide.problem = slide.problem or _missing(slide, join)
    _refuse_duplicates(new, {slide_id: uri for uri, slide_id in known.items()})
    _refuse_wrong_rows(new, rows, storage.parent(output), registry)
    placed = [slide for slide in new if not slide.problem]
    report = ScanReport(
        rows=len(rows) + len(placed),
        added=len(placed),
        known=len(slides) - len(new),
        unplaced=[(slide.uri, slide.problem) for slide in new if slide.problem],
        other_files=other_files,
        hidden_files=found.hidden,
        lab_rows_unused=unused,
    )
    if not slides:
        raise ConfigError(f"{source}: no slides below it ({other_files} other files); check the URL")
    if placed or (rows and not storage.exists(output)):
        write_rows(output, columns, rows + [{**slide.row, "uri": slide.uri} for slide in placed])
    return report


def _existing(output: str, extend: str | None, registry: Registry) -> tuple[list[str], list[Record]]:
    """Return columns and rows to keep; their URLs are made absolute where they would no longer hold."""
    base = ["slide_id", "patient_id", "marker", "uri"]
    extend = extend and storage.absolute(extend)
    if extend != output and storage.exists(output):
        raise ConfigError(f"{output}: exists already; extend it (--extend {output}), or write another file")
    if extend is None or (extend == output and not storage.exists(output)):
        return base, []
    read_manifest(extend, registry)  # a manifest with problems is mended first
    columns, numbered = read_rows(extend)
    rows, folder = [row for _, row in numbered], storage.parent(extend)
    if folder != storage.parent(output):
        rows = [{**row, "uri": storage.resolve(row["uri"].strip(), folder)} for row in rows]
    return columns, rows


def _join(
    slides: list[Found], columns: list[str], numbered: list[tuple[int, Record]], join: str, on: str
) -> int:
    """Add the columns of a table to the slides it names; return how many of its rows name none."""
    if on not in columns:
        raise ConfigError(f"{join}: has no column {on!r}; its columns are {', '.join(columns)}")
    by_key: dict[str, list[Record]] = {}
    for _, row in numbered:
        by_key.setdefault(row.get(on, "").strip(), []).append(row)
    used = set()
    for slide in slides:
        keys = (slide.uri, slide.path, PurePosixPath(slide.path).name)
        key = next((key for key in keys if key in by_key), None)
        if key is None:
            continue
        used.add(key)
        if len(by_key[key]) > 1:
            slide.problem = f"{len(by_key[key])} rows of {join} have {on} {key!r}; keep one"
            continue
        told = {name: text for name, text in by_key[key][0].items() if name != on and text.strip()}
        for name in told.keys() & slide.row.keys():
            if told[name].strip() != slide.row[name]:
                slide.problem = f"{name} is {slide.row[name]!r} by its path, {told[name]!r} by {join}"
        slide.row = told | slide.row
    return sum(len(rows) for key, rows in by_key.items() if key not in used)


def _fill_from_dicom(slides: list[Found]) -> None:
    """Take patient and name of DICOM slides from their files where nothing else gives them."""
    lacking = [s for s in slides if not s.problem and not {"slide_id", "patient_id"} <= s.row.keys()]

    def fill(slide: Found) -> None:
        try:
            files = storage.list_files(slide.uri, ".dcm")
            stated = read_identifiers(files[0]) if files else {}
        except StorageError as error:
            slide.problem = str(error)
            return
        name = stated.get("ContainerIdentifier") or stated.get("SeriesInstanceUID")
        for key, value in (("patient_id", stated.get("PatientID")), ("slide_id", name)):
            if value:
                slide.row.setdefault(key, value)

    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        list(pool.map(fill, lacking))


def _missing(slide: Found, join: str | None) -> str:
    lacking = [name for name in REQUIRED if not slide.row.get(name, "").strip()]
    if not lacking:
        return ""
    sources = "its path" if join is None else f"its path nor {join}"
    neither = "not given by" if join is None else "given by neither"
    return f"{', '.join(lacking)} {neither} {sources}"


def _refuse_wrong_rows(new: list[Found], rows: list[Record], folder: str, registry: Registry) -> None:
    """Place no slide whose row a manifest could not have, alone or beside the other rows."""
    placed = [slide for slide in new if not slide.problem]
    records = [*rows, *({**slide.row, "uri": slide.uri} for slide in placed)]
    for n, problems in check_rows(records, folder, registry).items():
        if n >= len(rows):
            placed[n - len(rows)].problem = "; ".join(problems)


def _refuse_duplicates(new: list[Found], known: dict[str, str]) -> None:
    """Place none of several slides with one slide_id; a row that is in the manifest already stays."""
    counts = Counter(slide.row.get("slide_id") for slide in new if not slide.problem)
    first = {slide.row["slide_id"]: slide.uri for slide in reversed(new) if not slide.problem}
    for slide in new:
        if slide.problem:
            continue
        slide_id = slide.row["slide_id"]
        if slide_id in known:
            slide.problem = f"slide_id {slide_id!r} is that of {known[slide_id]} in the manifest"
        elif counts[slide_id] > 1:
            others = first[slide_id] if first[slide_id] != slide.uri else "another slide here"
            slide.problem = (
                f"slide_id {slide_id!r} is also that of {others}; use a pattern that tells them apart"
            )
