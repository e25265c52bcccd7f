"""Committed cells as a lazy Polars frame: only the columns and rows that are asked for are read."""

import os
from collections.abc import Collection, Sequence
from itertools import groupby
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow.fs import FSSpecHandler, PyFileSystem

from deepliif_ray import storage
from deepliif_ray.annotations.current import attach
from deepliif_ray.errors import QueryError
from deepliif_ray.query.ask import ask_all
from deepliif_ray.query.committed import CellsObjects, cells_objects
from deepliif_ray.query.literals import quoted
from deepliif_ray.query.rooted import RootedFileSystem
from deepliif_ray.query.views import warn
from deepliif_ray.scoring.markers import intensity, registry_with
from deepliif_ray.tables.cohort import read_markers
from deepliif_ray.tables.damage import sound_ledger
from deepliif_ray.tables.schema import column_names, later_columns, table_schema

POSITIVE, STRENGTH = "positive", "strength"
_LISTED = 3


def scan_cells(
    results: str | os.PathLike[str],
    marker: str | None = None,
    slides: str | Collection[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    called: bool = False,
    region: str | None = None,
    corrections: bool = True,
) -> pl.LazyFrame:
    """Return committed cells as a lazy Polars frame: the rows and columns of the view ``cells``.

    Nothing of the cells is read until ``collect()``, and then only the columns that the query needs, and of
    these the row groups that its conditions leave. What is committed later is not in it; make another one
    after ``optimize`` too, which removes the objects that this one reads after an hour.

    ``scan_cells(…).collect().to_pandas()`` gives a pandas data frame; name ``columns`` or aggregate first, as
    all columns of a cell take about 200 bytes and its outline.

    Parameters
    ----------
    results : str or path
        URL of the results, in any store.
    marker : str, optional
        One marker only; aliases such as MIB-1 work. Objects of others are not opened.
    slides : str or collection of str, optional
        These slides only, by their ids. Objects of others are not opened.
    columns : sequence of str, optional
        These columns, in this order; by default all of the view.
    called : bool
        The rows of the view ``called_cells``: cells that are counted at their slide's own published size
        threshold and that nobody excluded or struck out, with ``positive`` and ``strength``.
    region : str, optional
        Only cells in regions of this class, less those in regions that exclude.
    corrections : bool
        False: with ``called``, calls as measured and not as people corrected them.

    Returns
    -------
    polars.LazyFrame
        In no particular order of rows. ``boundary`` is WKB, coordinates are level-0 px.

    Raises
    ------
    QueryError
        There is no such marker, slide, column or region; the message lists those there are.
    ResultsError, StorageError
        See `deepliif_ray.connect`. Damaged objects are passed over, with a warning.

    Examples
    --------
    >>> import polars as pl
    >>> from deepliif_ray import scan_cells
    >>> cells = scan_cells("results", marker="Ki67", called=True)  # doctest: +SKIP
    >>> cells.group_by("patient_id").agg(100 * pl.col("positive").mean()).collect()  # doctest: +SKIP
    """
    url = os.fspath(results)
    known = [*column_names("cells"), *([POSITIVE, STRENGTH] if called else [])]
    wanted = known if columns is None else list(columns)
    _refuse("column", [name for name in wanted if name not in known], known)
    ledger, damaged = sound_ledger(url)
    records = _records(url, ledger.slides(), marker, slides)
    objects = cells_objects(url, records, damaged)
    ids = set(records.column("slide_id").to_pylist())
    warn(url, [damage for damage in damaged if damage.slide_id is None or damage.slide_id in ids])
    rows = pl.DataFrame(pl.from_arrow(records.select(["slide_id", "cells_path", "attempt", "size_thresh"])))
    frames = [
        _frame(url, part, name, rows, slides is not None) for each in objects for name, part in _parts(each)
    ]
    frame = pl.concat([_none(), *frames])
    said = _annotations(url, records, region) if called or region is not None else None
    if said is not None:
        frame = _placed(frame, said, region)
    if called:
        frame = _called(frame, rows, said["corrected"] if said is not None and corrections else None)
    return frame.select(wanted)


def _annotations(url: str, records: pa.Table, region: str | None) -> dict[str, pl.LazyFrame] | None:
    """Return the cells that people placed in regions or corrected; None if there are none."""
    said = attach(url, records)
    classes = sorted({name.lower() for name in said.regions.column("class").to_pylist()})
    if region is not None:
        _refuse("region", [] if region.lower() in classes else [region], classes)
    if not said.regions.num_rows and not said.corrections.num_rows:
        return None
    where = "true" if region is None else f"lower(class) = lower({quoted(region)})"
    answers = ask_all(
        url,
        {
            "excluded": "SELECT DISTINCT slide_id, cell_id FROM region_cells WHERE excludes",
            "placed": f"SELECT DISTINCT slide_id, cell_id FROM region_cells WHERE {where}",
            "corrected": "SELECT slide_id, cell_id, call FROM corrections WHERE is_current",
        },
    )
    return {name: pl.DataFrame(pl.from_arrow(table)).lazy() for name, table in answers.items()}


def _placed(frame: pl.LazyFrame, said: dict[str, pl.LazyFrame], region: str | None) -> pl.LazyFrame:
    keys = ["slide_id", "cell_id"]
    frame = frame.join(said["excluded"], on=keys, how="anti")
    return frame if region is None else frame.join(said["placed"], on=keys, how="semi")


def _records(
    url: str, records: pa.Table, marker: str | None, slides: str | Collection[str] | None
) -> pa.Table:
    """Return the commit records of the wanted slides."""
    if slides is not None:
        ids = [slides] if isinstance(slides, str) else list(slides)
        there = set(records.column("slide_id").to_pylist())
        _refuse("slide", [name for name in ids if name not in there], sorted(there))
        records = records.filter(pc.is_in(records.column("slide_id"), pa.array(ids, pa.string())))
    if marker is not None:
        name = registry_with(read_markers(url), url).read(marker)[0].name
        there = set(records.column("marker").to_pylist())
        _refuse("marker", [] if name in there else [marker], sorted(there))
        records = records.filter(pc.equal(records.column("marker"), name))
    return records


def _refuse(what: str, unknown: Sequence[str], known: Sequence[str]) -> None:
    if unknown:
        named = ", ".join(map(repr, unknown[:_LISTED])) + ", …" * (len(unknown) > _LISTED)
        most = known if what == "column" else known[: 5 * _LISTED]
        listed = ", ".join(map(str, most)) + ", …" * (len(most) < len(known))
        raise QueryError(f"no {what} {named} in these cells; there are {listed or 'none'}")


def _parts(objects: CellsObjects) -> list[tuple[str, CellsObjects]]:
    """Return objects by marker, which is in their paths and not in the files."""
    grouped = groupby(sorted(objects.paths, key=_marker), key=_marker)
    return [(name, CellsObjects(list(paths), objects.version, objects.partial)) for name, paths in grouped]


def _marker(path: str) -> str:
    return unquote(path.split("/")[-2].removeprefix("marker="))


def _frame(url: str, objects: CellsObjects, marker: str, records: pl.DataFrame, some: bool) -> pl.LazyFrame:
    """Return the cells that count of objects of one marker, with the columns of the view."""
    frame = _scan(url, objects.paths, objects.version)
    later = later_columns("cells", objects.version)
    if some or objects.partial or later:
        frame = _of_records(frame, objects, records, with_attempt="attempt" in later)
    schema = _none().collect_schema()
    values = [
        pl.lit(marker).alias(name)
        if name == "marker"
        else pl.lit(None, schema[name]).alias(name)
        if name in later and name != "attempt"
        else pl.col(name)
        for name in schema
    ]
    return frame.select(values)


def _of_records(
    frame: pl.LazyFrame, objects: CellsObjects, records: pl.DataFrame, *, with_attempt: bool
) -> pl.LazyFrame:
    """Keep cells of slides whose records name these objects; older ones take the attempt from there."""
    named = records.filter(pl.col("cells_path").is_in(objects.paths))
    frame = frame.filter(pl.col("slide_id").is_in(named["slide_id"].to_list()))
    if not with_attempt:
        return frame
    attempt = pl.col("slide_id").replace_strict(
        named["slide_id"], named["attempt"], default=None, return_dtype=pl.String
    )
    return frame.with_columns(attempt=attempt)


def _called(frame: pl.LazyFrame, records: pl.DataFrame, corrected: pl.LazyFrame | None) -> pl.LazyFrame:
    """Keep cells that count, and call them as query/sql/called_cells.sql does."""
    thresholds = records.lazy().select("slide_id", "size_thresh")
    cuts = intensity()
    grades = ((pl.col("dab_od_mean") >= cuts[name]).cast(pl.Int8) for name in ("weak", "moderate", "strong"))
    frame = frame.join(thresholds, on="slide_id").with_columns(pl.sum_horizontal(grades).alias(STRENGTH))
    is_sized, positive = pl.col("area_px") > pl.col("size_thresh"), pl.col("majority_positive")
    if corrected is None:
        return frame.filter(is_sized).with_columns(positive.alias(POSITIVE)).drop("size_thresh")
    call = pl.col("call")
    frame = frame.join(corrected, on=["slide_id", "cell_id"], how="left")
    frame = frame.filter(pl.when(call.is_null()).then(is_sized).otherwise(call != "not_a_cell"))
    called = pl.when(call.is_null()).then(positive).otherwise(call == "positive")
    grade = pl.col(STRENGTH)
    corrected_grade = (
        pl.when(call == "negative")
        .then(pl.lit(0, pl.Int8))
        .when(call == "positive")
        .then(pl.max_horizontal(grade, pl.lit(1, pl.Int8)))
        .otherwise(grade)
    )
    columns = {POSITIVE: called, STRENGTH: corrected_grade}
    return frame.with_columns(**columns).drop("size_thresh", "call")


def _scan(url: str, paths: list[str], version: int) -> pl.LazyFrame:
    """Read objects of one version: of this machine by Polars itself, others through `storage`.

    Polars knows stores too, but by other options and credentials than these, and would not try again.
    """
    if storage.is_local(url):
        root = storage.local_path(url).absolute()
        files = [root / path for path in paths]
        return pl.scan_parquet(files, glob=False, hive_partitioning=False)
    schema = table_schema("cells")
    later = later_columns("cells", version)
    schema = pa.schema([field.remove_metadata() for field in schema if field.name not in later])
    form = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))
    files = PyFileSystem(FSSpecHandler(RootedFileSystem(url)))
    return pl.scan_pyarrow_dataset(ds.dataset(paths, schema=schema, format=form, filesystem=files))


def _none() -> pl.LazyFrame:
    """Return no cells, with the columns of the view."""
    stored = pl.DataFrame(pl.from_arrow(table_schema("cells").empty_table()))
    return stored.lazy().with_columns(pl.lit(None, pl.String).alias("marker")).select(column_names("cells"))
