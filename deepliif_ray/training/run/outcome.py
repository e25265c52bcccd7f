"""How a training run stands while it runs, and what it came to."""

from dataclasses import dataclass, field
from typing import Any

from deepliif_ray.errors import ConfigError

Values = dict[str, float]


@dataclass(frozen=True)
class TrainProgress:
    """How far a run is.

    Attributes
    ----------
    step, steps : int
        Updates done, and wanted.
    losses : dict of str to float
        Newest means of the loss terms.
    metrics : dict of str to float
        Newest validation.
    samples_per_second : float
        Of all workers, since this process began.
    seconds_left : float, optional
        Estimate for the steps that are left.
    trial : str
        Which trial of a search it is.
    """

    step: int
    steps: int
    losses: Values = field(default_factory=dict)
    metrics: Values = field(default_factory=dict)
    samples_per_second: float = 0.0
    seconds_left: float | None = None
    trial: str = ""

    @property
    def share(self) -> float:
        """How many of the steps are done, 0 to 1."""
        return self.step / self.steps


@dataclass(frozen=True)
class TrainSummary:
    """What a run came to.

    Attributes
    ----------
    model : str
        URL of the exported model.
    step : int
        Updates done; fewer than the configured ones when it stopped early.
    exported_step : int
        The exported weights are those after this many updates.
    metrics : dict of str to float
        Validation of the exported weights; empty without validation tiles.
    stopped_early : bool
        Whether validation no longer got better.
    """

    model: str
    step: int
    exported_step: int
    metrics: Values
    stopped_early: bool


@dataclass
class Standing:
    """What validation has shown so far; part of every checkpoint."""

    metrics: Values = field(default_factory=dict)
    best: dict[str, Any] | None = None
    worse: int = 0

    def add(self, step: int, metrics: Values, monitor: str) -> bool:
        """Take note of a validation; return whether it is the best so far."""
        if monitor not in metrics:
            raise ConfigError(f"monitor is {monitor!r}: validation measures {', '.join(sorted(metrics))}")
        self.metrics, value = metrics, metrics[monitor]
        better = self.best is None or (
            value > self.best["value"] if monitor == "dice" else value < self.best["value"]
        )
        if better:
            self.best, self.worse = {"step": step, "value": value, "metrics": metrics}, 0
        else:
            self.worse += 1
        return better
