"""Measure what many slides and big slides cost beyond reading, inference and measuring.

    python -m benchmarks.scale cohort --slides 2000 --engine ray|local
        overhead a slide, driver memory, time to resume, queries before and after optimize
    python -m benchmarks.scale ledger --slides 20000
        listing and queries before and after optimize, on records and cells written without scoring
    python -m benchmarks.scale slide --width 100000 --height 80000
        one big slide on the local engine: time and peak memory by phase
    python -m benchmarks.scale finalize --width 100000 --height 80000
        the finalisation of a big slide whose tiles repeat those of a small piece

Everything is synthetic and lies in a temporary folder (or ``--folder``). Prints one JSON object. Overhead is
wall time beyond the work, so the machine should be idle; ``driver_cpu_ms_a_slide`` less
``work_cpu_ms_a_slide`` is the same of the local engine in processor time, which other programs do not touch.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import scale_big, scale_cohort


def main() -> None:
    """Run one measurement and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where to work; kept. By default a temporary folder.")
    commands = parser.add_subparsers(dest="what", required=True)
    cohort = commands.add_parser("cohort")
    cohort.add_argument("--slides", type=int, default=2000)
    cohort.add_argument("--engine", choices=("local", "ray"), default="ray")
    cohort.add_argument("--side", type=int, default=500, help="pixels of a slide's side")
    ledger = commands.add_parser("ledger")
    ledger.add_argument("--slides", type=int, default=2000)
    for name in ("slide", "finalize"):
        big = commands.add_parser(name)
        big.add_argument("--width", type=int, default=100_000)
        big.add_argument("--height", type=int, default=80_000)
    arguments = vars(parser.parse_args())
    kept: Path | None = arguments.pop("folder")
    measure: Callable[..., dict[str, Any]] = {
        "cohort": scale_cohort.cohort,
        "ledger": scale_cohort.ledger,
        "slide": scale_big.slide,
        "finalize": scale_big.finalisation,
    }[arguments.pop("what")]
    folder = kept or Path(tempfile.mkdtemp(prefix="deepliif-ray-scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        print(json.dumps(measure(folder, **arguments), indent=1))
    finally:
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
