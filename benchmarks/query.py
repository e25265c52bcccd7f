"""What questions cost: beside plain DuckDB, Polars and pandas on the same files, and by themselves.

    python -m benchmarks.query cells20 --slides 100 --cells 200000
    python -m benchmarks.query cells100 --slides 100 --cells 1000000 --rounds 3

Makes results of that many cells if there are none. Every way gives the same numbers, or it stops.
"""

import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl

from benchmarks.drawn import asked
from benchmarks.sandbox import timed
from deepliif_ray import scan_cells
from deepliif_ray.query import connect

SIZE = 60
STRENGTHS = (0.2, 0.4, 0.6)
Rows = list[tuple[str, float]]


def index(results: Path, connection: duckdb.DuckDBPyConnection) -> dict[str, Callable[[], Rows]]:
    """Return ways to the index of each patient at another size, from the cells."""
    files = str(results / "cells/*/*.parquet")

    def pandas() -> Rows:
        parts = []
        for path in sorted((results / "cells").glob("*/*.parquet")):
            cells = pd.read_parquet(path, columns=["patient_id", "area_px", "majority_positive"])
            cells = cells[cells["area_px"] > SIZE]
            parts.append(cells.groupby("patient_id")["majority_positive"].agg(["sum", "size"]))
        sums = pd.concat(parts).groupby(level=0).sum()
        return list((100 * sums["sum"] / sums["size"]).items())

    def polars() -> Rows:
        positive = 100 * pl.col("majority_positive").mean()
        cells = pl.scan_parquet(files, hive_partitioning=False).filter(pl.col("area_px") > SIZE)
        return cells.group_by("patient_id").agg(positive).collect().rows()

    def frame() -> Rows:
        cells = scan_cells(str(results)).filter(pl.col("area_px") > SIZE)
        return cells.group_by("patient_id").agg(100 * pl.col("majority_positive").mean()).collect().rows()

    plain = (
        f"SELECT patient_id, 100 * count_if(majority_positive) / count(*) FROM read_parquet('{files}') "
        f"WHERE area_px > {SIZE} GROUP BY patient_id"
    )
    ours = (
        "SELECT patient_id, 100 * sum(n_positive) / sum(n_called) FROM "
        f"slide_counts({{'size_thresh': {SIZE}}}) GROUP BY patient_id"
    )
    return {
        "plain DuckDB": lambda: duckdb.sql(plain).fetchall(),
        "slide_counts(…)": lambda: connection.sql(ours).fetchall(),
        "plain Polars": polars,
        "scan_cells": frame,
        "pandas": pandas,
    }


def h_score(results: Path, connection: duckdb.DuckDBPyConnection) -> dict[str, Callable[[], Rows]]:
    """Return ways to the H-score of each slide, from the cells."""
    files = str(results / "cells/*/*.parquet")
    grades = " + ".join(f"count_if(dab_od_mean >= {value})" for value in STRENGTHS)
    plain = (
        f"SELECT slide_id, 100 * ({grades}) / count(*) FROM read_parquet('{files}') WHERE area_px > 50 "
        "GROUP BY slide_id"
    )

    def polars() -> Rows:
        grade = sum((pl.col("dab_od_mean") >= value).cast(pl.Int64).sum() for value in STRENGTHS)
        cells = pl.scan_parquet(files, hive_partitioning=False).filter(pl.col("area_px") > 50)
        return cells.group_by("slide_id").agg(100 * grade / pl.len()).collect().rows()

    given = "{'size_thresh': 50}"
    return {
        "plain DuckDB": lambda: duckdb.sql(plain).fetchall(),
        "slide_h_scores(…)": lambda: connection.sql(
            f"SELECT slide_id, h_score FROM slide_h_scores({given})"
        ).fetchall(),
        "slide_h_scores(), each slide's size": lambda: connection.sql(
            "SELECT slide_id, h_score FROM slide_h_scores()"
        ).fetchall(),
        "plain Polars": polars,
    }


ALONE = {
    "index of patients from the slides table": "SELECT patient_id, index_percent FROM patient_counts",
    "patient_indices, with intervals and notes": "FROM patient_indices",
    "intervals of slides from the cells": "SELECT slide_id, ci_lower_percent "
    "FROM slide_indices({'size_thresh': 60})",
    "hans()": "FROM hans()",
}


def same(one: Rows, other: Rows) -> bool:
    """Tell whether two answers are alike but for rounding."""
    pairs = zip(sorted(one), sorted(other), strict=True)
    return all(a == b and abs(x - y) < 1e-9 for (a, x), (b, y) in pairs)


def main() -> None:
    """Measure and print."""
    given = asked()
    began = time.perf_counter()
    connection = connect(str(given.results))
    print(f"connect: {time.perf_counter() - began:.2f} s")
    for title, ways in (("index of patients", index), ("H-score of slides", h_score)):
        print(f"{title}:")
        first: tuple[Rows, float] | None = None
        for name, call in ways(given.results, connection).items():
            answer, seconds = call(), timed(call, 1 if name == "pandas" else given.rounds)[0]
            first = first or (answer, seconds)
            if not same(first[0], answer):
                raise SystemExit(f"{name} gives other numbers")
            print(f"  {name:36} {seconds:7.3f} s  {seconds / first[1]:5.2f} x")
    for title, query in ALONE.items():
        print(
            f"{title}: {timed(lambda query=query: connection.sql(query).fetchall(), given.rounds)[0]:.3f} s"
        )


if __name__ == "__main__":
    main()
