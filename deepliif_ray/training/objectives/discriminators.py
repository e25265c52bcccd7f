"""Discriminators, which judge whether an image is real, given another one.

PatchGAN after Isola et al. 2017 (pix2pix), as in published DeepLIIF, but normalising each tile by itself (see
`deepliif_ray.models.networks`; with one tile a batch, as published, that is the same).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from deepliif_ray.errors import ConfigError
from deepliif_ray.models.networks import LEAK, NORMS, TileNorm

DISCRIMINATORS = ("n_layers", "basic", "pixel")
BASIC_LAYERS = 3
MOST_LAYERS = 6


@dataclass(frozen=True)
class DiscriminatorSpec:
    """Everything that decides a discriminator's layers.

    Parameters
    ----------
    architecture : str
        ``n_layers``: convolutions over patches; ``basic``: the same with 3 layers (70×70 px patches);
        ``pixel``: 1×1 convolutions, each pixel by itself.
    layers : int
        Number of halving convolutions of ``n_layers``.
    norm : str
        ``batch``, ``instance``, ``none`` or ``spectral``, as of a generator.
    width : int
        Channels of the first layer.

    Raises
    ------
    ConfigError
        A value is not supported.
    """

    architecture: str = "n_layers"
    layers: int = 4
    norm: str = "batch"
    width: int = 64

    def __post_init__(self) -> None:
        if self.architecture not in DISCRIMINATORS:
            raise ConfigError(
                f"discriminator {self.architecture!r} is not known; known: {', '.join(DISCRIMINATORS)}"
            )
        if self.norm not in NORMS:
            raise ConfigError(f"norm {self.norm!r} is not known; known: {', '.join(NORMS)}")
        if not 1 <= self.layers <= MOST_LAYERS:
            raise ConfigError(f"discriminator_layers is {self.layers}; use 1 to {MOST_LAYERS}")
        if self.width < 1:
            raise ConfigError(f"discriminator_width is {self.width}; use 1 or more")

    @property
    def depth(self) -> int:
        """Number of halving convolutions."""
        return {"n_layers": self.layers, "basic": BASIC_LAYERS, "pixel": 0}[self.architecture]

    @property
    def smallest(self) -> int:
        """Least side in px of an image for which there is a verdict."""
        return 3 * 2**self.depth if self.depth else 2


class Discriminator(nn.Module):
    """Verdicts, one a patch: unbounded, the greater the more real.

    Parameters
    ----------
    spec : DiscriminatorSpec
    channels : int
        Channels of the input: condition and image together.
    """

    def __init__(self, spec: DiscriminatorSpec, channels: int) -> None:
        super().__init__()
        layers = _pixel(spec, channels) if spec.architecture == "pixel" else _patches(spec, channels)
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the verdicts (N, 1, h, w), float32, on ``x`` (N, channels, H, W)."""
        verdicts: Tensor = self.model(x)
        return verdicts.float()


def _patches(spec: DiscriminatorSpec, channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(channels, spec.width, 4, 2, 1), nn.LeakyReLU(LEAK, inplace=True)]
    wide = spec.width
    for level in range(1, spec.depth + 1):
        stride = 2 if level < spec.depth else 1
        before, wide = wide, spec.width * min(2**level, 8)
        layers += [
            nn.Conv2d(before, wide, 4, stride, 1, bias=spec.norm == "instance"),
            _norm(wide, spec.norm),
            nn.LeakyReLU(LEAK, inplace=True),
        ]
    return [*layers, nn.Conv2d(wide, 1, 4, 1, 1)]


def _pixel(spec: DiscriminatorSpec, channels: int) -> list[nn.Module]:
    bias = spec.norm == "instance"
    return [
        nn.Conv2d(channels, spec.width, 1),
        nn.LeakyReLU(LEAK, inplace=True),
        nn.Conv2d(spec.width, 2 * spec.width, 1, bias=bias),
        _norm(2 * spec.width, spec.norm),
        nn.LeakyReLU(LEAK, inplace=True),
        nn.Conv2d(2 * spec.width, 1, 1, bias=bias),
    ]


def _norm(channels: int, norm: str) -> nn.Module:
    if norm in ("none", "spectral"):
        return nn.Identity()
    return TileNorm(channels, affine=norm == "batch")
