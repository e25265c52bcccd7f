"""The compact model: one small network that makes the segmentation and every modality at once.

A residual U-Net (Ronneberger et al. 2015; He et al. 2016) that works at half resolution: pixels are folded
into channels on the way in and unfolded on the way out (Shi et al. 2016). Cell classes are a softmax over
background, positive, negative and boundary, drawn in DeepLIIF's colours, so that everything after the model
is the same; a watershed parts cells that touch. Nothing is normalised: weights are standardised instead, so
that a pixel's result depends on the pixels around it alone, not on the rest of its tile or batch.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.models.base import Inference, UInt8Array, check_tiles
from deepliif_ray.models.bundle import Bundle
from deepliif_ray.models.calling import call_cells
from deepliif_ray.models.compact_spec import CLASSES, FOLD, RGB, CompactSpec
from deepliif_ray.models.device import DTYPES
from deepliif_ray.models.local_contrast import weigh
from deepliif_ray.models.networks import Conv, use_precision
from deepliif_ray.models.running import Images, brightest, run_tiles
from deepliif_ray.models.splitting import split_cells

COLORS = (("positive", 0), ("boundary", 1), ("negative", 2))
MARKER = "marker"
BACKGROUND_MARKER = 8
WHITE = 255.0
"""Glass of a tile that was not brought to any."""
RELU_GAIN = (2 / (1 - 1 / math.pi)) ** 0.5
EPSILON = 1e-4


class ScaledConv(Conv):
    """Convolution whose weights are standardised, in place of normalising its output (Brock et al. 2021).

    Each output channel's weights have mean 0, and the norm at which a ReLU of unit-variance input has unit
    variance, times a learned ``gain``.
    """

    def __init__(self, channels: int, out: int, size: int, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__(channels, out, size, stride, size // 2)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.gain = nn.Parameter(torch.full((out, 1, 1, 1), gain))
        self._folded = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of ``x`` (N, C, H, W)."""
        if self._folded:
            return super().forward(x)
        weight = self._standardised().to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.conv2d(x, weight, bias, self.stride, self.padding)

    def _standardised(self) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        fan_in = self.weight[0].numel()
        scale: Tensor = torch.rsqrt(variance * fan_in + EPSILON) * self.gain * RELU_GAIN
        return (self.weight - mean) * scale

    def fold(self) -> None:
        """Compute the weights once and for all, for inference."""
        self.weight.data = self._standardised().detach()
        self._folded = True


class Residual(nn.Module):
    """Two convolutions whose result is added to their input; it begins small, which keeps training stable."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ScaledConv(channels, channels, 3)
        self.second = ScaledConv(channels, channels, 3, gain=0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU of ``x`` plus the block's output, both (N, C, H, W)."""
        change: Tensor = self.second(self.first(x).relu_())
        return (change + x).relu_()


class CompactNetwork(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] to outputs (N, ``spec.channels``, H, W): class logits, then modalities.

    H and W are multiples of ``spec.divisor``.
    """

    def __init__(self, spec: CompactSpec) -> None:
        super().__init__()
        widths = spec.widths
        self.smoothing = spec.smoothing
        self.stem = nn.Sequential(ScaledConv(RGB * FOLD**2, widths[0], 3), nn.ReLU(inplace=True))
        self.down = nn.ModuleList(
            nn.Sequential(
                *([ScaledConv(widths[level - 1], width, 3, 2), nn.ReLU(inplace=True)] if level else []),
                *(Residual(width) for _ in range(spec.depths[level])),
            )
            for level, width in enumerate(widths)
        )
        self.lateral = nn.ModuleList(ScaledConv(below, width, 1) for width, below in pairwise(widths))
        self.up = nn.ModuleList(Residual(width) for width in widths[:-1])
        self.head = ScaledConv(widths[0], spec.channels * FOLD**2, 3)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits and modalities of ``image``, float32; modalities are before the tanh."""
        x = self.stem(functional.pixel_unshuffle(smoothed(image, self.smoothing), FOLD))
        levels = []
        for down in self.down:
            x = down(x)
            levels.append(x)
        for lateral, up, skip in zip(
            reversed(self.lateral), reversed(self.up), reversed(levels[:-1]), strict=True
        ):
            x = up(functional.interpolate(lateral(x), scale_factor=2.0, mode="nearest") + skip)
        return functional.pixel_shuffle(self.head(x), FOLD).float()


def smoothed(image: Tensor, sigma: float) -> Tensor:
    """Return ``image`` (N, C, H, W), float32, smoothed with a Gaussian of ``sigma`` px; 0: as it is."""
    if not sigma:
        return image
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    share = torch.exp(-0.5 * (steps / sigma).square())
    share = (share / share.sum()).expand(image.shape[1], 1, 1, -1)
    padded = functional.pad(image, (reach,) * 4, mode="reflect")
    rows = functional.conv2d(padded, share, groups=image.shape[1])
    return functional.conv2d(rows, share.transpose(2, 3), groups=image.shape[1])


def draw(output: Tensor, spec: CompactSpec) -> dict[str, Tensor]:
    """Return the images that a network's output (N, C, H, W) stands for.

    Returns
    -------
    dict of str to Tensor
        ``seg`` and each modality of ``spec``, float32 (N, 3, H, W) in [-1, 1].
    """
    shares = output[:, : len(CLASSES)].softmax(dim=1)
    images = {"seg": torch.stack([shares[:, CLASSES.index(name)] for name, _ in COLORS], dim=1) * 2 - 1}
    for number, name in enumerate(spec.modalities):
        start = len(CLASSES) + RGB * number
        images[name] = output[:, start : start + RGB].tanh()
    return images


class Compact:
    """A compact network behind the interface of `deepliif_ray.models.Model`.

    Parameters
    ----------
    bundle : Bundle
        The model as read.
    modalities : sequence of str
        Modalities that `infer` will be asked for; the marker is always there if the model has one.
    device : torch.device
        Where to compute.
    precision : str
        ``float32`` or ``bfloat16``.

    Raises
    ------
    ConfigError
        A modality is not among the model's.
    ModelError
        The weights are not those of the bundle's layers.
    """

    batch_size = 8
    background_marker = BACKGROUND_MARKER

    def __init__(
        self, bundle: Bundle, modalities: Sequence[str], device: torch.device, precision: str
    ) -> None:
        self.name, self.digest, self.spec = bundle.name, bundle.digest, bundle.spec
        self.torch_device, self.precision = device, precision
        known = self.spec.modalities
        if unknown := [modality for modality in modalities if modality not in known]:
            raise ConfigError(
                f"{self.name}: has no modality {', '.join(unknown)}; its modalities are: {', '.join(known)}"
            )
        self.has_marker = MARKER in known
        self.native = bundle.spec.native
        self.modality_names = tuple(name for name in known if name in modalities or name == MARKER)
        network = CompactNetwork(self.spec)
        try:
            network.load_state_dict({key: value.float() for key, value in bundle.weights.items()})
        except RuntimeError as error:
            raise ModelError(f"{self.name}: the weights do not fit the layers: {error}") from error
        for module in network.modules():
            if isinstance(module, ScaledConv):
                module.fold()
        _keep_outputs(network, self.spec, self.modality_names)
        self._computed = replace(self.spec, modalities=self.modality_names)
        network.requires_grad_(False).eval()
        self._network = use_precision(network.to(device), DTYPES[precision])

    @property
    def device(self) -> str:
        """Where it computes."""
        return str(self.torch_device)

    def infer(self, tiles: UInt8Array, modalities: Sequence[str] = ()) -> Inference:
        """Return segmentation, marker map and modalities of ``tiles``, uint8 RGB (N, H, W, 3).

        Raises
        ------
        ConfigError
            ``tiles`` has another shape or dtype, or a modality was not loaded.
        ModelError
            Inference failed, for example for want of memory.
        """
        check_tiles(tiles, modalities, self.modality_names, self.name)
        keep = [*modalities, *([MARKER] if self.has_marker and MARKER not in modalities else [])]
        images = {key: np.empty(tiles.shape, np.uint8) for key in ("seg", *keep)}
        batches = run_tiles(
            tiles,
            self._run,
            size=self.spec.tile_size,
            device=self.torch_device,
            exact=self.precision == "float32",
            batch_size=self.batch_size,
        )
        try:
            for start, found in batches:
                for key, image in images.items():
                    image[start : start + len(found[key])] = found[key]
        except RuntimeError as error:
            raise ModelError(f"{self.name}: inference failed: {error}") from error
        marker = brightest(images[MARKER]) if self.has_marker else None
        return Inference(images["seg"], marker, {key: images[key] for key in modalities})

    @torch.inference_mode()
    def _run(self, tiles: UInt8Array) -> Images[str]:
        """Return the 8-bit images of tiles (B, S, S, 3)."""
        pixels = torch.tensor(tiles, device=self.torch_device)
        output = self._network(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
        images: Images[str] = {}
        for key, image in draw(output, self._computed).items():
            grey = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            images[key] = grey.permute(0, 2, 3, 1).cpu().numpy()
        pairs = zip(images["seg"], tiles, strict=True)
        images["seg"] = np.stack([self._cells(seg, rgb) for seg, rgb in pairs])
        return images

    def _cells(self, seg: UInt8Array, rgb: UInt8Array) -> UInt8Array:
        """Return the cells that the network's segmentation of a tile (S, S, 3) comes to."""
        if (contrast := self.spec.local_contrast) is not None:
            seg = weigh(seg, rgb, contrast)
        seg = split_cells(seg)
        if (rule := self.spec.call) is not None:
            seg = call_cells(seg, rgb, rule, self.spec.native_white or WHITE)
        return seg


def _keep_outputs(network: CompactNetwork, spec: CompactSpec, wanted: Sequence[str]) -> None:
    """Cut the last layer down to the classes and the modalities that are ``wanted``."""
    channels = list(range(len(CLASSES)))
    for number, name in enumerate(spec.modalities):
        if name in wanted:
            channels += range(len(CLASSES) + RGB * number, len(CLASSES) + RGB * (number + 1))
    rows = torch.tensor([c * FOLD**2 + part for c in channels for part in range(FOLD**2)])
    head = network.head
    assert head.bias is not None
    head.weight.data, head.bias.data, head.out_channels = head.weight[rows], head.bias[rows], len(rows)
