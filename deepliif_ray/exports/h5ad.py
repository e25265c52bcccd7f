"""Cells as AnnData, for scanpy, squidpy and SpatialData: one observation a cell.

AnnData writes what is in memory, so all cells of the slide are, without their outlines.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from deepliif_ray.annotations.origin import Origin
from deepliif_ray.exports.cells import Calls, Exported, called_cells, slide_record, source_of
from deepliif_ray.exports.columns import LABEL, MEASURED, begins, provenance, refuse_more
from deepliif_ray.exports.files import placing, refuse_target
from deepliif_ray.query.streaming import Stream, streaming

if TYPE_CHECKING:
    from anndata import AnnData

SUFFIXES = (".h5ad",)
MOST_CELLS = 15_000_000
"""About 7 GB: 10 million took 5."""
REGION, REGION_KEY, INSTANCE_KEY = "cells", "region", "cell_id"
"""Which element of a SpatialData object the cells are, and the columns that say so."""
_NAMES = ("slide_id", "patient_id", "marker")
_COLUMNS = ", ".join(
    [
        "x", "y", "cell_id", f"{LABEL} AS label", "positive", "strength", "majority_positive",
        "on_slide_edge", *MEASURED,
    ]
)  # fmt: skip


def export_anndata(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    slide: str | None = None,
    calls: Calls | None = None,
    origin: Origin | None = None,
    overwrite: bool = False,
    watch: Callable[[Exported], None] = lambda _: None,
) -> Exported:
    """Write the counted cells of a slide as AnnData; see `cells_as_anndata` for what is in it.

    Parameters
    ----------
    results : str or path
        URL of the results.
    output : str or path
        The local file: ``.h5ad``.
    slide : str, optional
        Its id; needed where the results have several.
    calls : Calls, optional
        Which cells count and how they are called; by default as published, with corrections.
    origin : Origin, optional
        Where coordinates begin; by default at the slide's corner.
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
        There is no such slide, or several and none named; or it has more than `MOST_CELLS`; or the file
        cannot be written or is there.
    QueryError
        No cell counts, or there are no such cut-offs or region.
    ResultsError, StorageError
        See `deepliif_ray.connect`; or the file cannot be written.
    """
    url, target, calls = os.fspath(results), Path(output).absolute(), calls or Calls()
    refuse_target(target, SUFFIXES, overwrite=overwrite)
    import anndata  # noqa: F401  # slow to import, and perhaps not there: then it is said before the work

    with streaming(url) as stream:
        row = slide_record(stream, url, slide)
        table = cells_as_anndata(stream, row, calls, origin, watch)
        with placing(target) as path:
            # Level 1 takes a third of the time of the default, for a twentieth more bytes.
            table.write_h5ad(path, compression="gzip", compression_opts=1)
    return Exported(row["slide_id"], table.n_obs, (str(target),), begins(row, origin))


def cells_as_anndata(
    stream: Stream,
    row: Mapping[str, Any],
    calls: Calls,
    origin: Origin | None = None,
    watch: Callable[[Exported], None] = lambda _: None,
) -> "AnnData":
    """Return the counted cells of a slide as AnnData.

    ``obs`` has the cells in the order of their ids, with calls and measurements by the names of
    ``called_cells``; ``label`` is their number in a label image, and ``class`` the call as a category. ``X``
    has the measurements again, float32, one column each, without those that no cell has. ``obsm["spatial"]``
    are centroids, pixel-edge coordinates of level 0, float64; ``obsm["spatial_um"]`` the same in µm. ``uns``
    has ``spatialdata_attrs`` and, as ``deepliif_ray``, where it is all from.

    Parameters
    ----------
    stream : Stream
    row : mapping
        The slide's commit record.
    calls : Calls
    origin : Origin, optional
        Where coordinates begin; by default at the slide's corner.
    watch : callable
        Told how far it is.

    Raises
    ------
    ConfigError
        There are more than `MOST_CELLS`.
    QueryError
        No cell counts, or there are no such cut-offs or region.
    """
    import pandas as pd
    from anndata import AnnData

    refuse_more(
        stream, row, source_of(calls), MOST_CELLS, "take part of them with --region, or use geoparquet"
    )
    parts: list[pa.Table] = []
    count = 0
    for cells in called_cells(stream, row, calls, _COLUMNS):
        parts.append(cells)
        count += cells.num_rows
        watch(Exported(row["slide_id"], count))
    table = pa.concat_tables(parts)
    del parts
    left, top = begins(row, origin)
    centroids = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()]) + 0.5 - (left, top)
    measured = [name for name in MEASURED if table[name].null_count < count]
    values = np.empty((count, len(measured)), np.float32)
    for number, name in enumerate(measured):
        values[:, number] = table[name].cast(pa.float64()).fill_null(np.nan).to_numpy()
    obs = pd.DataFrame(
        {
            INSTANCE_KEY: table[INSTANCE_KEY].to_numpy(),
            "label": table["label"].to_numpy(),
            REGION_KEY: _category(pd, np.zeros(count, np.int8), [REGION]),
            **{name: _category(pd, np.zeros(count, np.int8), [row[name]]) for name in _NAMES},
            "class": _category(pd, table["positive"].to_numpy().astype(np.int8), ["Negative", "Positive"]),
            **{name: table[name].to_numpy() for name in ("positive", "majority_positive", "on_slide_edge")},
            "strength": _nullable(pd, table["strength"], "Int8"),
            **{name: table[name].to_numpy() for name in MEASURED if name != "marker_max"},
            "marker_max": _nullable(pd, table["marker_max"], "UInt8"),
        },
        index=pd.Index(table[INSTANCE_KEY].cast(pa.string()).to_numpy(zero_copy_only=False), dtype=object),
    )
    var = pd.DataFrame(
        {"unit": [MEASURED[name] for name in measured]}, index=pd.Index(measured, dtype=object)
    )
    attrs = {"region": REGION, "region_key": REGION_KEY, "instance_key": INSTANCE_KEY}
    return AnnData(
        values,
        obs=obs,
        var=var,
        obsm={"spatial": centroids, "spatial_um": centroids * row["mpp"]},
        uns={"spatialdata_attrs": attrs, "deepliif_ray": provenance(row, calls, (left, top))},
    )


def _category(pandas: Any, codes: np.ndarray[Any, Any], names: list[str]) -> Any:
    return pandas.Categorical.from_codes(codes, names)


def _nullable(pandas: Any, column: pa.ChunkedArray, kind: str) -> Any:
    """Return whole numbers of which some may be missing, as pandas has them."""
    missing = column.is_null().to_numpy()
    numbers = column.fill_null(0).to_numpy().astype(kind.lower())
    return pandas.arrays.IntegerArray(numbers, missing)
