"""What may be chosen about the `deepliif` objective."""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ConfigDict

from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.models.networks import GeneratorSpec
from deepliif_ray.models.options import MAX_SCALE_SIZE, PAPER_WEIGHTS
from deepliif_ray.training.objectives.adversarial import GAN_LOSSES
from deepliif_ray.training.objectives.discriminators import DiscriminatorSpec
from deepliif_ray.training.objectives.perceptual import VGG_DIGEST
from deepliif_ray.training.panels.files import IHC, MODALITIES, SEG


@dataclass(frozen=True)
class DeepLIIFOptions:
    """Options of the `deepliif` objective; the defaults are those of published training, without dropout.

    Parameters
    ----------
    modalities : tuple of str
        Names of the panels to translate to, in order; any number, none too.
    seg_weights : tuple of float
        Weight of the segmentation from the IHC, then of those from each modality. By default the paper's
        (0.25, 0.15, 0.25, 0.1, 0.25) for four modalities, equal ones for another number. A generator of
        weight 0 is not trained.
    drop : tuple of str
        Modalities to leave out (the paper's ablation); the remaining weights are rescaled to the same sum.
    single_segmenter : str
        When given, there is one segmentation generator only, with weight 1, which reads this image: ``ihc``
        or a modality (made by its translator). Other modalities are translated all the same.
    generator, segmenter : str
        Architectures of translators and segmentation generators: ``resnet_9blocks``, ``resnet_6blocks``,
        ``unet_32`` … ``unet_512``.
    width, discriminator_width : int
        Channels of the first layer. Published software loads only 64.
    norm : str
        ``batch``, ``instance``, ``none`` or ``spectral`` (spectral normalisation of ResNet generators and
        PatchGAN discriminators instead of normalising layers, as published), of all networks.
    padding, upsample : str
        Of the translators; see `deepliif_ray.models.networks.GeneratorSpec`. Published training pads with
        zeros since March 2022; before, it mirrored (``reflect``).
    dropout : bool
        Whether generators are trained with dropout of 0.5. Published training is unless told
        ``--no-dropout``, and so were the weights of 2021: the release V1.0.0 builds its networks with
        dropout to load them.
    discriminator, discriminator_layers
        See `deepliif_ray.training.objectives.discriminators.DiscriminatorSpec`.
    gan_loss, seg_gan_loss : str
        ``vanilla`` (binary cross-entropy) or ``lsgan`` (mean square), of translation and of segmentation.
    l1_weight : float
        λ of the smooth L1 terms.
    vgg_weights : str
        URL of the weights of VGG-19; when given, the modalities get the perceptual term of published training
        since March 2022 (`deepliif_ray.training.objectives.perceptual`).
    vgg_weight : float
        Its factor.
    vgg_digest : str
        How the SHA-256 of that file must begin; empty: any file.
    generator_loss_weights, discriminator_loss_weights : tuple of float
        Weight of each modality's loss, then of the segmentation's; by default equal, of sum 1.
    init_gain : float
        Standard deviation of the first weights, but of spectrally normalised ones (`new_generator`).
    seg_id, first_segmenter
        Names of the segmentation generators: ``G{seg_id}{first_segmenter}`` reads the IHC. ``S`` and 0 as in
        later releases; ``5`` and 1 as in the original model.
    scale_size : int
        Side in px of the tiles that the model is to be used on.

    Raises
    ------
    ConfigError
        A value cannot be used.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    modalities: tuple[str, ...] = MODALITIES
    seg_weights: tuple[float, ...] = ()
    drop: tuple[str, ...] = ()
    single_segmenter: str = ""
    generator: str = "resnet_9blocks"
    segmenter: str = "unet_512"
    width: int = 64
    norm: str = "batch"
    padding: str = "zero"
    upsample: str = "convtranspose"
    dropout: bool = False
    discriminator: str = "n_layers"
    discriminator_layers: int = 4
    discriminator_width: int = 64
    gan_loss: str = "vanilla"
    seg_gan_loss: str = "lsgan"
    l1_weight: float = 100.0
    vgg_weights: str = ""
    vgg_weight: float = 100.0
    vgg_digest: str = VGG_DIGEST
    generator_loss_weights: tuple[float, ...] = ()
    discriminator_loss_weights: tuple[float, ...] = ()
    init_gain: float = 0.02
    seg_id: str = "S"
    first_segmenter: int = 0
    scale_size: int = 512

    def __post_init__(self) -> None:
        if len(set(self.modalities)) != len(self.modalities) or {IHC, SEG, ""} & set(self.modalities):
            raise ConfigError(f"modalities are {self.modalities}; they need names of their own")
        for option, names, known in (
            ("drop", self.drop, self.modalities),
            ("single_segmenter", [n for n in [self.single_segmenter] if n], (IHC, *self.kept)),
            ("gan_loss", [self.gan_loss], GAN_LOSSES),
            ("seg_gan_loss", [self.seg_gan_loss], GAN_LOSSES),
            ("first_segmenter", [self.first_segmenter], (0, 1)),
        ):
            wrong = [name for name in names if name not in known]
            if wrong:
                raise ConfigError(f"{option} is {wrong[0]!r}; use one of {', '.join(map(str, known))}")
        if len(self.seg_id) != 1 or not self.seg_id.isalnum():
            raise ConfigError(f"seg_id is {self.seg_id!r}; one letter or digit was expected")
        for option in ("seg_weights", "generator_loss_weights", "discriminator_loss_weights"):
            weights = getattr(self, option)
            if weights and (len(weights) != len(self.modalities) + 1 or min(weights) < 0):
                raise ConfigError(f"{option} are {weights}; {len(self.modalities) + 1} numbers were expected")
        if not any(self._kept(self._given_weights())):
            raise ConfigError("seg_weights are all zero for the images that are left; weigh one")
        if self.width < 1 or min(self.l1_weight, self.vgg_weight) < 0 or not 0 < self.init_gain < 1:
            raise ConfigError(
                "width is at least 1, l1_weight and vgg_weight at least 0, init_gain between 0 and 1"
            )
        if not 1 <= self.scale_size <= MAX_SCALE_SIZE or self.scale_size % self.divisor:
            raise ConfigError(f"scale_size is {self.scale_size}; a multiple of {self.divisor} was expected")
        assert self.verdict  # building it checks it

    @property
    def kept(self) -> tuple[str, ...]:
        """The modalities that are not dropped, in order."""
        return tuple(name for name in self.modalities if name not in self.drop)

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of the segmentation from the IHC, then from each kept modality."""
        if self.single_segmenter:
            return tuple(float(name == self.single_segmenter) for name in (IHC, *self.kept))
        given = self._given_weights()
        kept = self._kept(given)
        scale = sum(given) / sum(kept) if self.drop else 1.0
        return tuple(weight * scale for weight in kept)

    def loss_weights(self, given: tuple[float, ...]) -> dict[str, float]:
        """Return the weight of the loss of each kept modality and of ``seg``, by name."""
        names = (*self.kept, SEG)
        if not given:
            return dict.fromkeys(names, 1 / len(names))
        by_name = dict(zip((*self.modalities, SEG), given, strict=True))
        return {name: by_name[name] for name in names}

    @property
    def translator(self) -> GeneratorSpec:
        """Layers of the translators."""
        return _checked(
            lambda: GeneratorSpec(
                self.generator, self.norm, self.padding, self.upsample, self.width, self.dropout
            )
        )

    @property
    def segmentation(self) -> GeneratorSpec:
        """Layers of the segmentation generators; ``padding`` and ``upsample`` are not theirs (published)."""
        padding = "reflect" if self.segmenter.startswith("resnet") else "zero"
        return _checked(
            lambda: GeneratorSpec(self.segmenter, self.norm, padding, width=self.width, dropout=self.dropout)
        )

    @property
    def verdict(self) -> DiscriminatorSpec:
        """Layers of the discriminators."""
        return DiscriminatorSpec(
            self.discriminator, self.discriminator_layers, self.norm, self.discriminator_width
        )

    @property
    def divisor(self) -> int:
        """Number of px that a tile's side must be a multiple of."""
        return max(self.translator.divisor, self.segmentation.divisor)  # powers of two

    def _given_weights(self) -> tuple[float, ...]:
        if self.seg_weights:
            return self.seg_weights
        count = len(self.modalities) + 1
        return PAPER_WEIGHTS if count == len(PAPER_WEIGHTS) else (1 / count,) * count

    def _kept(self, weights: tuple[float, ...]) -> tuple[float, ...]:
        names = (IHC, *self.modalities)
        return tuple(w for name, w in zip(names, weights, strict=True) if name not in self.drop)


def _checked(build: Callable[[], GeneratorSpec]) -> GeneratorSpec:
    try:
        return build()
    except ModelError as error:
        raise ConfigError(str(error)) from error
