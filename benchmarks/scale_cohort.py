"""Many small slides: what each costs beyond its own work, and what listing, resuming and joining take."""

import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import deepliif_ray
from benchmarks.memory import MIB, resident
from deepliif_ray import storage
from deepliif_ray.config import ScoreConfig
from deepliif_ray.engine.steps import SlideReader, TileMaps, TileTask, infer_tiles, measure_tile
from deepliif_ray.engine.work import RunContext, prepare
from deepliif_ray.manifest import read_manifest
from deepliif_ray.query import ask
from deepliif_ray.synthetic import SyntheticTissue
from deepliif_ray.tables.commit import cells_path, commit_slide, write_cells
from deepliif_ray.tables.ledger import Ledger
from deepliif_ray.tables.records import read_records
from deepliif_ray.tables.schema import table_schema

MARKERS = ("Ki67", "CD3")
PATTERNS = 8


def write_slides(folder: Path, count: int, side: int) -> Path:
    """Write ``count`` small plain images and their manifest; a few patterns, each with a pixel of its own."""
    images = folder / "slides"
    images.mkdir(parents=True, exist_ok=True)
    tissues = [np.asarray(SyntheticTissue(side, side, seed=n)[0:side, 0:side]) for n in range(PATTERNS)]
    lines = ["slide_id,patient_id,marker,uri,mpp"]
    for n in range(count):
        path = images / f"s{n:05d}.png"
        if not path.exists():
            pixels = tissues[n % PATTERNS].copy()
            pixels[0, 0] = n % 256, n // 256 % 256, 7
            Image.fromarray(pixels).save(path, compress_level=1)
        lines.append(f"s{n:05d},p{n % 500:03d},{MARKERS[n % 2]},slides/{path.name},0.25")
    manifest = folder / f"manifest-{count}.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def _work_cpu(folder: Path, manifest: Path, slides: int) -> float:
    """Return the processor seconds that reading, inferring and measuring a slide take in one process."""
    model = deepliif_ray.load_model("stain")
    context = RunContext(
        results=str(folder / f"work-{uuid.uuid4().hex[:6]}"),
        run_id="work",
        model_uri="stain",
        model_name=model.name,
        model_digest=model.digest,
        device=None,
        precision=model.precision,
        background_marker=model.background_marker,
        config=ScoreConfig(),
        batch_size=None,
    )
    seconds = 0.0
    for entry in read_manifest(str(manifest)).slides[:slides]:
        work, ordinals = prepare(context, entry)
        start = time.process_time()
        reader = SlideReader(context)
        tasks = [TileTask(work.staging, ordinal) for ordinal in ordinals]
        for maps in infer_tiles(context, model, reader.read(tasks)):
            assert isinstance(maps, TileMaps)
            measure_tile(context, maps)
        reader.close()
        seconds += time.process_time() - start
    return seconds / slides


def cohort(folder: Path, slides: int, engine: str, side: int) -> dict[str, Any]:
    """Score a cohort; then do it again when all is done, show its status, and join its objects."""
    warm = write_slides(folder / "warm", 4, side)
    manifest = write_slides(folder, slides, side)
    results = folder / f"results-{engine}-{uuid.uuid4().hex[:6]}"
    options: dict[str, Any] = {"model": "stain", "execution": deepliif_ray.Execution(engine=engine)}
    deepliif_ray.score(
        str(warm), str(results) + "-warm", model="stain", execution=deepliif_ray.Execution(engine="local")
    )  # compiles
    work_cpu = _work_cpu(folder, manifest, min(slides, 40))
    parallel = 1
    if engine == "ray":
        import ray

        ray.init("local", include_dashboard=False, log_to_driver=False)
        parallel = int(ray.cluster_resources()["CPU"])
    memory: dict[int, int] = {}
    moments: dict[int, float] = {}

    def watch(progress: Any) -> None:
        if progress.scored not in memory:
            memory[progress.scored], moments[progress.scored] = resident(), time.perf_counter()

    cpu, start = time.process_time(), time.perf_counter()
    summary = deepliif_ray.score(str(manifest), str(results), watch=watch, **options)
    wall = time.perf_counter() - start
    cpu = time.process_time() - cpu  # of the driver; with the local engine, of everything
    record = Ledger(str(results)).slides()
    steps = {
        name: float(sum(row[name] for row in record.column("timings").to_pylist()))
        for name in ("read_s", "infer_s", "measure_s", "finalize_s")
    }
    work = steps["read_s"] + steps["infer_s"] + steps["measure_s"]
    early = min(200, slides // 2)
    steady = moments[summary.scored] - moments[early]
    share = (summary.scored - early) / summary.scored
    report = {
        "engine": engine,
        "slides": summary.scored,
        "failed": summary.failed,
        "tiles": summary.tiles,
        "cells": summary.cells,
        "parallel": parallel,
        "wall_s": wall,
        "driver_cpu_ms_a_slide": 1000 * cpu / slides,
        "work_cpu_ms_a_slide": 1000 * work_cpu,
        **steps,
        "overhead_ms_a_slide": 1000 * (wall - work / parallel) / slides,
        f"overhead_ms_a_slide_after_{early}": 1000 * (steady - work * share / parallel) / (slides - early),
        "driver_mib": {n: round(memory[n] / MIB) for n in _steps(memory)},
        "resume_s": _timed(lambda: deepliif_ray.score(str(manifest), str(results), **options)),
    }
    return report | _queries(str(results))


def _steps(memory: dict[int, int]) -> list[int]:
    wanted = [0, 200, 500, 1000, 1500, 2000, 5000, 10_000, 20_000, max(memory)]
    return sorted({min(memory, key=lambda n: abs(n - want)) for want in wanted if want <= max(memory)})


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _queries(results: str) -> dict[str, Any]:
    """Time what people ask, before and after joining."""
    report: dict[str, Any] = {}
    for moment in ("before", "after"):
        if moment == "after":
            summary = deepliif_ray.optimize(results, keep_minutes=0)
            report |= {
                "optimize_s": summary.seconds,
                "objects_before": summary.objects_before,
                "objects_after": summary.objects_after,
            }
        report[f"{moment}_optimize"] = {
            "ledger_s": _timed(lambda: Ledger(results).slides()),
            "status_s": _timed(lambda: ask(results, "SELECT marker, count(*) FROM slides GROUP BY ALL")),
            "index_s": _timed(lambda: ask(results, "FROM patient_indices")),
            "all_cells_s": _timed(
                lambda: ask(results, "SELECT slide_id, avg(area_px), max(marker_max) FROM cells GROUP BY ALL")
            ),
            "one_slide_s": _timed(lambda: ask(results, "SELECT avg(x) FROM cells WHERE slide_id = 's00007'")),
        }
    return report


def ledger(folder: Path, slides: int) -> dict[str, Any]:
    """Commit ``slides`` records and cells objects of 100 cells each, without scoring; time queries."""
    results = str(folder / f"ledger-{uuid.uuid4().hex[:6]}")
    manifest = write_slides(folder, 1, 600)
    deepliif_ray.score(
        str(manifest), results, model="stain", execution=deepliif_ray.Execution(engine="local")
    )
    (record,) = Ledger(results).slides().to_pylist()
    name = record["cells_path"]
    content = storage.read_bytes(storage.join(results, name))
    cells = pq.read_table(pa.BufferReader(content)).slice(0, 100)
    begin = datetime.now(UTC) - timedelta(days=2)
    start = time.perf_counter()
    for n in range(slides):
        slide, attempt, marker = f"s{n:05d}", f"{n:016x}", MARKERS[n % 2]
        path = cells_path(slide, marker, attempt)
        own = cells.set_column(
            cells.schema.get_field_index("slide_id"), "slide_id", pa.repeat(pa.scalar(slide), len(cells))
        )
        place = write_cells(results, path, [own.cast(table_schema("cells"))])
        commit_slide(
            results,
            record
            | {
                "slide_id": slide, "marker": marker, "attempt": attempt, **place,
                "slide_fingerprint": f"{record['slide_fingerprint'][:-16]}{attempt}",
                "n_cells": len(cells), "committed_at": begin + timedelta(seconds=n),
            },
        )  # fmt: skip
    written = time.perf_counter() - start
    assert len(read_records(results, "slides").objects) == slides + 1
    return {"slides": slides, "write_ms_a_slide": 1000 * written / slides} | _queries(results)
