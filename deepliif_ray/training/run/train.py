"""Train a model: from a configuration to an exported model, on one process or on a Ray cluster."""

from collections.abc import Callable, Mapping
from typing import Any

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.models.base import check_choice
from deepliif_ray.models.device import choose_device
from deepliif_ray.training.panels.files import SEG
from deepliif_ray.training.panels.store import PanelStore, load_panels
from deepliif_ray.training.run import checkpoints
from deepliif_ray.training.run.config import TrainConfig, load_config, train_config
from deepliif_ray.training.run.loop import check_output, config_url, fit
from deepliif_ray.training.run.outcome import TrainProgress, TrainSummary
from deepliif_ray.training.run.records import metrics_url
from deepliif_ray.training.run.trainer import make_objective


def train(
    config: TrainConfig | Mapping[str, Any] | str,
    output: str,
    *,
    workers: int = 1,
    engine: str = "ray",
    device: str | None = None,
    address: str | None = None,
    resume: bool = True,
    max_failures: int = 3,
    watch: Callable[[TrainProgress], None] = lambda _: None,
) -> TrainSummary:
    """Train as ``config`` says and export the model; an interrupted run goes on where its checkpoints end.

    Parameters
    ----------
    config : TrainConfig, mapping or str
        The configuration, its keys and values, or the URL of a YAML file of them.
    output : str
        URL of the folder that gets checkpoints, records and, under ``model/``, the model.
    workers : int
        Processes that share every batch. The data of a step do not depend on their number.
    engine : str
        ``ray``, or ``local``: this process alone.
    device : str, optional
        ``cpu`` or ``cuda``; by default GPUs if there are any.
    address : str, optional
        Address of a Ray cluster; by default $RAY_ADDRESS, or this machine alone.
    resume : bool
        Whether to go on from checkpoints at ``output``; if not, what is there is removed.
    max_failures : int
        How often a worker may die before the run gives up.
    watch : callable
        Called with a `TrainProgress` now and then.

    Returns
    -------
    TrainSummary

    Raises
    ------
    ConfigError
        An option or the configuration cannot be used, or ``output`` holds a run of another configuration.
    ModelError
        A loss was not finite, or the workers died more often than allowed.
    StorageError
        Data cannot be read or ``output`` not written.
    """
    check_choice(device, None)
    if workers < 1:
        raise ConfigError(f"workers is {workers}; use at least 1")
    if engine not in ("ray", "local"):
        raise ConfigError(f"engine is {engine!r}; use ray or local")
    if engine == "local" and workers > 1:
        raise ConfigError(f"the local engine has one worker, not {workers}; use ray")
    if engine == "ray" and output.startswith("memory://"):
        raise ConfigError(f"{output}: other processes cannot see memory://; use the local engine")
    config, output = as_config(config), storage.absolute(output)
    if not resume:
        for url in (checkpoints.folder(output), metrics_url(output), config_url(output)):
            storage.remove(url)
        for folder in ("tensorboard", "samples", "model"):
            storage.remove(storage.join(output, folder))
    check_output(config, output)
    job: dict[str, Any] = {"config": config, "output": output}
    if engine == "local":
        job |= _tiles(config, PanelStore.local)
        return fit(**job, device=choose_device(device), watch=watch)
    # Ray is slow to import, and the local engine does without.
    from deepliif_ray.cluster import cluster, has_gpus
    from deepliif_ray.training.run.ray_train import train_on_ray

    with cluster(address):
        gpus = has_gpus() if device is None else device.startswith("cuda")
        if gpus and not has_gpus():
            raise ConfigError(f"device is {device}, but the cluster has no GPU; use cpu")
        job |= tiles_on_ray(config)
        return train_on_ray(job, workers=workers, gpus=gpus, max_failures=max_failures, watch=watch)


def as_config(config: TrainConfig | Mapping[str, Any] | str) -> TrainConfig:
    """Return the configuration that was given as such, as keys and values, or as the URL of a YAML file."""
    if isinstance(config, str):
        return load_config(config)
    return config if isinstance(config, TrainConfig) else train_config(config)


def tiles_on_ray(config: TrainConfig) -> dict[str, PanelStore | None]:
    """Return ``tiles`` and ``validation`` of a run, read through Ray Data and kept by the cluster."""
    return _tiles(config, lambda sources, modalities: PanelStore(load_panels(sources, modalities)))


def _tiles(
    config: TrainConfig, read: Callable[[list[str], tuple[str, ...]], PanelStore]
) -> dict[str, PanelStore | None]:
    modalities = tuple(name for name in make_objective(config).targets if name != SEG)
    held_out = [storage.absolute(uri) for uri in config.validation]
    return {
        "tiles": read([storage.absolute(source.uri) for source in config.data], modalities),
        "validation": read(held_out, modalities) if held_out else None,
    }
