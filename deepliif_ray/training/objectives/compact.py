"""The ``compact`` objective: one small network, trained to classify pixels and to draw the modalities."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from deepliif_ray.models.bundle import write_bundle
from deepliif_ray.models.compact import CompactNetwork, draw
from deepliif_ray.models.compact_spec import CLASSES, RGB, CompactSpec
from deepliif_ray.training.objectives.adversarial import gan_loss, initialise, read_options
from deepliif_ray.training.objectives.base import Batch, Terms
from deepliif_ray.training.objectives.discriminators import Discriminator, DiscriminatorSpec
from deepliif_ray.training.panels.files import MODALITIES, SEG

OUTPUT, JUDGE = "output", "judge"
_BACKGROUND, _POSITIVE, _NEGATIVE, _BOUNDARY = range(len(CLASSES))


@dataclass(frozen=True)
class CompactOptions:
    """Options of the objective.

    Parameters
    ----------
    widths, depths : tuple of int
        See `deepliif_ray.models.compact.CompactSpec`.
    modalities : tuple of str
        Modalities to make beside the segmentation.
    tile_size : int
        Side, at the resolution of the panels, of the tiles that the exported model takes every tile for.
    native_od, native_white : float, optional
        Hematoxylin and glass that tiles are brought to, in training and by the exported model; see
        `deepliif_ray.native.NativeView`.
    smoothing : float
        See `deepliif_ray.models.compact_spec.CompactSpec`.
    positive_weight, negative_weight, boundary_weight : float
        What a pixel of the class weighs in the cross entropy; one of the background weighs 1.
    between_weight : float
        Added weight of boundary and background between two cells that nearly touch: what keeps them apart.
    dice_weight : float
        Weight of the soft Dice loss of the classes (Milletari et al. 2016).
    modality_weight : float
        Weight of the smooth L1 loss of each modality.
    adversarial_weight : float
        Weight of what a discriminator (PatchGAN, LSGAN loss) says of all images together, given the IHC; 0:
        there is none.
    discriminator : str
    discriminator_width, discriminator_layers : int
        See `deepliif_ray.training.objectives.discriminators.DiscriminatorSpec`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    widths: tuple[int, ...] = CompactSpec.widths
    depths: tuple[int, ...] = CompactSpec.depths
    modalities: tuple[str, ...] = MODALITIES
    tile_size: int = CompactSpec.tile_size
    native_od: float | None = None
    native_white: float | None = None
    smoothing: float = 0.0
    positive_weight: float = 1.5
    negative_weight: float = 1.2
    boundary_weight: float = 1.5
    between_weight: float = 2.0
    dice_weight: float = 0.5
    modality_weight: float = 1.0
    adversarial_weight: float = 0.0
    discriminator: str = "n_layers"
    discriminator_width: int = 32
    discriminator_layers: int = 3


class CompactObjective:
    """See `deepliif_ray.training.objectives.base.Objective`.

    Parameters
    ----------
    **options
        Fields of `CompactOptions`.

    Raises
    ------
    ConfigError
        An option is unknown or its value cannot be used.
    ModelError
        Widths, depths or modalities do not make a network.
    """

    def __init__(self, **options: Any) -> None:
        self.options = read_options(CompactOptions, options, "compact")
        o = self.options
        self.spec = CompactSpec(
            o.widths,
            o.depths,
            o.modalities,
            o.tile_size,
            native_od=o.native_od,
            native_white=o.native_white,
            smoothing=o.smoothing,
        )
        self.native = self.spec.native
        self.targets = (*o.modalities, SEG)
        self.generators = nn.ModuleDict({"compact": CompactNetwork(self.spec)})
        self.discriminators = nn.ModuleDict()
        if o.adversarial_weight:
            spec = DiscriminatorSpec(o.discriminator, o.discriminator_layers, "batch", o.discriminator_width)
            self.discriminators[JUDGE] = Discriminator(spec, RGB * (1 + len(self.targets)))
            initialise(self.discriminators[JUDGE], 0.02)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the network's ``output`` (B, C, S, S)."""
        return {OUTPUT: self.generators["compact"](batch.ihc)}

    def discriminator_terms(self, batch: Batch, outputs: Mapping[str, Tensor]) -> Terms:
        """Return how the discriminator fails to tell drawn images from true ones, if there is one."""
        if not self.discriminators:
            return {}
        drawn = draw(outputs[OUTPUT].float(), self.spec)
        return {
            "judge_true": 0.5 * gan_loss(self._judge(batch.ihc, batch.targets), True, "lsgan"),
            "judge_drawn": 0.5 * gan_loss(self._judge(batch.ihc, drawn), False, "lsgan"),
        }

    def generator_terms(self, batch: Batch, outputs: Mapping[str, Tensor], step: int) -> Terms:
        """Return cross entropy, Dice and modality losses."""
        o, output = self.options, outputs[OUTPUT].float()
        truth = class_shares(batch.targets[SEG])
        logits = output[:, : len(CLASSES)]
        weights = truth.new_tensor([1.0, o.positive_weight, o.negative_weight, o.boundary_weight])
        weight = (truth * weights[:, None, None]).sum(1) + o.between_weight * between(truth)
        entropy = -(truth * logits.log_softmax(1)).sum(1)
        terms = {"entropy": (weight * entropy).sum() / weight.sum()}
        shares = logits.softmax(1)
        overlap = (shares * truth).sum((0, 2, 3))
        size = (shares.square() + truth.square()).sum((0, 2, 3))
        terms["dice"] = o.dice_weight * (1 - (2 * overlap + 100) / (size + 100)).mean()
        images = draw(output, self.spec)
        for name in self.options.modalities:
            loss = functional.smooth_l1_loss(images[name], batch.targets[name], beta=0.1)
            terms[name] = o.modality_weight * loss
        if self.discriminators:
            terms["adversarial"] = o.adversarial_weight * gan_loss(
                self._judge(batch.ihc, images), True, "lsgan"
            )
        return terms

    def _judge(self, ihc: Tensor, images: Mapping[str, Tensor]) -> Tensor:
        """Return the discriminator's verdicts on the images of all targets, given the IHC."""
        verdicts: Tensor = self.discriminators[JUDGE](torch.cat([ihc, *(images[k] for k in self.targets)], 1))
        return verdicts

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return each target's image, float32 (B, 3, S, S) in [-1, 1]."""
        return draw(self.generators["compact"](batch.ihc), self.spec)

    def export(self, url: str, metadata: Mapping[str, Any]) -> None:
        """Write the network as a bundle to the folder ``url``; ``metadata`` may hold its ``name``.

        Raises
        ------
        ModelError
            Weights are not finite.
        StorageError
            The folder cannot be written.
        """
        name = str(metadata.get("name") or "compact")
        write_bundle(url, name, self.spec, self.generators["compact"].state_dict(), metadata)


def class_shares(seg: Tensor) -> Tensor:
    """Return how much of each of `CLASSES` a segmentation image shows.

    Parameters
    ----------
    seg : Tensor
        (B, 3, H, W) in [-1, 1]: red positive, green boundary, blue negative.

    Returns
    -------
    Tensor
        (B, 4, H, W), shares that add up to 1; soft where the image is.
    """
    red, green, blue = ((seg + 1) / 2).unbind(1)
    background = (1 - red - green - blue).clamp(min=0)
    shares = torch.stack([background, red, blue, green], 1)
    return shares / shares.sum(1, keepdim=True).clamp(min=1e-6)


def between(shares: Tensor) -> Tensor:
    """Return where a pixel that is no cell has cells on opposite sides, (B, H, W) in 0 to 1.

    There two cells nearly touch, and one wrong pixel joins them.
    """
    cell = shares[:, _POSITIVE] + shares[:, _NEGATIVE]
    reach = 3
    padded = functional.pad(cell[:, None], (reach,) * 4)[:, 0]
    height, width = cell.shape[1:]

    def moved(dy: int, dx: int) -> Tensor:
        return padded[:, reach + dy : reach + dy + height, reach + dx : reach + dx + width]

    best = torch.zeros_like(cell)
    for dy, dx in ((0, reach), (reach, 0), (2, 2), (2, -2)):
        best = torch.maximum(best, torch.minimum(moved(dy, dx), moved(-dy, -dx)))
    return best * (1 - cell)
