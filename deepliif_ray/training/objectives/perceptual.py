"""The perceptual loss of published training since March 2022: how far features of VGG-19 are apart.

VGG-19 is that of Simonyan & Zisserman 2015, trained on ImageNet; the loss is that of pix2pixHD (Wang et al.
2018). The weights are not part of this package: they are torchvision's file ``vgg19-dcbb9e9d.pth`` (575 MB,
https://download.pytorch.org/models/vgg19-dcbb9e9d.pth), which published training downloads.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepliif_ray import storage
from deepliif_ray.errors import ModelError
from deepliif_ray.models.archive import read_state
from deepliif_ray.models.networks import IMAGE_CHANNELS

VGG_DIGEST = "dcbb9e9d"
"""How the SHA-256 of torchvision's file begins; its name ends in it."""
LEVEL_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weight of the difference at each level, from the finest to the coarsest."""
_LEVELS = ((1, 2), (2, 2), (4, 4), (8, 4), (8, 1))
"""How many times the first layer's width each level has, and its convolutions, as far as they are needed."""
_PREFIX = "features."
_MOST_CHANNELS = 512  # of the first layer; the published one has 64


class VGGFeatures(nn.Module):
    """VGG-19 as far as the first convolution of its fifth level.

    Parameters
    ----------
    width : int
        Channels of the first layer; 64 in the published network.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        # Numbered as torchvision does: a ReLU follows each convolution, a pooling each level.
        self.features = nn.ModuleDict()
        self._first: list[str] = []
        channels, number = IMAGE_CHANNELS, 0
        for times, count in _LEVELS:
            self._first.append(str(number))
            for _ in range(count):
                self.features[str(number)] = nn.Conv2d(channels, times * width, 3, padding=1)
                channels, number = times * width, number + 2
            number += 1

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        """Yield what the first convolution of each of the five levels makes of ``x`` (N, 3, H, W).

        H and W are at least 16; the features of level n are (N, C, H // 2ⁿ, W // 2ⁿ), n from 0.
        """
        for number, convolution in self.features.items():
            if number in self._first[1:]:
                x = functional.max_pool2d(x, 2)
            x = functional.relu(convolution(x))
            if number in self._first:
                yield x


class PerceptualLoss:
    """Σ_n w_n · mean |F_n(image) − F_n(target)| with w `LEVEL_WEIGHTS`, as published training computes it.

    Images go into VGG as they are, in [-1, 1]; ImageNet's mean and deviation are not applied (as published).

    Parameters
    ----------
    url : str
        URL of the state dict of VGG-19, torchvision's ``vgg19-dcbb9e9d.pth``.
    digest : str
        How the file's SHA-256 must begin, in hexadecimal digits; empty: it is not looked at.

    Raises
    ------
    ModelError
        It is another file, or none of these weights.
    StorageError
        It cannot be read.
    """

    def __init__(self, url: str, digest: str = VGG_DIGEST) -> None:
        self._features = _read(url, digest)

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the loss of ``image`` against ``target``, both (N, 3, H, W) in [-1, 1]; a scalar."""
        features = self._features.to(image.device)
        with torch.no_grad():
            wanted = list(features(target))
        levels = zip(LEVEL_WEIGHTS, features(image), wanted, strict=True)
        return torch.stack([weight * functional.l1_loss(a, b) for weight, a, b in levels]).sum()


def _read(url: str, digest: str) -> VGGFeatures:
    data = storage.read_bytes(url)
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(digest.lower()):
        raise ModelError(
            f"{url}: its SHA-256 begins with {found[:8]}, not with {digest}; vgg_weights is torchvision's "
            f"vgg19-{VGG_DIGEST}.pth (for weights of your own, give their vgg_digest)"
        )
    state = {name: tensor for name, tensor in read_state(data, url).items() if name.startswith(_PREFIX)}
    first = state.get(f"{_PREFIX}0.weight")
    if first is None or first.dim() != 4 or not 0 < first.shape[0] <= _MOST_CHANNELS:
        raise ModelError(f"{url}: has no usable {_PREFIX}0.weight; it is not the state dict of a VGG-19")
    with torch.device("meta"):  # draws nothing at random
        network = VGGFeatures(first.shape[0])
    needed = network.state_dict()
    for name, tensor in needed.items():
        if name not in state or state[name].shape != tensor.shape or not state[name].is_floating_point():
            shape = list(state[name].shape) if name in state else "missing"
            raise ModelError(f"{url}: {name} is {shape}, not floats of {list(tensor.shape)}; not a VGG-19")
    network.load_state_dict({name: state[name].float() for name in needed}, assign=True)
    return network.requires_grad_(False).eval()
