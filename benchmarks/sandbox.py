"""What the sandbox costs: the same query over an open connection, with `ask`, and in the sandbox.

    python -m benchmarks.sandbox /tmp/sandbox-results --slides 100 --cells 200000

Makes results of that many cells if there are none, with values drawn at random and one outline for all.
"""

import argparse
import resource
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepliif_ray.query import ask, connect
from deepliif_ray.tables.schema import table_schema
from tests.query import fake_results as fake

QUERIES = {
    "index at other thresholds": "SELECT patient_id, marker, index_percent FROM patient_counts("
    "{'size_thresh': 60, 'marker_thresh': 'default'}) ORDER BY ALL",
    "mean of six columns": "SELECT slide_id, avg(x_um), avg(y_um), avg(area_um2), avg(od_mean), "
    "avg(dab_od_mean), avg(hematoxylin_od_mean) FROM cells GROUP BY ALL ORDER BY ALL",
    "one row": "SELECT count(*) FROM slides",
}


def make(results: Path, slides: int, cells: int) -> None:
    """Write results of ``slides`` times ``cells`` cells."""
    random = np.random.default_rng(0)
    schema = table_schema("cells")
    values = fake.cell()
    columns = {}
    for field in schema:
        if pa.types.is_float64(field.type):
            columns[field.name] = pa.array(random.random(cells) * 1000)
        elif pa.types.is_boolean(field.type):
            columns[field.name] = pa.array(random.random(cells) < 0.3)
        elif pa.types.is_integer(field.type):
            high = 255 if field.name == "marker_max" else 400
            columns[field.name] = pa.array(random.integers(0, high, cells)).cast(field.type)
        else:
            columns[field.name] = pa.repeat(pa.scalar(values.get(field.name, ""), field.type), cells)
    records = []
    for number in range(slides):
        slide, patient, marker = f"S{number:04d}", f"P{number // 2:04d}", ("Ki67", "CD3")[number % 2]
        attempt = uuid.uuid4().hex[:8]
        named = {"slide_id": slide, "patient_id": patient, "attempt": attempt}
        columns |= {name: pa.repeat(pa.scalar(value), cells) for name, value in named.items()}
        path = f"cells/marker={marker}/{slide}-{attempt}.parquet"
        (results / path).parent.mkdir(parents=True, exist_ok=True)
        table = pa.table([columns[name] for name in schema.names], schema=schema)
        pq.write_table(table, results / path, compression="zstd")
        record = {"slide_id": slide, "patient_id": patient, "marker": marker, "attempt": attempt}
        record |= {"cells_path": path, "n_cells": cells, "slide_version": "v", "slide_fingerprint": slide}
        records.append(fake.commit(str(results / "one"), slide, []) | record)
    # One object, as a run of hundreds of slides leaves.
    fake.write(str(results / "slides" / "all.parquet"), "slides", records)
    shutil.rmtree(results / "one")


def timed(call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the least seconds that a call takes, by the clock, and of processors with its processes."""
    clock, processors = [], []
    for _ in range(rounds):
        began, spent = time.perf_counter(), cpu()
        call()
        clock.append(time.perf_counter() - began)
        processors.append(cpu() - spent)
    return min(clock), min(processors)


def cpu() -> float:
    """Return the seconds of processors that this process and those it waited for have had."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if not given.results.exists():
        make(given.results, given.slides, given.cells)
    results = str(given.results)
    connection = connect(results)
    for name, query in QUERIES.items():
        ways: dict[str, Callable[[], pa.Table]] = {
            "open connection": lambda query=query: connection.sql(query).to_arrow_table(),
            "ask": lambda query=query: ask(results, query),
            "sandbox": lambda query=query: ask(results, query, sandbox=True),
        }
        answers = [way() for way in ways.values()]
        assert all(answer.equals(answers[0]) for answer in answers)
        spent = {way: timed(call, given.rounds) for way, call in ways.items()}
        print(f"{name}:")
        for way, (clock, processors) in spent.items():
            ratio = clock / spent["open connection"][0]
            print(f"  {way:16} {clock:6.2f} s ({ratio:.2f} x), {processors:6.2f} s of processors")


if __name__ == "__main__":
    main()
