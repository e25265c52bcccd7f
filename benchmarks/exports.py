"""Time the exports of one large slide, and take the most memory that each needs.

    python -m benchmarks.exports demo/results P02-Ki67 large --cells 1000000 [--only csv,labels]

The slide is one that was scored, laid side by side again and again until there are so many cells, with their
outlines. Each export runs in a process of its own; its file is removed again. Seconds are of the clock.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from deepliif_ray.query import ask
from deepliif_ray.tables.commit import cells_layout
from deepliif_ray.tables.schema import table_schema
from tests.query import fake_results as fake

KINDS = {
    "csv": ("csv_table", "export_csv", "a.csv"),
    "qupath": ("qupath", "export_qupath", "a.geojson"),
    "geoparquet": ("geoparquet", "export_geoparquet", "a.parquet"),
    "anndata": ("h5ad", "export_anndata", "a.h5ad"),
    "spatialdata": ("spatial_data", "export_spatialdata", "a.zarr"),
    "labels-tiff": ("labels", "export_labels", "a.ome.tiff"),
    "labels-zarr": ("labels", "export_labels", "b.zarr"),
}
_RUN = """
import resource, sys, time
from deepliif_ray.exports.{module} import {function}
begun = time.perf_counter()
done = {function}(sys.argv[1], sys.argv[2])
seconds, peak = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("measured", done.n_cells, seconds, peak)
"""
_MOVED = {"x": ("x", "bbox_x0", "bbox_x1"), "y": ("y", "bbox_y0", "bbox_y1")}


def write_large(source: str, slide: str, results: Path, cells: int) -> None:
    """Write results of one slide with at least so many cells."""
    (record,) = ask(source, f"SELECT * FROM slides WHERE slide_id = '{slide}'").to_pylist()
    names = table_schema("cells").names
    there = ask(source, f"SELECT * FROM cells WHERE slide_id = '{slide}' ORDER BY cell_id")
    table = there.select([name for name in names if name in there.column_names])
    side = int(np.ceil(np.sqrt(cells / table.num_rows)))
    outlines = shapely.from_wkb(table["boundary"].to_numpy())
    schema = table_schema("cells")
    path = f"cells/marker={record['marker']}/large-a1.parquet"
    (results / path).parent.mkdir(parents=True)
    count = 0
    with pq.ParquetWriter(results / path, schema, **cells_layout(schema)) as writer:
        for row in range(side):
            parts = [moved(table, outlines, record, column, row) for column in range(side)]
            band = pa.concat_tables(parts).sort_by([("bbox_y0", "ascending"), ("bbox_x0", "ascending")])
            ids = pa.array(np.arange(count, count + band.num_rows))
            band = band.set_column(band.column_names.index("cell_id"), "cell_id", ids)
            band = band.set_column(
                band.column_names.index("attempt"), "attempt", pa.repeat(pa.scalar("a1"), band.num_rows)
            )
            writer.write_table(band.select(schema.names).cast(schema), row_group_size=65_536)
            count += band.num_rows
    kept = {name: value for name, value in record.items() if name not in ("timings", "attributes")}
    one = results.with_name(results.name + "-one")
    made = fake.commit(str(one), slide, [], marker=record["marker"], attempt="a1")
    changed = {
        "cells_path": path,
        "n_cells": count,
        "attempt": "a1",
        "cells_bytes": None,
        "cells_digest": None,
    }
    changed |= {"width_px": side * record["width_px"], "height_px": side * record["height_px"]}
    fake.write(str(results / "slides" / "large-a1.parquet"), "slides", [made | kept | changed])
    shutil.rmtree(one)


def moved(table: pa.Table, outlines: np.ndarray, record: dict, column: int, row: int) -> pa.Table:
    """Return cells as they lie in another place of the large slide."""
    by = {"x": column * record["width_px"], "y": row * record["height_px"]}
    for axis, names in _MOVED.items():
        for name in names:
            values = table[name].to_numpy() + by[axis]
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        um = table[axis].to_numpy() * record["mpp"]
        table = table.set_column(table.column_names.index(f"{axis}_um"), f"{axis}_um", pa.array(um))
    offset = np.array([by["x"], by["y"]])
    there = shapely.to_wkb(shapely.transform(outlines, lambda points: points + offset))
    return table.set_column(table.column_names.index("boundary"), "boundary", pa.array(there, pa.binary()))


def main() -> None:
    """Measure and print a line for each kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("slide")
    parser.add_argument("results", type=Path)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--only", default=",".join(KINDS))
    given = parser.parse_args()
    if not given.results.exists():
        begun = time.perf_counter()
        write_large(given.source, given.slide, given.results, given.cells)
        print(f"results made in {time.perf_counter() - begun:.0f} s")
    print(f"{'kind':<12} {'cells':>10} {'s':>7} {'cells/s':>8} {'MiB':>6} {'MB file':>8}")
    for kind in given.only.split(","):
        module, function, name = KINDS[kind]
        target = given.results.with_name(name)
        code = _RUN.format(module=module, function=function)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(given.results), str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"{kind:<12} {done.stderr.strip().splitlines()[-1]}")
            continue
        cells, seconds, peak = map(float, done.stdout.rpartition("measured ")[2].split())
        files = [target] if target.is_file() else [file for file in target.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        print(
            f"{kind:<12} {cells:>10,.0f} {seconds:>7.1f} {cells / seconds:>8,.0f} {peak:>6,.0f} {size:>8,.0f}"
        )
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()


if __name__ == "__main__":
    main()
