"""The state of a training run, and one step of it."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.models.bundle import is_bundle, read_bundle
from deepliif_ray.training.objectives.base import Batch, Objective, Terms, find
from deepliif_ray.training.run import checkpoints
from deepliif_ray.training.run.config import TrainConfig
from deepliif_ray.training.run.team import Team

COMPACT = "compact"  # the one network of a bundle, by its name among the generators
_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make_objective(config: TrainConfig) -> Objective:
    """Build the objective; its initial weights depend on the seed alone.

    Raises
    ------
    ConfigError
        There is no such objective, or it does not take these options.
    ModelError, StorageError
        A file that the options name cannot be used or read.
    """
    kind = find(config.objective)
    torch.manual_seed(config.seed)
    try:
        objective = kind(**config.objective_options)
    except TypeError as error:
        raise ConfigError(f"objective_options: {error}") from error
    return objective


def initial_weights(url: str) -> dict[str, Tensor]:
    """Return the generators' weights in a checkpoint, a training run's output or a model bundle.

    Raises
    ------
    ModelError, StorageError
        There is none, or it cannot be read.
    """
    if not url.endswith(".pt") and is_bundle(url):
        return {f"{COMPACT}.{name}": value.float() for name, value in read_bundle(url).weights.items()}
    state = checkpoints.read(checkpoints.best_of(url))["trainer"]
    weights: dict[str, Tensor] = state["average"] or state["generators"]
    return weights


def layout(device: torch.device, precision: str) -> torch.memory_format:
    """Return how training keeps images and weights in memory.

    Channels last is the faster one, but PyTorch's float32 batch normalisation on CPUs is inexact there: on
    64 channels of 512x512 px it was off by 1.7e-4 (2.13.0), and by 5e-7 in contiguous memory, which is not
    slower in float32. bfloat16 rounds more coarsely than that anyway.
    """
    exact = device.type == "cpu" and precision == "float32"
    return torch.contiguous_format if exact else torch.channels_last


class Trainer:
    """Networks, their averages and optimisers.

    Parameters
    ----------
    config : TrainConfig
    objective : Objective
        Its networks are moved to ``device`` and trained in place.
    device : torch.device
    team : Team
    """

    def __init__(self, config: TrainConfig, objective: Objective, device: torch.device, team: Team) -> None:
        self.config, self.objective, self.device, self.team = config, objective, device, team
        self._layout = layout(device, config.precision)
        for networks in (objective.generators, objective.discriminators):
            networks.to(device=device, memory_format=self._layout)  # type: ignore[call-overload]
            networks.train()
        self._generators = _Optimizer(config, objective.generators, team)
        judges = objective.discriminators
        self._discriminators = _Optimizer(config, judges, team) if list(judges.parameters()) else None
        self._average = copy.deepcopy(objective.generators.state_dict()) if config.ema_decay else None
        self._totals: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def synchronize(self) -> None:
        """Start every process from the weights of rank 0."""
        for networks in (self.objective.generators, self.objective.discriminators):
            self.team.copy_from_first(networks.state_dict().values())
        if self._average is not None:
            self.team.copy_from_first(self._average.values())

    def start_from(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Take the generators' weights from those of another run or model.

        Raises
        ------
        ModelError
            They belong to other networks.
        """
        generators = self.objective.generators
        try:
            generators.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ModelError(
                f"{source}: its weights do not fit this objective's networks: {error}"
            ) from error
        if self._average is not None:
            self._average = copy.deepcopy(generators.state_dict())

    def _autocast(self) -> torch.autocast:
        lower = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=lower)

    def step(self, number: int, batch: Batch) -> None:
        """Do update ``number`` (from 1) with this process's part of the batch."""
        objective, config = self.objective, self.config
        # Whatever is drawn at random within the step depends on its number alone: nothing to restore later.
        seed = np.random.SeedSequence([config.seed, number, self.team.rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0] >> 1))
        share, rate = len(batch.ihc) / config.batch_size, config.rate(number)
        batch = batch.laid_out(self._layout)
        with self._autocast():
            outputs = objective.forward(batch)
        if self._discriminators is not None:
            with self._autocast():
                terms = objective.discriminator_terms(batch, {k: v.detach() for k, v in outputs.items()})
            self._discriminators.update(terms, share, rate)
            self._count(terms)
        objective.discriminators.requires_grad_(False)
        with self._autocast():
            terms = objective.generator_terms(batch, outputs, number)
        self._generators.update(terms, share, rate)
        self._count(terms)
        objective.discriminators.requires_grad_(True)
        self._update_average(number)

    def _count(self, terms: Terms) -> None:
        for name, value in terms.items():
            self._totals[name] = self._totals.get(name, torch.zeros((), device=self.device)) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def losses(self) -> dict[str, float]:
        """Return the mean of each loss term since the last call.

        Raises
        ------
        ModelError
            One is infinite or not a number.
        """
        means = {name: float(total) / self._counts[name] for name, total in self._totals.items()}
        self._totals, self._counts = {}, {}
        bad = [name for name, value in means.items() if not np.isfinite(value)]
        if bad:
            raise ModelError(
                f"the loss {bad[0]} is {means[bad[0]]}; a lower learning_rate or gradient_clip helps"
            )
        return means

    def _update_average(self, number: int) -> None:
        if self._average is None:
            return
        # At first the average would be mostly initial weights; it starts short and gets longer.
        decay = min(self.config.ema_decay, number / (number + 9.0))
        with torch.no_grad():
            for name, value in self.objective.generators.state_dict().items():
                if value.is_floating_point():
                    self._average[name].lerp_(value, 1.0 - decay)
                else:
                    self._average[name].copy_(value)

    def use_average(self) -> None:
        """Make the averaged weights the generators' own, to export them."""
        if self._average is not None:
            self.objective.generators.load_state_dict(self._average)
        self.objective.generators.eval()

    @contextmanager
    def averaged(self) -> Iterator[Objective]:
        """Give the objective with the averaged weights, for prediction without gradients."""
        generators = self.objective.generators
        # Statistics of a process's own samples, as batch normalisation keeps, are those of rank 0.
        self.team.copy_from_first(buffer for buffer in generators.buffers())
        kept = None
        if self._average is not None:
            self.team.copy_from_first(self._average[name] for name, _ in generators.named_buffers())
            kept = {name: value.clone() for name, value in generators.state_dict().items()}
            generators.load_state_dict(self._average)
        generators.eval()
        try:
            with torch.no_grad(), self._autocast():
                yield self.objective
        finally:
            if kept is not None:
                generators.load_state_dict(kept)
            generators.train()

    def state(self) -> dict[str, Any]:
        """Return all that the next steps depend on."""
        return {
            "generators": self.objective.generators.state_dict(),
            "discriminators": self.objective.discriminators.state_dict(),
            "average": self._average,
            "optimizers": [o.adam.state_dict() for o in (self._generators, self._discriminators) if o],
            "totals": self._totals,
            "counts": self._counts,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.objective.generators.load_state_dict(state["generators"])
        self.objective.discriminators.load_state_dict(state["discriminators"])
        if self._average is not None:
            for name, value in state["average"].items():
                self._average[name].copy_(value)
        optimizers = [o.adam for o in (self._generators, self._discriminators) if o]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._totals = {name: total.to(self.device) for name, total in state["totals"].items()}
        self._counts = dict(state["counts"])


class _Optimizer:
    """One optimiser for all networks of a kind."""

    def __init__(self, config: TrainConfig, networks: nn.Module, team: Team) -> None:
        self._parameters = [p for p in networks.parameters() if p.requires_grad]
        self._clip, self._team = config.gradient_clip, team
        self.adam = _OPTIMIZERS[config.optimizer](
            self._parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )

    def update(self, terms: Terms, share: float, rate: float) -> None:
        """Follow the gradients of the terms' sum; ``terms`` become those of the whole batch."""
        if not terms:
            return
        self.adam.zero_grad(set_to_none=True)
        torch.stack([term.float() for term in terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
        whole = self._team.sum_gradients(self._parameters, list(terms.values()), share)
        terms.update(zip(terms, whole, strict=True))
        if self._clip:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
