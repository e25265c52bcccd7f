"""Where PyTorch computes, and how precisely."""

import torch

from deepliif_ray.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(device: str | None) -> torch.device:
    """Return the device called ``device``; None means the GPU if there is one, else the CPU.

    Raises
    ------
    ConfigError
        This machine does not have it.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return chosen


def choose_precision(precision: str | None, device: torch.device) -> str:
    """Return ``precision``; None means bfloat16 on a GPU made for it, float32 everywhere else.

    A CPU never gets bfloat16 by itself: whether it has instructions for it differs between the machines of
    one cluster, and a cohort's numbers must not depend on where a slide was scored.
    """
    if precision is None:
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if fast else "float32"
    return precision
