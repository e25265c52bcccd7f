"""Neg-to-Pos: painting the IHC of a tile from its hematoxylin, DAPI and segmentation.

After the synthetic data of Ghahremani et al. 2022: a conditional GAN learns IHC = G(grey hematoxylin, DAPI,
segmentation). The hematoxylin gives texture and background without color, DAPI the cells' shapes, and the
segmentation the color of each cell: brown where red, blue where blue. Recoloring cells in the segmentation
then recolors them in the IHC (`deepliif_ray.training.panels.conversion`). The paper leaves architecture and
losses open; here they are those of its translators (`deepliif_ray.training.objectives.deepliif`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.models.networks import IMAGE_CHANNELS, GeneratorSpec
from deepliif_ray.training.objectives.adversarial import (
    GAN_LOSSES,
    evaluating,
    gan_loss,
    no_gradients,
    pad_to,
    pixel_loss,
    read_options,
)
from deepliif_ray.training.objectives.base import Batch, Terms
from deepliif_ray.training.objectives.deepliif import new_discriminator, new_generator
from deepliif_ray.training.objectives.discriminators import DiscriminatorSpec
from deepliif_ray.training.panels.files import IHC, SEG, Panels, UInt8Array
from deepliif_ray.training.run.batches import to_images, to_tensor

MODEL_FILE, WEIGHTS_FILE = "neg-to-pos.json", "weights.safetensors"
FORMAT = "deepliif_ray.neg-to-pos/1"
HEMATOXYLIN, DAPI = "hematoxylin", "dapi"
READS = (HEMATOXYLIN, DAPI, SEG)
CHANNELS = 1 + 1 + IMAGE_CHANNELS
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601, as Pillow's ``L``)."""
_GENERATOR = "G"


@dataclass(frozen=True)
class NegToPosOptions:
    """Options of the `neg-to-pos` objective.

    Parameters
    ----------
    generator, width, norm, padding, upsample, dropout
        See `deepliif_ray.models.networks.GeneratorSpec`.
    discriminator, discriminator_layers, discriminator_width
        See `deepliif_ray.training.objectives.discriminators.DiscriminatorSpec`.
    gan_loss : str
        ``vanilla`` or ``lsgan``.
    l1_weight : float
        λ of the smooth L1 term.
    init_gain : float
        Standard deviation of the first weights.

    Raises
    ------
    ConfigError
        A value cannot be used.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    generator: str = "resnet_9blocks"
    width: int = 64
    norm: str = "batch"
    padding: str = "reflect"
    upsample: str = "convtranspose"
    dropout: bool = False
    discriminator: str = "n_layers"
    discriminator_layers: int = 4
    discriminator_width: int = 64
    gan_loss: str = "vanilla"
    l1_weight: float = 100.0
    init_gain: float = 0.02

    def __post_init__(self) -> None:
        if self.gan_loss not in GAN_LOSSES:
            raise ConfigError(f"gan_loss is {self.gan_loss!r}; use one of {', '.join(GAN_LOSSES)}")
        if self.width < 1 or self.l1_weight < 0 or not 0 < self.init_gain < 1:
            raise ConfigError("width is at least 1, l1_weight at least 0, init_gain between 0 and 1")
        try:
            assert self.painter
        except ModelError as error:
            raise ConfigError(str(error)) from error
        assert self.verdict  # building it checks it

    @property
    def painter(self) -> GeneratorSpec:
        """Layers of the generator."""
        return GeneratorSpec(self.generator, self.norm, self.padding, self.upsample, self.width, self.dropout)

    @property
    def verdict(self) -> DiscriminatorSpec:
        """Layers of the discriminator."""
        return DiscriminatorSpec(
            self.discriminator, self.discriminator_layers, self.norm, self.discriminator_width
        )


def condition(targets: Mapping[str, Tensor]) -> Tensor:
    """Return what the generator reads (B, 5, H, W): grey hematoxylin, grey DAPI, segmentation, in [-1, 1]."""
    luma = targets[HEMATOXYLIN].new_tensor(LUMA).view(1, IMAGE_CHANNELS, 1, 1)
    greys = [(targets[name] * luma).sum(dim=1, keepdim=True) for name in (HEMATOXYLIN, DAPI)]
    return torch.cat([*greys, targets[SEG]], dim=1)


class NegToPosObjective:
    """A conditional GAN from hematoxylin, DAPI and segmentation to the IHC.

    Parameters
    ----------
    **options
        Fields of `NegToPosOptions`. Weights are drawn from torch's global generator: seed it first.

    Attributes
    ----------
    generators, discriminators : torch.nn.ModuleDict
        ``G`` and ``D``; the discriminator judges (condition, IHC) pairs.
    targets : tuple of str
        ``hematoxylin``, ``dapi``, ``seg``: what it reads. What it makes is called ``ihc``.

    Raises
    ------
    ConfigError
        An option is unknown or its value cannot be used.
    """

    targets = READS

    def __init__(self, **options: Any) -> None:
        self.options = chosen = read_options(NegToPosOptions, options, "neg-to-pos")
        painter = new_generator(chosen.painter, chosen.init_gain, CHANNELS)
        judge = new_discriminator(chosen.verdict, chosen.init_gain, CHANNELS + IMAGE_CHANNELS)
        self.generators = nn.ModuleDict({_GENERATOR: painter})
        self.discriminators = nn.ModuleDict({"D": judge})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``ihc``, painted from the batch's targets.

        Raises
        ------
        ConfigError
            The tiles' side does not suit the networks.
        """
        side, divisor, least = (
            batch.ihc.shape[-1],
            self.options.painter.divisor,
            self.options.verdict.smallest,
        )
        if side % divisor or side < least:
            raise ConfigError(
                f"tiles of {side} px do not suit these networks: their side must be a multiple of {divisor} "
                f"and at least {least} px; change the crop, the generator or discriminator_layers"
            )
        with parametrize.cached():  # as in `DeepLIIFObjective`: one iteration of a spectral norm
            return {IHC: self.generators[_GENERATOR](condition(batch.targets))}

    def discriminator_terms(self, batch: Batch, outputs: Mapping[str, Tensor]) -> Terms:
        """Return ``d_fake_ihc`` and ``d_real_ihc``; ``outputs`` are detached here."""
        fake = self._verdicts(batch, outputs[IHC].detach())
        real = self._verdicts(batch, batch.ihc)
        return {
            "d_fake_ihc": gan_loss(fake, False, self.options.gan_loss) / 2,
            "d_real_ihc": gan_loss(real, True, self.options.gan_loss) / 2,
        }

    def generator_terms(self, batch: Batch, outputs: Mapping[str, Tensor], step: int) -> Terms:
        """Return ``g_gan_ihc`` and ``g_l1_ihc``."""
        with no_gradients(self.discriminators):
            verdicts = self._verdicts(batch, outputs[IHC])
        return {
            "g_gan_ihc": gan_loss(verdicts, True, self.options.gan_loss),
            "g_l1_ihc": self.options.l1_weight * pixel_loss(outputs[IHC], batch.ihc),
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``ihc``, float32 (B, 3, H, W) in [-1, 1], painted from the batch's targets."""
        return {IHC: _paint(self.generators[_GENERATOR], self.options, batch.targets)}

    def export(self, url: str, metadata: Mapping[str, Any]) -> None:
        """Write the generator to the folder ``url``, for `load_neg_to_pos`; its JSON file is written last.

        Raises
        ------
        StorageError
            A file cannot be written.
        """
        state = self.generators[_GENERATOR].state_dict()
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
        described = {
            "format": FORMAT,
            "options": asdict(self.options),
            "digest": hashlib.sha256(data).hexdigest(),
            "metadata": dict(metadata),
        }
        storage.write_bytes(storage.join(url, WEIGHTS_FILE), data)
        text = json.dumps(described, indent=1, ensure_ascii=False, default=str)
        storage.write_bytes(storage.join(url, MODEL_FILE), text.encode())

    def _verdicts(self, batch: Batch, ihc: Tensor) -> Tensor:
        verdicts: Tensor = self.discriminators["D"](torch.cat([condition(batch.targets), ihc], dim=1))
        return verdicts


@dataclass(frozen=True)
class NegToPos:
    """A trained generator.

    Parameters
    ----------
    options : NegToPosOptions
    network : torch.nn.Module
        In evaluation mode.
    metadata : dict
        What was exported with it.
    """

    options: NegToPosOptions
    network: nn.Module
    metadata: dict[str, Any]

    def paint(self, panels: Panels) -> UInt8Array:
        """Return the IHC, uint8 (H, W, 3), of the hematoxylin, DAPI and segmentation of ``panels``.

        Raises
        ------
        ConfigError
            One of the three is missing.
        """
        missing = [name for name in READS if name not in panels.targets]
        if missing:
            raise ConfigError(f"{panels.name}: has no panel {missing[0]}, which Neg-to-Pos reads")
        device = next(self.network.parameters()).device
        targets = {name: to_tensor([panels.targets[name]], device) for name in READS}
        image: UInt8Array = to_images(_paint(self.network, self.options, targets))[0]
        return image


def load_neg_to_pos(url: str) -> NegToPos:
    """Read what `NegToPosObjective.export` wrote to the folder ``url``.

    Raises
    ------
    ModelError
        It is not such a folder, or a file is damaged.
    StorageError
        A file is missing or cannot be read.
    """
    source = storage.join(url, MODEL_FILE)
    try:
        described = json.loads(storage.read_small(source))
    except (ConfigError, ValueError, RecursionError) as error:
        raise ModelError(f"{source}: not JSON ({error}); export the model again") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ModelError(f"{source}: not a Neg-to-Pos model of format {FORMAT}")
    path = storage.join(url, WEIGHTS_FILE)
    data = storage.read_bytes(path)
    if hashlib.sha256(data).hexdigest() != described.get("digest"):
        raise ModelError(f"{path}: is not the file that {MODEL_FILE} speaks of; export the model again")
    try:
        options = read_options(NegToPosOptions, described.get("options") or {}, "neg-to-pos")
        network = new_generator(options.painter, options.init_gain, CHANNELS)
        network.load_state_dict(load(data))
    except (ConfigError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{url}: weights and options make no network ({error})") from error
    return NegToPos(options, network.requires_grad_(False).eval(), dict(described.get("metadata") or {}))


def _paint(network: nn.Module, options: NegToPosOptions, targets: Mapping[str, Tensor]) -> Tensor:
    reads = condition(targets)
    height, width = reads.shape[-2:]
    with evaluating(network), parametrize.cached():
        image: Tensor = network(pad_to(reads, options.painter.divisor))
    return image[..., :height, :width]
