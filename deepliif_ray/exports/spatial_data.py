"""Cells as SpatialData: outlines, centroids and a table, in pixels and in µm.

The library writes what is in memory, and with copies of outlines that is about 4.5 kB a cell.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely

from deepliif_ray.annotations.origin import Origin
from deepliif_ray.exports.cells import Calls, Exported, called_cells, slide_record, source_of
from deepliif_ray.exports.columns import begins, refuse_more
from deepliif_ray.exports.files import placing, refuse_zarr_target
from deepliif_ray.exports.h5ad import INSTANCE_KEY, REGION, cells_as_anndata
from deepliif_ray.exports.outlines import enclosing_outlines
from deepliif_ray.query.streaming import streaming

MOST_CELLS = 1_500_000
"""About 7 GB: a million took 5."""
POINTS = "centroids"
PIXELS, MICROMETRES = "global", "um"
"""Coordinate systems: level-0 pixels, which is what images come in, and µm."""


def export_spatialdata(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    slide: str | None = None,
    calls: Calls | None = None,
    origin: Origin | None = None,
    overwrite: bool = False,
    watch: Callable[[Exported], None] = lambda _: None,
) -> Exported:
    """Write the counted cells of a slide as a SpatialData folder.

    Its elements: shapes ``cells``, polygons that enclose the cells; points ``centroids``; and ``table``, what
    `deepliif_ray.exports.h5ad.cells_as_anndata` gives, which annotates the shapes by ``cell_id``. Coordinates
    are pixel edges of level 0; in the coordinate system ``global`` they stay so, in ``um`` they are
    multiplied by the pixel size.

    Parameters
    ----------
    results : str or path
        URL of the results.
    output : str or path
        The local folder: ``.zarr``.
    slide : str, optional
        Its id; needed where the results have several.
    calls : Calls, optional
        Which cells count and how they are called; by default as published, with corrections.
    origin : Origin, optional
        Where coordinates begin; by default at the slide's corner.
    overwrite : bool
        Replace the folder if it is there.
    watch : callable
        Told how far it is.

    Returns
    -------
    Exported

    Raises
    ------
    ConfigError
        There is no such slide, or several and none named; or it has more than `MOST_CELLS`; or the folder
        cannot be written or is there.
    QueryError
        No cell counts, or there are no such cut-offs or region.
    ResultsError, StorageError
        See `deepliif_ray.connect`; or the folder cannot be written.
    """
    url, target, calls = os.fspath(results), Path(output).absolute(), calls or Calls()
    refuse_zarr_target(target, overwrite=overwrite)
    from spatialdata import SpatialData  # isort: skip  # if it is missing, this is the one to name
    import geopandas
    import pandas as pd
    from spatialdata.models import PointsModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    with streaming(url) as stream:
        row = slide_record(stream, url, slide)
        instead = "take part of them with --region, or use geoparquet and anndata"
        refuse_more(stream, row, source_of(calls), MOST_CELLS, instead)
        table = cells_as_anndata(stream, row, calls, origin)
        left, top = begins(row, origin)
        outlines = np.empty(table.n_obs, object)
        count = 0
        for cells in called_cells(stream, row, calls, "boundary"):
            found = enclosing_outlines(cells["boundary"].to_numpy())
            outlines[count : count + len(found)] = shapely.transform(found, lambda at: at - (left, top))
            count += len(found)
            watch(Exported(row["slide_id"], count))
    size = row["mpp"]
    systems = {PIXELS: Identity(), MICROMETRES: Scale([size, size], axes=("x", "y"))}
    ids = pd.Index(table.obs[INSTANCE_KEY].to_numpy(), name=INSTANCE_KEY)
    shapes = geopandas.GeoDataFrame(geometry=outlines, index=ids)
    at = table.obsm["spatial"]
    points = pd.DataFrame({"x": at[:, 0], "y": at[:, 1], INSTANCE_KEY: ids.to_numpy()})
    attrs = table.uns.pop("spatialdata_attrs")  # the model sets them itself
    data = SpatialData(
        shapes={REGION: ShapesModel.parse(shapes, transformations=systems)},
        points={POINTS: PointsModel.parse(points, transformations=systems)},
        tables={"table": TableModel.parse(table, **attrs)},
    )
    with placing(target) as path, warnings.catch_warnings():
        # Dozens of times, of what a later version of AnnData will do.
        warnings.filterwarnings("ignore", ".*autosharding", UserWarning)
        data.write(path)
    return Exported(row["slide_id"], count, (str(target),), (left, top))
