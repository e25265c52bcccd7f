"""Which regions and corrections count now, for whoever asks questions.

What was measured at an import belongs to one attempt at a slide. Once the slide was scored again, or given to
another patient, it is measured anew here, in memory, so that an answer never rests on cells that are gone.
`deepliif_ray.annotations.refresh` keeps what was measured.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deepliif_ray import storage
from deepliif_ray.annotations import objects
from deepliif_ray.annotations.objects import CORRECTIONS, REGION_CELLS, REGIONS, Held, path_of, with_column
from deepliif_ray.errors import AnnotationError, ResultsError
from deepliif_ray.tables.records import Damage, read_if_there
from deepliif_ray.tables.schema import table_schema

_log = logging.getLogger(__name__)
_OTHER_FILE = (
    "the slide's file or pixel size changed since; `deepliif-ray regions refresh` measures its tissue"
)
_AREAS = ("area_mm2", "class_area_mm2")
_SAID = ("slide_id", "patient_id", "attempt", "mpp", "width_px", "height_px", "slide_fingerprint")


@dataclass(frozen=True)
class Attached:
    """What counts of the annotations of results.

    Attributes
    ----------
    regions : pyarrow.Table
        The regions of each slide's newest import, with the columns of ``regions``; ``attempt`` is that of the
        slide, or null where its cells cannot be read.
    corrections : pyarrow.Table
        All corrections, with the columns of ``corrections`` and ``is_current``: whether the correction is the
        newest of a cell of the slide's newest record.
    region_cells_paths : list of str
        Objects of ``region_cells``, relative to the results. A row of them counts if the slide's record has
        the same slide_id and attempt; rows of slides that are stale have an older attempt. No object is among
        them that holds rows of this attempt which a newer import of the slide replaced.
    region_cells : pyarrow.Table
        Rows of ``region_cells`` that count and are in none of these: measured now, or of objects of which
        only some slides count.
    damaged : list of Damage
        Objects that were passed over.
    """

    regions: pa.Table
    corrections: pa.Table
    region_cells_paths: list[str]
    region_cells: pa.Table
    damaged: list[Damage]


def corrections_schema() -> pa.Schema:
    """Return the schema of `Attached.corrections`."""
    return table_schema("corrections").append(pa.field("is_current", pa.bool_(), False))


def attach(results: str, slides: pa.Table) -> Attached:
    """Return the regions and corrections that count for committed slides.

    Without any it costs two listings. Damaged objects are passed over; one warning is logged if something had
    to be measured anew.

    Parameters
    ----------
    results : str
        URL of the results.
    slides : pyarrow.Table
        The newest commit record of each slide, as `deepliif_ray.tables.ledger.Ledger.slides` returns them.

    Raises
    ------
    ResultsError
        A newer version of this software wrote an object.
    StorageError
        The store does not answer.
    """
    damaged: list[Damage] = []
    imports = objects.read(results, REGIONS, damaged)
    corrected = objects.read(results, CORRECTIONS, damaged)
    regions, cells = objects.empty(REGIONS), objects.empty(REGION_CELLS)
    paths: list[str] = []
    anew: list[str] = []
    rows: Mapping[str, dict[str, Any]] = {}
    if imports or corrected:
        rows = rows_of(slides)
    if imports:
        regions, paths, cells = _attach_regions(results, rows, imports, damaged, anew)
    corrections = corrections_schema().empty_table()
    if corrected:
        corrections = _attach_corrections(results, rows, corrected, damaged, anew)
    if anew:
        _log.warning(
            "%s: annotations of %d slides measured anew, as these were scored again or their objects are "
            "damaged; `deepliif-ray regions refresh` keeps that",
            results,
            len(set(anew)),
        )
    return Attached(regions, corrections, paths, cells, damaged)


def rows_of(slides: pa.Table) -> dict[str, dict[str, Any]]:
    """Return what is needed of commit records, by slide."""
    names = (*_SAID, "cells_path", "n_cells")
    return {row["slide_id"]: row for row in slides.select(names).to_pylist()}


def newest_imports(imports: Sequence[Held], known: Iterable[str]) -> dict[str, str]:
    """Return for each slide that is ``known`` the newest import that holds it, given in their order."""
    wanted = set(known)
    return {
        slide_id: held.import_id
        for held in imports
        for slide_id in pc.unique(held.table.column("slide_id")).to_pylist()
        if slide_id in wanted
    }


def whole_cells(results: str, imports: Sequence[Held], damaged: list[Damage]) -> dict[str, bool | None]:
    """Tell of each import whether its object of region_cells is whole; None where none is there or needed.

    It is of the size that was written, or else has as many rows as its regions have cells: rows of a slide
    that was forgotten are taken out of both.
    """
    there = objects.names(results, REGION_CELLS)
    whole: dict[str, bool | None] = {}
    for held in imports:
        rows = pc.sum(held.table.column("n_cells"), min_count=0).as_py()
        content: bytes | None = None
        is_whole = held.name in there and there[held.name].size == _written_bytes(held)
        if not is_whole:  # a listing may lag behind, too
            content = read_if_there(storage.join(results, path_of(REGION_CELLS, held.name)))
            is_whole = content is not None and objects.count_rows(content) == rows
        whole[held.import_id] = None if content is None and not is_whole and rows == 0 else is_whole
        if whole[held.import_id] is False:
            said = "gone" if content is None else "damaged"
            problem = f"the cells of regions are {said}; `deepliif-ray regions refresh` measures them anew"
            damaged.append(Damage(path_of(REGION_CELLS, held.name), REGION_CELLS, None, problem))
    return whole


def _written_bytes(held: Held) -> int:
    return int(held.table.column("measured_bytes")[0].as_py())


def refuse_resized(row: Mapping[str, Any], regions: pa.Table) -> str | None:
    """Return what is wrong with regions that were drawn on a slide of another size; None if they fit."""
    drawn = tuple(regions.column(name)[0].as_py() for name in ("width_px", "height_px"))
    if drawn == (row["width_px"], row["height_px"]):
        return None
    return (
        f"drawn on a slide of {drawn[0]:,} × {drawn[1]:,} px, which has {row['width_px']:,} × "
        f"{row['height_px']:,} now; import regions of this slide"
    )


def _attach_regions(
    results: str,
    rows: Mapping[str, dict[str, Any]],
    imports: list[Held],
    damaged: list[Damage],
    anew: list[str],
) -> tuple[pa.Table, list[str], pa.Table]:
    counting = newest_imports(imports, rows)
    imports = [held for held in imports if held.import_id in set(counting.values())]
    whole = whole_cells(results, imports, damaged)
    kept = [objects.empty(REGIONS)]
    cells = [objects.empty(REGION_CELLS)]
    paths: list[str] = []
    for held in imports:
        partial = False
        sound: list[str] = []
        for slide_id, its in _by_slide(held.table, rows):
            row = rows[slide_id]
            is_stale = its.column("attempt")[0].as_py() != row["attempt"]
            if counting[slide_id] != held.import_id:
                partial = partial or not is_stale
                continue
            problem = refuse_resized(row, its)
            if problem is not None:
                damaged.append(Damage(path_of(REGIONS, held.name), REGIONS, slide_id, problem))
                partial = partial or not is_stale
                continue
            regions = _renewed(row, its)
            if is_stale or whole[held.import_id] is False:
                anew.append(slide_id)
                regions, its_cells = _measured(results, row, regions, held, damaged)
                cells.append(its_cells)
            elif whole[held.import_id]:
                sound.append(slide_id)
            kept.append(regions)
        if sound and partial:
            try:
                cells.append(objects.read_region_cells(results, held.name, sound))
            except ResultsError as error:
                damaged.append(Damage(path_of(REGION_CELLS, held.name), REGION_CELLS, None, str(error)))
        elif sound:
            paths.append(path_of(REGION_CELLS, held.name))
    table = pa.concat_tables(kept).sort_by([("slide_id", "ascending")])
    return table, paths, pa.concat_tables(cells)


def _by_slide(table: pa.Table, known: Mapping[str, Any]) -> list[tuple[str, pa.Table]]:
    ids = pc.unique(table.column("slide_id")).to_pylist()
    return [(i, table.filter(pc.equal(table.column("slide_id"), i))) for i in ids if i in known]


def _renewed(row: Mapping[str, Any], regions: pa.Table) -> pa.Table:
    """Return regions with what their slide's record says now."""
    if regions.column("patient_id")[0].as_py() != row["patient_id"]:
        regions = with_column(regions, "patient_id", row["patient_id"])
    mpp = regions.column("mpp")[0].as_py()
    if (mpp, regions.column("slide_fingerprint")[0].as_py()) == (row["mpp"], row["slide_fingerprint"]):
        return regions
    for name in _AREAS:
        regions = with_column(regions, name, pc.multiply(regions.column(name), (row["mpp"] / mpp) ** 2))
    other = {"class_tissue_mm2": None, "slide_tissue_mm2": None, "tissue_reason": _OTHER_FILE}
    for name, value in (other | {name: row[name] for name in ("mpp", "slide_fingerprint")}).items():
        regions = with_column(regions, name, value)
    return regions


def _measured(
    results: str, row: dict[str, Any], regions: pa.Table, held: Held, damaged: list[Damage]
) -> tuple[pa.Table, pa.Table]:
    from deepliif_ray.annotations.measure import with_cells  # shapely is slow to import, and rarely needed

    try:
        return with_cells(results, row, regions)
    except (AnnotationError, ResultsError) as error:
        damaged.append(
            Damage(path_of(REGIONS, held.name), REGIONS, row["slide_id"], f"not measured: {error}")
        )
    for name in ("n_cells", "class_n_cells", "attempt"):
        regions = with_column(regions, name, None)
    return regions, objects.empty(REGION_CELLS)


def _attach_corrections(
    results: str,
    rows: Mapping[str, dict[str, Any]],
    imports: list[Held],
    damaged: list[Damage],
    anew: list[str],
) -> pa.Table:
    table = pa.concat_tables([held.table.sort_by("row") for held in imports])
    table = matched_anew(results, rows, table, damaged, anew)
    return table.append_column(corrections_schema().field("is_current"), pa.array(_newest(table, rows)))


def matched_anew(
    results: str,
    rows: Mapping[str, dict[str, Any]],
    corrections: pa.Table,
    damaged: list[Damage],
    anew: list[str],
) -> pa.Table:
    """Return corrections with the cells of slides' newest records; ``anew`` gets the slides looked at."""
    columns = ("slide_id", "patient_id", "attempt", "cell_id", "distance_um")
    values = {name: corrections.column(name).to_pylist() for name in columns}
    stale: dict[str, list[int]] = {}
    for n, slide_id in enumerate(values["slide_id"]):
        if slide_id in rows:
            values["patient_id"][n] = rows[slide_id]["patient_id"]
            if values["attempt"][n] != rows[slide_id]["attempt"]:
                stale.setdefault(slide_id, []).append(n)
    x, y, reach = (corrections.column(name).to_numpy() for name in ("x", "y", "reach_um"))
    for slide_id, those in stale.items():
        from deepliif_ray.annotations.matching import match  # shapely is slow to import, and rarely needed

        anew.append(slide_id)
        attempt = rows[slide_id]["attempt"]
        try:
            found = match(results, rows[slide_id], x[those], y[those], reach[those])
        except ResultsError as error:
            damaged.append(
                Damage(rows[slide_id]["cells_path"], CORRECTIONS, slide_id, f"not matched: {error}")
            )
            found, attempt = [(None, None)] * len(those), None
        for n, (cell_id, distance) in zip(those, found, strict=True):
            values["attempt"][n], values["cell_id"][n], values["distance_um"][n] = attempt, cell_id, distance
    for name in columns[1:]:
        field = corrections.schema.field(name)
        corrections = with_column(corrections, name, pa.array(values[name], field.type))
    return corrections


def _newest(corrections: pa.Table, known: Mapping[str, Any]) -> list[bool]:
    """Tell of each correction, given in order of time, whether it is the newest of its cell."""
    pairs = zip(*(corrections.column(name).to_pylist() for name in ("slide_id", "cell_id")), strict=True)
    keys = list(pairs)
    last = {key: n for n, key in enumerate(keys) if key[1] is not None and key[0] in known}
    return [last.get(key) == n for n, key in enumerate(keys)]
