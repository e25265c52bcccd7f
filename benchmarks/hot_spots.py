"""Time hot spots of one slide of 3 million cells, beside the same question asked of SciPy's k-d tree.

    python -m benchmarks.hot_spots [--cells 3000000] [--sample 2000] [--only uniform]

The tree answers for a sample of the circles, as for all of them it takes minutes; its time is scaled up.
Seconds are of the clock and, in brackets, of the processor: on a machine that does other work too the first
says less.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from deepliif_ray.scoring.hot_spots import hot_spots

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]
SIZES: tuple[dict[str, Any], ...] = (
    {"cells": 500}, {"cells": 1000}, {"cells": 2000}, {"area_mm2": 0.16}, {"area_mm2": 0.5}
)  # fmt: skip


def uniform(n: int, index: float) -> Cells:
    """Return cells and positives at random, 6,000 a mm²: no place is much better than another."""
    rng = np.random.default_rng(0)
    side = np.sqrt(n / 6000) * 1000
    return rng.random(n) * side, rng.random(n) * side, rng.random(n) < index


def clustered(n: int, index: float) -> Cells:
    """Return 300 islands of very different size and density on a slide that is empty between them."""
    rng = np.random.default_rng(1)
    island = rng.integers(0, 300, n)
    spread = (rng.exponential(400, 300) + 80)[island, None]
    place = rng.random((300, 2))[island] * [20_000, 40_000] + rng.normal(size=(n, 2)) * spread
    shares = rng.beta(3 * index, 3 * (1 - index), 300)
    return place[:, 0], place[:, 1], rng.random(n) < shares[island]


def lively(n: int, index: float) -> Cells:
    """Return tissue in which the index goes up and down over a few mm, as it does in tumours."""
    x, y, _ = uniform(n, index)
    wave = np.sin(x / 1700) * np.cos(y / 2300) + 0.5 * np.sin((x + y) / 600)
    return x, y, np.random.default_rng(2).random(n) < index * (1 + 0.6 * wave)


TISSUES: dict[str, Callable[[int, float], Cells]] = {
    "lively": lively, "uniform": uniform, "clustered": clustered
}  # fmt: skip


def _timed(ask: Callable[[], Any]) -> tuple[float, float, Any]:
    clock, processor = time.perf_counter(), time.process_time()
    answer = ask()
    return time.perf_counter() - clock, time.process_time() - processor, answer


def tree_seconds(cells: Cells, size: dict[str, Any], sample: int) -> float:
    """Return the processor's seconds of the circles around all cells with a k-d tree, from those of some."""
    x, y, positive = cells
    points = np.stack([x, y], axis=1)
    _, building, tree = _timed(lambda: cKDTree(points))
    some = points[:: max(len(points) // sample, 1)]

    def ask() -> float:
        if "cells" in size:
            best = 0.0
            for part in np.array_split(some, max(len(some) // 500, 1)):
                _, members = tree.query(part, k=size["cells"])
                best = max(best, float(positive[members].mean(axis=1).max()))
            return best
        radius = np.sqrt(size["area_mm2"] * 1e6 / np.pi)
        return max(float(positive[tree.query_ball_point(point, radius)].mean()) for point in some)

    _, seconds, _ = _timed(ask)
    return building + seconds * len(points) / len(some)


def measured(names: list[str], n: int, sample: int) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| tissue | index | circles | by | 1 circle | 5 circles | k-d tree, one thread |"
    yield "|---|---:|---|---|---:|---:|---:|"
    for name in names:
        for index in (0.02, 0.2, 0.8):
            cells = TISSUES[name](n, index)
            for size in SIZES:
                of = ", ".join(f"{value:,g} {key}" for key, value in size.items())
                tree = f"{tree_seconds(cells, size, sample):,.0f} s" if index == 0.2 else ""
                for by in ("share", "density"):
                    told = []
                    for count in (1, 5):
                        ask = partial(hot_spots, *cells, by=by, count=count, **size)
                        clock, processor, spots = _timed(ask)
                        assert len(spots) == count
                        told.append(f"{clock:.1f} ({processor:.1f}) s")
                    yield f"| {name} | {index:.0%} | {of} | {by} | {' | '.join(told)} | {tree} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=3_000_000)
    parser.add_argument("--sample", type=int, default=2_000)
    parser.add_argument("--only", choices=list(TISSUES))
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(TISSUES)
    load = "from deepliif_ray.scoring.__main__ import compile_kernels; compile_kernels()"
    subprocess.run([sys.executable, "-c", load], check=True)  # if they were never compiled
    clock, _, _ = _timed(lambda: subprocess.run([sys.executable, "-c", load], check=True))
    print(f"A process that imports this and loads the kernels: {clock:.1f} s\n", flush=True)
    hot_spots([0.0, 1.0], [0.0, 1.0], [True, False], cells=1)
    for line in measured(names, arguments.cells, arguments.sample):
        print(line, flush=True)


if __name__ == "__main__":
    main()
