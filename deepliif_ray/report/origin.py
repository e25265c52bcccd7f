"""Where results are from: models, configurations, versions, runs, and what they took."""

import json
from dataclasses import dataclass
from typing import Any

from deepliif_ray import storage
from deepliif_ray.query.streaming import Stream

Rows = list[dict[str, Any]]
STEPS = ("plan", "read", "wait", "infer", "measure", "write", "finalize")

_ASK_MODELS = """
SELECT model_name, model_uri, model_digest, precision, config_fingerprint, software_version,
  count(*) AS n_slides, count(DISTINCT patient_id) AS n_patients, min(committed_at) AS first,
  max(committed_at) AS last
FROM slides WHERE {where}
GROUP BY model_name, model_uri, model_digest, precision, config_fingerprint, software_version
ORDER BY n_slides DESC, model_name, model_digest, config_fingerprint, software_version, model_uri, precision
"""
_ASK_RUNS = """
SELECT run_id, status, engine, started_at, finished_at, n_slides, n_scored, n_skipped, n_failed, n_tiles,
  n_cells, date_diff('millisecond', started_at, finished_at) / 1000.0 AS seconds, model_uri, model_digest,
  config, config_fingerprint, software_version, manifest_uri, manifest_digest, timings
FROM runs ORDER BY coalesce(epoch, -1) DESC, started_at DESC, run_id
"""


@dataclass(frozen=True)
class Origin:
    """Where results are from.

    Attributes
    ----------
    models : list of dict
        One row for each model, configuration and version that scored slides which count.
    runs : list of dict
        As of ``runs``, newest first, with ``seconds`` by the clock (None of one that did not end), ``spent``
        (seconds by step, summed over workers) and ``cost`` (None without a price or an end).
    configs : list of tuple
        Fingerprint of a configuration, and its options as pairs of name and value.
    seconds : float or None
        By the clock, of all runs that ended; None without one.
    cost : float or None
    n_open : int
        Runs without an end, which are in neither sum.
    """

    models: Rows
    runs: Rows
    configs: list[tuple[str, list[tuple[str, str]]]]
    seconds: float | None
    cost: float | None
    n_open: int


def read_origin(stream: Stream, marker: str | None, price_per_hour: float | None) -> Origin:
    """Ask where results are from.

    Parameters
    ----------
    stream : Stream
    marker : str, optional
        Only models of its slides; runs are those of all.
    price_per_hour : float, optional
    """
    where, values = ("marker = ?", [marker]) if marker is not None else ("true", [])
    models = stream.table(_ASK_MODELS.format(where=where), values).to_pylist()
    runs = stream.table(_ASK_RUNS).to_pylist()
    configs: dict[str, list[tuple[str, str]]] = {}
    for row in models:
        row["model_uri"] = storage.scrub(row["model_uri"])
    for row in runs:
        for name in ("model_uri", "manifest_uri"):
            row[name] = storage.scrub(row[name])
        row["cost"] = _cost(row["seconds"], price_per_hour)
        timings = row.pop("timings") or {}
        row["spent"] = {step: timings.get(f"{step}_s") for step in STEPS}
        configs.setdefault(row["config_fingerprint"], _options(storage.scrub(row["config"])))
    ended = [row["seconds"] for row in runs if row["seconds"] is not None]
    seconds = sum(ended) if ended else None
    used = {row["config_fingerprint"] for row in models}
    return Origin(
        models,
        runs,
        [(print_, options) for print_, options in configs.items() if print_ in used],
        seconds,
        _cost(seconds, price_per_hour),
        len(runs) - len(ended),
    )


def _cost(seconds: float | None, price_per_hour: float | None) -> float | None:
    return None if seconds is None or price_per_hour is None else seconds / 3600 * price_per_hour


def _options(config: str) -> list[tuple[str, str]]:
    try:
        read = json.loads(config)
    except ValueError:
        return [("configuration", config)]
    if not isinstance(read, dict):
        return [("configuration", config)]
    return [
        (str(name), value if isinstance(value, str) else json.dumps(value)) for name, value in read.items()
    ]
