"""Small results written straight from the schemas, as the engine would commit them."""

import io
import struct
import uuid
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.scoring.blocks import BlockSums
from deepliif_ray.tables.ledger import slide_key
from deepliif_ray.tables.schema import schema_version, table_schema

START = datetime(2026, 1, 1, tzinfo=UTC)
SQUARE = struct.pack("<BIII8d", 1, 3, 1, 4, 0, 0, 1, 0, 1, 1, 0, 0)


def moment(second):
    return START + timedelta(seconds=second)


def cell(cell_id=0, area_px=100, positive=False, marker_max=50, od_mean=60.0, **more):
    return {
        "cell_id": cell_id,
        "x": 10.5,
        "y": 20.25,
        "x_um": 2.6,
        "y_um": 5.1,
        "bbox_x0": 5,
        "bbox_y0": 15,
        "bbox_x1": 16,
        "bbox_y1": 26,
        "area_px": area_px,
        "area_um2": area_px / 16,
        "positive_px": area_px if positive else 0,
        "negative_px": 0 if positive else area_px,
        "majority_positive": positive,
        "marker_max": marker_max,
        "od_mean": od_mean,
        "dab_od_mean": 0.1,
        "hematoxylin_od_mean": 0.2,
        "on_slide_edge": False,
        "boundary": SQUARE,
        **more,
    }


def write(url, name, rows, schema=None):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema or table_schema(name)), sink)
    storage.write_bytes(url, sink.getvalue())


def commit(results, slide_id, cells, patient_id="P1", marker="Ki67", second=0, size_thresh=30, **more):
    """Write a slide's cells and its commit record; returns the record."""
    attempt = more.pop("attempt", uuid.uuid4().hex[:8])
    name = f"{slide_key(slide_id)}-{attempt}.parquet"
    path = f"cells/marker={marker}/{name}" if cells else None
    if path:
        named = {"slide_id": slide_id, "patient_id": patient_id, "attempt": attempt}
        rows = [{**named, **row} for row in cells]
        write(storage.join(results, path), "cells", rows)
    called = [row for row in cells if row["area_px"] > size_thresh]
    positives = sum(row["majority_positive"] for row in called)
    blocks = BlockSums()
    blocks.add(
        np.array([row["x_um"] for row in called], dtype=float),
        np.array([row["y_um"] for row in called], dtype=float),
        np.array([row["majority_positive"] for row in called], dtype=bool),
    )
    record = {
        "slide_id": slide_id,
        "patient_id": patient_id,
        "marker": marker,
        "uri": "/slides/a.tif",
        "width_px": 1000,
        "height_px": 800,
        "mpp": 0.25,
        "mpp_source": "manifest",
        "vendor": None,
        "resolution": "40x",
        "tile_px": 512,
        "overlap_px": 32,
        "n_tiles": 4,
        "n_tiles_inferred": 4,
        "n_tiles_empty": 0,
        "n_tiles_masked": 0,
        "tissue_mm2": 0.05,
        "n_cells": len(cells),
        "seg_thresh": 120,
        "noise_thresh": 4,
        "large_noise_thresh": 16000,
        "size_thresh": size_thresh,
        "marker_thresh": 168,
        "n_called": len(called),
        "n_positive": positives,
        "n_negative": len(called) - positives,
        **blocks.sums(),
        "warnings": [],
        "attributes": [],
        "model_uri": "stain",
        "model_name": "stain",
        "model_digest": "m1",
        "precision": "float32",
        "config_fingerprint": "c1",
        "slide_fingerprint": "s1",
        "software_version": "0.1.0",
        "run_id": "r1",
        "attempt": attempt,
        "committed_at": moment(second),
        "cells_path": path,
        "cells_version": schema_version("cells"),
        "timings": {"read_s": 0.1, "infer_s": 0.2, "measure_s": 0.3, "finalize_s": 0.4},
        **more,
    }
    write(storage.join(results, "slides", name), "slides", [record])
    return record


def fail(results, slide_id, second=0, attempt="a1", reason="missing", run_id="r2", **more):
    record = {
        "slide_id": slide_id,
        "patient_id": "P1",
        "marker": "Ki67",
        "uri": "/slides/a.tif",
        "stage": "open",
        "reason": reason,
        "message": "no such file",
        "tile": None,
        "attributes": [("site", "A")],
        "model_digest": "m1",
        "config_fingerprint": "c1",
        "software_version": "0.1.0",
        "run_id": run_id,
        "attempt": attempt,
        "failed_at": moment(second),
        **more,
    }
    write(storage.join(results, "failures", f"{slide_key(slide_id)}-{attempt}.parquet"), "failures", [record])


def run(results, run_id, second=0, **more):
    record = {
        "run_id": run_id,
        "manifest_uri": "m.csv",
        "results_uri": results,
        "model_uri": "stain",
        "model_digest": "m1",
        "config": "{}",
        "config_fingerprint": "c1",
        "software_version": "0.1.0",
        "engine": "local",
        "started_at": moment(second),
        "status": "running",
        **more,
    }
    write(storage.join(results, "runs", f"{run_id}.parquet"), "runs", [record])
