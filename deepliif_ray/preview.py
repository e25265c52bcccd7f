"""What a run would do, slide by slide, without doing it."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.config import DEFAULT_MODEL, ScoreConfig
from deepliif_ray.engine.run.cohort import markers_of
from deepliif_ray.engine.work import StepError, plan_entry
from deepliif_ray.errors import DeepliifRayError, StorageError
from deepliif_ray.manifest import SlideEntry, read_manifest
from deepliif_ray.models import native_view
from deepliif_ray.scoring.markers import builtin
from deepliif_ray.slide_access import content_of
from deepliif_ray.tables.cohort import missing
from deepliif_ray.tables.ledger import Ledger

_THREADS = 4
_SCHEMA = pa.schema(
    {
        "slide_id": pa.string(),
        "patient_id": pa.string(),
        "marker": pa.string(),
        "width_px": pa.int64(),
        "height_px": pa.int64(),
        "mpp": pa.float64(),
        "mpp_source": pa.string(),
        "resolution": pa.string(),
        "tile_px": pa.int64(),
        "tiles": pa.int64(),
        "masked": pa.int64(),
        "tissue_mm2": pa.float64(),
        "warnings": pa.string(),
        "problem": pa.string(),
    }
)


@dataclass(frozen=True)
class Preview:
    """What a run would do.

    Attributes
    ----------
    table : pyarrow.Table
        One row a slide, ``problem`` null where it can be scored.
    warnings : list of str
        What is doubtful about the manifest.
    leftovers : list of (str, str or None)
        Slides of the results that the manifest does not list, and which one of it has the same content.
    """

    table: pa.Table
    warnings: list[str]
    leftovers: list[tuple[str, str | None]]


def preview(manifest: str, config: ScoreConfig) -> pa.Table:
    """Plan every slide of a manifest; one row a slide, ``problem`` null where it can be scored.

    Raises
    ------
    ManifestError
        The manifest cannot be used.
    """
    return look_ahead(manifest, config).table


def look_ahead(
    manifest: str,
    config: ScoreConfig,
    *,
    results: str | None = None,
    markers: str | None = None,
    model: str = DEFAULT_MODEL,
) -> Preview:
    """Tell what a run of a manifest would do, and with which slides of results it would have nothing to do.

    Parameters
    ----------
    manifest : str
        URL of the manifest.
    config : ScoreConfig
    results : str, optional
        URL of results, to tell which of their slides the manifest does not list.
    markers : str, optional
        URL of a file of the cohort's own markers.
    model : str
        Whose scale decides how large tiles are.

    Raises
    ------
    ConfigError, ManifestError
        The manifest or the file of markers cannot be used.
    ModelError
        The model cannot be used.
    ResultsError, StorageError
        The results cannot be read.
    """
    view = native_view(model)

    def row(entry: SlideEntry) -> dict[str, Any]:
        named = {"slide_id": entry.slide_id, "patient_id": entry.patient_id, "marker": entry.marker}
        notes = [*entry.warnings, *same.get(entry.slide_id, [])]
        try:
            plan = plan_entry(entry, config, view)
        except StepError as error:
            return named | {"problem": error.failure.message, "warnings": "; ".join(notes) or None}
        return named | {
            "width_px": plan.width,
            "height_px": plan.height,
            "mpp": plan.mpp,
            "mpp_source": plan.mpp_source,
            "resolution": plan.resolution,
            "tile_px": plan.tile,
            "tiles": len(plan.grid),
            "masked": len(plan.masked),
            "tissue_mm2": plan.tissue_mm2,
            "warnings": "; ".join([*notes, *plan.warnings]) or None,
        }

    registry = builtin() if results is None and markers is None else markers_of(results or "", markers)
    cohort = read_manifest(manifest, registry)
    same = _same_content(cohort.slides)
    with ThreadPoolExecutor(_THREADS) as pool:
        table = pa.Table.from_pylist(list(pool.map(row, cohort.slides)), schema=_SCHEMA)
    left = []
    if results is not None:
        found = missing(Ledger(results), {entry.slide_id for entry in cohort.slides}, cohort.url)
        left = [(row["slide_id"], row["renamed_to"]) for row in found.to_pylist()]
    return Preview(table, cohort.warnings, left)


def _same_content(entries: list[SlideEntry]) -> dict[str, list[str]]:
    """Return for each slide which others have the same content; only files of one size are read."""
    by_size: dict[tuple[int | None, ...], list[SlideEntry]] = defaultdict(list)
    with ThreadPoolExecutor(_THREADS) as pool:
        for entry, size in zip(entries, pool.map(_size, entries), strict=True):
            if size is not None:
                by_size[size].append(entry)
        alike = [entry for group in by_size.values() if len(group) > 1 for entry in group]
        contents = zip(alike, pool.map(_content, alike), strict=True)
    groups: dict[tuple[str, str | None], list[SlideEntry]] = defaultdict(list)
    for entry, content in contents:
        if content is not None:
            groups[content, entry.image_asked].append(entry)
    return {
        entry.slide_id: [
            f"same content as slide {other.slide_id!r} of patient {other.patient_id!r}"
            for other in group
            if other is not entry
        ]
        for group in groups.values()
        for entry in group
    }


def _size(entry: SlideEntry) -> tuple[int | None, ...] | None:
    try:
        return tuple(file.size for file in storage.slide_files(entry.uri))
    except (OSError, StorageError):
        return None  # planning it tells what is wrong


def _content(entry: SlideEntry) -> str | None:
    try:
        return content_of(entry)[0]
    except DeepliifRayError:
        return None
