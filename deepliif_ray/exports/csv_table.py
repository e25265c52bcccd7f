"""Cells as a plain table of text, a row a cell, for whatever reads nothing else."""

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl

from deepliif_ray.annotations.origin import Origin
from deepliif_ray.exports.cells import Calls, Exported, called_cells, slide_record
from deepliif_ray.exports.columns import AROUND, LABEL, MEASURED, begins
from deepliif_ray.exports.files import refuse_target, writing
from deepliif_ray.query.streaming import streaming

SUFFIXES = (".csv", ".csv.gz")
_COLUMNS = ", ".join(
    [
        "slide_id", "patient_id", "marker", "cell_id", f"{LABEL} AS label", "positive", "strength",
        "majority_positive", "x", "y", *MEASURED, *AROUND, "on_slide_edge",
    ]
)  # fmt: skip


def export_csv(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    slide: str | None = None,
    calls: Calls | None = None,
    origin: Origin | None = None,
    overwrite: bool = False,
    watch: Callable[[Exported], None] = lambda _: None,
) -> Exported:
    """Write the counted cells of a slide as CSV, in the order of their ids.

    Columns have the names of ``called_cells``; ``label`` is the cell's number in a label image.
    ``centroid_x`` and ``centroid_y`` are pixel-edge coordinates of level 0, half a pixel more than ``x`` and
    ``y`` in the tables; ``centroid_x_um`` and ``centroid_y_um`` the same in µm. Numbers are written so that
    they are read back exactly; what is not known is empty. Memory does not grow with the slide.

    Parameters
    ----------
    results : str or path
        URL of the results.
    output : str or path
        The local file: ``.csv``, also with ``.gz``.
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
        There is no such slide, or several and none named; or the file cannot be written or is there.
    QueryError
        No cell counts, or there are no such cut-offs or region.
    ResultsError, StorageError
        See `deepliif_ray.connect`; or the file cannot be written.
    """
    url, target = os.fspath(results), Path(output).absolute()
    refuse_target(target, SUFFIXES, overwrite=overwrite)
    with streaming(url) as stream, writing(target) as files:
        row = slide_record(stream, url, slide)
        left, top = begins(row, origin)
        x, y = pl.col("x") + 0.5 - left, pl.col("y") + 0.5 - top
        places = {"centroid_x": x, "centroid_y": y}
        places |= {"centroid_x_um": x * row["mpp"], "centroid_y_um": y * row["mpp"]}
        count = 0
        for cells in called_cells(stream, row, calls or Calls(), _COLUMNS):
            frame = pl.DataFrame(pl.from_arrow(cells)).select(
                *cells.column_names[: cells.column_names.index("x")],
                *(value.alias(name) for name, value in places.items()),
                *MEASURED,
                "on_slide_edge",
            )
            # As text: given a file, Polars writes past what packs it.
            files.of(target).write(frame.write_csv(include_header=count == 0).encode())
            count += cells.num_rows
            watch(Exported(row["slide_id"], count))
    return Exported(row["slide_id"], count, (str(target),), (left, top))
