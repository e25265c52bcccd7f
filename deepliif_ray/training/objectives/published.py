"""Writing a model in the published format, so that published DeepLIIF and `load_model` read it.

A folder holds one eager ``latest_net_{name}.pth`` a generator (a state dict) and ``train_opt.txt``, written
last: a folder without it is not a model.
"""

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deepliif_ray import storage
from deepliif_ray.models.checkpoint import EAGER_PREFIX
from deepliif_ray.models.networks import TileNorm
from deepliif_ray.models.options import OPTIONS_FILE

_INFERENCE_KEYS: dict[str, object] = {
    "model": "DeepLIIF",
    "input_no": 1,
    "input_nc": 3,
    "output_nc": 3,
    "seg_no": 1,
    "seg_gen": True,
    "init_type": "normal",
    "phase": "train",
    "epoch": "latest",
    "load_iter": 0,
    "continue_train": False,
    "verbose": False,
    "gpu_ids": [],
    "remote_transfer_cmd": None,
    "direction": "AtoB",
    "dataset_mode": "aligned",
}
"""What published inference reads of every model's options beside those that differ from model to model."""


def published_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of ``network`` with the keys of published files, on the CPU.

    Published networks have running statistics, which inference drops and strict loading asks for: they are
    written as of a layer never used (mean 0, variance 1). Spectral norms keep their ``parametrizations``.
    """
    state: dict[str, Tensor] = {}
    norms = {name for name, module in network.named_modules() if isinstance(module, TileNorm)}
    for name, tensor in network.state_dict().items():
        # A clone owns its numbers alone: torch.save would write all of a storage that is shared.
        state[name] = tensor.detach().cpu().contiguous().clone()
        layer, _, part = name.rpartition(".")
        if layer in norms and part == "bias":
            state[f"{layer}.running_mean"] = torch.zeros_like(state[name])
            state[f"{layer}.running_var"] = torch.ones_like(state[name])
            state[f"{layer}.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    return state


def options_text(lines: Mapping[str, Any]) -> str:
    """Return the text of a ``train_opt.txt``: ``key: value`` lines between two rules, sorted by key."""
    body = [f"{key:>25}: {value!s:<30}" for key, value in sorted(lines.items())]
    first, last = "----------------- Options ---------------", "----------------- End -------------------"
    return "\n".join([first, *body, last]) + "\n"


def write_published_folder(url: str, networks: Mapping[str, nn.Module], options: Mapping[str, Any]) -> None:
    """Write ``networks`` as a model folder in the published format.

    Parameters
    ----------
    url : str
        URL of the folder. Its files of the same names are replaced.
    networks : mapping of str to torch.nn.Module
        All generators by their published names, such as ``G1`` and ``GS0``; published software wants every
        one that its options speak of. Published software makes every network 64 wide; `load_model` takes
        the width from the weights.
    options : mapping
        Options that differ from model to model: ``modalities_no``, ``modalities_names``, ``seg_weights``,
        ``mod_id_seg``, ``net_g``, ``net_gs``, ``norm``, ``padding``, ``upsample``, ``no_dropout``,
        ``scale_size``, ``background_colors`` … Values are written as Python literals.

    Raises
    ------
    StorageError
        A file cannot be written.
    """
    storage.remove(storage.join(url, OPTIONS_FILE))
    for name, network in networks.items():
        data = io.BytesIO()
        torch.save(published_state(network), data)
        storage.write_bytes(storage.join(url, f"{EAGER_PREFIX}{name}.pth"), data.getvalue())
    text = options_text({**_INFERENCE_KEYS, **options})
    storage.write_bytes(storage.join(url, OPTIONS_FILE), text.encode())
