"""Cells as GeoJSON that QuPath opens: one detection a cell, with its class and its measurements.

QuPath takes the whole file for broken if one ring is not valid or one class has no colour, and shows its
H-score where the classes are Negative, 1+, 2+ and 3+.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from deepliif_ray.annotations.origin import Origin, origin_of
from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.exports.cells import Calls, Exported, called_cells, object_ids, slide_record
from deepliif_ray.exports.files import refuse_target, shard, shards_of, writing
from deepliif_ray.exports.outlines import enclosing_outlines
from deepliif_ray.query.streaming import streaming

SUFFIXES = (".geojson", ".geojson.gz", ".json", ".json.gz")
MOST_SHARDS = 400
"""Files that are open at once."""
CLASSES: dict[str, tuple[int, int, int]] = {
    "Negative": (90, 90, 180),
    "Positive": (200, 50, 50),
    "1+": (255, 215, 0),
    "2+": (225, 150, 50),
    "3+": (200, 50, 50),
}
"""Names of classes, and the colours that QuPath gives them."""
MEASUREMENTS: dict[str, tuple[str, int]] = {
    "Nucleus: Area µm^2": ("area_um2", 3),
    "Nucleus: Area px^2": ("area_px", 0),
    "Nucleus: Hematoxylin OD mean": ("hematoxylin_od_mean", 4),
    "Nucleus: DAB OD mean": ("dab_od_mean", 4),
    "Rim: DAB OD mean": ("rim_dab_od_mean", 4),
    "Rim: Stained %": ("rim_stained_percent", 1),
    "Cytoplasm: DAB OD mean": ("cytoplasm_dab_od_mean", 4),
    "DeepLIIF: OD mean x 100": ("od_mean", 2),
    "DeepLIIF: Marker max": ("marker_max", 0),
    "DeepLIIF: Cell ID": ("cell_id", 0),
}
"""Names of measurements, as QuPath has them where it measures the same; the column, and decimals."""
_STRENGTHS = ("Negative", "1+", "2+", "3+")
COLUMNS = ", ".join(["x", "y", "positive", "strength", *(column for column, _ in MEASUREMENTS.values())])
"""What is told of a cell, as SQL of ``called_cells``; its outline aside."""


def class_names(cells: pa.Table, slide_id: str, *, strength: bool) -> list[str]:
    """Return the name of the class of each cell.

    Parameters
    ----------
    cells : pyarrow.Table
        With ``positive`` and ``strength``.
    slide_id : str
        For messages.
    strength : bool
        Negative, 1+, 2+ and 3+ by the stain of DAB, and not Negative and Positive.

    Raises
    ------
    QueryError
        The cut-offs say nothing of the strength of this marker.
    """
    if not strength:
        return ["Positive" if positive else "Negative" for positive in cells["positive"].to_pylist()]
    if cells["strength"].null_count:
        raise QueryError(
            f"slide {slide_id!r}: these cut-offs say nothing of the strength of its marker; choose others, "
            "or leave out --strength"
        )
    return [_STRENGTHS[value] for value in cells["strength"].to_pylist()]


def export_qupath(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    slide: str | None = None,
    calls: Calls | None = None,
    strength: bool = False,
    points: bool = False,
    shard_px: int | None = None,
    origin: Origin | None = None,
    overwrite: bool = False,
    watch: Callable[[Exported], None] = lambda _: None,
) -> Exported:
    """Write the counted cells of a slide as GeoJSON for QuPath.

    The file appears whole or not at all; it is written in parts, so memory does not grow with the slide.

    Parameters
    ----------
    results : str or path
        URL of the results.
    output : str or path
        The local file: ``.geojson`` or ``.json``, also with ``.gz``.
    slide : str, optional
        Its id; needed where the results have several.
    calls : Calls, optional
        Which cells count and how they are called; by default as published, with corrections.
    strength : bool
        Classes Negative, 1+, 2+ and 3+, by the stain of DAB.
    points : bool
        Centroids and no outlines.
    shard_px : int, optional
        Several files, each with the cells whose centroid lies in a square of so many pixels; the square's
        upper left corner is added to the name, as in ``a_x0_y20000.geojson``.
    origin : Origin, optional
        Where coordinates begin; by default where QuPath's do.
    overwrite : bool
        Replace what is there.
    watch : callable
        Told how far it is.

    Returns
    -------
    Exported

    Raises
    ------
    ConfigError
        There is no such slide, or several and none named; or the file cannot be written or is there.
    QueryError
        No cell counts, or there are no such cut-offs or region.
    ResultsError, StorageError
        See `deepliif_ray.connect`; or the file cannot be written.
    """
    url, target = os.fspath(results), Path(output).absolute()
    refuse_target(target, SUFFIXES, overwrite=overwrite or shard_px is not None)
    earlier = [] if shard_px is None else shards_of(target)
    if earlier and not overwrite:
        raise ConfigError(f"{earlier[0]}: exists already; --overwrite replaces all files of this name")
    calls = calls or Calls()
    columns = COLUMNS if points else f"{COLUMNS}, boundary"
    with streaming(url) as stream, writing(target) as files:
        row = slide_record(stream, url, slide)
        if shard_px is not None:
            _refuse_shards(row, shard_px)
        left, top, _ = origin_of(row, origin)
        count = 0
        for cells in called_cells(stream, row, calls, columns):
            at = np.column_stack([cells[name].to_numpy() for name in "xy"]) + 0.5 - (left, top)
            lines = _features(cells, row, at, (left, top), strength=strength, points=points)
            for place, chosen in _places(target, at, shard_px):
                is_new = place not in files.targets()
                file = files.of(place)
                file.write(_head(row["slide_id"]) if is_new else b",\n")
                file.write(",\n".join(lines if chosen is None else [lines[n] for n in chosen]).encode())
            count += cells.num_rows
            watch(Exported(row["slide_id"], count))
        for place in files.targets():
            files.of(place).write(b"\n]}\n")
        written = tuple(sorted(map(str, files.targets())))
    for old in earlier:
        if str(old) not in written:
            old.unlink(missing_ok=True)
    return Exported(row["slide_id"], count, written, (left, top))


def _refuse_shards(row: Mapping[str, Any], side: int) -> None:
    if side < 1:
        raise ConfigError(f"--shard is {side}; give the side of a square in pixels")
    number = math.ceil(row["width_px"] / side) * math.ceil(row["height_px"] / side)
    if number > MOST_SHARDS:
        raise ConfigError(
            f"slide {row['slide_id']!r}: {number:,} files would be too many (at most {MOST_SHARDS}); give "
            "--shard a larger square"
        )


def _places(
    target: Path, at: NDArray[np.float64], side: int | None
) -> Iterator[tuple[Path, list[int] | None]]:
    """Yield the files that cells go to, and which cells; None for all."""
    if side is None:
        yield target, None
        return
    tiles, which = np.unique(np.floor(at / side).astype(np.int64), axis=0, return_inverse=True)
    for number, (x, y) in enumerate((tiles * side).tolist()):
        yield shard(target, x, y), np.flatnonzero(which.ravel() == number).tolist()


def _head(slide_id: str) -> bytes:
    return f'{{"type":"FeatureCollection","slide_id":{_text(slide_id)},"features":[\n'.encode()


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _features(
    cells: pa.Table,
    row: Mapping[str, Any],
    at: NDArray[np.float64],
    origin: tuple[int, int],
    *,
    strength: bool,
    points: bool,
) -> list[str]:
    """Return a feature of each cell, as text."""
    slide_id = row["slide_id"]
    classes = {
        name: f'{{"name":"{name}","color":[{",".join(map(str, color))}]}}' for name, color in CLASSES.items()
    }
    geometries = _points(at) if points else _polygons(cells, origin)
    return [
        f'{{"type":"Feature","id":"{name}","geometry":{geometry},"properties":{{"objectType":"detection",'
        f'"classification":{classes[called]},"measurements":{{{measured}}}}}}}'
        for name, geometry, called, measured in zip(
            object_ids(slide_id, row["attempt"], cells["cell_id"]),
            geometries,
            class_names(cells, slide_id, strength=strength),
            _measurements(cells),
            strict=True,
        )
    ]


def _points(at: NDArray[np.float64]) -> list[str]:
    return [f'{{"type":"Point","coordinates":[{x:.2f},{y:.2f}]}}' for x, y in at.tolist()]


def _polygons(cells: pa.Table, origin: tuple[int, int]) -> list[str]:
    """Return outlines as GeoJSON. GEOS's own writer of it cannot round, and its writer of WKT can."""
    outlines = enclosing_outlines(cells["boundary"].to_numpy())
    if origin != (0, 0):
        outlines = shapely.transform(outlines, lambda points: points - origin)
    text = "\n".join(shapely.to_wkt(outlines, rounding_precision=2, trim=True).tolist())
    for old, new in (
        ("POLYGON ((", '{"type":"Polygon","coordinates":[[['),
        ("))", "]]]}"),
        (", ", "],["),
        (" ", ","),
    ):
        text = text.replace(old, new)
    return text.split("\n")


def _measurements(cells: pa.Table) -> list[str]:
    """Return the measurements of each cell as members of a JSON object; what is no number is left out."""
    parts = []
    for name, (column, decimals) in MEASUREMENTS.items():
        label = f"{_text(name)}:"
        parts.append(
            [
                f"{label}{value:.{decimals}f}" if value is not None and math.isfinite(value) else ""
                for value in cells[column].to_pylist()
            ]
        )
    return [",".join(filter(None, members)) for members in zip(*parts, strict=True)]
