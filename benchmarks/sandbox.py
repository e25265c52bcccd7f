"""What the sandbox costs: the same query over an open connection, with `ask`, and in the sandbox.

    python -m benchmarks.sandbox cells20 --slides 100 --cells 200000

Makes results of that many cells if there are none, with values drawn at random and one outline for all.
"""

import resource
import time
from collections.abc import Callable

import polars as pl
import polars.testing
import pyarrow as pa

from benchmarks.drawn import asked
from deepliif_ray.query import ask, connect

QUERIES = {
    "index at other thresholds": "SELECT patient_id, marker, index_percent FROM patient_counts("
    "{'size_thresh': 60, 'marker_thresh': 'default'}) ORDER BY ALL",
    "mean of six columns": "SELECT slide_id, avg(x_um), avg(y_um), avg(area_um2), avg(od_mean), "
    "avg(dab_od_mean), avg(hematoxylin_od_mean) FROM cells GROUP BY ALL ORDER BY ALL",
    "one row": "SELECT count(*) FROM slides",
}


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
    given = asked()
    results = str(given.results)
    connection = connect(results)
    for name, query in QUERIES.items():
        ways: dict[str, Callable[[], pa.Table]] = {
            "open connection": lambda query=query: connection.sql(query).to_arrow_table(),
            "ask": lambda query=query: ask(results, query),
            "sandbox": lambda query=query: ask(results, query, sandbox=True),
        }
        answers = [way() for way in ways.values()]
        for answer in answers:  # sums of many threads vary in the last digits
            pl.testing.assert_frame_equal(*map(pl.from_arrow, (answers[0], answer)), rel_tol=1e-9)
        spent = {way: timed(call, given.rounds) for way, call in ways.items()}
        print(f"{name}:")
        for way, (clock, processors) in spent.items():
            ratio = clock / spent["open connection"][0]
            print(f"  {way:16} {clock:6.2f} s ({ratio:.2f} x), {processors:6.2f} s of processors")


if __name__ == "__main__":
    main()
