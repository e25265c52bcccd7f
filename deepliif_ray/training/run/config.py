"""What may be chosen about a training run, validated."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.training.run.presets import PRESETS, with_preset
from deepliif_ray.validation import Options, problems

# What may change between a run and its resumption: none of it changes what the finished steps have done.
MAY_CHANGE = {
    "preset", "steps", "epochs", "checkpoint_every", "validate_every", "sample_grid_every", "patience",
    "keep_checkpoints", "threads", "loader_threads", "metadata",
}  # fmt: skip
_URLS = ("vgg_weights",)
"""Options of objectives that are URLs."""


class DataSource(Options):
    """Tiles to train on.

    Attributes
    ----------
    uri : str
        URL of a strip, a folder or a listing of panels (see `deepliif_ray.training.panels.store`).
    weight : float
        Share of the samples drawn from it, relative to the other sources' weights.
    """

    uri: str
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class TrainConfig(Options):
    """A training run.

    Attributes
    ----------
    preset : str, optional
        ``published``: what `deepliif_ray.training.run.presets` lists is the default of each key that is not
        given; the filled keys are what a run writes down.
    objective : str
        ``compact``, ``deepliif``, ``neg-to-pos``, or one that an installed package offers (see
        `deepliif_ray.training.objectives.base.find`).
    objective_options : dict
        Keyword arguments of the objective.
    data : list of DataSource
    validation : list of str
        URLs of tiles that are never trained on.
    crop : int
        Side of the squares trained on, px.
    batch_size : int
        Squares in a step, all workers together.
    steps : int
        Updates of the generators. Each draws its squares anew: some tiles come again before others came.
    epochs : int
        In place of ``steps``: how often each tile is trained on. They come in a random order, all of them
        before any comes again, as published training does; sources have equal weights then.
    optimizer, learning_rate, betas, weight_decay
        The paper's are Adam, 2e-4, (0.5, 0.999), 0.
    schedule : str
        ``linear``: constant, then falling linearly to 0 from ``decay_start`` (fraction of the steps) on, with
        ``epochs`` once an epoch, as published; ``cosine``: falling from the end of the warmup on;
        ``constant``.
    warmup : int
        Steps over which the learning rate rises from 0.
    gradient_clip : float
        Largest norm of all gradients of an optimiser; 0: as they are.
    ema_decay : float
        Decay per step of the averaged weights, with which the model is validated and exported; 0: the last.
    precision : str
        ``float32`` or ``bfloat16`` (`torch.autocast`; the weights stay float32).
    augment : dict
        Settings of `deepliif_ray.training.panels.augment.Augment`; None: random crops alone.
    checkpoint_every, validate_every, sample_grid_every, log_every : int
        Steps between; 0 for ``sample_grid_every``: none.
    monitor : str
        What decides which checkpoint is the best: ``l1_NAME`` of a predicted panel, or ``dice``.
    patience : int
        Validations without a better one before the run stops early; 0: never.
    keep_checkpoints : int
        Newest checkpoints that are kept, beside the best.
    init : str, optional
        URL of a training run's output, of one checkpoint (``.pt``), or of a model bundle, whose weights the
        generators start from.
    threads, loader_threads : int
        PyTorch's threads on the CPU (None: the cores shared among this machine's workers), and those that
        prepare samples, for each worker.
    metadata : dict
        Goes into the exported model: name, licence, a text on the training data, …
    """

    preset: Literal["published"] | None = None
    objective: str = "compact"
    objective_options: dict[str, Any] = Field(default_factory=dict)
    data: list[DataSource] = Field(min_length=1)
    validation: list[str] = Field(default_factory=list)
    crop: int = Field(default=256, ge=16, le=4096)
    batch_size: int = Field(default=8, ge=1)
    steps: int = Field(default=0, ge=0)
    epochs: int = Field(default=0, ge=0)
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(default=2e-4, gt=0, allow_inf_nan=False)
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    decay_start: float = Field(default=0.5, ge=0, le=1)
    warmup: int = Field(default=0, ge=0)
    gradient_clip: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(default=0, ge=0)
    augment: dict[str, Any] | None = Field(default_factory=dict)
    checkpoint_every: int = Field(default=500, ge=1)
    validate_every: int = Field(default=500, ge=1)
    sample_grid_every: int = Field(default=500, ge=0)
    log_every: int = Field(default=20, ge=1)
    monitor: str = Field(default="l1_seg", pattern=r"^(l1_\w+|dice)$")
    patience: int = Field(default=0, ge=0)
    keep_checkpoints: int = Field(default=2, ge=1)
    init: str | None = None
    threads: int | None = Field(default=None, ge=1)
    loader_threads: int = Field(default=2, ge=1)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _what_is_implied(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        implied = {"monitor": "l1_ihc"} if values.get("objective") == "neg-to-pos" else {}
        return {**implied, **with_preset(values)}

    @model_validator(mode="after")
    def _what_belongs_together(self) -> Self:
        if not self.steps and not self.epochs:
            raise ValueError("steps is missing; add it, or epochs")
        if self.steps and self.epochs:
            raise ValueError(f"steps is {self.steps} and epochs {self.epochs}; give one of them")
        if self.epochs and len({source.weight for source in self.data}) > 1:
            raise ValueError("in epochs every tile counts once; leave out the weight of data, or give steps")
        if self.preset and self.objective != PRESETS[self.preset]["objective"]:
            raise ValueError(f"preset {self.preset} is not for the objective {self.objective}; leave one out")
        return self

    def for_tiles(self, tiles: int) -> Self:
        """Return the configuration with the ``steps`` that its ``epochs`` take with so many tiles."""
        if not self.epochs:
            return self
        return self.model_copy(update={"steps": math.ceil(self.epochs * tiles / self.batch_size)})

    def rate(self, step: int) -> float:
        """Return the learning rate of update ``step``, the first is 1; of epochs, see `for_tiles`."""
        done, whole = step - 1, self.steps
        factor = min(step / self.warmup, 1.0) if self.warmup else 1.0
        if self.schedule == "linear":
            if self.epochs:
                done, whole = done * self.epochs // self.steps, self.epochs
            start = self.decay_start * whole
            factor *= 1.0 - max(0.0, done - start) / max(whole - start, 1.0)
        elif self.schedule == "cosine":
            left = min(max(done - self.warmup, 0) / max(self.steps - self.warmup, 1), 1.0)
            factor *= 0.5 * (1.0 + math.cos(math.pi * left))
        return self.learning_rate * factor


def train_config(options: Mapping[str, Any], source: str = "configuration") -> TrainConfig:
    """Return the validated configuration; ``source`` names it in messages.

    Raises
    ------
    ConfigError
        A key is missing, unknown, or its value cannot be used; the message lists every one.
    """
    try:
        return TrainConfig.model_validate(dict(options))
    except ValidationError as error:
        raise ConfigError(f"{source}: {problems(error, TrainConfig)}") from error


def load_mapping(url: str) -> dict[str, Any]:
    """Read a YAML (or JSON) file of keys and values, within the bounds of `storage.read_yaml`.

    Raises
    ------
    ConfigError
        It is not such a file.
    StorageError
        It cannot be read.
    """
    options, _ = storage.read_yaml(url)
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise ConfigError(f"{url}: expected a mapping of keys to values")
    return options


def load_config(url: str, **overrides: Any) -> TrainConfig:
    """Read a run's configuration from the YAML file at ``url``.

    Parameters
    ----------
    url : str
        URL or path. Relative URLs of data in it are taken from its folder.
    **overrides
        Keys that replace those of the file, ``steps`` its ``epochs`` too; None: the file's stays.

    Raises
    ------
    ConfigError
        A key or value cannot be used.
    StorageError
        The file cannot be read.
    """
    options = load_mapping(url) | {key: value for key, value in overrides.items() if value is not None}
    if overrides.get("steps") is not None:
        options.pop("epochs", None)
    config = train_config(options, url)
    folder = storage.parent(url)
    urls = {key: config.objective_options[key] for key in _URLS if config.objective_options.get(key)}
    return config.model_copy(
        update={
            "objective_options": config.objective_options
            | {key: storage.resolve(str(uri), folder) for key, uri in urls.items()},
            "data": [DataSource(uri=storage.resolve(s.uri, folder), weight=s.weight) for s in config.data],
            "validation": [storage.resolve(uri, folder) for uri in config.validation],
            "init": config.init and storage.resolve(config.init, folder),
        }
    )


def dump_config(config: TrainConfig) -> bytes:
    """Return ``config`` as YAML that `load_config` reads."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text.encode()


def check_same(config: TrainConfig, earlier: TrainConfig, output: str) -> None:
    """Make sure that a run may go on from what ``earlier`` has left at ``output``.

    Raises
    ------
    ConfigError
        They differ in more than how long to train and what to keep.
    """
    now, before = config.model_dump(mode="json"), earlier.model_dump(mode="json")
    differing = [key for key in now if key not in MAY_CHANGE and now[key] != before[key]]
    if differing:
        raise ConfigError(
            f"{output}: holds a run of another configuration ({', '.join(differing)}); "
            "use another output, or start over with resume=False (--restart)"
        )
