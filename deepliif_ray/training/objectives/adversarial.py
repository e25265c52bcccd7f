"""What adversarial objectives share: losses, initialisation, spectral normalisation, options, modes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from deepliif_ray.errors import ConfigError
from deepliif_ray.models.networks import TileNorm
from deepliif_ray.validation import problems

GAN_LOSSES = ("vanilla", "lsgan")
SMOOTH_L1_BETA = 1.0
"""Where smooth L1 turns from square to line. The paper prints 0.5, at which its formula is not continuous."""
Options = TypeVar("Options")


def read_options(kind: type[Options], values: Mapping[str, Any], objective: str) -> Options:
    """Return the dataclass ``kind`` made of plain ``values``, such as a configuration file holds.

    Raises
    ------
    ConfigError
        A key is unknown or its value cannot be used; the message lists every one.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise ConfigError(
            f"cannot use these options of the objective {objective}: {problems(error, kind)}"
        ) from error


def gan_loss(verdicts: Tensor, real: bool, kind: str) -> Tensor:
    """Return how far ``verdicts`` are from all real, or all fake; a scalar.

    Parameters
    ----------
    verdicts : Tensor
        A discriminator's output, any shape.
    real : bool
        What they should say.
    kind : str
        ``vanilla``: binary cross-entropy of their logistic (Goodfellow et al. 2014); ``lsgan``: mean square
        of the difference from 1 (real) or 0 (fake) (Mao et al. 2017).
    """
    wanted = torch.full_like(verdicts, float(real))
    if kind == "vanilla":
        return functional.binary_cross_entropy_with_logits(verdicts, wanted)
    return functional.mse_loss(verdicts, wanted)


def pixel_loss(image: Tensor, target: Tensor) -> Tensor:
    """Return smooth L1 with β = 1: the mean of d²/2 where d = |image − target| < 1, of d − 1/2 elsewhere."""
    return functional.smooth_l1_loss(image, target, beta=SMOOTH_L1_BETA)


def initialise(network: nn.Module, gain: float) -> None:
    """Draw weights as pix2pix does: convolutions from N(0, gain), scales from N(1, gain), biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | TileNorm):
            mean = 1.0 if isinstance(module, TileNorm) else 0.0
            if module.weight is not None:
                nn.init.normal_(module.weight, mean, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def use_spectral_norm(network: nn.Module) -> None:
    """Divide the weight of each convolution by its largest singular value (Miyato et al. 2018).

    The weights start as PyTorch draws them, with biases 0. Published training draws them as `initialise`
    does too, but into a copy that the normalisation throws away. Each pass while training refines the
    singular value by one power iteration: three passes for each update of a discriminator.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            parametrizations.spectral_norm(module)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def pad_to(image: Tensor, divisor: int) -> Tensor:
    """Return ``image`` (N, C, H, W) continued at the right and bottom to sides that ``divisor`` divides."""
    bottom, right = (-side % divisor for side in image.shape[-2:])
    if not bottom and not right:
        return image
    return functional.pad(image, (0, right, 0, bottom), mode="replicate")


@contextmanager
def no_gradients(networks: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``networks`` without reaching their parameters."""
    parameters = [parameter for parameter in networks.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def evaluating(networks: nn.Module) -> Iterator[None]:
    """Run ``networks`` as at inference: no gradients, no dropout, spectral norms as they are."""
    modes = {module: module.training for module in networks.modules()}
    try:
        networks.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
