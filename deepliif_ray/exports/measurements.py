"""Measurements as QuPath exports them: a table of cells, and one of slides, with its names of columns.

What reads tables from QuPath reads these. Where QuPath tells the area of an annotation, tissue is meant here.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from deepliif_ray.annotations.origin import Origin, origin_of
from deepliif_ray.errors import QueryError
from deepliif_ray.exports.cells import Calls, Exported, called_cells, image_name, object_ids, slide_record
from deepliif_ray.exports.files import refuse_target, writing
from deepliif_ray.exports.qupath import COLUMNS, MEASUREMENTS, class_names
from deepliif_ray.query.streaming import streaming

SUFFIXES = (".tsv", ".txt", ".tsv.gz", ".txt.gz")
_COUNTS = """
    SELECT s.uri, s.slide_id, c.n_called, c.n_called - c.n_positive AS n_negative, c.n_positive, c.tissue_mm2
    FROM {counts} AS c JOIN slides AS s ON c.slide_id = s.slide_id
    WHERE c.has_region AND ($1 IS NULL OR s.slide_id = $1) ORDER BY s.slide_id
"""
_STRENGTHS = """
    SELECT s.uri, s.slide_id, g.n_called, g.n_called - g.n_weak - g.n_moderate - g.n_strong AS n_negative,
      g.n_weak, g.n_moderate, g.n_strong, g.n_weak + g.n_moderate + g.n_strong AS n_positive, c.tissue_mm2
    FROM {strengths} AS g
    JOIN {counts} AS c ON g.slide_id = c.slide_id
    JOIN slides AS s ON g.slide_id = s.slide_id
    WHERE g.has_region AND ($1 IS NULL OR s.slide_id = $1) ORDER BY s.slide_id
"""


def export_measurements(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    slide: str | None = None,
    calls: Calls | None = None,
    strength: bool = False,
    origin: Origin | None = None,
    overwrite: bool = False,
    watch: Callable[[Exported], None] = lambda _: None,
) -> Exported:
    """Write a row for each counted cell of a slide, separated by tabs.

    Parameters are those of `deepliif_ray.exports.qupath.export_qupath`, and so are ids, classes and
    measurements; the file ends in ``.tsv`` or ``.txt``, also with ``.gz``. Centroids are in µm from where
    QuPath's coordinates begin.

    Raises
    ------
    ConfigError, QueryError, ResultsError, StorageError
        As `export_qupath`.
    """
    url, target = os.fspath(results), Path(output).absolute()
    refuse_target(target, SUFFIXES, overwrite=overwrite)
    with streaming(url) as stream, writing(target) as files:
        row = slide_record(stream, url, slide)
        left, top, _ = origin_of(row, origin)
        count = 0
        for cells in called_cells(stream, row, calls or Calls(), COLUMNS):
            frame = _rows(cells, row, (left, top), strength=strength)
            # As text: given a file, Polars writes past what packs it.
            files.of(target).write(frame.write_csv(separator="\t", include_header=count == 0).encode())
            count += cells.num_rows
            watch(Exported(row["slide_id"], count))
    return Exported(row["slide_id"], count, (str(target),), (left, top))


def export_summary(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    slide: str | None = None,
    calls: Calls | None = None,
    strength: bool = False,
    overwrite: bool = False,
) -> int:
    """Write a row for each slide, separated by tabs; return how many these are.

    Parameters
    ----------
    results : str or path
        URL of the results.
    output : str or path
        The local file: ``.tsv`` or ``.txt``, also with ``.gz``.
    slide : str, optional
        This slide alone.
    calls : Calls, optional
        Which cells count and how they are called; with a region, slides that have none of it are left out.
    strength : bool
        Count 1+, 2+ and 3+, of which all are positive, and tell the H-score.
    overwrite : bool
        Replace the file if there is one.

    Raises
    ------
    ConfigError
        There is no such slide, or the file cannot be written or is there.
    QueryError
        There are no slides to tell of, or no such cut-offs or region, or a slide's cells are lost.
    ResultsError, StorageError
        See `deepliif_ray.connect`; or the file cannot be written.
    """
    url, target, calls = os.fspath(results), Path(output).absolute(), calls or Calls()
    refuse_target(target, SUFFIXES, overwrite=overwrite)
    with streaming(url) as stream, writing(target) as files:
        if slide is not None:
            slide_record(stream, url, slide)
        counts, strengths = calls.of("slide_counts"), calls.of("slide_strengths")
        strengths += "" if strengths.endswith(")") else "()"  # there is no view of that name
        query = (_STRENGTHS if strength else _COUNTS).format(counts=counts, strengths=strengths)
        found = stream.table(query, [slide])
        if not found.num_rows:
            raise QueryError(f"{url}: there is no slide to tell of, so nothing was written")
        for told in found.to_pylist():
            if told["n_called"] is None:
                raise QueryError(
                    f"slide {told['slide_id']!r}: nothing can be counted: its cells are lost, or these "
                    "cut-offs say nothing of its marker; see `status`, choose other cut-offs, or name "
                    "another slide with --slide"
                )
        files.of(target).write(_summary(found, strength=strength).write_csv(separator="\t").encode())
    return int(found.num_rows)


def _rows(cells: pa.Table, row: dict[str, Any], origin: tuple[int, int], *, strength: bool) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(cells))
    mpp = row["mpp"]
    x, y = (((pl.col(n) + 0.5 - begin) * mpp).round(2) for n, begin in zip("xy", origin, strict=True))
    numbers = [
        pl.when(pl.col(column).cast(pl.Float64).is_finite())
        .then(pl.col(column).round(decimals) if decimals else pl.col(column))
        .alias(name)
        for name, (column, decimals) in MEASUREMENTS.items()
    ]
    return frame.select(
        pl.lit(_plain(image_name(row))).alias("Image"),
        pl.Series("Object ID", object_ids(row["slide_id"], row["attempt"], cells["cell_id"])),
        pl.lit("Detection").alias("Object type"),
        pl.lit(None, pl.String).alias("Name"),
        pl.Series("Classification", class_names(cells, row["slide_id"], strength=strength)),
        pl.lit("Root object (Image)").alias("Parent"),
        pl.lit("Polygon").alias("ROI"),
        x.alias("Centroid X µm"),
        y.alias("Centroid Y µm"),
        *numbers,
    )


def _summary(found: pa.Table, *, strength: bool) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(found))
    each = {"Num 1+": "n_weak", "Num 2+": "n_moderate", "Num 3+": "n_strong"} if strength else {}
    total = pl.col("n_called")
    columns = [
        pl.Series("Image", [_plain(image_name(row)) for row in found.to_pylist()]),
        pl.Series("Slide ID", [_plain(row["slide_id"]) for row in found.to_pylist()]),
        total.alias("Num Detections"),
        pl.col("n_negative").alias("Num Negative"),
        *(pl.col(column).alias(name) for name, column in each.items()),
        pl.col("n_positive").alias("Num Positive"),
        _ratio(100 * pl.col("n_positive"), total).alias("Positive %"),
        _ratio(pl.col("n_positive"), pl.col("tissue_mm2")).alias("Num Positive per mm^2"),
    ]
    if strength:
        weighed = 100 * (pl.col("n_weak") + 2 * pl.col("n_moderate") + 3 * pl.col("n_strong"))
        columns.append(_ratio(weighed, total).alias("H-score"))
    return frame.select(columns)


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """Return a quotient with two decimals; nothing where the divisor is 0."""
    return pl.when(whole > 0).then((part / whole).round(2))


def _plain(text: str) -> str:
    """Return a name without what would end its field."""
    return " ".join(text.split())
