"""Regions that people drew, brought into results: which there are, where they lie, what is in them."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from deepliif_ray import storage
from deepliif_ray.annotations import objects
from deepliif_ray.annotations.classes import RefusedError, is_exclude
from deepliif_ray.annotations.geojson import Feature, GeoJsonFile
from deepliif_ray.annotations.measure import with_areas, with_cells
from deepliif_ray.annotations.origin import Origin, origin_of
from deepliif_ray.annotations.polygons import moved, outline_of, refuse_beyond
from deepliif_ray.annotations.which_slide import Slides, author_of
from deepliif_ray.errors import AnnotationError
from deepliif_ray.tables.schema import table_schema

MAX_VERTICES = 10_000_000
MAX_REGIONS = 200_000
_TOO_DETAILED = "simplify the outlines, or import fewer slides at a time; cells and detections are no regions"


@dataclass
class RegionImport:
    """What an import of regions did.

    Attributes
    ----------
    import_id : str
    slides : dict of str to int
        Number of regions by slide.
    passed_over : Counter
        What is no region, by what it is, as ``detection`` or ``Point``.
    refused : list of str
        Features that were left out because they cannot be used, as was asked for.
    repaired : list of str
        Features whose outline was made valid.
    without_tissue : dict of str to str
        Slides whose tissue was not measured, and why.
    replaced : list of str
        Slides that had regions before.
    """

    import_id: str
    slides: dict[str, int] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    without_tissue: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)


def import_regions(
    results: str,
    files: Sequence[str],
    *,
    slide: str | None = None,
    author: str | None = None,
    origin: Origin | None = None,
    read_slides: bool = True,
    skip_refused: bool = False,
    watch: Callable[[str], None] | None = None,
) -> RegionImport:
    """Bring regions drawn in QuPath, or other GeoJSON, into results; they replace what their slides had.

    Nothing is written if any feature is refused. Areas are regions; points, lines, detections and cells are
    passed over and counted.

    Parameters
    ----------
    results : str
        URL of the results.
    files : sequence of str
        URLs of GeoJSON files.
    slide : str, optional
        The slide that all of them are of; else their names or their features say.
    author : str, optional
        By default the user of this process.
    origin : Origin, optional
        Where coordinates begin; see `deepliif_ray.annotations.origin.origin_of`.
    read_slides : bool
        Whether to read the slides for the tissue in the regions.
    skip_refused : bool
        Leave out features that cannot be used instead of refusing everything.
    watch : callable, optional
        Called with a line on what is being done.

    Returns
    -------
    RegionImport

    Raises
    ------
    AnnotationError
        A file or feature cannot be used; the message names each.
    ConfigError
        There is no such slide, or a file could be of several.
    ResultsError
        There are no results here, or cells of a slide are gone or damaged.
    StorageError
        A store does not answer.
    """
    results = storage.absolute(results)
    watch = watch or (lambda _: None)
    now = datetime.now(UTC)
    report = RegionImport(objects.new_name(now))
    slides = Slides(results, slide)
    stamp = {"author": author_of(author), "import_id": report.import_id, "imported_at": now}
    rows = _Rows(slides, origin, report)
    digests: dict[str, str] = {}
    for url in files:
        watch(f"reading {url}")
        file = GeoJsonFile(url)
        if file.digest in digests:
            raise AnnotationError(f"{url}: the same as {digests[file.digest]}; give it once")
        digests[file.digest] = url
        rows.add(file, stamp)
    if report.refused and not skip_refused:
        raise AnnotationError(
            f"nothing was imported: {len(report.refused):,} features cannot be used:\n"
            + storage.listed(report.refused, lambda text: f"  - {text}", "\n")
            + "\nmend them, or leave them out with --skip-refused"
        )
    if not rows.by_slide:
        found = ", ".join(f"{count:,} {kind}" for kind, count in report.passed_over.items())
        raise AnnotationError(
            f"{', '.join(files)}: no regions in there" + (f", but {found}" if found else "")
        )
    damaged: list[Any] = []
    before = objects.read(results, objects.REGIONS, damaged)
    had = {slide_id for held in before for slide_id in held.table.column("slide_id").to_pylist()}
    tables = []
    for slide_id in sorted(rows.by_slide):
        watch(f"measuring {slide_id}")
        table = pa.Table.from_pylist(rows.by_slide.pop(slide_id), schema=_draft())
        tables.append(_with_areas(slides.rows[slide_id], table, read_slide=read_slides))
        reason = tables[-1].column("tissue_reason")[0].as_py()
        report.slides[slide_id] = table.num_rows
        if reason is not None and read_slides:
            report.without_tissue[slide_id] = reason
    report.replaced = sorted(had & report.slides.keys())
    write_measured(results, report.import_id, (measured(results, slides.rows, table) for table in tables))
    return report


class _Rows:
    """Regions as rows, by slide, while files are read."""

    def __init__(self, slides: Slides, origin: Origin | None, report: RegionImport) -> None:
        self.by_slide: dict[str, list[dict[str, Any]]] = {}
        self._slides, self._origin, self._report = slides, origin, report
        self._ids: set[tuple[str, str]] = set()
        self._vertices = self._regions = 0

    def add(self, file: GeoJsonFile, stamp: dict[str, Any]) -> None:
        """Add the regions of a file."""
        named = self._slides.of_file(file.url)
        waiting: list[tuple[str, Feature, Any, bool]] = []
        for place, feature in file.features():
            called = f"{file.name}: {place}"
            try:
                if isinstance(feature, RefusedError):
                    raise feature
                area, repaired = self._outline(feature)
            except RefusedError as refused:
                self._report.refused.append(f"{called}: {refused}")
                continue
            if area is None:
                continue
            self._count(file.url, area)
            waiting.append((called, replace(feature, geometry=None), area, repaired))
        if waiting:
            said = [feature.slide_id for _, feature, _, _ in waiting]
            self._slides.refuse_nobodys(file.url, [named, file.slide_id, *said])
        # Now it is known what the collection says of itself.
        for called, feature, area, repaired in waiting:
            try:
                row = self._slides.of_feature(named, feature.slide_id or file.slide_id)
                made = self._row(row, feature, area) | {"repaired": repaired}
            except RefusedError as refused:
                self._report.refused.append(f"{called}: {refused}")
                continue
            if repaired:
                self._report.repaired.append(called)
            made |= {"source": file.name, "source_digest": file.digest} | stamp
            self.by_slide.setdefault(row["slide_id"], []).append(made)

    def _outline(self, feature: Feature) -> tuple[Any, bool]:
        if feature.kind != "annotation":
            self._report.passed_over[feature.kind] += 1
            return None, False
        outline = outline_of(feature.geometry)
        self._report.passed_over.update(outline.others)
        return outline.area, outline.repaired

    def _count(self, url: str, area: Any) -> None:
        self._regions += 1
        self._vertices += int(shapely.get_num_coordinates(area))
        if self._regions > MAX_REGIONS:
            raise AnnotationError(f"{url}: over {MAX_REGIONS:,} regions; {_TOO_DETAILED}")
        if self._vertices > MAX_VERTICES:
            raise AnnotationError(f"{url}: over {MAX_VERTICES:,} vertices; {_TOO_DETAILED}")

    def _row(self, row: dict[str, Any], feature: Feature, area: Any) -> dict[str, Any]:
        x, y, bounds = origin_of(row, self._origin)
        area = moved(area, x, y)
        refuse_beyond(area, row["width_px"], row["height_px"], bounds)
        return {
            "slide_id": row["slide_id"],
            "patient_id": row["patient_id"],
            "region_id": self._id(row["slide_id"], feature),
            "class": feature.class_name,
            "excludes": is_exclude(feature.class_name),
            "name": feature.name,
            "color": feature.color,
            "geometry": shapely.to_wkb(area, byte_order=1, output_dimension=2),
            "origin_x": x,
            "origin_y": y,
        }

    def _id(self, slide_id: str, feature: Feature) -> str:
        given = feature.feature_id
        if given is not None and (slide_id, given) in self._ids:
            raise RefusedError("another region of the slide has the same id; it is there twice")
        number = feature.number
        while given is None:
            if (slide_id, f"r{number}") not in self._ids:
                given = f"r{number}"
            number += 1
        self._ids.add((slide_id, given))
        return given


def _draft() -> pa.Schema:
    """Return the schema of regions before they are measured."""
    schema = table_schema("regions")
    return pa.schema([entry.with_nullable(True) for entry in schema], schema.metadata)


def _with_areas(row: dict[str, Any], regions: pa.Table, *, read_slide: bool) -> pa.Table:
    try:
        return with_areas(row, regions, read_slide=read_slide)
    except shapely.errors.GEOSException as error:
        raise AnnotationError(
            f"the regions of slide {row['slide_id']!r} cannot be put together ({error}); draw them again"
        ) from error


def measured(results: str, slides: dict[str, dict[str, Any]], regions: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the regions of one slide with its cells counted, and the rows that say which cell lies where."""
    return with_cells(results, slides[regions.column("slide_id")[0].as_py()], regions)


def write_measured(results: str, name: str, slides: Iterator[tuple[pa.Table, pa.Table]]) -> None:
    """Write an import: first which cells lie in its regions, then the regions, with which it exists.

    Parameters
    ----------
    results : str
    name : str
        Of the objects.
    slides : iterator of (regions, region_cells)
        One a slide, in the order of slide_id.
    """
    regions = []
    with tempfile.TemporaryDirectory(prefix="deepliif-ray-") as folder:
        local = Path(folder) / "cells.parquet"
        with pq.ParquetWriter(local, table_schema("region_cells"), compression="zstd") as writer:
            for its_regions, its_cells in slides:
                regions.append(its_regions)
                writer.write_table(its_cells, row_group_size=1_000_000)
        size = local.stat().st_size
        storage.write_file(storage.join(results, objects.path_of(objects.REGION_CELLS, name)), local)
    table = objects.with_column(pa.concat_tables(regions), "measured_bytes", size)
    objects.write(results, objects.REGIONS, name, table)


def drop_regions(results: str, import_id: str) -> int:
    """Remove an import of regions; the one before counts again. Return how many regions it had.

    Raises
    ------
    AnnotationError
        There is no such import.
    StorageError
        It cannot be removed.
    """
    return objects.drop(storage.absolute(results), objects.REGIONS, import_id)
