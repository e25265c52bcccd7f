"""How long a cohort will take: what earlier runs took, or one tile timed here."""

from dataclasses import dataclass

import pyarrow.compute as pc

from deepliif_ray.errors import ResultsError
from deepliif_ray.tables.ledger import Ledger

_LEAST_TILES = 20
"""A run of fewer tells how long starting takes."""


@dataclass(frozen=True)
class Pace:
    """Tiles a second, and how that is known.

    Attributes
    ----------
    tiles_per_second : float
    source : str
        Ends "at N tiles/s, …".
    """

    tiles_per_second: float
    source: str

    def seconds(self, tiles: int) -> float:
        """Return how long ``tiles`` take."""
        return tiles / self.tiles_per_second


def pace(model: str, results: str | None = None) -> Pace | None:
    """Return the pace to expect of a model; None where nothing is known of it.

    Parameters
    ----------
    model : str
        Name of a registered model, or URL of one.
    results : str, optional
        URL of results: their newest run with this model that inferred enough tiles counts, with everything
        that was slow about it. Otherwise a model that ships, or is a bundle, infers one tile here; on a
        cluster every worker adds as much. A published folder is not loaded for this.

    Raises
    ------
    ModelError
        The model cannot be used.
    ResultsError, StorageError
        The results cannot be read.
    """
    from deepliif_ray.models import check_model  # slow to import

    uri = check_model(model, None, None)  # as runs record it
    return _of_runs(uri, results) or _measured(uri)


def _of_runs(model: str, results: str | None) -> Pace | None:
    if results is None:
        return None
    try:
        runs = Ledger(results).runs()
    except ResultsError:
        return None  # none there yet
    runs = runs.filter((pc.field("model_uri") == model) & (pc.field("n_tiles") >= _LEAST_TILES))
    for run in runs.sort_by([("started_at", "descending")]).to_pylist():
        if run["status"] == "finished":
            seconds = (run["finished_at"] - run["started_at"]).total_seconds()
            return Pace(run["n_tiles"] / seconds, f"as run {run['run_id']} had")
    return None


def _measured(model: str) -> Pace | None:
    from deepliif_ray.models import registered_models  # slow to import
    from deepliif_ray.models.bundle import is_bundle
    from deepliif_ray.models.selfcheck import time_model

    if model not in registered_models() and not is_bundle(model):
        return None
    return Pace(1 / time_model(model), "as one tile took on this machine")
