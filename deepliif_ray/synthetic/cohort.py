"""A small cohort of synthetic slides, its manifest and its truth."""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

from deepliif_ray.errors import ConfigError
from deepliif_ray.slides.pyramid import write_pyramid
from deepliif_ray.synthetic.tissue import SyntheticTissue

LOCALISATIONS = {"CD3": "membranous", "CD8": "membranous", "CD10": "membranous", "PDL1": "membranous"}
LOCALISATIONS |= {"BCL2": "cytoplasmic"}
"""Where markers lie in synthetic cells; nuclear if not listed."""
_SITES = ("breast", "colon", "lung")


def write_cohort(
    folder: Path,
    *,
    seed: int = 0,
    patients: int = 3,
    markers: Sequence[str] = ("Ki67", "CD3"),
    side: int = 1536,
) -> Path:
    """Write a small cohort of synthetic slides with known truth.

    Every patient has one slide a marker, a pyramidal TIFF at 40x (0.25 µm per pixel); the last one is at 20x
    (0.5). The share of positive cells rises over the patients for every other marker and falls for the rest.
    Beside the slides lie ``manifest.csv`` (slide_id, patient_id, marker, uri, site) and ``truth.csv``
    (slide_id, patient_id, marker, cells, positive, index_percent).

    Parameters
    ----------
    folder : Path
        Where to; made if missing.
    seed : int
        Everything follows from it.
    patients : int
        Number of patients, at least 1.
    markers : sequence of str
        Names of the markers.
    side : int
        Side of the slides at 40x in pixels.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    ConfigError
        There are no patients or markers.
    """
    if patients < 1 or not markers:
        raise ConfigError("a cohort needs at least one patient and one marker")
    folder.mkdir(parents=True, exist_ok=True)
    manifest: list[dict[str, object]] = []
    truths: list[dict[str, object]] = []
    for number, (patient, marker) in enumerate(itertools.product(range(patients), markers)):
        last = number == patients * len(markers) - 1
        share = patient / max(1, patients - 1)
        if markers.index(marker) % 2:
            share = 1 - share
        pixels = side // 2 if last else side
        tissue = SyntheticTissue(
            pixels,
            pixels,
            seed=seed * 1000 + number,
            mpp=0.5 if last else 0.25,
            positive_percent=8 + 57 * share,
            localisation=LOCALISATIONS.get(marker, "nuclear"),
        )
        key = {
            "slide_id": f"P{patient + 1:02d}-{marker}",
            "patient_id": f"P{patient + 1:02d}",
            "marker": marker,
        }
        uri = f"{key['slide_id']}.tiff"
        write_pyramid(folder / uri, tissue, mpp=tissue.mpp)
        flags = tissue.truth()["positive"]
        cells, positive = flags.size, int(flags.sum())
        manifest.append({**key, "uri": uri, "site": _SITES[patient % len(_SITES)]})
        index = f"{100 * positive / cells:.2f}" if cells else ""
        truths.append({**key, "cells": cells, "positive": positive, "index_percent": index})
    _write_csv(folder / "truth.csv", truths)
    _write_csv(folder / "manifest.csv", manifest)
    return folder / "manifest.csv"


def _write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
