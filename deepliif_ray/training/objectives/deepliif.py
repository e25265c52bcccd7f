"""The `deepliif` objective: the losses of Ghahremani et al. 2022, as the published software computed them.

With A the IHC, B_m the real modalities m = 1…n, S the real segmentation, and w the segmentation weights
(w_0 of the IHC):

- translation: B'_m = G_m(A); segmentation: S' = w_0 G_S0(A) + Σ_m w_m G_Sm(B'_m): each segmentation generator
  reads what was translated, so its gradients reach the translator (`DeepLIIFObjective.forward`);
- D_m judges the pairs (A, B_m) and (A, B'_m) under binary cross-entropy, patch by patch (equations 1–4);
- the segmentation is judged once, by the weighted sum of the *verdicts*
  V(X) = w_0 D_S0(A, X) + Σ_m w_m D_Sm(B_m, X) for X = S and X = S', under least squares (equation 5). Beside
  X the discriminators see the **real** modalities, for a generated segmentation too;
- the generators' loss is Σ_m v_m (BCE(D_m(A, B'_m), real) + λ smoothL1(B'_m, B_m))
  + v_S (LS(V(S'), real) + λ smoothL1(S', S)) with v all 1/(n+1);
- the discriminators' is Σ_m v_m (BCE(D_m(A, B'_m), fake) + BCE(D_m(A, B_m), real)) / 2 and the same of V.

Where the paper's equations and the software differ, the software is followed; docs/training.md says where.
Published software since March 2022 adds v_m · 100 · VGG(B'_m, B_m) to the generators' loss, which the paper
does not have; here the option ``vgg_weights``, which names the file of VGG's weights, adds it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.models.networks import IMAGE_CHANNELS, GeneratorSpec, build_generator
from deepliif_ray.training.objectives.adversarial import (
    evaluating,
    gan_loss,
    initialise,
    no_gradients,
    pad_to,
    pixel_loss,
    read_options,
    use_spectral_norm,
)
from deepliif_ray.training.objectives.base import Batch, Terms
from deepliif_ray.training.objectives.deepliif_options import DeepLIIFOptions
from deepliif_ray.training.objectives.discriminators import Discriminator, DiscriminatorSpec
from deepliif_ray.training.objectives.perceptual import PerceptualLoss
from deepliif_ray.training.objectives.published import write_published_folder
from deepliif_ray.training.panels.files import IHC, SEG

TRAINING_FILE = "training.json"
PUBLISHED_NAMES = {"hematoxylin": "Hema", "dapi": "DAPI", "lap2": "Lap2", "marker": "Marker"}
"""What published software calls these panels; it finds the marker by its name."""
BACKGROUNDS = {"hematoxylin": (201, 211, 208), "lap2": (0, 0, 0)}
"""Published colors of a tile that is skipped as empty."""
BACKGROUND = (10, 10, 10)


class DeepLIIFObjective:
    """Four translation GANs and five segmentation GANs, or as many as the options say.

    Parameters
    ----------
    **options
        Fields of `DeepLIIFOptions`. Weights are drawn from torch's global generator: seed it first.

    Attributes
    ----------
    options : DeepLIIFOptions
    generators, discriminators : torch.nn.ModuleDict
        By their published names: ``G1`` …, ``GS0`` …; ``D1`` …, ``DS0`` ….
    targets : tuple of str
        The modalities that are kept, then ``seg``.

    Raises
    ------
    ConfigError
        An option is unknown or its value cannot be used.
    ModelError, StorageError
        The file of VGG's weights is another one, or cannot be read.
    """

    def __init__(self, **options: Any) -> None:
        self.options = read_options(DeepLIIFOptions, options, "deepliif")
        chosen = self.options
        self._perceptual = (
            PerceptualLoss(chosen.vgg_weights, chosen.vgg_digest) if chosen.vgg_weights else None
        )
        self.targets = (*chosen.kept, SEG)
        self._generator_weights = chosen.loss_weights(chosen.generator_loss_weights)
        self._discriminator_weights = chosen.loss_weights(chosen.discriminator_loss_weights)
        self.generators, self.discriminators = nn.ModuleDict(), nn.ModuleDict()
        for index in range(len(chosen.kept)):
            self.generators[_translator(index)] = new_generator(chosen.translator, chosen.init_gain)
            self.discriminators[f"D{index + 1}"] = new_discriminator(chosen.verdict, chosen.init_gain)
        for index, _, _ in self._segmentations():
            name = self._segmenter(index)
            self.generators[name] = new_generator(chosen.segmentation, chosen.init_gain)
            self.discriminators[f"D{name[1:]}"] = new_discriminator(chosen.verdict, chosen.init_gain)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the translated modalities and ``seg``, the weighted sum of the segmentations.

        Raises
        ------
        ConfigError
            The tiles' side does not suit the networks.
        """
        side, divisor, least = batch.ihc.shape[-1], self.options.divisor, self.options.verdict.smallest
        if side % divisor or side < least:
            raise ConfigError(
                f"tiles of {side} px do not suit these networks: their side must be a multiple of {divisor} "
                f"and at least {least} px; change the crop, the segmenter or discriminator_layers"
            )
        return self._images(batch.ihc)

    def discriminator_terms(self, batch: Batch, outputs: Mapping[str, Tensor]) -> Terms:
        """Return ``d_fake_NAME`` and ``d_real_NAME`` of each target; ``outputs`` are detached here."""
        terms: Terms = {}
        for name, weight in self._discriminator_weights.items():
            fake = self._verdicts(batch, name, outputs[name].detach())
            real = self._verdicts(batch, name, batch.targets[name])
            terms[f"d_fake_{name}"] = weight / 2 * gan_loss(fake, False, self._kind(name))
            terms[f"d_real_{name}"] = weight / 2 * gan_loss(real, True, self._kind(name))
        return terms

    def generator_terms(self, batch: Batch, outputs: Mapping[str, Tensor], step: int) -> Terms:
        """Return ``g_gan_NAME`` and ``g_l1_NAME`` of each target; with VGG, ``g_vgg_NAME`` of modalities."""
        terms: Terms = {}
        with no_gradients(self.discriminators):
            for name, weight in self._generator_weights.items():
                verdicts = self._verdicts(batch, name, outputs[name])
                terms[f"g_gan_{name}"] = weight * gan_loss(verdicts, True, self._kind(name))
                difference = pixel_loss(outputs[name], batch.targets[name])
                terms[f"g_l1_{name}"] = weight * self.options.l1_weight * difference
                if self._perceptual is not None and name != SEG:
                    apart = self._perceptual(outputs[name], batch.targets[name])
                    terms[f"g_vgg_{name}"] = weight * self.options.vgg_weight * apart
        return terms

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return each modality and ``seg`` of ``batch.ihc``, float32 (B, 3, H, W) in [-1, 1].

        Tiles of sides that do not suit the networks are continued to such for the while.
        """
        height, width = batch.ihc.shape[-2:]
        with evaluating(self.generators):
            images = self._images(pad_to(batch.ihc, self.options.divisor))
        return {name: image[..., :height, :width] for name, image in images.items()}

    def export(self, url: str, metadata: Mapping[str, Any]) -> None:
        """Write the generators to the folder ``url`` in the published format.

        Segmentation generators of weight 0 are written with fresh weights, because published software
        reads every file. ``metadata`` goes into ``training.json``, which no reader needs.

        Raises
        ------
        StorageError
            A file cannot be written.
        """
        chosen, names = self.options, self.options.kept
        networks = {_translator(index): self.generators[_translator(index)] for index in range(len(names))}
        for index in range(len(names) + 1):
            name = self._segmenter(index)
            networks[name] = (
                self.generators[name]
                if name in self.generators
                else new_generator(chosen.segmentation, chosen.init_gain)
            )
        options = {
            "modalities_no": len(names),
            "modalities_names": ["IHC", *(PUBLISHED_NAMES.get(name, name) for name in names)],
            "seg_weights": list(chosen.weights),
            "loss_G_weights": list(self._generator_weights.values()),
            "loss_D_weights": list(self._discriminator_weights.values()),
            "mod_id_seg": chosen.seg_id,
            "net_g": [chosen.generator] * len(names),
            "netG": [chosen.generator] * len(names),
            "net_gs": [chosen.segmenter] * (len(names) + 1),
            "net_d": chosen.discriminator,
            "netD": chosen.discriminator,
            "n_layers_D": chosen.discriminator_layers,
            "ngf": chosen.width,
            "ndf": chosen.discriminator_width,
            "norm": chosen.norm,
            "padding": chosen.padding,
            "upsample": chosen.upsample,
            "no_dropout": not chosen.dropout,
            "gan_mode": chosen.gan_loss,
            "gan_mode_s": chosen.seg_gan_loss,
            "lambda_L1": chosen.l1_weight,
            "init_gain": chosen.init_gain,
            "scale_size": chosen.scale_size,
            "background_colors": [BACKGROUNDS.get(name, BACKGROUND) for name in names],
        }
        text = json.dumps(dict(metadata), indent=1, ensure_ascii=False, default=str)
        storage.write_bytes(storage.join(url, TRAINING_FILE), text.encode())
        write_published_folder(url, networks, options)

    def _images(self, ihc: Tensor) -> dict[str, Tensor]:
        with parametrize.cached():  # layers look at their weights twice; a spectral norm would iterate twice
            images = {
                name: self.generators[_translator(index)](ihc) for index, name in enumerate(self.options.kept)
            }
            seg = torch.zeros_like(ihc)
            for index, source, weight in self._segmentations():
                reads = ihc if source == IHC else images[source]
                seg = seg + weight * self.generators[self._segmenter(index)](reads)
        return {**images, SEG: seg}

    def _segmentations(self) -> Iterator[tuple[int, str, float]]:
        """Yield index, name of the image that is read, and weight of each segmentation that counts."""
        for index, (name, weight) in enumerate(
            zip((IHC, *self.options.kept), self.options.weights, strict=True)
        ):
            if weight:
                yield index, name, weight

    def _segmenter(self, index: int) -> str:
        return f"G{self.options.seg_id}{self.options.first_segmenter + index}"

    def _kind(self, name: str) -> str:
        return self.options.seg_gan_loss if name == SEG else self.options.gan_loss

    def _verdicts(self, batch: Batch, name: str, image: Tensor) -> Tensor:
        """Return the verdicts on ``image`` as the target ``name``, given the real panels of ``batch``."""
        if name != SEG:
            judge = self.discriminators[f"D{self.options.kept.index(name) + 1}"]
            return _judged(judge, batch.ihc, image)
        parts = [
            weight
            * _judged(self.discriminators[f"D{self._segmenter(index)[1:]}"], batch.image(source), image)
            for index, source, weight in self._segmentations()
        ]
        return torch.stack(parts).sum(dim=0)


def new_generator(spec: GeneratorSpec, gain: float, channels: int = IMAGE_CHANNELS) -> nn.Module:
    """Return a generator to train. As published, spectral normalisation is for ResNets alone."""
    network = build_generator(spec, channels)
    if spec.norm == "spectral" and spec.family == "resnet":
        use_spectral_norm(network)
    else:
        initialise(network, gain)
    return network


def new_discriminator(spec: DiscriminatorSpec, gain: float, channels: int = 2 * IMAGE_CHANNELS) -> nn.Module:
    """Return a discriminator to train. As published, spectral normalisation is not for ``pixel``."""
    network = Discriminator(spec, channels)
    if spec.norm == "spectral" and spec.architecture != "pixel":
        use_spectral_norm(network)
    else:
        initialise(network, gain)
    return network


def _judged(judge: nn.Module, condition: Tensor, image: Tensor) -> Tensor:
    verdicts: Tensor = judge(torch.cat([condition, image], dim=1))
    return verdicts


def _translator(index: int) -> str:
    return f"G{index + 1}"
