"""Search for a training configuration: Ray Tune runs the trials, Optuna's TPE chooses what to try."""

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import optuna
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
from deepliif_ray.training.run.board import start_board, watched
from deepliif_ray.training.run.config import TrainConfig, dump_config, load_mapping
from deepliif_ray.training.run.loop import fit
from deepliif_ray.training.run.outcome import TrainProgress
from deepliif_ray.training.run.space import DEFAULT_SPACES, Space, chosen, distributions, drawn
from deepliif_ray.training.run.train import as_config, tiles_on_ray

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
    trial, board, monitor = ray_tune.get_context().get_trial_id(), job["board"], job["config"].monitor
    try:
        summary = fit(
            chosen(job["config"], drawn(job["space"], values)),
            storage.join(job["output"], "trials", trial),
            job["tiles"],
            job["validation"],
            device=job["device"],
            watch=lambda progress: board.put.remote(replace(progress, trial=trial)),
            report=lambda step, metrics: ray_tune.report({"step": step, **metrics}),
        )
    except (ConfigError, ModelError) as error:
        # What cannot be trained with is as bad as can be, for the sampler to learn from.
        ray_tune.report({monitor: 0.0 if monitor == "dice" else 1.0, "problem": str(error)})
    else:
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
    watch: Callable[[TrainProgress], None] = lambda _: None,
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
    watch : callable
        Called with the `TrainProgress` of a trial now and then.

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
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one is not silent when asked to be
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _remember(config, space, trials, output)
    with cluster(address):
        gpus = has_gpus() if device is None else device.startswith("cuda")
        board = start_board()
        job = tiles_on_ray(config) | {
            "board": board,
            "config": config,
            "space": space,
            "output": output,
            "device": "cuda" if gpus else "cpu",
        }
        resources = {"cpu": min(1.0, 0.75 * cpus() / concurrent)} | ({"gpu": 1.0} if gpus else {})
        trainable = ray_tune.with_resources(ray_tune.with_parameters(_trial, job=job), resources)
        mode = "max" if config.monitor == "dice" else "min"
        how = TuneConfig(
            metric=config.monitor,
            mode=mode,
            num_samples=trials,
            max_concurrent_trials=concurrent,
            search_alg=OptunaSearch(space=parameters, metric=config.monitor, mode=mode, seed=config.seed),
            trial_dirname_creator=_trial_id,
            reuse_actors=True,
        )
        with watched(board, watch):
            results = _run(trainable, output, how)
    return _summary(config, space, output, results)


def _trial_id(trial: Any) -> str:
    return str(trial.trial_id)


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
                failure_config=FailureConfig(max_failures=3),
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


def _remember(config: TrainConfig, space: Space, trials: int, output: str) -> None:
    """Write down what is searched; refuse to go on with another search's trials."""
    url = storage.join(output, "search.yaml")
    search = {
        "config": config.model_dump(mode="json"),
        "space": {key: dict(entry) for key, entry in space.items()},
        "trials": trials,
    }
    if storage.exists(url):
        if load_mapping(url) != search:
            raise ConfigError(
                f"{output}: holds a search of another configuration, space or number of trials; "
                "use another output"
            )
        return
    storage.write_bytes(url, yaml.safe_dump(search, sort_keys=False).encode())


def _summary(config: TrainConfig, space: Space, output: str, results: ResultGrid) -> TuneSummary:
    monitor = config.monitor
    rows: list[dict[str, Any]] = []
    for result in results:
        metrics, values = result.metrics or {}, drawn(space, result.config or {})
        problem = str(result.error).strip().splitlines()[-1] if result.error else metrics.get("problem", "")
        rows.append(
            {
                "trial": PurePosixPath(result.path).name,
                monitor: None if problem else metrics.get(monitor),
                **{key: json.dumps(v) if isinstance(v, list) else v for key, v in values.items()},
                "problem": problem,
                "config": values,
            }
        )
    sign = -1.0 if monitor == "dice" else 1.0
    rows.sort(key=lambda row: (row[monitor] is None, sign * (row[monitor] or 0.0), row["trial"]))
    drawn_by_trial = [row.pop("config") for row in rows]
    table, buffer = pa.Table.from_pylist(rows), io.BytesIO()
    csv.write_csv(table, buffer)
    storage.write_bytes(storage.join(output, "trials.csv"), buffer.getvalue())
    if rows[0][monitor] is None:
        raise ModelError(f"every trial failed; one with: {rows[0]['problem']}")
    best = storage.join(output, "best.yaml")
    storage.write_bytes(best, dump_config(chosen(config, drawn_by_trial[0])))
    return TuneSummary(best, table)
