"""What a run would do, slide by slide, without doing it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from deepliif_ray.config import DEFAULT_MODEL, ScoreConfig
from deepliif_ray.engine.work import StepError, plan_entry
from deepliif_ray.manifest import SlideEntry, read_manifest
from deepliif_ray.models import native_scale

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


def preview(manifest: str, config: ScoreConfig, model: str = DEFAULT_MODEL) -> pa.Table:
    """Plan every slide of a manifest; one row a slide, ``problem`` null where it can be scored.

    Raises
    ------
    ManifestError
        The manifest cannot be used.
    """
    scale = native_scale(model)

    def row(entry: SlideEntry) -> dict[str, Any]:
        named = {"slide_id": entry.slide_id, "patient_id": entry.patient_id, "marker": entry.marker}
        try:
            plan = plan_entry(entry, config, *scale)
        except StepError as error:
            return named | {"problem": error.failure.message}
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
            "warnings": "; ".join(plan.warnings) or None,
        }

    with ThreadPoolExecutor(_THREADS) as pool:
        return pa.Table.from_pylist(list(pool.map(row, read_manifest(manifest).slides)), schema=_SCHEMA)
