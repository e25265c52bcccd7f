"""Search for a training configuration: Ray Tune runs the trials, Optuna's TPE chooses what to try."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import csv
from ray import tune as ray_tune
from ray.tune import FailureConfig, ResultGrid, RunConfig, TuneConfig, Tuner
from ray.tune.search.optuna import OptunaSearch

from deepliif_ray import storage
from deepliif_ray.cluster import cluster, cpus, has_gpus
from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.models.base import check_choice
from deepliif_ray.training.config import TrainConfig, dump_config, load_mapping
from deepliif_ray.training.loop import fit
from deepliif_ray.training.space import DEFAULT_SPACES, Space, chosen, distributions, drawn
from deepliif_ray.training.train import as_config, tiles_on_ray

_RAY_FOLDER = "_tune"


@dataclass(frozen=True)
class TuneSummary:
    """What a search came to.

    Attributes
    ----------
    best : str
        URL of the best trial's configuration, which `train` takes.
    table : pyarrow.Table
        A row a trial, best first: ``trial``, the monitored value, what was drawn, and ``problem`` of those
        that failed. Also at ``trials.csv``.
    """

    best: str
    table: pa.Table


def _trial(values: dict[str, Any], job: dict[str, Any]) -> None:
    """Train with what was drawn; report each validation, and the best at the end."""
    config = chosen(job["config"], drawn(job["space"], values))
    output = storage.join(job["output"], "trials", ray_tune.get_context().get_trial_id())
    summary = fit(
        config,
        output,
        job["tiles"],
        job["validation"],
        device=job["device"],
        report=lambda step, metrics: ray_tune.report({"step": step, **metrics}),
    )
    ray_tune.report({"step": summary.exported_step, **summary.metrics})


def tune(
    config: TrainConfig | Mapping[str, Any] | str,
    output: str,
    *,
    trials: int = 20,
    space: Space | str | None = None,
    concurrent: int = 1,
    device: str | None = None,
    address: str | None = None,
) -> TuneSummary:
    """Train with configurations drawn from ``space``; minimise the validation L1 of the segmentation.

    What is minimised is ``monitor`` of the configuration (``dice`` is maximised). The sampler is seeded with
    the configuration's seed: one trial after the other draw the same in every search. A search that was
    stopped goes on when called again.

    Parameters
    ----------
    config : TrainConfig, mapping or str
        What is not searched, as for `train`; it needs validation tiles.
    output : str
        URL of the folder that gets ``trials.csv``, ``best.yaml`` and, under ``trials/``, every trial's run.
    trials : int
        How many configurations to try.
    space : mapping or str, optional
        What to search, or the URL of a YAML file of it; by default the paper's for the objective
        ``deepliif``, and one of loss weights and learning rates for ``compact``.
    concurrent : int
        Trials side by side, which share the machine's cores.
    device : str, optional
        ``cpu`` or ``cuda``; by default GPUs if there are any.
    address : str, optional
        Address of a Ray cluster; by default $RAY_ADDRESS, or this machine alone.

    Returns
    -------
    TuneSummary

    Raises
    ------
    ConfigError
        The configuration, space or an option cannot be used, or ``output`` holds another search.
    ModelError
        Every trial failed.
    """
    check_choice(device, None)
    if trials < 1 or concurrent < 1:
        raise ConfigError(f"trials is {trials} and concurrent {concurrent}; use at least 1")
    if output.startswith("memory://"):
        raise ConfigError(f"{output}: other processes cannot see memory://; use another URL")
    config, output = as_config(config), storage.absolute(output)
    if not config.validation:
        raise ConfigError("validation is empty; a search compares how its trials do there")
    space = _space(config, space)
    parameters = distributions(space)
    _remember(config, space, output)
    with cluster(address):
        gpus = has_gpus() if device is None else device.startswith("cuda")
        job = tiles_on_ray(config) | {
            "config": config,
            "space": space,
            "output": output,
            "device": "cuda" if gpus else "cpu",
        }
        resources = {"cpu": min(1.0, 0.75 * cpus() / concurrent)} | ({"gpu": 1.0} if gpus else {})
        trainable = ray_tune.with_resources(ray_tune.with_parameters(_trial, job=job), resources)
        mode = "max" if config.monitor == "dice" else "min"
        results = _run(trainable, output, TuneConfig(
            metric=config.monitor,
            mode=mode,
            num_samples=trials,
            max_concurrent_trials=concurrent,
            search_alg=OptunaSearch(space=parameters, metric=config.monitor, mode=mode, seed=config.seed),
        ))  # fmt: skip
    return _summary(config, space, output, results)


def _run(trainable: Any, output: str, how: TuneConfig) -> ResultGrid:
    filesystem, path = storage.arrow_filesystem(output)
    earlier = storage.join(path, _RAY_FOLDER)
    if Tuner.can_restore(earlier, storage_filesystem=filesystem):
        tuner = Tuner.restore(earlier, trainable, storage_filesystem=filesystem, resume_unfinished=True)
    else:
        tuner = Tuner(
            trainable,
            tune_config=how,
            run_config=RunConfig(
                name=_RAY_FOLDER,
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=1),
                verbose=0,
            ),
        )
    return tuner.fit()


def _space(config: TrainConfig, space: Space | str | None) -> Space:
    if isinstance(space, str):
        return load_mapping(space)
    if space is not None:
        return space
    if config.objective not in DEFAULT_SPACES:
        raise ConfigError(f"objective {config.objective!r} has no search space of its own; give one")
    return DEFAULT_SPACES[config.objective]


def _remember(config: TrainConfig, space: Space, output: str) -> None:
    """Write down what is searched; refuse to go on with another search's trials."""
    url = storage.join(output, "search.yaml")
    search = {"config": config.model_dump(mode="json"), "space": {k: dict(v) for k, v in space.items()}}
    if storage.exists(url):
        if load_mapping(url) != search:
            raise ConfigError(
                f"{output}: holds a search of another configuration or space; use another output"
            )
        return
    storage.write_bytes(url, yaml.safe_dump(search, sort_keys=False).encode())


def _summary(config: TrainConfig, space: Space, output: str, results: ResultGrid) -> TuneSummary:
    monitor = config.monitor
    rows: list[dict[str, Any]] = []
    for result in results:
        metrics, error = result.metrics or {}, result.error
        values = drawn(space, result.config or {})
        rows.append(
            {
                "trial": PurePosixPath(result.path).name,
                monitor: None if error else metrics.get(monitor),
                **{key: json.dumps(v) if isinstance(v, list) else v for key, v in values.items()},
                "problem": str(error).strip().splitlines()[-1] if error else None,
                "config": values,
            }
        )
    sign = -1.0 if monitor == "dice" else 1.0
    rows.sort(key=lambda row: (row[monitor] is None, sign * (row[monitor] or 0.0)))
    drawn_by_trial = [row.pop("config") for row in rows]
    table, buffer = pa.Table.from_pylist(rows), io.BytesIO()
    csv.write_csv(table, buffer)
    storage.write_bytes(storage.join(output, "trials.csv"), buffer.getvalue())
    if rows[0][monitor] is None:
        raise ModelError(f"every trial failed; one with: {rows[0]['problem']}")
    best = storage.join(output, "best.yaml")
    storage.write_bytes(best, dump_config(chosen(config, drawn_by_trial[0])))
    return TuneSummary(best, table)
