"""What is measured in the regions of a slide: cells, areas, tissue."""

from typing import Any

import pyarrow as pa
import shapely

from deepliif_ray.annotations.classes import class_key
from deepliif_ray.annotations.membership import COLUMNS, members
from deepliif_ray.annotations.objects import with_column
from deepliif_ray.annotations.slide_cells import cells_of
from deepliif_ray.extras import missing_extra
from deepliif_ray.tables.schema import table_schema


def with_cells(results: str, row: dict[str, Any], regions: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the regions of one slide with the cells in them counted, and rows of ``region_cells``.

    Parameters
    ----------
    results : str
        URL of the results.
    row : dict
        The slide's commit record.
    regions : pyarrow.Table
        Regions of this slide, of one import.

    Raises
    ------
    ResultsError
        The slide's cells are gone or damaged.
    StorageError
        The store does not answer.
    AnnotationError
        Too many regions overlap.
    """
    areas = shapely.from_wkb(regions.column("geometry").to_pylist())
    classes, excludes = regions.column("class").to_pylist(), regions.column("excludes").to_pylist()
    found = members(list(areas), cells_of(results, row, COLUMNS))
    each, together = found.counts(classes, excludes)
    for name, values in (("n_cells", each), ("class_n_cells", together)):
        regions = with_column(regions, name, pa.array(values, pa.int64()))
    regions = with_column(regions, "attempt", row["attempt"])
    schema = table_schema("region_cells")
    place = pa.array(found.regions)
    columns = {
        name: regions.column(name).take(place) for name in ("class", "region_id", "excludes", "import_id")
    }
    same = {name: pa.repeat(row[name], len(place)) for name in ("slide_id", "attempt")}
    table = pa.table(columns | same | {"cell_id": found.cell_ids})
    return regions, table.select(schema.names).cast(schema)


def with_areas(row: dict[str, Any], regions: pa.Table, *, read_slide: bool) -> pa.Table:
    """Return the regions of one slide with their areas and the tissue in them.

    Parameters
    ----------
    row : dict
        The slide's commit record.
    regions : pyarrow.Table
        Regions of this slide, of one import.
    read_slide : bool
        Whether to read the slide for its tissue.
    """
    mm2_per_px = row["mpp"] ** 2 / 1e6
    areas = shapely.from_wkb(regions.column("geometry").to_pylist())
    keys = [class_key(name) for name in regions.column("class").to_pylist()]
    excludes = regions.column("excludes").to_numpy(zero_copy_only=False)
    excluding = {key for key, no in zip(keys, excludes.tolist(), strict=True) if no}
    # Far faster than union_all where many regions lie apart.
    unite = shapely.disjoint_subset_union_all
    together = {key: unite(areas[[its == key for its in keys]]) for key in dict.fromkeys(keys)}
    out = unite(areas[excludes])
    together = {k: area if k in excluding else shapely.difference(area, out) for k, area in together.items()}
    size_of = {key: float(area.area) * mm2_per_px for key, area in together.items()}
    tissue: Any = None
    reason: str | None = "the slide was not read, as was asked for"
    if read_slide:
        try:
            from deepliif_ray.annotations.tissue import tissue_of

            tissue, reason = tissue_of(row)
        except ModuleNotFoundError as error:  # what reads slides is not always installed
            missing = missing_extra(error, "measuring the tissue in regions")
            if missing is None:
                raise
            reason = str(missing)
    in_class = {key: None if tissue is None else tissue.within(area) for key, area in together.items()}
    whole = None if tissue is None else tissue.mm2 - tissue.within(out)
    columns = {
        "area_mm2": pa.array(shapely.area(areas) * mm2_per_px),
        "class_area_mm2": pa.array([size_of[key] for key in keys]),
        "class_tissue_mm2": pa.array([in_class[key] for key in keys], pa.float64()),
        "slide_tissue_mm2": whole,
        "tissue_reason": reason,
    }
    said = ("mpp", "width_px", "height_px", "slide_fingerprint")
    for name, values in (columns | {name: row[name] for name in said}).items():
        regions = with_column(regions, name, values)
    return regions
