"""Corrections of single cells, brought into results: positive, negative, or not a cell."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import shapely

from deepliif_ray import storage
from deepliif_ray.annotations import objects
from deepliif_ray.annotations.classes import BETWEEN, RefusedError, class_key
from deepliif_ray.annotations.geojson import SUFFIXES, Feature, GeoJsonFile
from deepliif_ray.annotations.matching import match
from deepliif_ray.annotations.origin import Origin, origin_of
from deepliif_ray.annotations.polygons import TOLERANCE_PX, outline_of, points_of
from deepliif_ray.annotations.which_slide import Slides, author_of
from deepliif_ray.errors import AnnotationError, ConfigError, ManifestError
from deepliif_ray.manifest import read_rows
from deepliif_ray.tables.schema import table_schema

MAX_CORRECTIONS = 250_000
MOST_AREA_UM2 = 2_500.0
"""A polygon larger than this is no cell."""
REACH_UM = 5.0
POSITIVE, NEGATIVE, NOT_A_CELL = "positive", "negative", "not_a_cell"
_CALLS = {
    "positive": POSITIVE,
    "negative": NEGATIVE,
    "not_a_cell": NOT_A_CELL,
    "not a cell": NOT_A_CELL,
    "ignore": NOT_A_CELL,
    "exclude": NOT_A_CELL,
}
_KNOWN = "positive, negative, or not a cell (also Ignore*)"
_COLUMNS = ("slide_id", "x", "y", "call", "author", "note")


@dataclass
class CorrectionImport:
    """What an import of corrections did.

    Attributes
    ----------
    import_id : str
    calls : Counter
        Number of corrections by call.
    unmatched : list of str
        Corrections that match no cell; they are kept, and may match once the slide is scored again.
    refused : list of str
        What was left out because it cannot be used, as was asked for.
    other_columns : list of str
        Columns of tables that mean nothing here.
    """

    import_id: str
    calls: Counter[str] = field(default_factory=Counter)
    unmatched: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    other_columns: list[str] = field(default_factory=list)


def import_corrections(
    results: str,
    files: Sequence[str],
    *,
    slide: str | None = None,
    author: str | None = None,
    reach_um: float = REACH_UM,
    origin: Origin | None = None,
    skip_refused: bool = False,
) -> CorrectionImport:
    """Bring corrections into results, from GeoJSON or tables; the newest of a cell counts.

    Nothing is written if anything is refused. Corrections that match no cell are kept without one.

    Parameters
    ----------
    results : str
        URL of the results.
    files : sequence of str
        URLs: GeoJSON with points, or polygons of cells, whose class is the call; or CSV, JSON Lines or
        Parquet with the columns slide_id, x, y (level-0 pixels, as in ``cells``), call, and if you like
        author and note.
    slide : str, optional
        The slide that all of them are of.
    author : str, optional
        Where the file does not say; by default the user of this process.
    reach_um : float
        How far the centroid of a cell may be from a position that lies in no cell.
    origin : Origin, optional
        Where coordinates of GeoJSON begin; see `deepliif_ray.annotations.origin.origin_of`. Those of
        tables begin at the slide's corner.
    skip_refused : bool
        Leave out what cannot be used instead of refusing everything.

    Returns
    -------
    CorrectionImport

    Raises
    ------
    AnnotationError
        A file, a row or a feature cannot be used, or two of them call one cell differently.
    ConfigError
        There is no such slide, or ``reach_um`` is not from 0 to 100.
    ResultsError
        There are no results here, or cells of a slide are gone or damaged.
    StorageError
        A store does not answer.
    """
    if not 0 <= reach_um <= 100:  # NaN is not either
        raise ConfigError(f"--reach-um is {reach_um:g}; give 0 to 100 µm")
    results = storage.absolute(results)
    now = datetime.now(UTC)
    report = CorrectionImport(objects.new_name(now))
    reader = _Reader(Slides(results, slide), author_of(author), origin, report)
    rows: list[dict[str, Any]] = []
    called: list[str] = []
    for url in files:
        for name, row in reader.read(url):
            if isinstance(row, RefusedError):
                report.refused.append(f"{name}: {row}")
                continue
            rows.append(row)
            called.append(name)
            if len(rows) > MAX_CORRECTIONS:
                raise AnnotationError(f"{url}: over {MAX_CORRECTIONS:,} corrections; import fewer at a time")
    if report.refused and not skip_refused:
        raise _nothing(report.refused, "mend them, or leave them out with --skip-refused")
    if not rows:
        raise AnnotationError(f"{', '.join(files)}: no corrections in there")
    stamp = {"import_id": report.import_id, "imported_at": now, "reach_um": reach_um}
    for number, row in enumerate(rows, start=1):
        row.update(stamp | {"row": number})
    _match(results, reader.slides, rows)
    _refuse_contradictions(rows, called)
    report.calls.update(row["call"] for row in rows)
    report.unmatched = [
        f"{name}: slide {row['slide_id']!r} at {row['x']:,.1f}, {row['y']:,.1f}"
        for name, row in zip(called, rows, strict=True)
        if row["cell_id"] is None
    ]
    table = pa.Table.from_pylist(rows, schema=table_schema("corrections"))
    objects.write(results, objects.CORRECTIONS, report.import_id, table)
    return report


def call_of(text: str) -> str:
    """Return the call that a class or word stands for: the last part of a nested class tells.

    Raises
    ------
    RefusedError
        It is none.
    """
    word = class_key(" ".join(text.split())).split(BETWEEN.strip())[-1].strip()
    call = NOT_A_CELL if word.endswith("*") else _CALLS.get(word)
    if call is None:
        raise RefusedError(f"{storage.shown(text)} is no call; give {_KNOWN}")
    return call


class _Reader:
    """Files of corrections as rows."""

    def __init__(self, slides: Slides, author: str, origin: Origin | None, report: CorrectionImport) -> None:
        self.slides = slides
        self._author, self._origin, self._report = author, origin, report

    def read(self, url: str) -> Iterator[tuple[str, dict[str, Any] | RefusedError]]:
        """Yield what each correction is called in messages, and its row or what is wrong with it."""
        if PurePosixPath(url.lower().removesuffix(".gz")).suffix in SUFFIXES:
            yield from self._read_geojson(url)
        else:
            yield from self._read_table(url)

    def _read_geojson(self, url: str) -> Iterator[tuple[str, dict[str, Any] | RefusedError]]:
        file = GeoJsonFile(url)
        named = self.slides.of_file(url)
        found: list[tuple[str, Feature | RefusedError, _Places]] = []
        for called, feature in file.features():
            try:
                if isinstance(feature, RefusedError):
                    raise feature
                places = _places(feature.geometry)
                found.append((f"{file.name}: {called}", replace(feature, geometry=None), places))
            except RefusedError as refused:
                found.append((f"{file.name}: {called}", refused, _Places([], 0.0)))
        says = [said.slide_id for _, said, _ in found if isinstance(said, Feature)]
        if says:
            self.slides.refuse_nobodys(url, [named, file.slide_id, *says])
        # Now it is known what the collection says of itself.
        for called, said, places in found:
            if isinstance(said, RefusedError):
                yield called, said
                continue
            try:
                rows = self._of_feature(said, places, named, file)
            except RefusedError as refused:
                yield called, refused
                continue
            yield from ((called, row) for row in rows)

    def _of_feature(
        self, feature: Feature, places: "_Places", named: str | None, file: GeoJsonFile
    ) -> list[dict[str, Any]]:
        slide = self.slides.of_feature(named, feature.slide_id or file.slide_id)
        call = call_of(feature.class_name)
        area_um2 = places.area_px * slide["mpp"] ** 2
        if area_um2 > MOST_AREA_UM2:
            raise RefusedError(
                f"its outline has {area_um2:,.0f} µm², which is no cell; to leave out what lies in an area, "
                "import it as a region of the class Exclude"
            )
        left, top, _ = origin_of(slide, self._origin)
        said = {"note": feature.name, "source": file.name, "source_digest": file.digest}
        # Outlines are edges; cells are placed by the centres of pixels.
        return [self._row(slide, x + left - 0.5, y + top - 0.5, call) | said for x, y in places.at]

    def _read_table(self, url: str) -> Iterator[tuple[str, dict[str, Any] | RefusedError]]:
        try:
            columns, records = read_rows(url)
        except ManifestError as error:
            problems = storage.listed(error.problems, lambda text: f"  - {text}", "\n")
            raise AnnotationError(f"{url}:\n{problems}".replace("manifest", "file")) from error
        name = url.rstrip("/").rpartition("/")[2]
        digest = hashlib.sha256(storage.read_bytes(url)).hexdigest()
        names = {column: column.strip().lower() for column in columns}
        twice = [column for column, count in Counter(names.values()).items() if count > 1]
        optional = {"author", "note"} | ({"slide_id"} if self.slides.only is not None else set())
        lacking = [c for c in _COLUMNS if c not in names.values() and c not in optional]
        if lacking or twice:
            problem = f"has no column {', '.join(lacking)}" if lacking else f"has the column {twice[0]} twice"
            raise AnnotationError(
                f"{url}: {problem}; corrections need slide_id, x, y (level-0 pixels) and call, and may have "
                "author and note"
            )
        self._report.other_columns += [column for column in columns if names[column] not in _COLUMNS]
        for number, record in records:
            values = {names[column]: text.strip() for column, text in record.items() if column in names}
            try:
                row = self._of_record(values)
            except RefusedError as refused:
                yield f"{name}: row {number}", refused
                continue
            yield f"{name}: row {number}", row | {"source": name, "source_digest": digest}

    def _of_record(self, values: dict[str, str]) -> dict[str, Any]:
        slide = self.slides.of_feature(self.slides.only, values.get("slide_id") or None)
        x, y = (_number(name, values.get(name, "")) for name in "xy")
        row = self._row(slide, x, y, call_of(values.get("call", "")))
        return row | {"author": values.get("author") or self._author, "note": values.get("note") or None}

    def _row(self, slide: dict[str, Any], x: float, y: float, call: str) -> dict[str, Any]:
        for name, value, size in (("x", x, slide["width_px"]), ("y", y, slide["height_px"])):
            if not -TOLERANCE_PX <= value <= size + TOLERANCE_PX:
                raise RefusedError(
                    f"{name} is {value:,.1f}, but slide {slide['slide_id']!r} has {slide['width_px']:,} × "
                    f"{slide['height_px']:,} px; give level-0 pixels of this slide"
                )
        ids = {name: slide[name] for name in ("slide_id", "patient_id")}
        return ids | {"x": x, "y": y, "call": call, "author": self._author}


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:  # Python takes 1_000 for a number
        raise RefusedError(f"{name} is {storage.shown(text)}, which is no number; write it as 1234.5")
    return value


class _Places(NamedTuple):
    """Where a feature says that cells are, and the area of its outline."""

    at: list[list[float]]
    area_px: float


def _places(geometry: dict[str, Any] | None) -> _Places:
    kind = (geometry or {}).get("type")
    coordinates = (geometry or {}).get("coordinates")
    if kind in ("Point", "MultiPoint"):
        return _Places(points_of([coordinates] if kind == "Point" else coordinates).tolist(), 0.0)
    area = outline_of(geometry).area
    if area is None:
        raise RefusedError("it is neither a point nor the outline of a cell")
    centre = area.centroid
    centre = centre if shapely.intersects(area, centre) else area.representative_point()
    return _Places([[float(centre.x), float(centre.y)]], float(area.area))


def _match(results: str, slides: Slides, rows: list[dict[str, Any]]) -> None:
    """Find the cell of each row."""
    by_slide: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_slide.setdefault(row["slide_id"], []).append(row)
    for slide_id, its in by_slide.items():
        x, y, reach = (np.array([row[name] for row in its], float) for name in ("x", "y", "reach_um"))
        slide = slides.rows[slide_id]
        for row, (cell_id, distance) in zip(its, match(results, slide, x, y, reach), strict=True):
            row.update(attempt=slide["attempt"], cell_id=cell_id, distance_um=distance)


def _refuse_contradictions(rows: list[dict[str, Any]], called: list[str]) -> None:
    """Refuse several calls of one cell, or of one place without a cell, that differ."""
    first: dict[Any, int] = {}
    problems = []
    for n, row in enumerate(rows):
        cell = (row["x"], row["y"]) if row["cell_id"] is None else row["cell_id"]
        other = first.setdefault((row["slide_id"], cell), n)
        if rows[other]["call"] != row["call"]:
            problems.append(
                f"{called[n]}: calls the cell {row['call']} that {called[other]} calls {rows[other]['call']} "
                f"(slide {row['slide_id']!r}, at {row['x']:,.1f}, {row['y']:,.1f})"
            )
    if problems:
        raise _nothing(problems, "keep one of each")


def _nothing(problems: list[str], advice: str) -> AnnotationError:
    listed = storage.listed(problems, lambda text: f"  - {text}", "\n")
    return AnnotationError(
        f"nothing was imported: {len(problems):,} corrections cannot be used:\n{listed}\n{advice}"
    )


def drop_corrections(results: str, import_id: str) -> int:
    """Remove an import of corrections. Return how many it had.

    Raises
    ------
    AnnotationError
        There is no such import.
    StorageError
        It cannot be removed.
    """
    return objects.drop(storage.absolute(results), objects.CORRECTIONS, import_id)
