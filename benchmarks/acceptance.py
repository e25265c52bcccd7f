"""What is asked of models, and the measurements of it that need no truth cell by cell.

Nothing is chosen by the folders that are measured here (bcdata, shidc, graded, scanners).
"""

import csv
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.markdown import header, row
from deepliif_ray import Execution, connect, score
from deepliif_ray.evaluation.fields import Rules
from deepliif_ray.evaluation.robustness import count, measure_robustness
from deepliif_ray.evaluation.truth import list_images, read_image_of
from deepliif_ray.models import Model

GRADED_MPP = 0.23
SCANNERS = ("ndpi", "vsi")
TINTED_FIELDS = 3


@dataclass(frozen=True)
class Line:
    """What is asked of a model: a figure at least or at most so high."""

    section: str
    title: str
    limit: float
    higher_is_better: bool = False

    def better(self, one: float, other: float) -> bool:
        """Return whether ``one`` is at least as good as ``other``; no figure is not."""
        return one >= other if self.higher_is_better else one <= other


ASKED = {
    "shidc_positive": Line("shidc", "SHIDC, F1 of positive cells, %", 65, True),
    "shidc_negative": Line("shidc", "SHIDC, F1 of negative cells, %", 65, True),
    "graded": Line("graded", "graded cores, mean difference of the index, points", 10),
    "scanner_cells": Line("scanners", "two scanners, difference of cells, %", 3),
    "scanner_index": Line("scanners", "two scanners, difference of the index, points", 1.5),
    "bcdata_f1": Line("bcdata", "BCData, F1, mean of classes, %", 72, True),
    "bcdata_index": Line("bcdata", "BCData, mean difference of the index, points", 5),
    "tint": Line("tint", "tints, farthest shift of the index, points", 1),
}
"""What is measured of every model, by the name of its line in the last table."""
Found = dict[str, list[float]]
"""Figures by line, one of each model."""


def graded(models: list[Model], shared: Path) -> Found:
    """Print the index of whole cores beside a pathologist's percentage."""
    folder = shared / "data" / "graded"
    with (folder / "gradings.csv").open(newline="") as file:
        percents = {Path(row["file"]).stem: float(row["positive_percent"]) for row in csv.DictReader(file)}
    print(f"\n### Three prostate cores, a pathologist's percentage ({GRADED_MPP:g} µm per pixel)\n")
    header("", "pathologist", *(f"{model.name}: index (cells)" for model in models))
    indices: list[list[float]] = [[] for _ in models]
    for image in list_images(str(folder), GRADED_MPP):
        rgb, cells = read_image_of(image), []
        for model, its in zip(models, indices, strict=True):
            reading = count(model, rgb, Rules(mpp=image.mpp))
            its.append(math.nan if reading.index_percent is None else reading.index_percent)
            cells.append(f"{its[-1]:.1f} ({reading.cells:,})")
        row(image.name, f"{percents[image.name]:g}", *cells)
    truth = np.array([percents[name] for name in sorted(percents)])
    off = [float(np.abs(np.array(its) - truth).mean()) for its in indices]
    row("mean difference, points", "", *(f"{value:.1f}" for value in off))
    row("correlation (Pearson)", "", *(f"{np.corrcoef(its, truth)[0, 1]:.3f}" for its in indices))
    return {"graded": off}


def scanners(names: list[str], shared: Path) -> Found:
    """Score one region on two scanners through the engine, and print what each shows."""
    files = [shared / "data" / "scanners" / f"OS-2-{name}.ome.tif" for name in SCANNERS]
    found: Found = {"scanner_cells": [], "scanner_index": []}
    print("\n### One region of 500 × 500 µm on two scanners, scored as slides\n")
    header("", *(f"{name}: cells (index, %)" for name in SCANNERS), "ratio of cells", "difference, points")
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            rows = [f"{scanner},P1,Ki67,{path}\n" for scanner, path in zip(SCANNERS, files, strict=True)]
            (Path(place) / "manifest.csv").write_text("slide_id,patient_id,marker,uri\n" + "".join(rows))
            score(
                f"{place}/manifest.csv", f"{place}/results", model=name, execution=Execution(engine="local")
            )
            with connect(f"{place}/results") as connection:
                (cells, index), (others, other_index) = connection.sql(
                    "SELECT n_called, index_percent FROM slide_indices ORDER BY slide_id"
                ).fetchall()
        ratio, apart = others / cells, other_index - index
        row(
            name,
            f"{cells:,} ({index:.1f})",
            f"{others:,} ({other_index:.1f})",
            f"{ratio:.3f}",
            f"{apart:+.2f}",
        )
        found["scanner_cells"].append(100 * abs(ratio - 1))
        found["scanner_index"].append(abs(apart))
    return found


def tints(models: list[Model], shared: Path) -> Found:
    """Print how far light of another colour moves the index of fields."""
    with tempfile.TemporaryDirectory() as place:
        for number in range(TINTED_FIELDS):
            shutil.copy(shared / "data" / "bcdata" / f"{number}.png", place)
        found = [measure_robustness(model, place, mpp=0.25, sweeps=["tint"]) for model in models]
    print(f"\n### Light of another colour, {TINTED_FIELDS} fields of BCData\n")
    print("Farthest shift of the index, points, and farthest change of cells, %.\n")
    header("", *(f"{model.name}: index" for model in models), *(f"{model.name}: cells" for model in models))
    tables = [robustness.table.to_pylist() for robustness in found]
    for steps in zip(*tables, strict=True):
        columns = ("index_shift_points_most", "cells_change_percent_most")
        row(steps[0]["step"], *(f"{step[name]:+.2f}" for name in columns for step in steps))
    return {"tint": [max(abs(step["index_shift_points_most"]) for step in table) for table in tables]}


def asked(found: Found, names: list[str]) -> None:
    """Print what is asked of models, and which meet it."""
    print("\n### What is asked\n")
    both = {"compact", "stain"} <= set(names)
    header("", "asked", *names, *(["compact above stain"] if both else []))
    for key, line in ASKED.items():
        figures = found.get(key)
        sign = "≥" if line.higher_is_better else "≤"
        if figures is None:
            cells = ["not run"] * (len(names) + both)
        else:
            met = ("met" if line.better(value, line.limit) else "not met" for value in figures)
            cells = [f"{value:.2f}, {word}" for value, word in zip(figures, met, strict=True)]
            if both:
                ours, theirs = (figures[names.index(name)] for name in ("compact", "stain"))
                cells.append("met" if line.better(ours, theirs) else "not met")
        row(line.title, f"{sign} {line.limit:g}", *cells)
