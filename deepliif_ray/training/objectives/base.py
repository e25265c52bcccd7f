"""What the training loop asks of an objective: networks, losses, predictions, and how to export them."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deepliif_ray.errors import ConfigError
from deepliif_ray.storage import shown
from deepliif_ray.training.panels.files import IHC

GROUP = "deepliif_ray.objectives"
"""Entry points of this group are objectives that installed packages offer."""
_BUILT_IN = {
    name: EntryPoint(name, f"deepliif_ray.training.objectives.{home}", GROUP)
    for name, home in (
        ("compact", "compact:CompactObjective"),
        ("deepliif", "deepliif:DeepLIIFObjective"),
        ("neg-to-pos", "neg_to_pos:NegToPosObjective"),
    )
}
_METHODS = ("forward", "discriminator_terms", "generator_terms", "predict", "export")

Terms = dict[str, Tensor]
"""Named loss terms, scalars; the loss is their sum."""


@dataclass(frozen=True)
class Batch:
    """Panels as tensors, float32 in [-1, 1].

    Parameters
    ----------
    ihc : Tensor
        (B, 3, S, S).
    targets : dict of str to Tensor
        (B, 3, S, S) each: the modalities by name and ``seg``.
    """

    ihc: Tensor
    targets: dict[str, Tensor]

    def image(self, name: str) -> Tensor:
        """Return the panel of that name (B, 3, S, S): what a prediction of that name is held against."""
        return self.ihc if name == IHC else self.targets[name]

    def laid_out(self, layout: torch.memory_format) -> "Batch":
        """Return the batch with its images in this memory format."""
        targets = {name: image.contiguous(memory_format=layout) for name, image in self.targets.items()}
        return Batch(self.ihc.contiguous(memory_format=layout), targets)


class Objective(Protocol):
    """Networks and the losses that train them.

    Attributes
    ----------
    generators, discriminators : nn.ModuleDict
        What is trained by one optimiser each; ``discriminators`` may be empty. Only generators are averaged
        (EMA), predicted with and exported.
    targets : tuple of str
        The panels it needs beside the IHC: modalities in order, then ``seg``.

    It may have ``native``, a `deepliif_ray.native.NativeView`: tiles are then brought to that glass and
    hematoxylin, in training as when the exported model scores.
    """

    generators: nn.ModuleDict
    discriminators: nn.ModuleDict
    targets: tuple[str, ...]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the generators make of ``batch``, with gradients; the keys are the objective's own."""
        ...

    def discriminator_terms(self, batch: Batch, outputs: Mapping[str, Tensor]) -> Terms:
        """Return the discriminators' losses; ``outputs`` are detached here. Empty without discriminators."""
        ...

    def generator_terms(self, batch: Batch, outputs: Mapping[str, Tensor], step: int) -> Terms:
        """Return the generators' losses; the discriminators take no gradients meanwhile."""
        ...

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return the images made of ``batch``, float32 (B, 3, S, S) in [-1, 1], by the panel's name.

        `Batch.image` gives what each is to be compared with. Objectives that read the IHC alone ignore the
        batch's targets, which may then be empty. No gradients; the networks are left as they were.
        """
        ...

    def export(self, url: str, metadata: Mapping[str, Any]) -> None:
        """Write the generators as a model that `deepliif_ray.load_model` reads to the folder ``url``."""
        ...


def find(name: str) -> type[Objective]:
    """Return the objective of that name: one of this package, or one that an installed package offers.

    A training file may come from anywhere and importing a module runs it, so the file names none: whoever
    installs packages decides what there is to run.

    Raises
    ------
    ConfigError
        There is none, there are several, or it is not an objective.
    """
    offered = entry_points(group=GROUP)
    found = [_BUILT_IN[name]] if name in _BUILT_IN else [entry for entry in offered if entry.name == name]
    if len({entry.value for entry in found}) != 1:
        known = ", ".join(sorted({*_BUILT_IN, *offered.names}))
        why = "several installed packages offer it" if found else f"there are {known}"
        raise ConfigError(
            f"objective is {shown(name)}: {why}; others are installed as packages with an entry point of the "
            f"group {GROUP} (docs/training.md)"
        )
    try:
        kind = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"objective is {shown(name)}: cannot be imported ({error})") from error
    if not isinstance(kind, type) or not all(callable(getattr(kind, method, None)) for method in _METHODS):
        raise ConfigError(f"objective is {shown(name)}: {found[0].value} has not the methods of an objective")
    return kind
