"""The last step of a slide: seams joined, thresholds derived, tables written, record committed."""

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from deepliif_ray import __version__, storage
from deepliif_ray.cells.extract import Thresholds, cells_table, derive_thresholds
from deepliif_ray.cells.fragments import CoreFragments, blank_core
from deepliif_ray.cells.seams import SlideCells, join_cores
from deepliif_ray.cells.thresholds import large_noise_threshold
from deepliif_ray.engine.lease import fence
from deepliif_ray.engine.staging import read_tiles
from deepliif_ray.engine.work import Job, Work, fingerprint, load_work, step
from deepliif_ray.errors import ResultsError, SlideChangedError, StorageError
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.scoring.calls import call_cells
from deepliif_ray.tables.commit import cells_path, commit_slide, write_cells

_ROW_GROUP = 65_536


@dataclass(frozen=True)
class Scored:
    """What became of a slide: its cells and tiles."""

    cells: int
    tiles: int


@dataclass
class _Totals:
    """Sums over the tiles of a slide, filled while they are read."""

    empty: int = 0
    read_s: float = 0.0
    infer_s: float = 0.0
    measure_s: float = 0.0


def _cores(job: Job, work: Work, totals: _Totals) -> Iterator[CoreFragments]:
    """Yield the fragments of all cores of the grid, row by row."""
    masked = set(work.plan.masked)
    slide = (work.plan.width, work.plan.height)
    staged = read_tiles(work.staging)
    for index in range(len(work.plan.grid)):
        if index in masked:
            core = work.plan.grid[index].core
            yield blank_core(core=core, slide=slide, background_marker=job.background_marker)
            continue
        tile = next(staged, None)
        if tile is None:
            raise ResultsError(
                f"{work.staging}: staged tiles are gone; run again, one job at a time on these results"
            )
        totals.empty += tile.empty
        totals.read_s += tile.read_s
        totals.infer_s += tile.infer_s
        totals.measure_s += tile.measure_s
        yield tile.fragments


def _tables(work: Work, cells: SlideCells, has_marker: bool) -> Iterator[pa.Table]:
    """Yield the slide's rows of the ``cells`` schema, in bounded pieces."""
    mpp = work.plan.mpp
    for begin in range(0, len(cells), _ROW_GROUP):
        table = cells_table(cells, has_marker=has_marker, has_rgb=True, begin=begin, end=begin + _ROW_GROUP)
        count = table.num_rows
        for name, value in (("slide_id", work.entry.slide_id), ("patient_id", work.entry.patient_id)):
            table = table.append_column(name, pa.repeat(pa.scalar(value), count))
        for name, source, scale in (("x_um", "x", mpp), ("y_um", "y", mpp), ("area_um2", "area_px", mpp**2)):
            table = table.append_column(name, pa.array(table[source].to_numpy() * scale))
        yield table


def origin(job: Job, entry: SlideEntry) -> dict[str, object]:
    """Return the columns that name a record's slide and how it was made."""
    return {
        "slide_id": entry.slide_id,
        "patient_id": entry.patient_id,
        "marker": entry.marker,
        "uri": entry.uri,
        "attributes": entry.attributes,
        "model_digest": job.model_digest,
        "config_fingerprint": job.config_fingerprint,
        "software_version": __version__,
        "run_id": job.run_id,
    }


def finalize(job: Job, folder: str) -> Scored:
    """Commit the slide whose tiles are all staged in ``folder``, then remove them.

    Raises
    ------
    StepError
        It cannot be committed; its staged tiles are kept, unless the slide's file has changed.
    """
    with step("finalize"):
        start = time.perf_counter()
        work = load_work(folder, job.run_id)
        if fingerprint(work.entry) != work.slide_fingerprint:
            storage.remove(folder)
            raise SlideChangedError(
                f"{work.entry.uri}: the file changed while it was being scored; run again when it is complete"
            )
        plan, config = work.plan, job.config
        limit = large_noise_threshold(config.large_noise_thresh, plan.resolution)
        totals = _Totals()
        cells = join_cores(
            _cores(job, work, totals),
            np.array(plan.grid.column_edges, dtype=np.int64),
            np.array(plan.grid.row_edges, dtype=np.int64),
            noise_thresh=config.noise_thresh,
            large_noise_thresh=limit,
        )
        has_marker = job.background_marker is not None
        thresholds = derive_thresholds(
            cells,
            resolution=plan.resolution,
            seg_thresh=config.seg_thresh,
            noise_thresh=config.noise_thresh,
            large_noise_thresh=limit,
            has_marker=has_marker,
        )
        attempt = uuid.uuid4().hex[:16]
        path = cells_path(work.entry.slide_id, work.entry.marker, attempt)
        write_cells(job.results, path, _tables(work, cells, has_marker))
        record = _record(job, work, cells, thresholds, totals)
        record |= {"attempt": attempt, "cells_path": path, "committed_at": datetime.now(UTC)}
        record["timings"] = {
            "read_s": totals.read_s,
            "infer_s": totals.infer_s,
            "measure_s": totals.measure_s,
            "finalize_s": time.perf_counter() - start,
        }
        fence(job.results, job.run_id)
        commit_slide(job.results, record)
        with suppress(StorageError):  # what stays is removed by the next run
            storage.remove(folder)
        return Scored(len(cells), len(plan.grid))


def _record(
    job: Job, work: Work, cells: SlideCells, thresholds: Thresholds, totals: _Totals
) -> dict[str, object]:
    plan = work.plan
    counted, positive = call_cells(
        cells.measures["area"],
        cells.measures["positive"] >= cells.measures["negative"],
        size_thresh=thresholds.size_thresh,
    )
    n_called, n_positive = int(counted.sum()), int((counted & positive).sum())
    return origin(job, work.entry) | {
        "width_px": plan.width,
        "height_px": plan.height,
        "mpp": plan.mpp,
        "mpp_source": plan.mpp_source,
        "vendor": plan.vendor,
        "resolution": plan.resolution,
        "tile_px": plan.tile,
        "overlap_px": plan.overlap,
        "n_tiles": len(plan.grid),
        "n_tiles_inferred": len(work.todo) - totals.empty,
        "n_tiles_empty": totals.empty,
        "n_tiles_masked": len(plan.masked),
        "tissue_mm2": plan.tissue_mm2,
        "n_cells": len(cells),
        "seg_thresh": thresholds.seg_thresh,
        "noise_thresh": thresholds.noise_thresh,
        "large_noise_thresh": thresholds.large_noise_thresh,
        "size_thresh": thresholds.size_thresh,
        "marker_thresh": thresholds.marker_thresh,
        "n_called": n_called,
        "n_positive": n_positive,
        "n_negative": n_called - n_positive,
        "warnings": list(plan.warnings),
        "model_uri": job.model_uri,
        "model_name": job.model_name,
        "precision": job.precision,
        "slide_fingerprint": work.slide_fingerprint,
    }
