"""What a search may choose: for keys of a training configuration, what values to draw."""

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.training.run.config import TrainConfig, train_config

Space = Mapping[str, Mapping[str, Any]]
"""Dotted keys of the configuration, each with one of ``choice: [...]``, ``uniform: [low, high]``,
``loguniform: [low, high]``, ``integer: [low, high]``, or ``shares: n`` (n numbers that add up to 1)."""

_TRAINING: Space = {
    "learning_rate": {"loguniform": [5e-5, 1e-3]},
    "schedule": {"choice": ["linear", "cosine", "constant"]},
}
DEFAULT_SPACES: dict[str, Space] = {
    # Of the paper's search: architectures, widths, normalisation, λ, losses, learning rate and its policy,
    # and the weights of the segmentations.
    "deepliif": {
        "objective_options.generator": {"choice": ["resnet_9blocks", "resnet_6blocks", "unet_512"]},
        "objective_options.segmenter": {"choice": ["unet_512", "unet_256", "resnet_9blocks"]},
        "objective_options.width": {"choice": [32, 64, 128]},
        "objective_options.discriminator_layers": {"integer": [3, 5]},
        "objective_options.discriminator_width": {"choice": [32, 64, 128]},
        "objective_options.norm": {"choice": ["batch", "instance", "none", "spectral"]},
        "objective_options.l1_weight": {"loguniform": [10, 300]},
        "objective_options.gan_loss": {"choice": ["vanilla", "lsgan"]},
        "objective_options.seg_gan_loss": {"choice": ["vanilla", "lsgan"]},
        "objective_options.seg_weights": {"shares": 5},
        **_TRAINING,
    },
    "compact": {
        "objective_options.boundary_weight": {"uniform": [1, 4]},
        "objective_options.between_weight": {"uniform": [0, 6]},
        "objective_options.dice_weight": {"uniform": [0, 2]},
        "objective_options.modality_weight": {"loguniform": [0.1, 5]},
        **_TRAINING,
    },
}


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions for ``space``; of ``shares``, one for each number, ``key.0`` ….

    Raises
    ------
    ConfigError
        An entry cannot be read; the message names it.
    """
    found: dict[str, BaseDistribution] = {}
    for key, entry in space.items():
        try:
            [(kind, value)] = entry.items()
            if kind == "choice":
                found[key] = CategoricalDistribution(value)
            elif kind in ("uniform", "loguniform"):
                low, high = value
                found[key] = FloatDistribution(float(low), float(high), log=kind == "loguniform")
            elif kind == "integer":
                found[key] = IntDistribution(*value)
            elif kind == "shares":
                found |= {f"{key}.{n}": FloatDistribution(0.0, 1.0) for n in range(value)}
            else:
                raise ConfigError(f"search space: {key}: {kind!r} is not a way to draw values")
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"search space: {key} is {storage.shown(entry)}: {storage.shown(error, quoted=False)}"
            ) from error
    return found


def drawn(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each key of ``space`` for what Optuna drew.

    ``shares`` of draws u are -log(1 - u), scaled to the sum 1: uniform over all such shares.
    """
    found = {}
    for key, entry in space.items():
        if "shares" in entry:
            draws = [-math.log1p(-min(values[f"{key}.{n}"], 1 - 1e-9)) for n in range(entry["shares"])]
            found[key] = [round(draw / (sum(draws) or 1.0), 4) for draw in draws]
        else:
            found[key] = values[key]
    return found


def chosen(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return ``config`` with ``values`` at their dotted keys.

    Raises
    ------
    ConfigError
        A key is none of the configuration's, or its value cannot be used.
    """
    options = config.model_dump(mode="json")
    for key, value in values.items():
        *folders, last = key.split(".")
        place: Any = options
        for folder in folders:
            place = place.get(folder) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ConfigError(f"search space: {key} is no key of the configuration")
        place[last] = value
    return train_config(options, "search space")
