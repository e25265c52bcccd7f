"""One big slide: how long each phase takes and how much memory, whole or its finalisation alone."""

import io
import struct
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.memory import MIB, Sampler, reset_peak, resident
from deepliif_ray.config import ScoreConfig
from deepliif_ray.engine import finalize as finalizing
from deepliif_ray.engine import local
from deepliif_ray.engine.run.progress import Progress
from deepliif_ray.engine.staging import StagedTile, write_block
from deepliif_ray.engine.steps import BLOCK_TILES
from deepliif_ray.engine.work import RunContext, prepare
from deepliif_ray.manifest import read_manifest
from deepliif_ray.models import load_model
from deepliif_ray.synthetic import SyntheticTissue
from deepliif_ray.tables.ledger import Ledger

_TILE = 512
_PATTERN = 4096
"""Side of the piece of tissue that is repeated; a multiple of the TIFF's tiles at every level written."""


def write_repeated(path: Path, width: int, height: int) -> None:
    """Write a pyramidal tiled JPEG BigTIFF whose tiles repeat a piece of tissue.

    Every tile is encoded once and named by many entries of the directory, so a slide of any size is written
    in seconds and takes a few MB.
    """
    pixels = np.asarray(SyntheticTissue(_PATTERN, _PATTERN, seed=3)[0:_PATTERN, 0:_PATTERN])
    levels = []
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        for factor in (1, 4, 16):
            image = np.asarray(Image.fromarray(pixels).reduce(factor))
            reach = max(1, len(image) // _TILE)
            if len(image) < _TILE:
                image = np.tile(image, (_TILE // len(image), _TILE // len(image), 1))
            places: dict[tuple[int, int], tuple[int, int]] = {}
            for row in range(reach):
                for column in range(reach):
                    buffer = io.BytesIO()
                    piece = image[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE]
                    Image.fromarray(piece).save(buffer, "JPEG", quality=85, subsampling=0)
                    places[row, column] = file.tell(), buffer.tell()
                    file.write(buffer.getvalue())
            levels.append((-(-width // factor), -(-height // factor), factor, reach, places))
        _directories(file, levels)


def _directories(file: Any, levels: list[Any]) -> None:
    link = 8
    for w, h, factor, reach, places in levels:
        tiles = [
            places[row % reach, column % reach]
            for row in range(-(-h // _TILE))
            for column in range(-(-w // _TILE))
        ]
        at = []
        for n in (0, 1):
            at.append(file.tell())
            file.write(struct.pack(f"<{len(tiles)}Q", *(tile[n] for tile in tiles)))
        bits = struct.unpack("<Q", struct.pack("<HHHH", 8, 8, 8, 0))[0]
        resolution = struct.unpack("<Q", struct.pack("<II", round(40_000 / factor), 1))[
            0
        ]  # 0.25 um at level 0
        entries = [
            (254, 4, 1, int(factor > 1)), (256, 4, 1, w), (257, 4, 1, h), (258, 3, 3, bits), (259, 3, 1, 7),
            (262, 3, 1, 6), (277, 3, 1, 3), (282, 5, 1, resolution), (283, 5, 1, resolution), (284, 3, 1, 1),
            (296, 3, 1, 3), (322, 3, 1, _TILE), (323, 3, 1, _TILE),
            (324, 16, len(tiles), at[0]), (325, 16, len(tiles), at[1]), (530, 3, 2, 0x0001_0001),
        ]  # fmt: skip
        if len(tiles) == 1:
            entries[-3:-1] = [(324, 16, 1, tiles[0][0]), (325, 16, 1, tiles[0][1])]
        here = file.tell()
        file.write(struct.pack("<Q", len(entries)))
        for entry in entries:
            file.write(struct.pack("<HHQQ", *entry))
        file.write(struct.pack("<Q", 0))
        end = file.tell()
        file.seek(link)
        file.write(struct.pack("<Q", here))
        file.seek(end)
        link = end - 8


def _context(folder: Path, width: int, height: int) -> tuple[RunContext, Any, Any]:
    path = folder / f"repeated-{width}x{height}.tiff"
    if not path.exists():
        write_repeated(path, width, height)
    (folder / "manifest.csv").write_text(f"slide_id,patient_id,marker,uri\nbig,p,Ki67,{path.name}\n")
    (entry,) = read_manifest(str(folder / "manifest.csv")).slides
    model = load_model("stain")
    context = RunContext(
        results=str(folder / f"results-{uuid.uuid4().hex[:6]}"),
        run_id=f"{datetime.now(UTC):%Y%m%dT%H%M%S}",
        model_uri="stain",
        model_name=model.name,
        model_digest=model.digest,
        device=None,
        precision=model.precision,
        background_marker=model.background_marker,
        config=ScoreConfig(),
        batch_size=None,
    )
    return context, entry, model


def _report(context: RunContext, path: Path, staged: Path) -> dict[str, Any]:
    (row,) = Ledger(context.results).slides().to_pylist()
    return {
        "slide_px": [row["width_px"], row["height_px"]],
        "slide_mib": round(path.stat().st_size / MIB, 1),
        "tiles": row["n_tiles"],
        "cells": row["n_cells"],
        "timings": row["timings"],
        "cells_object_mib": round((Path(context.results) / row["cells_path"]).stat().st_size / MIB, 1),
    }


def slide(folder: Path, width: int, height: int) -> dict[str, Any]:
    """Score one slide on the local engine."""
    warm, entry, model = _context(folder, 1024, 1024)
    list(local.run(warm, model, [entry], Progress()))
    context, entry, model = _context(folder, width, height)
    phases = {"plan": 0.0}
    start = time.perf_counter()
    before = resident()
    reset_peak()
    prepare(context, entry)
    phases["plan"], peaks = time.perf_counter() - start, {"plan": resident(peak=True)}
    reset_peak()
    ends: dict[str, Any] = {}
    real = local.finalize

    def finalize(context: RunContext, staging: str) -> Any:
        ends["tiles"], peaks["tiles"] = time.perf_counter(), resident(peak=True)
        ends["staged"] = sum(path.stat().st_size for path in Path(staging).iterdir())
        reset_peak()
        return real(context, staging)

    local.finalize = finalize
    list(local.run(context, model, [entry], Progress()))
    local.finalize = real
    peaks["finalize"] = resident(peak=True)
    done = time.perf_counter()
    phases |= {"tiles": ends["tiles"] - start - phases["plan"], "finalize": done - ends["tiles"]}
    return _report(context, folder / f"repeated-{width}x{height}.tiff", folder) | {
        "wall_s": done - start,
        "phases_s": phases,
        "staged_mib": round(ends["staged"] / MIB, 1),
        "rss_before_mib": round(before / MIB),
        "peak_rss_mib": {name: round(peak / MIB) for name, peak in peaks.items()},
    }


def finalisation(folder: Path, width: int, height: int) -> dict[str, Any]:
    """Finalise a slide whose staged tiles repeat those of a piece of tissue, measured at their own places.

    Only the finalisation is of full size: tiles are inferred once for each place in the repeated piece.
    """
    from deepliif_ray.engine.steps import SlideReader, TileTask, infer_tiles, measure_tile

    warm, entry, model = _context(folder, 1024, 1024)
    list(local.run(warm, model, [entry], Progress()))
    context, entry, model = _context(folder, width, height)
    start = time.perf_counter()
    work, ordinals = prepare(context, entry)
    planned = time.perf_counter() - start
    reader = SlideReader(context)
    known: dict[tuple[int, int, int, int], Any] = {}
    block: list[StagedTile] = []
    for ordinal in ordinals:
        tile = work.plan.grid[work.todo[ordinal]]
        x0, y0, x1, y1 = tile.core
        key = (tile.column % 8, tile.row % 8, x1 - x0, y1 - y0)
        if key not in known:
            (known[key],) = infer_tiles(context, model, reader.read([TileTask(work.staging, ordinal)]))
        maps = known[key]
        block.append(
            measure_tile(context, type(maps)(TileTask(work.staging, ordinal), *_images(maps), 0.0, 0.0))
        )
        if len(block) == BLOCK_TILES:
            write_block(work.staging, block)
            block = []
    if block:
        write_block(work.staging, block)
    staged = sum(path.stat().st_size for path in Path(work.staging).iterdir())
    tiles_s = time.perf_counter() - start - planned
    reader.close()
    known.clear()
    before = resident()
    reset_peak()
    sampler = Sampler(resident, 1.0)
    sampler.start()
    start = time.perf_counter()
    cpu = time.process_time()
    finalizing.finalize(context, work.staging)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    samples = sampler.stop()
    tenths = (
        [max(part) for part in np.array_split(np.array(samples), min(10, len(samples)))] if samples else []
    )
    return _report(context, folder / f"repeated-{width}x{height}.tiff", folder) | {
        "plan_s": planned,
        "staging_s": tiles_s,
        "finalize_s": wall,
        "finalize_cpu_s": cpu,
        "staged_mib": round(staged / MIB, 1),
        "rss_before_mib": round(before / MIB),
        "peak_rss_mib": round(resident(peak=True) / MIB),
        "rss_by_tenths_mib": [round(int(value) / MIB) for value in tenths],
    }


def _images(maps: Any) -> tuple[Any, Any, Any]:
    return maps.rgb, maps.seg, maps.marker
