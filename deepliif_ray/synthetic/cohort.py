"""A small cohort of synthetic slides, its manifest and its truth."""

import csv
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
    slides = []
    for number, (patient, marker) in enumerate(itertools.product(range(patients), markers)):
        last = number == patients * len(markers) - 1
        share = patient / max(1, patients - 1)
        if markers.index(marker) % 2:
            share = 1 - share
        slides.append(
            _Slide(
                f"P{patient + 1:02d}",
                marker,
                _SITES[patient % len(_SITES)],
                side // 2 if last else side,
                8 + 57 * share,
                0.5 if last else 0.25,
            )
        )
    return _write(folder, slides, seed)


def write_demo_cohort(folder: Path, *, seed: int = 0, scale: float = 1.0) -> Path:
    """Write the cohort of the demonstration: three breast cancers and two lymphomas, as `write_cohort` does.

    Of the first slide there are also ``P01-Ki67.geojson``, regions as QuPath exports them (``Tumor`` and
    ``Exclude``), and ``corrections.csv``, which says of one positive nucleus that it is none.

    Parameters
    ----------
    folder : Path
        Where to; made if missing.
    seed : int
        Everything follows from it.
    scale : float
        Makes all slides larger or smaller.

    Returns
    -------
    Path
        The manifest.
    """
    shares = {"Ki67": (6, 40, 63), "CD3": (67, 36, 12), "ER": (80, 5, 0)}
    sides = {"Ki67": 2304, "CD3": 1536, "ER": 1024}
    slides = [
        _Slide(f"P{n + 1:02d}", marker, "breast", sides[marker], share, 0.25)
        for n in range(3)
        for marker, share in ((marker, values[n]) for marker, values in shares.items())
    ]
    lymphomas = {  # MYC, BCL2, CD10, BCL6, MUM1
        "P04": (15, 70, 60, 50, 10),
        "P05": (65, 80, 5, 60, 70),
    }
    for patient, values in lymphomas.items():
        for marker, share in zip(("MYC", "BCL2", "CD10", "BCL6", "MUM1"), values, strict=True):
            slides.append(_Slide(patient, marker, "lymph node", 1200, share, 0.25))
    slides[2] = slides[2]._replace(mpp=0.5, side=slides[2].side // 2)  # a slide at 20x
    slides = [slide._replace(side=round(scale * slide.side)) for slide in slides]
    manifest = _write(folder, slides, seed)
    _write_annotations(folder, slides[0], seed)
    return manifest


class _Slide(NamedTuple):
    """What a synthetic slide shows; ``side`` in pixels."""

    patient: str
    marker: str
    site: str
    side: int
    positive_percent: float
    mpp: float


def _write(folder: Path, slides: Sequence[_Slide], seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    manifest: list[dict[str, object]] = []
    truths: list[dict[str, object]] = []
    for number, slide in enumerate(slides):
        tissue = SyntheticTissue(
            slide.side,
            slide.side,
            seed=seed * 1000 + number,
            mpp=slide.mpp,
            positive_percent=slide.positive_percent,
            localisation=LOCALISATIONS.get(slide.marker, "nuclear"),
        )
        key = {
            "slide_id": f"{slide.patient}-{slide.marker}",
            "patient_id": slide.patient,
            "marker": slide.marker,
        }
        uri = f"{key['slide_id']}.tiff"
        write_pyramid(folder / uri, tissue, mpp=tissue.mpp)
        flags = tissue.truth()["positive"]
        cells, positive = flags.size, int(flags.sum())
        manifest.append({**key, "uri": uri, "site": slide.site})
        index = f"{100 * positive / cells:.2f}" if cells else ""
        truths.append({**key, "cells": cells, "positive": positive, "index_percent": index})
    _write_csv(folder / "truth.csv", truths)
    _write_csv(folder / "manifest.csv", manifest)
    return folder / "manifest.csv"


def _write_annotations(folder: Path, slide: _Slide, seed: int) -> None:
    """Write regions and a correction of a slide, which is the first of its cohort."""
    key, side = f"{slide.patient}-{slide.marker}", slide.side
    regions = {
        "Tumor": (0, 0, 2 * side // 3, side),
        "Exclude": (0, 0, side // 4, side // 4),
    }
    features = [
        {
            "type": "Feature",
            "id": f"{key}-{name}",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]],
            },
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": [200, 0, 0]},
            },
        }
        for name, (x0, y0, x1, y1) in regions.items()
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1)
    (folder / f"{key}.geojson").write_text(text + "\n", encoding="utf-8")
    truth = SyntheticTissue(
        side, side, seed=seed * 1000, mpp=slide.mpp, positive_percent=slide.positive_percent
    ).truth()
    kept = truth[truth["positive"] & (truth["x"] > side // 3)]
    nucleus = kept[0]
    row = {
        "slide_id": key,
        "x": round(float(nucleus["x"]), 1),
        "y": round(float(nucleus["y"]), 1),
        "call": "negative",
        "note": "brown pigment, not stain",
    }
    _write_csv(folder / "corrections.csv", [row])


def _write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
