"""Compare results of runs: everything but when, where and how long."""

from pathlib import Path

import pyarrow as pa

from deepliif_ray import connect
from deepliif_ray.tables.schema import column_names

VOLATILE = {
    "cells": {"attempt"},
    "slides": {
        "run_id",
        "attempt",
        "committed_at",
        "epoch",
        "cells_path",
        "cells_bytes",
        "cells_digest",
        "slide_version",
        "timings",
    },
    "failures": {"run_id", "attempt", "failed_at", "epoch", "slide_version"},
}


def tables(results: str | Path) -> dict[str, pa.Table]:
    """Return the committed tables without their volatile columns, in a fixed order."""
    with connect(results) as connection:
        found = {}
        for name, volatile in VOLATILE.items():
            columns = ", ".join(c for c in column_names(name) if c not in volatile)
            order = "slide_id, cell_id" if name == "cells" else "slide_id"
            found[name] = connection.sql(f"SELECT {columns} FROM {name} ORDER BY {order}").to_arrow_table()
        return found


def assert_same(a: str | Path, b: str | Path) -> None:
    """Assert that two results hold the same slides, cells and failures."""
    left, right = tables(a), tables(b)
    for name in VOLATILE:
        assert left[name].equals(right[name]), f"{name} differ"
