"""Cells as a label image: each pixel has the number of the cell it is of, 0 where there is none.

The number is ``cell_id + 1``. Cells of a slide share no pixel, so an image of the whole slide has as many
pixels of a cell as ``area_px`` says.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from deepliif_ray.annotations.origin import Origin
from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.exports.cells import ROWS, TOUCHING, Calls, Exported, slide_record, source_of, why_none
from deepliif_ray.exports.columns import LABEL, begins, provenance
from deepliif_ray.exports.files import placing, refuse_target, refuse_zarr_target
from deepliif_ray.exports.levels import (
    SIDE,
    Area,
    Levels,
    Picture,
    area_within,
    halved_labels,
    write_ome_tiff,
)
from deepliif_ray.exports.outlines import enclosing_outlines
from deepliif_ray.exports.scanlines import fill_rings
from deepliif_ray.query.streaming import Stream, streaming

SUFFIXES = (".ome.tiff", ".ome.tif")
NAME = "cells"
_AT_ONCE = 2_000
"""Cells that are drawn at once: filling takes some 50 bytes for each of their pixels."""


def export_labels(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    slide: str | None = None,
    at: Area | None = None,
    calls: Calls | None = None,
    origin: Origin | None = None,
    overwrite: bool = False,
    watch: Callable[[Exported], None] = lambda _: None,
) -> Exported:
    """Write the counted cells of a slide, or of an area of it, as a label image with overviews.

    Pixels are uint32: 0, or ``cell_id + 1``. Cells that the area's edge cuts are there in part. The file
    tells pixel size and place: the first pixel is as many µm from the slide's corner as its column and row
    times the pixel size, as ``x_um`` and ``y_um`` are. Memory follows the area's width.

    Parameters
    ----------
    results : str or path
        URL of the results.
    output : str or path
        Local: a file ``.ome.tiff`` or ``.ome.tif``; or a folder ``.zarr``, which becomes OME-Zarr 0.5 with
        the image at ``labels/cells``.
    slide : str, optional
        Its id; needed where the results have several.
    at : tuple of int, optional
        x, y, width and height of the area in level-0 px; by default all of the slide.
    calls : Calls, optional
        Which cells count; by default as published, with corrections.
    origin : Origin, optional
        Where ``at`` begins; by default at the slide's corner.
    overwrite : bool
        Replace what is there.
    watch : callable
        Told how far it is.

    Returns
    -------
    Exported

    Raises
    ------
    ConfigError
        There is no such slide, or several and none named; the area is not on it; or the file cannot be
        written or is there.
    QueryError
        No cell counts there, or there are no such cut-offs or region.
    ResultsError, StorageError
        See `deepliif_ray.connect`; or the file cannot be written.
    """
    url, target, calls = os.fspath(results), Path(output).absolute(), calls or Calls()
    is_zarr = target.name.lower().endswith(".zarr")
    if is_zarr:
        refuse_zarr_target(target, overwrite=overwrite)
    elif not target.name.lower().endswith(SUFFIXES):
        raise ConfigError(f"{target}: the name of a label image ends in {', '.join(SUFFIXES)} or .zarr")
    else:
        refuse_target(target, SUFFIXES, overwrite=overwrite)
    with streaming(url) as stream:
        row = slide_record(stream, url, slide)
        left, top = begins(row, origin)
        if at is not None:
            at = at[0] + left, at[1] + top, *at[2:]
        name = f"slide {row['slide_id']!r}"
        area = area_within(name, at, (row["width_px"], row["height_px"]), "--at")
        # What is told begins at the slide's corner, wherever the coordinates of the command did.
        told = provenance(row, calls, (0, 0)) | {"area": ",".join(map(str, area)), "label": LABEL}
        with placing(target) as path, ExitStack() as held:
            if is_zarr:
                folder = path / "labels" / NAME
            else:
                folder = Path(held.enter_context(TemporaryDirectory(dir=path.parent, prefix=".labels-")))
            levels = Levels(folder, (area[3], area[2]), np.uint32)
            done = Exported(row["slide_id"], _draw(levels, stream, row, calls, area, watch))

            def tick() -> None:
                watch(done)

            levels.make_overviews(halved_labels, tick)
            if is_zarr:
                _describe(path, levels, row["mpp"], area, told)
            else:
                write_ome_tiff(path, [Picture(NAME, levels, json.dumps(told))], row["mpp"], area[:2], tick)
    return replace(done, files=(str(target),), origin=(left, top))


def _draw(
    levels: Levels,
    stream: Stream,
    row: Mapping[str, Any],
    calls: Calls,
    area: Area,
    watch: Callable[[Exported], None],
) -> int:
    """Draw the cells band by band, from the top; return how many there are."""
    x, y, width, height = area
    values = [row["slide_id"], row["marker"], x, x + width, y, y + height]
    query = (
        f"SELECT {LABEL} AS label, bbox_y0, bbox_y1, boundary FROM {source_of(calls, TOUCHING)} "
        "ORDER BY bbox_y0, cell_id"
    )
    coming = stream.batches(query, values, ROWS)
    waiting: list[pa.Table] = []
    count, is_all = 0, False
    drawn: list[NDArray[np.uint32]] = []
    for band in range(y, y + height, SIDE):
        end = min(band + SIDE, y + height)
        while not is_all and (not waiting or waiting[-1]["bbox_y0"][-1].as_py() < end):
            cells = next(coming, None)
            is_all = cells is None
            if cells is not None:
                waiting.append(cells)
                count += cells.num_rows
                watch(Exported(row["slide_id"], count))
        pixels = np.zeros((end - band, width), np.uint32)
        drawn += [_fill(pixels, cells, (x, band), end) for cells in waiting]
        if pixels.any():
            levels.write(0, band - y, pixels)
        waiting = list(_left(waiting, end))
    # Of a cell beside the area, the rectangle around it may reach into it.
    found = len(np.unique(np.concatenate(drawn))) if drawn else 0
    if not found:
        is_whole = area[2:] == (row["width_px"], row["height_px"])
        where = why_none(stream, row, calls) if is_whole else " in this area, so nothing was written"
        raise QueryError(f"slide {row['slide_id']!r}: no cell counts{where}")
    return found


def _fill(
    pixels: NDArray[np.uint32], cells: pa.Table, corner: tuple[int, int], end: int
) -> NDArray[np.uint32]:
    """Draw those of the cells that reach into a band, which begins at ``corner``; return their numbers."""
    tops = cells["bbox_y0"].to_numpy()
    chosen = cells.filter(pa.array((tops < end) & (cells["bbox_y1"].to_numpy() > corner[1])))
    if not chosen.num_rows:
        return np.empty(0, np.uint32)
    drawn = []
    for begin in range(0, chosen.num_rows, _AT_ONCE):
        part = chosen.slice(begin, _AT_ONCE)
        outlines = enclosing_outlines(part["boundary"].to_numpy())
        corners, owner = shapely.get_coordinates(outlines, return_index=True)
        numbers = part["label"].to_numpy().astype(np.uint32)
        drawn.append(fill_rings(pixels, corners - corner, owner.astype(np.int64), numbers))
    return np.concatenate(drawn)


def _left(waiting: list[pa.Table], end: int) -> Iterator[pa.Table]:
    """Yield what reaches below the end of a band, in the same order."""
    for cells in waiting:
        kept = cells.filter(pa.array(cells["bbox_y1"].to_numpy() > end))
        if kept.num_rows:
            yield kept


def _describe(path: Path, levels: Levels, mpp: float, area: Area, told: Mapping[str, Any]) -> None:
    """Write the metadata of OME-Zarr 0.5 around the arrays."""
    import zarr

    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    # An overview has the upper left one of two by two labels, so its first pixel lies where the image's does.
    first = {"type": "translation", "translation": [area[1] * mpp, area[0] * mpp]}
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [{"type": "scale", "scale": [mpp * 2**number] * 2}, first],
        }
        for number in range(len(levels.arrays))
    ]
    zarr.create_group(path, attributes={"ome": {"version": "0.5"}, "deepliif_ray": dict(told)})
    zarr.create_group(path / "labels", attributes={"ome": {"version": "0.5", "labels": [NAME]}})
    multiscales = {"name": NAME, "axes": axes, "datasets": datasets, "type": "upper left of two by two"}
    ome = {"version": "0.5", "multiscales": [multiscales], "image-label": {}}
    zarr.create_group(path / "labels" / NAME, attributes={"ome": ome, "deepliif_ray": dict(told)})
