"""What a person says at a page, kept with the results as the commands of the same name keep it."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deepliif_ray.annotations.corrections import drop_corrections, import_corrections
from deepliif_ray.annotations.export import export_regions
from deepliif_ray.annotations.origin import Origin, origin_of
from deepliif_ray.annotations.regions import drop_regions, import_regions
from deepliif_ray.errors import ConfigError
from deepliif_ray.tables.cutoffs import VALUES, write_cutoffs

SOURCE = "viewer"
"""Name of the file that corrections and regions of a page come from."""
_MOST_NAME = 200


def correct(
    results: str, slide: str, places: Iterable[tuple[float, float]], call: str, author: str, note: str
) -> dict[str, Any]:
    """Keep a call for the cells at some places, and return the import's id and how many cells it calls.

    Parameters
    ----------
    results : str
        URL of the results.
    slide : str
    places : iterable of tuple of float
        x and y of cells, level-0 px as in ``cells``.
    call : str
        ``positive``, ``negative`` or ``not_a_cell``.
    author, note : str

    Raises
    ------
    AnnotationError, ConfigError, ResultsError, StorageError
        As of `import_corrections`.
    """
    said = checked(author, "the author")
    with TemporaryDirectory(prefix="deepliif-ray-") as folder:
        file = Path(folder) / f"{SOURCE}.csv"
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened)
            writer.writerow(["slide_id", "x", "y", "call", "author", "note"])
            writer.writerows([slide, repr(x), repr(y), call, said, note] for x, y in places)
        done = import_corrections(results, [str(file)], slide=slide, author=said, reach_um=0)
    return {
        "import_id": done.import_id,
        "n_cells": sum(done.calls.values()) - len(done.unmatched),
        "unmatched": done.unmatched,
    }


def draw(results: str, slide: str, regions: Sequence[Mapping[str, Any]], author: str) -> dict[str, Any]:
    """Keep the regions of a slide instead of those that it has; return the import's id.

    Parameters
    ----------
    results : str
        URL of the results.
    slide : str
    regions : sequence of mapping
        Each with ``geometry`` (GeoJSON in level-0 pixel-edge coordinates), ``class``, ``name`` and, of one
        that was there, ``region_id``.
    author : str

    Raises
    ------
    AnnotationError, ConfigError, ResultsError, StorageError
        As of `import_regions`.
    """
    if not regions:
        raise ConfigError(
            f"slide {slide!r}: these are its last regions. An empty list cannot be kept; undo the import "
            "that brought them, or use `deepliif-ray regions drop`"
        )
    document = {"type": "FeatureCollection", "features": [_feature(region) for region in regions]}
    with TemporaryDirectory(prefix="deepliif-ray-") as folder:
        file = Path(folder) / f"{SOURCE}.geojson"
        file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        return _imported(results, slide, str(file), author, Origin.SLIDE)


def bring(results: str, slide: str, content: bytes, author: str) -> dict[str, Any]:
    """Keep the regions of a GeoJSON file, with coordinates as QuPath has them, instead of a slide's own.

    Raises as `draw`.
    """
    with TemporaryDirectory(prefix="deepliif-ray-") as folder:
        file = Path(folder) / f"{SOURCE}.geojson"
        file.write_bytes(content)
        return _imported(results, slide, str(file), author, None)


def take_along(results: str, row: Mapping[str, Any]) -> bytes:
    """Return the regions of a slide as GeoJSON, with coordinates as QuPath has them.

    Raises
    ------
    AnnotationError, StorageError
        As of `export_regions`.
    """
    origin = Origin.SLIDE if origin_of(row, None)[2] is None else Origin.BOUNDS
    with TemporaryDirectory(prefix="deepliif-ray-") as folder:
        file = Path(folder) / f"{SOURCE}.geojson"
        export_regions(results, row["slide_id"], str(file), origin=origin)
        return file.read_bytes()


def undo(results: str, kind: str, import_id: str) -> int:
    """Take back an import of corrections or regions; return how many rows that were.

    Raises
    ------
    AnnotationError, ConfigError, StorageError
        There is no such import, or the store does not answer.
    """
    if kind == "corrections":
        return drop_corrections(results, import_id)
    if kind == "regions":
        return drop_regions(results, import_id)
    raise ConfigError(f"{kind!r} is neither corrections nor regions")


def keep_cutoffs(
    results: str, name: str, marker: str, values: Mapping[str, float], author: str, note: str
) -> str:
    """Keep cut-offs for a marker by a name, and return where; errors as of `write_cutoffs`."""
    unknown = sorted(set(values) - set(VALUES))
    if unknown:
        raise ConfigError(f"unknown cut-offs: {', '.join(unknown)}; known are {', '.join(VALUES)}")
    row = {"marker": marker, **values}
    return write_cutoffs(results, name, [row], author=checked(author, "the author"), note=note)


def checked(text: str, what: str) -> str:
    """Return text without spaces around it; raises ConfigError if nothing is left, or too much."""
    said = " ".join(text.split())
    if not said or len(said) > _MOST_NAME:
        raise ConfigError(f"{what} is to be given, in up to {_MOST_NAME} letters")
    return said


def _imported(results: str, slide: str, file: str, author: str, origin: Origin | None) -> dict[str, Any]:
    done = import_regions(results, [file], slide=slide, author=checked(author, "the author"), origin=origin)
    return {
        "import_id": done.import_id,
        "n_regions": sum(done.slides.values()),
        "repaired": done.repaired,
        "without_tissue": dict(done.without_tissue),
    }


def _feature(region: Mapping[str, Any]) -> dict[str, Any]:
    said = {"objectType": "annotation", "classification": {"name": region["class"]}}
    made = {"type": "Feature", "geometry": region["geometry"], "properties": said}
    if region.get("name"):
        said["name"] = region["name"]
    if region.get("region_id"):
        made["id"] = region["region_id"]
    return made
