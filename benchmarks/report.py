"""The report of a large cohort: how long it takes to make and to open, and how large it is.

    python -m benchmarks.report DIR [--patients 2000] [--output report.html]

Makes results of ten markers if there are none, drawn at random: records of every slide, and cells of those
few that the report shows pictures of. Opening is timed where playwright and Chromium are installed.
"""

import argparse
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.memory import MIB
from deepliif_ray.report.choice import Choice
from deepliif_ray.report.cohort import write_report
from deepliif_ray.scoring.blocks import BlockSums
from deepliif_ray.tables.commit import cells_layout
from deepliif_ray.tables.schema import table_schema
from tests.query import fake_results as fake

MARKERS = ("Ki67", "ER", "PR", "CD3", "CD8", "CD20", "BCL2", "BCL6", "MUM1", "MYC")
SKEWED = ("Ki67", "MYC")
"""Of these most indices are low, so that high ones are far from the others."""
SITES = ("North", "South", "Riverside", "University", "Children's")
WITH_CELLS = 12
SIDE_UM = 2000.0
CHROMIUM = "/usr/bin/chromium"


def write_results(results: Path, patients: int) -> None:
    """Write records of slides of ``patients`` patients: most markers of each, some twice, some failed."""
    random = np.random.default_rng(0)
    base = fake.commit(str(results / "one"), "base", [])
    records: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for number in range(patients):
        patient, site = f"P{number:05d}", SITES[number % len(SITES)]
        for marker in MARKERS:
            kind = random.random()
            if kind < 0.03:
                continue
            if kind < 0.034:
                failures.append(_failure(f"{patient}-{marker}", patient, marker, site))
                continue
            level = random.beta(1.2, 3) if marker in SKEWED else random.beta(2, 2.5)
            for copy in range(1 + (random.random() < 0.1)):
                slide = f"{patient}-{marker}-{copy}"
                records.append(base | _record(random, slide, patient, marker, site, level))
    skewed = [record for record in records if record["marker"] in SKEWED and record["n_called"]]
    skewed.sort(key=lambda record: -record["n_positive"] / record["n_called"])
    for record in skewed[:WITH_CELLS]:
        record.update(_cells(results, random, record))
    # One object, as a run of hundreds of slides leaves.
    fake.write(str(results / "slides" / "all.parquet"), "slides", records)
    fake.write(str(results / "failures" / "all.parquet"), "failures", failures)
    counts = {"n_slides": len(records) + len(failures), "n_scored": len(records), "n_failed": len(failures)}
    more = {"n_skipped": 0, "n_tiles": 100 * len(records), "n_cells": sum(r["n_cells"] for r in records)}
    fake.run(str(results), "r1", finished_at=fake.moment(40_000), **counts, **more | {"status": "finished"})
    shutil.rmtree(results / "one")


def _record(
    random: np.random.Generator, slide: str, patient: str, marker: str, site: str, level: float
) -> dict[str, Any]:
    cells = 0 if random.random() < 0.003 else int(random.integers(60, 900))
    x, y, positive = _drawn(random, cells, level)
    sums = BlockSums()
    sums.add(x, y, positive)
    n_positive = int(positive.sum())
    shift = SITES.index(site)
    return {
        "slide_id": slide,
        "patient_id": patient,
        "marker": marker,
        "attempt": uuid.UUID(int=int(random.integers(2**62))).hex[-8:],
        "attributes": [("site", site)],
        "slide_version": "v",
        "slide_fingerprint": slide,
        "n_cells": cells,
        "n_called": cells,
        "n_positive": n_positive,
        "n_negative": cells - n_positive,
        "tissue_mm2": SIDE_UM**2 / 1e6,
        "hematoxylin_od": 0.12 + 0.01 * shift + random.normal(0, 0.02),
        "dab_od": 0.02 + 0.3 * level + random.normal(0, 0.02),
        "counterstain_od": 0.28 + random.normal(0, 0.02),
        "stain_residual": 0.5 if random.random() < 0.004 else random.normal(0.02, 0.01),
        "background_grey": 243 - shift + random.normal(0, 1.5),
        "background_cast": abs(random.normal(3, 1)),
        "focus": 20.0 if random.random() < 0.01 else random.gamma(9, 150),
        "tissue_percent": random.uniform(20, 80),
        "pen_percent": 0.4 if random.random() < 0.01 else 0.0,
        "nucleus_area_um2": random.normal(34, 3),
        "small_percent": random.uniform(0, 10),
    } | sums.sums()


def _drawn(random: np.random.Generator, cells: int, level: float) -> tuple[Any, Any, Any]:
    """Return places in µm, and calls that cluster: one of 16 parts of the slide differs from the next."""
    x, y = random.uniform(0, SIDE_UM, cells), random.uniform(0, SIDE_UM, cells)
    parts = np.clip(level + random.normal(0, 0.1, (4, 4)), 0, 1)
    at = parts[(y // (SIDE_UM / 4)).astype(int), (x // (SIDE_UM / 4)).astype(int)]
    return x, y, random.random(cells) < at


def _cells(results: Path, random: np.random.Generator, record: dict[str, Any]) -> dict[str, Any]:
    """Write cells of a slide whose index lies far from others; returns what its record says of them."""
    schema, cells = table_schema("cells"), 20_000
    level = 1.05
    x, y, positive = _drawn(random, cells, level)
    drawn = {"cell_id": np.arange(cells), "x": 4 * x, "y": 4 * y, "x_um": x, "y_um": y}
    drawn |= {"majority_positive": positive, "positive_px": 100 * positive, "negative_px": 100 * ~positive}
    for side, centre in (("x", 4 * x), ("y", 4 * y)):
        drawn |= {f"bbox_{side}0": centre.astype(int) - 10, f"bbox_{side}1": centre.astype(int) + 10}
    named = fake.cell() | {key: record[key] for key in ("slide_id", "patient_id", "attempt")}
    columns = [
        pa.array(drawn[field.name]).cast(field.type)
        if field.name in drawn
        else pa.repeat(pa.scalar(named.get(field.name), field.type), cells)
        for field in schema
    ]
    path = f"cells/marker={record['marker']}/{record['slide_id']}-{record['attempt']}.parquet"
    (results / path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema), results / path, **cells_layout(schema))
    sums = BlockSums()
    sums.add(x, y, positive)
    n = int(positive.sum())
    counts = {"n_cells": cells, "n_called": cells, "n_positive": n, "n_negative": cells - n}
    return counts | sums.sums() | {"cells_path": path, "width_px": 8000, "height_px": 8000}


def _failure(slide: str, patient: str, marker: str, site: str) -> dict[str, Any]:
    return {
        "slide_id": slide,
        "patient_id": patient,
        "marker": marker,
        "uri": f"/slides/{slide}.svs",
        "stage": "open",
        "reason": "missing",
        "message": f"/slides/{slide}.svs: there is no such file; is the manifest's address right?",
        "tile": None,
        "attributes": [("site", site)],
        "model_digest": "m1",
        "config_fingerprint": "c1",
        "software_version": "0.1.0",
        "run_id": "r1",
        "attempt": "a1",
        "failed_at": fake.moment(0),
    }


def opened(page: Path) -> str:
    """Return how long Chromium takes to show a page, the middle of three times."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return "playwright is not installed, so opening was not timed"
    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(3):
            tab = browser.new_page()
            tab.goto(page.absolute().as_uri())
            tab.wait_for_selector("html[data-drawn]", timeout=60_000)
            times.append(
                tab.evaluate(
                    "() => [performance.getEntriesByName('first-contentful-paint')[0].startTime, "
                    "performance.getEntriesByName('tables')[0].startTime, "
                    "performance.getEntriesByName('drawn')[0].startTime, "
                    # What is further down, as if one had gone to the end of the page at once.
                    "((began) => { dispatchEvent(new Event('beforeprint')); "
                    "return performance.now() - began; })(performance.now())]"
                )
            )
            tab.close()
        browser.close()
    paint, tables, drawn, rest = np.median(times, axis=0) / 1000
    return (
        f"opened: first painted after {paint:.2f} s, all tables {tables:.2f} s, plots near the top "
        f"{drawn:.2f} s; all others, drawn at once, take {rest:.2f} s"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--patients", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("report.html"))
    given = parser.parse_args()
    if not given.results.exists():
        write_results(given.results, given.patients)
    for pictures in (0, 6):
        began = time.perf_counter()
        choice = Choice(pictures=pictures, without_slides=True)
        done = write_report(str(given.results), given.output, choice=choice, overwrite=True)
        seconds = time.perf_counter() - began
        print(
            f"{done.n_patients:,} patients, {done.n_slides:,} slides, {done.n_pictures} pictures: "
            f"made in {seconds:.1f} s, {done.n_bytes / MIB:.2f} MiB"
        )
    print(opened(given.output))


if __name__ == "__main__":
    main()
