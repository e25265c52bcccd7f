"""How fast, and how faithfully in bfloat16, networks run on this machine."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from deepliif_ray.models import load_model
from deepliif_ray.models.device import DTYPES, choose_device
from deepliif_ray.models.networks import GeneratorSpec, build_generator, use_precision

_SIDE, _SIDE_ON_CPU = 256, 64
_GFLOP_256 = 99.0
_GFLOP_LATEST = 493.0
"""One ResNet-9 pass at 256 px, and the published "latest" model (G4, G51, G55) at 512 px."""


@dataclass(frozen=True)
class NetworkSpeed:
    """Speed of the networks at one precision.

    Attributes
    ----------
    device, precision : str
    seconds_per_tile : float
        Estimate for a 512-px tile through the published "latest" model, from one ResNet-9 pass.
    grey_levels : float
        Mean absolute difference from float32 on this device, in 8-bit grey levels.
    """

    device: str
    precision: str
    seconds_per_tile: float
    grey_levels: float


def time_networks() -> list[NetworkSpeed]:
    """Return the speed at every precision on the device that would be chosen here."""
    device = choose_device(None)
    torch.manual_seed(0)
    # A processor without instructions for bfloat16 takes ten times as long: 15 s at 256 px.
    side = _SIDE_ON_CPU if device.type == "cpu" else _SIDE
    tile = torch.rand(1, 3, side, side, device=device) * 2 - 1
    weights = build_generator(GeneratorSpec("resnet_9blocks")).state_dict()
    reference: torch.Tensor | None = None
    found = []
    for precision, dtype in DTYPES.items():
        network = build_generator(GeneratorSpec("resnet_9blocks"))
        network.load_state_dict(weights)
        network = use_precision(network.to(device), dtype)
        with torch.inference_mode():
            network(tile)
            start = time.perf_counter()
            output = network(tile).float().cpu()
            seconds = time.perf_counter() - start
        reference = output if reference is None else reference
        difference = float((output - reference).abs().mean()) * 127.5
        per_tile = seconds * _GFLOP_LATEST / (_GFLOP_256 * (side / 256) ** 2)
        found.append(NetworkSpeed(str(device), precision, per_tile, difference))
    return found


def time_model(name: str) -> float:
    """Return the seconds that a model that ships takes for a 512-px tile, where it would run here."""
    tile = np.random.default_rng(0).integers(120, 255, (1, 512, 512, 3), dtype=np.uint8)
    model = load_model(name)
    model.infer(tile)
    start = time.perf_counter()
    model.infer(tile)
    return time.perf_counter() - start
