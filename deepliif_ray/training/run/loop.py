"""The training loop: the same for one process and for many (torch.distributed, if initialised).

Which crops a step sees depends on the seed and the step alone, what is drawn within it on those and the rank.
So a run that was interrupted and goes on from its newest checkpoint is, step for step, the undisturbed run.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch

from deepliif_ray import __version__, storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.native import PUBLISHED
from deepliif_ray.training.panels.augment import Augment
from deepliif_ray.training.run import checkpoints
from deepliif_ray.training.run.batches import Sampler, ShownTiles, Tiles, data_origin, to_batch
from deepliif_ray.training.run.config import TrainConfig, check_same, dump_config, load_mapping, train_config
from deepliif_ray.training.run.outcome import Standing, TrainProgress, TrainSummary, Values
from deepliif_ray.training.run.records import Records
from deepliif_ray.training.run.team import Team
from deepliif_ray.training.run.trainer import Trainer, initial_weights, make_objective
from deepliif_ray.training.run.validate import sample_grid, validate

GRID_TILES = 4


def config_url(output: str) -> str:
    """Return where a run that writes to ``output`` keeps its configuration."""
    return storage.join(output, "config.yaml")


def check_output(config: TrainConfig, output: str) -> None:
    """Make sure that a run of ``config`` may begin or go on at ``output``.

    Raises
    ------
    ConfigError
        It holds a run of another configuration.
    """
    if checkpoints.steps(output):
        url = config_url(output)
        check_same(config, train_config(load_mapping(url), url), output)


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(
    config: TrainConfig,
    output: str,
    tiles: Tiles,
    validation: Tiles | None = None,
    *,
    device: torch.device | str = "cpu",
    watch: Callable[[TrainProgress], None] = lambda _: None,
    report: Callable[[int, Values], None] = lambda _step, _metrics: None,
) -> TrainSummary:
    """Train until the configured step, going on from the newest checkpoint at ``output``; then export.

    Parameters
    ----------
    config : TrainConfig
    output : str
        URL that gets ``checkpoints/``, ``metrics.jsonl``, ``tensorboard/``, ``samples/`` and ``model/``.
    tiles : Tiles
        What to train on; the sources are numbered as in ``config.data``.
    validation : Tiles, optional
        What to validate on, whole.
    device : torch.device or str
        Of this process.
    watch : callable
        Called on rank 0 after every step.
    report : callable
        Called on every process, at the same steps, with the metrics of each validation.

    Returns
    -------
    TrainSummary
        The same on every process.

    Raises
    ------
    ConfigError, ModelError, StorageError
        The configuration does not fit the data or itself; a loss is not finite; ``output`` cannot be used.
    """
    team, device = Team.current(), torch.device(device)
    if config.batch_size < team.size:
        raise ConfigError(
            f"batch_size is {config.batch_size}: {team.size} workers need at least one sample each"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if validation is not None and not len(validation):
        raise ConfigError("validation: these sources have no tiles")
    check_output(config, output)
    with _threads(config.threads or max(1, (os.cpu_count() or 1) // team.size)):
        run = _Run(config, output, tiles, validation, device, team)
        try:
            run.train(watch, report)
            return run.export()
        finally:
            run.close()


class _Run:
    """A run on one of its processes."""

    def __init__(
        self,
        config: TrainConfig,
        output: str,
        tiles: Tiles,
        validation: Tiles | None,
        device: torch.device,
        team: Team,
    ) -> None:
        self._given, config = config, config.for_tiles(len(tiles))
        self._config, self._output, self._device, self._team = config, output, device, team
        self._objective = make_objective(config)
        native = getattr(self._objective, "native", PUBLISHED)
        if native.changes_colour:
            tiles = ShownTiles(tiles, native)
            validation = None if validation is None else ShownTiles(validation, native)
        self._tiles, self._validation = tiles, validation
        self._trainer = Trainer(config, self._objective, device, team)
        self._standing = Standing()
        self._sampler = Sampler(
            tiles,
            [source.weight for source in config.data],
            batch_size=config.batch_size,
            crop=config.crop,
            settings=Augment.none() if config.augment is None else Augment.from_options(config.augment),
            seed=config.seed,
            in_turn=bool(config.epochs),
        )
        # Without validation tiles, the first of the training tiles still show how the images come along.
        shown = tiles if validation is None else validation
        self._shown = [shown.get(i) for i in range(min(GRID_TILES, len(shown)))]
        self._step: int = self._team.agree((checkpoints.steps(output) or [0])[-1] if team.rank == 0 else 0)
        self._begin()
        writes = team.rank == 0 and not self._finished
        self._records = Records(output, self._step) if writes else None

    def _begin(self) -> None:
        """Restore the newest checkpoint, or start anew."""
        if self._step:
            url = checkpoints.url_of(self._output, self._step)
            state = checkpoints.read(url)
            self._trainer.load(state["trainer"])
            self._standing = Standing(**state["standing"])
            return
        if self._config.init:
            self._trainer.start_from(initial_weights(self._config.init), self._config.init)
        self._trainer.synchronize()
        if self._team.rank == 0:
            storage.write_bytes(config_url(self._output), dump_config(self._given))

    @property
    def _finished(self) -> bool:
        patience = self._config.patience
        return self._step >= self._config.steps or bool(patience and self._standing.worse >= patience)

    def train(self, watch: Callable[[TrainProgress], None], report: Callable[[int, Values], None]) -> None:
        """Do the steps that are left."""
        if self._finished:
            return
        config, team, first = self._config, self._team, self._step
        losses: Values = {}
        began = time.monotonic()
        for samples in self._sampler.batches(
            first + 1, config.steps, rank=team.rank, workers=team.size, threads=config.loader_threads
        ):
            self._step += 1
            batch = to_batch(samples, self._objective.targets, self._device)
            self._trainer.step(self._step, batch)
            pace = (self._step - first) * config.batch_size / (time.monotonic() - began)
            if self._due(config.log_every):
                losses = self._trainer.losses()
                self._record("train", {**losses, "learning_rate": config.rate(self._step)}, pace)
            better = (
                self._validation is not None and self._due(config.validate_every) and self._validate(report)
            )
            if config.sample_grid_every and self._due(config.sample_grid_every):
                self._show()
            if better or self._due(config.checkpoint_every) or self._finished:
                self._save()
            if team.rank == 0:
                left = (config.steps - self._step) * config.batch_size / pace
                watch(TrainProgress(self._step, config.steps, losses, self._standing.metrics, pace, left))
            if self._finished:
                return

    def _due(self, every: int) -> bool:
        return self._step % every == 0 or self._step == self._config.steps

    def _record(self, kind: str, values: Values, pace: float) -> None:
        if self._records is not None:
            self._records.log(self._step, kind, values, samples_per_second=pace)

    def _validate(self, report: Callable[[int, Values], None]) -> bool:
        assert self._validation is not None
        with self._trainer.averaged() as objective:
            metrics = validate(objective, self._validation, self._device, self._team)
        better = self._standing.add(self._step, metrics, self._config.monitor)
        if self._records is not None:
            self._records.log(self._step, "validation", metrics)
        report(self._step, metrics)
        return better

    def _show(self) -> None:
        # Every process enters, because averaging involves them all.
        with self._trainer.averaged() as objective:
            if self._records is not None:
                self._records.picture(self._step, sample_grid(objective, self._shown, self._device))

    def _save(self) -> None:
        if self._records is None:
            return
        # The log first: a checkpoint's steps are always in it.
        self._records.flush()
        state = {
            "step": self._step,
            "trainer": self._trainer.state(),
            "standing": asdict(self._standing),
        }
        best = self._standing.best
        checkpoints.save(
            self._output, self._step, state,
            keep=self._config.keep_checkpoints, best=None if best is None else best["step"],
        )  # fmt: skip

    def export(self) -> TrainSummary:
        """Write the best weights, or without validation the last, as a model."""
        best, url = self._standing.best, storage.join(self._output, "model")
        step = self._step if best is None else int(best["step"])
        metrics = {} if best is None else dict(best["metrics"])
        if self._team.rank == 0:
            if step != self._step:
                self._trainer.load(checkpoints.read(checkpoints.url_of(self._output, step))["trainer"])
            metadata = {
                **self._config.metadata,
                "training": {
                    "config": self._given.model_dump(mode="json", exclude={"metadata"}),
                    "step": step,
                    "validation": metrics,
                    "software": f"deepliif-ray {__version__}",
                    "data": data_origin(self._config, self._tiles),
                },
            }
            self._trainer.use_average()
            self._objective.export(url, metadata)
        self._team.gather(None)  # nobody leaves before the model is written
        stopped_early = self._step < self._config.steps
        return TrainSummary(url, self._step, step, metrics, stopped_early)

    def close(self) -> None:
        """End the records."""
        if self._records is not None:
            self._records.close()
