"""The last step of a slide: seams joined, thresholds derived, tables written, record committed.

Nothing here grows with the height of a slide but one number a size that cells have: fragments are read row by
row, cells that are final wait on local disk until the last is known, and are then written in order.
"""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepliif_ray import __version__, storage
from deepliif_ray.cells.extract import Thresholds, cells_table, count_sizes, derive_thresholds
from deepliif_ray.cells.fragments import CoreFragments, blank_core
from deepliif_ray.cells.nodes import SlideCells
from deepliif_ray.cells.rims import RimReach
from deepliif_ray.cells.seams import join_rows
from deepliif_ray.cells.thresholds import SizeCounts
from deepliif_ray.engine.run.lease import fence
from deepliif_ray.engine.spill import CellSpill
from deepliif_ray.engine.staging import read_tiles
from deepliif_ray.engine.work import (
    MANIFEST_NOTE,
    Failure,
    RunContext,
    StepError,
    Work,
    load_work,
    size_rules,
    step,
)
from deepliif_ray.errors import (
    LeaseLostError,
    ResultsError,
    SlideChangedError,
    SlideCorruptError,
    StorageError,
)
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.scoring.blocks import BlockSums
from deepliif_ray.scoring.calls import call_cells
from deepliif_ray.slide_access import refuse_change
from deepliif_ray.tables.commit import cells_path, commit_slide, write_cells

_ROW_GROUP = 65_536
_BOUNDS = ("bounds_x", "bounds_y", "bounds_width", "bounds_height")
_log = logging.getLogger(__name__)
_LISTED = 5


@dataclass(frozen=True)
class Scored:
    """What became of a slide: its cells and tiles, and how long its last step took."""

    cells: int
    tiles: int
    seconds: float = 0.0


@dataclass
class _Totals:
    """Sums over the tiles and cells of a slide, filled while they are read."""

    empty: int = 0
    read_s: float = 0.0
    infer_s: float = 0.0
    measure_s: float = 0.0
    marker_histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    sizes: SizeCounts = field(default_factory=SizeCounts)
    bad: list[tuple[int, str]] = field(default_factory=list)  # index in the grid, and why


def _cores(context: RunContext, work: Work, totals: _Totals) -> Iterator[CoreFragments]:
    """Yield the fragments of all cores of the grid, row by row, adding them to the totals."""
    for core in _read_cores(context, work, totals):
        totals.marker_histogram += core.marker_histogram
        yield core


def _read_cores(context: RunContext, work: Work, totals: _Totals) -> Iterator[CoreFragments]:
    masked = set(work.plan.masked)
    slide = (work.plan.width, work.plan.height)
    staged = read_tiles(work.staging)
    for index in range(len(work.plan.grid)):
        if index in masked:
            core = work.plan.grid[index].core
            yield blank_core(
                core=core,
                slide=slide,
                background_marker=context.background_marker,
                reach=RimReach.at(work.plan.mpp),
            )
            continue
        tile = next(staged, None)
        if tile is None:
            raise ResultsError(
                f"{work.staging}: staged tiles are gone; run again, one job at a time on these results"
            )
        totals.empty += tile.empty
        if tile.bad is not None:
            totals.bad.append((index, tile.bad))
        totals.read_s += tile.read_s
        totals.infer_s += tile.infer_s
        totals.measure_s += tile.measure_s
        yield tile.fragments


def _tables(work: Work, attempt: str, pieces: Iterator[SlideCells], has_marker: bool) -> Iterator[pa.Table]:
    """Yield the slide's rows of the ``cells`` schema, a table a piece."""
    mpp = work.plan.mpp
    first_id = 0
    for cells in pieces:
        table = cells_table(cells, has_marker=has_marker, has_rgb=True, has_rim=True, first_id=first_id)
        count = table.num_rows
        first_id += count
        named = {"slide_id": work.entry.slide_id, "patient_id": work.entry.patient_id, "attempt": attempt}
        for name, value in named.items():
            table = table.append_column(name, pa.repeat(pa.scalar(value), count))
        for name, source, scale in (("x_um", "x", mpp), ("y_um", "y", mpp), ("area_um2", "area_px", mpp**2)):
            table = table.append_column(name, pa.array(table[source].to_numpy() * scale))
        yield table


def _counted(tables: Iterator[pa.Table], size_thresh: int, blocks: BlockSums) -> Iterator[pa.Table]:
    """Yield tables of cells as they are, and count those that are called by block."""
    for table in tables:
        names = ("area_px", "majority_positive", "x_um", "y_um")
        area, positive, x_um, y_um = (table[name].to_numpy() for name in names)
        called, positive = call_cells(area, positive, size_thresh=size_thresh)
        blocks.add(x_um[called], y_um[called], positive[called])
        yield table


def origin(context: RunContext, entry: SlideEntry) -> dict[str, object]:
    """Return the columns that name a record's slide and how it was made."""
    return {
        "slide_id": entry.slide_id,
        "patient_id": entry.patient_id,
        "marker": entry.marker,
        "uri": entry.uri,
        "attributes": entry.attributes,
        "model_digest": context.model_digest,
        "config_fingerprint": context.config_fingerprint,
        "software_version": __version__,
        "run_id": context.run_id,
        "epoch": context.epoch,
    }


def finalize(context: RunContext, folder: str) -> Scored:
    """Commit the slide whose tiles are all staged in ``folder``, then remove them.

    Raises
    ------
    StepError
        It cannot be committed; its staged tiles are kept, unless the slide's file has changed.
    """
    with step("finalize"):
        start = time.perf_counter()
        work = load_work(folder, context.run_id)
        try:
            refuse_change(work.entry, work.slide_version)
        except SlideChangedError:
            _remove_staged(context, folder)
            raise
        plan, config = work.plan, context.config
        rules = size_rules(plan)
        limit, noise = rules.large_noise(config.large_noise_thresh), rules.pixels(config.noise_thresh)
        totals = _Totals()
        row_edges = np.array(plan.grid.row_edges, dtype=np.int64)
        has_marker = context.background_marker is not None
        attempt = uuid.uuid4().hex[:16]
        path = cells_path(work.entry.slide_id, work.entry.marker, attempt)
        with CellSpill(row_edges) as spill:
            for cells in join_rows(
                _cores(context, work, totals),
                np.array(plan.grid.column_edges, dtype=np.int64),
                row_edges,
                noise_thresh=noise,
                large_noise_thresh=limit,
                reach=RimReach.at(plan.mpp),
            ):
                count_sizes(totals.sizes, cells)
                spill.add(cells)
            n_cells = len(spill)
            _check_bad(context, work, totals)
            thresholds = derive_thresholds(
                totals.sizes,
                totals.marker_histogram,
                rules=rules,
                seg_thresh=config.seg_thresh,
                noise_thresh=noise,
                large_noise_thresh=limit,
                has_marker=has_marker,
            )
            blocks = BlockSums()
            tables = _tables(work, attempt, spill.pieces(_ROW_GROUP), has_marker)
            written = write_cells(context.results, path, _counted(tables, thresholds.size_thresh, blocks))
        record = _record(context, work, n_cells, thresholds, totals)
        record |= {"attempt": attempt, **blocks.sums(), **written, "committed_at": datetime.now(UTC)}
        record["timings"] = {
            "read_s": totals.read_s,
            "infer_s": totals.infer_s,
            "measure_s": totals.measure_s,
            "finalize_s": time.perf_counter() - start,
        }
        fence(context.results, context.epoch, context.run_id)
        commit_slide(context.results, record)
        told = {"slide_id": work.entry.slide_id, "cells": n_cells, "tiles": len(plan.grid)}
        _log.info("slide.committed", extra=told)
        with suppress(StorageError, LeaseLostError):  # what stays is removed by the next run
            _remove_staged(context, folder)
        return Scored(n_cells, len(plan.grid), time.perf_counter() - start)


def _check_bad(context: RunContext, work: Work, totals: _Totals) -> None:
    """Raise a `StepError` about the first bad tile if there are too many; what was staged is removed.

    The file may read better next time, as from a disk that failed for a moment: then nothing stale is left.
    """
    most = context.config.max_bad_tiles_percent
    if len(totals.bad) <= most / 100 * len(work.todo):
        return
    index, why = totals.bad[0]
    message = (
        f"{why}; {len(totals.bad)} of its {len(work.todo)} tiles are bad, more than the {most:g} % that may "
        "be (max_bad_tiles_percent)"
    )
    _remove_staged(context, work.staging)
    raise StepError(Failure("read", SlideCorruptError.reason, message, index))


def _remove_staged(context: RunContext, folder: str) -> None:
    """Remove what was staged, unless another run took over: it may be at work there."""
    fence(context.results, context.epoch, context.run_id)
    storage.remove(folder)


def _bad_warning(work: Work, totals: _Totals) -> list[str]:
    """Return what to tell about bad tiles, if there are any."""
    if not totals.bad:
        return []
    listed = ", ".join(str(index) for index, _ in totals.bad[:_LISTED])
    more = ", …" if len(totals.bad) > _LISTED else ""
    return [
        f"{len(totals.bad)} of {len(work.todo)} tiles cannot be decoded and count as not read: "
        f"tiles {listed}{more} of the grid; the first: {totals.bad[0][1]}"
    ]


def _median(sizes: NDArray[np.int64], cells: NDArray[np.int64]) -> float | None:
    """Return the median size of cells, of which there are ``cells`` of each of the ascending ``sizes``."""
    total = int(cells.sum())
    if total == 0:
        return None
    upto = np.cumsum(cells)
    low, high = (
        int(sizes[np.searchsorted(upto, rank, side="right")]) for rank in ((total - 1) // 2, total // 2)
    )
    return (low + high) / 2


def _record(
    context: RunContext, work: Work, n_cells: int, thresholds: Thresholds, totals: _Totals
) -> dict[str, object]:
    plan = work.plan
    sizes, cells, positive = totals.sizes.arrays()
    counted, _ = call_cells(sizes, np.ones(len(sizes), dtype=np.bool_), size_thresh=thresholds.size_thresh)
    n_called, n_positive = int(cells[counted].sum()), int(positive[counted].sum())
    median = _median(sizes[counted], cells[counted])
    return origin(context, work.entry) | {
        "width_px": plan.width,
        "height_px": plan.height,
        "mpp": plan.mpp,
        "mpp_source": plan.mpp_source,
        "vendor": plan.vendor,
        "reader": plan.reader,
        "series": plan.series,
        "plane": plan.plane,
        "n_planes": plan.n_planes,
        "image_asked": work.entry.image_asked,
        **dict(zip(_BOUNDS, plan.bounds or (None,) * len(_BOUNDS), strict=True)),
        "resolution": plan.resolution,
        "tile_px": plan.tile,
        "overlap_px": plan.overlap,
        "native_mpp": plan.native_mpp,
        "contrast": None if plan.contrast is None else plan.contrast.factor,
        "white": None if plan.white is None else list(plan.white),
        "stain_hematoxylin": list(plan.stains.hematoxylin),
        "stain_dab": list(plan.stains.dab),
        "stain_dab_percent": plan.stains.dab_percent,
        "stain_reason": plan.stains.reason,
        "n_tiles": len(plan.grid),
        "n_tiles_inferred": len(work.todo) - totals.empty - len(totals.bad),
        "n_tiles_empty": totals.empty,
        "n_tiles_masked": len(plan.masked),
        "n_tiles_bad": len(totals.bad),
        "tissue_mm2": plan.tissue_mm2,
        "n_cells": n_cells,
        "nucleus_area_um2": None if median is None else median * plan.mpp**2,
        "small_percent": 100 * (n_cells - n_called) / n_cells if n_cells else None,
        "seg_thresh": thresholds.seg_thresh,
        "noise_thresh": thresholds.noise_thresh,
        "large_noise_thresh": thresholds.large_noise_thresh,
        "size_thresh": thresholds.size_thresh,
        "marker_thresh": thresholds.marker_thresh,
        "n_called": n_called,
        "n_positive": n_positive,
        "n_negative": n_called - n_positive,
        "warnings": [
            *(f"{MANIFEST_NOTE}{note}" for note in work.entry.warnings),
            *plan.warnings,
            *_bad_warning(work, totals),
        ],
        "model_uri": context.model_uri,
        "model_name": context.model_name,
        "precision": context.precision,
        "slide_fingerprint": work.slide_fingerprint,
        "slide_version": work.slide_version,
        **({} if plan.quality is None else asdict(plan.quality)),
    }
