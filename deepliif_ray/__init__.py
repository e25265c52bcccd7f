"""Score whole cohorts of IHC slides with DeepLIIF on Ray, and query the result with SQL.

A few names do most of it: `score` runs a manifest (`ScoreConfig` says what is computed, `Execution` how it
runs), `connect` opens the results for SQL, `scan_cells` their cells as a data frame, `optimize` joins their
objects, `check` verifies them, `forget` takes a patient or slide out of them, `load_model` gives a model to
use on arrays of pixels, and `train` makes one. `hot_spots` and `spatial` say where positive cells lie.
They are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepliif_ray.config import Execution, ScoreConfig
    from deepliif_ray.engine.run.check import check
    from deepliif_ray.engine.run.forget import forget
    from deepliif_ray.engine.run.record import RunSummary
    from deepliif_ray.engine.score import score
    from deepliif_ray.models import load_model
    from deepliif_ray.places import hot_spots, spatial
    from deepliif_ray.query import connect
    from deepliif_ray.query.frames import scan_cells
    from deepliif_ray.tables.forget import ForgetSummary
    from deepliif_ray.tables.optimize import OptimizeSummary, optimize
    from deepliif_ray.training.run.train import train

__version__ = "0.1.0"
__all__ = [
    "Execution",
    "ForgetSummary",
    "OptimizeSummary",
    "RunSummary",
    "ScoreConfig",
    "__version__",
    "check",
    "connect",
    "forget",
    "hot_spots",
    "load_model",
    "optimize",
    "scan_cells",
    "score",
    "spatial",
    "train",
]

_HOMES = {
    "Execution": "deepliif_ray.config",
    "ForgetSummary": "deepliif_ray.tables.forget",
    "OptimizeSummary": "deepliif_ray.tables.optimize",
    "RunSummary": "deepliif_ray.engine.run.record",
    "ScoreConfig": "deepliif_ray.config",
    "check": "deepliif_ray.engine.run.check",
    "connect": "deepliif_ray.query",
    "forget": "deepliif_ray.engine.run.forget",
    "hot_spots": "deepliif_ray.places",
    "load_model": "deepliif_ray.models",
    "optimize": "deepliif_ray.tables.optimize",
    "scan_cells": "deepliif_ray.query.frames",
    "score": "deepliif_ray.engine.score",
    "spatial": "deepliif_ray.places",
    "train": "deepliif_ray.training.run.train",
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from deepliif_ray.extras import missing_extra

        missing = missing_extra(error, name)
        if missing is None:
            raise
        raise missing from error
