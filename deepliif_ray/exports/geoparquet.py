"""Cells as GeoParquet 1.1, ordered so that a reader who asks for a rectangle reads little.

Rows follow a Hilbert curve through the centroids, so cells of a row group lie together, and the column
``bbox`` has the statistics that a reader skips row groups by.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from deepliif_ray.exports.cells import ROWS, Calls, Exported, called_cells, object_ids, slide_record
from deepliif_ray.exports.columns import AROUND
from deepliif_ray.exports.files import refuse_target, writing
from deepliif_ray.exports.outlines import enclosing_outlines
from deepliif_ray.query.streaming import Stream, streaming

SUFFIXES = (".parquet", ".geoparquet")
_ORDER = 16
"""Steps of the curve: cells are told apart by 1/65,536 of the slide."""
_KEPT = (
    "slide_id", "patient_id", "marker", "c.cell_id", "positive", "strength", "majority_positive",
    "marker_max", "area_px", "area_um2", "od_mean", "dab_od_mean", "hematoxylin_od_mean", *AROUND,
    "on_slide_edge",
)  # fmt: skip
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def hilbert(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how far along a Hilbert curve points lie.

    Parameters
    ----------
    x, y : ndarray of float64, shape (N,)
        The curve fills the square that begins at their least values and holds all.

    Returns
    -------
    ndarray of int64, shape (N,)
        From 0 to 2³² - 1; points near one another mostly have near values.
    """
    if not len(x):
        return np.empty(0, np.int64)
    last = 2**_ORDER - 1
    scale = last / max(np.ptp(x), np.ptp(y), 1e-9)
    column, row = (((values - values.min()) * scale).astype(np.int64).clip(0, last) for values in (x, y))
    along = np.zeros(len(x), np.int64)
    for level in reversed(range(_ORDER)):
        right, below = (column >> level) & 1, (row >> level) & 1
        along += ((3 * right) ^ below) << 2 * level
        # In a quarter the curve runs turned, so what is left of the position is turned the other way.
        mirrored = (below == 0) & (right == 1)
        column[mirrored], row[mirrored] = last - column[mirrored], last - row[mirrored]
        turned = below == 0
        column[turned], row[turned] = row[turned], column[turned]
    return along


def export_geoparquet(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    slide: str | None = None,
    calls: Calls | None = None,
    overwrite: bool = False,
    watch: Callable[[Exported], None] = lambda _: None,
) -> Exported:
    """Write the counted cells of a slide as GeoParquet 1.1.

    The columns are those of ``called_cells`` by the same names, and ``object_id``, ``centroid_x`` and
    ``centroid_y``, ``bbox`` and ``geometry``. The last four are in pixel edges of level 0 from the slide's
    corner: half a pixel more than ``x`` and ``y`` in the tables, which name centres of pixels.

    Parameters
    ----------
    results : str or path
        URL of the results.
    output : str or path
        The local file: ``.parquet`` or ``.geoparquet``.
    slide : str, optional
        Its id; needed where the results have several.
    calls : Calls, optional
        Which cells count and how they are called; by default as published, with corrections.
    overwrite : bool
        Replace the file if there is one.
    watch : callable
        Told how far it is.

    Returns
    -------
    Exported

    Raises
    ------
    ConfigError
        There is no such slide, or several and none named; or the file cannot be written or is there.
    QueryError
        No cell counts, or there are no such cut-offs or region.
    ResultsError, StorageError
        See `deepliif_ray.connect`; or the file cannot be written.
    """
    url, target, calls = os.fspath(results), Path(output).absolute(), calls or Calls()
    refuse_target(target, SUFFIXES, overwrite=overwrite)
    with streaming(url) as stream, writing(target) as files:
        row = slide_record(stream, url, slide)
        bounds = _put_in_order(stream, row, calls)
        columns = ", ".join([*_KEPT, "x", "y", "boundary"])
        writer: pq.ParquetWriter | None = None
        count = 0
        try:
            for cells in called_cells(
                stream, row, calls, columns, join="JOIN places AS p ON c.cell_id = p.cell_id", order="p.place"
            ):
                table = _table(cells, row, bounds)
                if writer is None:
                    writer = pq.ParquetWriter(files.of(target), table.schema, compression="zstd")
                writer.write_table(table, row_group_size=ROWS)
                count += table.num_rows
                watch(Exported(row["slide_id"], count))
        finally:
            if writer is not None:
                writer.close()
    return Exported(row["slide_id"], count, (str(target),))


def _put_in_order(stream: Stream, row: dict[str, Any], calls: Calls) -> list[float]:
    """Let queries know the place of each cell as ``places``; return the bounds of all cells."""
    names = ("bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1")
    columns = ", ".join(["cell_id", "x", "y", *names])
    cells = pa.concat_tables(called_cells(stream, row, calls, columns))
    along = hilbert(cells["x"].to_numpy(), cells["y"].to_numpy())
    place = np.empty(len(along), np.int64)
    place[np.argsort(along, kind="stable")] = np.arange(len(along))
    stream.give("places", pa.table({"cell_id": cells["cell_id"], "place": place}))
    edges = [cells[name].to_numpy() for name in names]
    return [float(find()) for find in (edges[0].min, edges[1].min, edges[2].max, edges[3].max)]


def _table(cells: pa.Table, row: dict[str, Any], bounds: list[float]) -> pa.Table:
    outlines = enclosing_outlines(cells["boundary"].to_numpy())
    edges = shapely.bounds(outlines)
    table = cells.drop_columns(["x", "y", "boundary"])
    ids = object_ids(row["slide_id"], row["attempt"], cells["cell_id"])
    for name, values in {
        "object_id": pa.array(ids, pa.string()),
        "centroid_x": pa.array(cells["x"].to_numpy() + 0.5),
        "centroid_y": pa.array(cells["y"].to_numpy() + 0.5),
        "bbox": pa.StructArray.from_arrays([pa.array(edges[:, n]) for n in range(4)], names=list(_EDGES)),
        "geometry": pa.array(shapely.to_wkb(outlines), pa.binary()),
    }.items():
        table = table.append_column(name, values)
    geometry = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": None,  # without the key, pixels would be longitude and latitude
        "edges": "planar",
        "orientation": "counterclockwise",
        "bbox": bounds,
        "covering": {"bbox": {edge: ["bbox", edge] for edge in _EDGES}},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    return table.replace_schema_metadata({"geo": json.dumps(geo), "slide_id": row["slide_id"]})
