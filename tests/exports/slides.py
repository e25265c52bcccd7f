"""Results with a slide of cells that have the outlines of real ones."""

from functools import cache

import numpy as np

from deepliif_ray.cells.extract import extract_cells
from tests.cells.maps import colour
from tests.query import fake_results as fake


@cache
def cells(seed=0, side=120):
    """Return rows of a slide's cells, some positive, of all strengths."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    classes = np.zeros((side, side), int)
    for place in range((side // 20) ** 2):
        row, column = divmod(place, side // 20)
        distance = np.hypot(y - 20 * row - rng.uniform(8, 11), x - 20 * column - rng.uniform(8, 11))
        classes[distance + rng.normal(0, 0.7, classes.shape) < rng.uniform(2, 7)] = rng.integers(1, 3)
    table = extract_cells(colour(classes), rgb=rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).table
    names = [name for name in table.column_names if name in fake.cell()]
    rows = [fake.cell(**row) for row in table.select(names).to_pylist()]
    for n, row in enumerate(rows):
        row |= {"dab_od_mean": (0.05, 0.3, 0.5, 0.9)[n % 4], "marker_max": 200 if n % 3 else None}
        rim = 0.125 * (n % 5) if n % 7 else None
        row |= {"rim_px": 40 if n % 7 else 0, "rim_dab_od_mean": rim}
        row |= {"rim_stained_percent": rim and 100 * rim}
        row |= {"cytoplasm_px": 90, "cytoplasm_dab_od_mean": 0.0625 * (n % 3), "dab_own_od_mean": 0.25}
        row |= {"x_um": row["x"] / 4, "y_um": row["y"] / 4, "area_um2": row["area_px"] / 16}
    return rows


def commit(root, slide_id="S-1", **more):
    """Commit a slide of such cells; return its record and its cells."""
    rows = more.pop("cells", None) or cells()
    return fake.commit(root, slide_id, rows, size_thresh=10, **more), rows
