"""Tiny objectives and batches."""

import torch

from deepliif_ray.training.objectives.base import Batch
from deepliif_ray.training.objectives.deepliif import DeepLIIFObjective
from deepliif_ray.training.panels.files import MODALITIES, SEG

SMALL = {
    "generator": "resnet_6blocks",
    "segmenter": "unet_32",
    "width": 4,
    "discriminator_layers": 2,
    "discriminator_width": 4,
    "scale_size": 32,
}


def small_objective(seed=0, **options):
    torch.manual_seed(seed)
    return DeepLIIFObjective(**{**SMALL, **options})


def random_batch(count=2, side=32, targets=(*MODALITIES, SEG), seed=0):
    generator = torch.Generator().manual_seed(seed)

    def images():
        return torch.rand(count, 3, side, side, generator=generator) * 2 - 1

    return Batch(images(), {name: images() for name in targets})


def touched(networks):
    """Names of the networks of which every parameter has a gradient, and of those of which any has."""
    grads = {name: [p.grad is not None for p in net.parameters()] for name, net in networks.items()}
    return {n for n, g in grads.items() if all(g)}, {n for n, g in grads.items() if any(g)}
