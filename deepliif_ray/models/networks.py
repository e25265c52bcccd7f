"""The generators of DeepLIIF: ResNet translators and U-Net segmenters.

Architectures after Isola et al. 2017 (pix2pix: U-Net with skip connections) and Johnson et al. 2016 (residual
blocks), as used by Ghahremani et al. 2022 (DeepLIIF). Modules are numbered so that published state dicts load
without renaming.

One thing differs from an ordinary network: **normalisation never looks beyond one tile**. Published inference
drops the running statistics and runs one tile at a time, so each layer normalises by the tile's own mean and
variance; `TileNorm` does that for every tile of a batch.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepliif_ray.errors import ModelError

PADDINGS = ("zero", "reflect", "replicate")
UPSAMPLINGS = ("convtranspose", "resize_conv")
NORMS = ("batch", "instance", "none", "spectral")
RESNET_BLOCKS = {"resnet_9blocks": 9, "resnet_6blocks": 6}
UNET_LEVELS = {"unet_32": 5, "unet_64": 6, "unet_128": 7, "unet_256": 8, "unet_512": 9}
FIRST_WEIGHT = {"resnet": "model.1.weight", "unet": "model.model.0.weight"}
RESNET_DOWNSAMPLINGS = 2
LEAK = 0.2
DROPOUT = 0.5
IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class GeneratorSpec:
    """Everything that decides a generator's layers.

    Parameters
    ----------
    architecture : str
        ``resnet_9blocks``, ``resnet_6blocks`` or ``unet_N`` with N one of 32, 64, 128, 256, 512.
    norm : str
        ``batch`` (scale and shift, per-tile statistics), ``instance`` (no scale and shift, convolutions have
        a bias), ``none``, or ``spectral`` (no normalisation layers; the weights were scaled while training).
    padding : str
        ``zero``, ``reflect`` or ``replicate``; a U-Net always pads with zeros.
    upsample : str
        ``convtranspose`` or ``resize_conv``; a U-Net always uses transposed convolutions.
    width : int
        Channels of the first layer; 64 in published models.
    dropout : bool
        Whether the network is trained with dropout: it shifts the numbers of a residual block's layers, and
        does nothing at inference.

    Raises
    ------
    ModelError
        A value is not supported.
    """

    architecture: str
    norm: str = "batch"
    padding: str = "zero"
    upsample: str = "convtranspose"
    width: int = 64
    dropout: bool = False

    def __post_init__(self) -> None:
        if self.upsample == "pixel_shuffle":
            # Published code cannot build this network (its call of Conv2d lacks the kernel size), so no
            # checkpoint of it exists whose keys one could read.
            raise ModelError(
                "upsample pixel_shuffle is not supported: published DeepLIIF cannot build it either"
            )
        for option, value, known in (
            ("architecture", self.architecture, (*RESNET_BLOCKS, *UNET_LEVELS)),
            ("norm", self.norm, NORMS),
            ("padding", self.padding, PADDINGS),
            ("upsample", self.upsample, UPSAMPLINGS),
        ):
            if value not in known:
                raise ModelError(f"{option} {value!r} is not supported; supported: {', '.join(known)}")

    @property
    def family(self) -> str:
        """``resnet`` or ``unet``."""
        return self.architecture.partition("_")[0]

    @property
    def divisor(self) -> int:
        """Number of pixels that an image's side must be a multiple of."""
        levels = RESNET_DOWNSAMPLINGS if self.family == "resnet" else UNET_LEVELS[self.architecture]
        return int(2**levels)


class Conv(nn.Conv2d):
    """Convolution that takes its input in whatever dtype and computes in that of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of ``x`` (N, C, H, W)."""
        return super().forward(x.to(self.weight.dtype))


class UpConv(nn.ConvTranspose2d):
    """Transposed convolution that computes in the dtype of its weights."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the transposed convolution of ``x`` (N, C, H, W)."""
        return super().forward(x.to(self.weight.dtype), output_size)


class TileNorm(nn.Module):
    """Normalise each channel of each tile by that tile's own mean and variance.

    Statistics are computed in float32 whatever the input's dtype; the scale and shift stay float32 too.

    Parameters
    ----------
    channels : int
        Number of channels.
    affine : bool
        Whether a learned scale and shift follow.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, C, H, W) normalised, in the same dtype and memory format."""
        # batch_norm on single tiles is several times faster on a CPU than instance_norm or var_mean, and
        # keeps the channels-last format, which instance_norm leaves.
        tiles = [
            functional.batch_norm(tile, None, None, self.weight, self.bias, training=True)
            for tile in torch.split(x, 1)
        ]
        return tiles[0] if len(tiles) == 1 else torch.cat(tiles)


class Residual(nn.Module):
    """Two 3×3 convolutions whose result is added to their input."""

    def __init__(self, channels: int, spec: GeneratorSpec) -> None:
        super().__init__()
        bias = spec.norm == "instance"
        pad = _padding(spec.padding, 1)
        inner = 1 if spec.padding == "zero" else 0
        layers: list[nn.Module] = [
            *pad,
            Conv(channels, channels, 3, padding=inner, bias=bias),
            _norm(channels, spec.norm),
            nn.ReLU(inplace=True),
        ]
        if spec.dropout:
            layers.append(nn.Dropout(DROPOUT))
        layers += [
            *_padding(spec.padding, 1),
            Conv(channels, channels, 3, padding=inner, bias=bias),
            _norm(channels, spec.norm),
        ]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the block's output, both (N, C, H, W)."""
        change: Tensor = self.conv_block(x)
        return change.add_(x) if not torch.is_grad_enabled() else change + x


class Skip(nn.Module):
    """One level of a U-Net: halve, run the level below, double, and hand the input on beside the result."""

    def __init__(self, outer: int, inner: int, below: "Skip | None", spec: GeneratorSpec) -> None:
        super().__init__()
        bias, norm = spec.norm == "instance", spec.norm
        down: list[nn.Module] = [nn.LeakyReLU(LEAK), Conv(outer, inner, 4, 2, 1, bias=bias)]
        if below is not None:
            down += [_norm(inner, norm), below]
        joined = inner if below is None else 2 * inner
        up = [nn.ReLU(inplace=True), UpConv(joined, outer, 4, 2, 1, bias=bias), _norm(outer, norm)]
        if spec.dropout and below is not None and outer == inner:  # the deep levels but the last
            up.append(nn.Dropout(DROPOUT))
        self.model = nn.Sequential(*down, *up)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, C, H, W) and this level's output of the same shape, joined to (N, 2C, H, W)."""
        return torch.cat([x, self.model(x)], dim=1)


class Output(nn.Module):
    """Hyperbolic tangent in float32, so that a bfloat16 network still ends in fine steps."""

    def forward(self, x: Tensor) -> Tensor:
        """Return tanh of ``x``, float32, same shape."""
        return torch.tanh(x.float())


class ResNetGenerator(nn.Module):
    """Translator: image (N, 3, H, W) in [-1, 1] to an image of the same shape and range.

    H and W are multiples of 4. ``channels`` is the input's number of channels where it is not 3.
    """

    def __init__(self, spec: GeneratorSpec, channels: int = IMAGE_CHANNELS) -> None:
        super().__init__()
        bias = spec.norm == "instance"
        width = spec.width
        layers: list[nn.Module] = [
            *_edge(spec),
            _conv7(channels, width, spec, bias),
            _norm(width, spec.norm),
        ]
        layers.append(nn.ReLU(inplace=True))
        for _ in range(RESNET_DOWNSAMPLINGS):
            layers += [Conv(width, 2 * width, 3, 2, 1, bias=bias), _norm(2 * width, spec.norm)]
            layers.append(nn.ReLU(inplace=True))
            width *= 2
        layers += [Residual(width, spec) for _ in range(RESNET_BLOCKS[spec.architecture])]
        for _ in range(RESNET_DOWNSAMPLINGS):
            layers += [
                *_double(width, spec.upsample, bias),
                _norm(width // 2, spec.norm),
                nn.ReLU(inplace=True),
            ]
            width //= 2
        layers += [*_edge(spec), _conv7(width, IMAGE_CHANNELS, spec, bias=True), Output()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the translated images (N, 3, H, W), float32 in [-1, 1]."""
        result: Tensor = self.model(x)
        return result


class UNetGenerator(nn.Module):
    """Segmenter: image (N, 3, H, W) in [-1, 1] to an image of the same shape and range.

    H and W are multiples of 2 to the number of levels (512 for ``unet_512``). ``channels`` is the input's
    number of channels where it is not 3.
    """

    def __init__(self, spec: GeneratorSpec, channels: int = IMAGE_CHANNELS) -> None:
        super().__init__()
        width = spec.width
        widths = [width * min(2**level, 8) for level in range(UNET_LEVELS[spec.architecture])]
        below: Skip | None = None
        for outer, inner in reversed(list(pairwise(widths))):
            below = Skip(outer, inner, below, spec)
        assert below is not None  # every known U-Net has five levels or more
        self.model = nn.ModuleDict(
            {
                "model": nn.Sequential(
                    Conv(channels, width, 4, 2, 1, bias=spec.norm == "instance"),
                    below,
                    nn.ReLU(inplace=True),
                    UpConv(2 * width, IMAGE_CHANNELS, 4, 2, 1),
                    Output(),
                )
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the segmentation images (N, 3, H, W), float32 in [-1, 1]."""
        result: Tensor = self.model["model"](x)
        return result


def build_generator(spec: GeneratorSpec, channels: int = IMAGE_CHANNELS) -> nn.Module:
    """Return the network that ``spec`` describes, with torch's default weights, ready to load others.

    ``channels`` is the number of channels of its input; published networks read 3.
    """
    family = ResNetGenerator if spec.family == "resnet" else UNetGenerator
    return family(spec, channels)


def use_precision(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert ``network`` in place to compute in ``dtype``, in the channels-last memory format.

    Normalisation and the convolutions that read or write the image itself stay float32: they cost 2 % of the
    time, and rounding there makes up a fifth of bfloat16's error in the segmentation.
    """
    for module in network.modules():
        if isinstance(module, Conv | UpConv) and IMAGE_CHANNELS not in (
            module.in_channels,
            module.out_channels,
        ):
            module.to(dtype)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _norm(channels: int, norm: str) -> nn.Module:
    if norm in ("none", "spectral"):
        return nn.Identity()
    return TileNorm(channels, affine=norm == "batch")


def _padding(padding: str, pixels: int) -> list[nn.Module]:
    """Layers that pad before a convolution; zeros are left to the convolution itself."""
    if padding == "reflect":
        return [nn.ReflectionPad2d(pixels)]
    return [nn.ReplicationPad2d(pixels)] if padding == "replicate" else []


def _edge(spec: GeneratorSpec) -> list[nn.Module]:
    """Return the numbered layer before a 7×7 convolution: only ``reflect`` is not zero padding there."""
    return [nn.ReflectionPad2d(3) if spec.padding == "reflect" else nn.Identity()]


def _conv7(channels: int, out: int, spec: GeneratorSpec, bias: bool) -> Conv:
    return Conv(channels, out, 7, padding=0 if spec.padding == "reflect" else 3, bias=bias)


def _double(channels: int, upsample: str, bias: bool) -> list[nn.Module]:
    if upsample == "convtranspose":
        return [UpConv(channels, channels // 2, 3, 2, 1, output_padding=1, bias=bias)]
    return [nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), Conv(channels, channels // 2, 3)]
