"""Results of many cells drawn at random, with one outline for all, to time questions on."""

import argparse
import shutil
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepliif_ray.scoring.blocks import BlockSums
from deepliif_ray.tables.commit import cells_layout
from deepliif_ray.tables.schema import table_schema
from tests.query import fake_results as fake

SIZE_THRESH = 50
PER_MM2 = 5000


def asked() -> argparse.Namespace:
    """Return what is asked for: ``results``, which are made if there are none, and ``rounds``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if not given.results.exists():
        write_results(given.results, given.slides, given.cells)
    return given


def write_results(results: Path, slides: int, cells: int) -> None:
    """Write results of ``slides`` times ``cells`` cells, those of a slide from the top down."""
    random = np.random.default_rng(0)
    schema = table_schema("cells")
    values = fake.cell()
    records = []
    for number in range(slides):
        slide, patient, marker = f"S{number:04d}", f"P{number // 2:04d}", ("Ki67", "CD3")[number % 2]
        attempt = uuid.uuid4().hex[:8]
        side_um = np.sqrt(cells / PER_MM2) * 1000
        x_um, y_um = random.uniform(0, side_um, cells), np.sort(random.uniform(0, side_um, cells))
        area, positive = random.integers(20, 600, cells), random.random(cells) < 0.2
        dab = np.where(positive, random.gamma(4, 0.12, cells), random.gamma(2, 0.03, cells))
        drawn = {
            "cell_id": np.arange(cells),
            "x": 4 * x_um,
            "y": 4 * y_um,
            "x_um": x_um,
            "y_um": y_um,
            "area_px": area,
            "area_um2": area / 16,
            "positive_px": np.where(positive, area, 0),
            "negative_px": np.where(positive, 0, area),
            "majority_positive": positive,
            "marker_max": random.integers(0, 256, cells),
            "od_mean": random.uniform(10, 120, cells),
            "dab_od_mean": dab,
            "hematoxylin_od_mean": random.gamma(3, 0.1, cells),
        }
        for side, centre in (("x", 4 * x_um), ("y", 4 * y_um)):
            drawn |= {f"bbox_{side}0": centre.astype(int) - 10, f"bbox_{side}1": centre.astype(int) + 10}
        named = {"slide_id": slide, "patient_id": patient, "attempt": attempt}
        columns = [
            pa.array(drawn[field.name]).cast(field.type)
            if field.name in drawn
            else pa.repeat(pa.scalar(named.get(field.name, values.get(field.name)), field.type), cells)
            for field in schema
        ]
        path = f"cells/marker={marker}/{slide}-{attempt}.parquet"
        (results / path).parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(columns, schema=schema)
        pq.write_table(table, results / path, row_group_size=65_536, **cells_layout(schema))
        called, sums = area > SIZE_THRESH, BlockSums()
        sums.add(x_um[called], y_um[called], positive[called])
        counts = {"n_called": int(called.sum()), "n_positive": int((called & positive).sum())}
        counts["n_negative"] = counts["n_called"] - counts["n_positive"]
        record = {"slide_id": slide, "patient_id": patient, "marker": marker, "attempt": attempt}
        record |= {"cells_path": path, "n_cells": cells, "slide_version": "v", "slide_fingerprint": slide}
        record |= {"width_px": int(4 * side_um) + 11, "height_px": int(4 * side_um) + 11}
        record |= counts | sums.sums() | {"size_thresh": SIZE_THRESH, "tissue_mm2": cells / PER_MM2}
        records.append(fake.commit(str(results / "one"), slide, []) | record)
    # One object, as a run of hundreds of slides leaves.
    fake.write(str(results / "slides" / "all.parquet"), "slides", records)
    shutil.rmtree(results / "one")
