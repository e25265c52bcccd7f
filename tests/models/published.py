"""Writes model folders in the published format, for tests."""

import hashlib
import importlib.util
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from deepliif_ray.models.networks import GeneratorSpec, TileNorm, build_generator

WeightsFn = Callable[[str, dict[str, list[int]]], dict[str, np.ndarray]]
TRANSLATORS = 4


class _Named(nn.Module):
    """A module under construction: traced networks only need names, parameters and some forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def random_weights(seed: int) -> WeightsFn:
    """Weights that depend on the seed, the network's role and the key alone, like those of seeded_weights.py.

    A role is ``translator-1`` … ``translator-4`` or ``segmenter-0`` … ``segmenter-4``, whatever the naming.
    """

    def weights(role: str, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
        arrays = {}
        for name, shape in shapes.items():
            key = hashlib.sha256(f"{seed}:{role}:{name}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
            if name.endswith("num_batches_tracked"):
                arrays[name] = np.zeros(shape, np.int64)
            elif name.endswith(("running_mean", "running_var")):
                arrays[name] = np.full(shape, float(name.endswith("var")), np.float32)
            elif len(shape) == 4:
                scale = math.sqrt(2 / (shape[1] * shape[2] * shape[3]))
                arrays[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
            elif name.endswith("weight"):
                arrays[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
            else:
                arrays[name] = (rng.standard_normal(shape) * 0.1).astype(np.float32)
        return arrays

    return weights


def reference_weights(reference: Path) -> WeightsFn:
    """The weights of the recordings: translators seeded 1–4, segmenters 51–55."""
    path = reference / "seeded_weights.py"
    spec = importlib.util.spec_from_file_location("seeded_weights", path)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def weights(role: str, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
        kind, _, number = role.partition("-")
        seed = int(number) if kind == "translator" else 51 + int(number)
        arrays: dict[str, np.ndarray] = module.seeded_state_dict(shapes, seed)
        return arrays

    return weights


def published_shapes(spec: GeneratorSpec) -> dict[str, list[int]]:
    """Keys and shapes of a published eager state dict, running statistics included."""
    with torch.device("meta"):
        network = build_generator(spec)
    shapes: dict[str, list[int]] = {}
    for prefix, module in network.named_modules():
        own = {f"{prefix}.{name}": list(p.shape) for name, p in module.named_parameters(recurse=False)}
        shapes |= own
        if isinstance(module, TileNorm) and own:
            shapes |= {f"{prefix}.running_mean": own[f"{prefix}.weight"]}
            shapes |= {f"{prefix}.running_var": own[f"{prefix}.weight"]}
            shapes |= {f"{prefix}.num_batches_tracked": []}
    return shapes


def as_torchscript(state: dict[str, torch.Tensor], path: Path, statistics: bool = False) -> None:
    """Write ``state`` as a serialized network; published ones have no running mean and variance."""
    root = _Named()
    for name, tensor in state.items():
        if name.endswith(("running_mean", "running_var")) and not statistics:
            continue
        *parents, leaf = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, _Named())
            module = module.get_submodule(parent)
        if "running" in leaf or "tracked" in leaf:
            module.register_buffer(leaf, tensor)
        else:
            module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(root.eval(), torch.zeros(1, 3, 8, 8)), str(path))


def write_published_folder(
    folder: Path,
    form: str = "eager",
    naming: str = "G5",
    ngf: int = 8,
    seed: int = 0,
    padding: str = "zero",
    weights_fn: WeightsFn | None = None,
    *,
    upsample: str = "convtranspose",
    norm: str = "batch",
    net_g: str = "resnet_9blocks",
    net_gs: str = "unet_512",
    scale_size: int = 512,
    options: dict[str, object] | None = None,
    only: set[str] | None = None,
    statistics: bool = False,
) -> Path:
    """Write a folder as published DeepLIIF does and return its path.

    Parameters
    ----------
    folder : Path
        Made if absent.
    form : str
        ``eager``, ``serialized`` or ``both``.
    naming : str
        ``G5`` (G51…G55) or ``GS`` (GS0…GS4, with mod_id_seg).
    ngf : int
        Width of the networks; 64 in published models.
    seed : int
        Seed of the weights when ``weights_fn`` is not given.
    padding, upsample, norm, net_g, net_gs, scale_size
        As in ``train_opt.txt``.
    weights_fn : callable, optional
        ``(role, shapes) -> arrays``; see `random_weights` and `reference_weights`.
    options : dict, optional
        Further lines of ``train_opt.txt``; a value of None leaves a line out.
    only : set of str, optional
        Names of the networks to write; by default all nine.
    statistics : bool
        Whether serialized networks keep running statistics.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = weights_fn or random_weights(seed)
    g = GeneratorSpec(net_g, norm, padding, upsample, ngf)
    gs = GeneratorSpec(net_gs, norm, "reflect" if net_gs.startswith("resnet") else "zero", width=ngf)
    first = 1 if naming == "G5" else 0
    plan = [(f"G{i}", f"translator-{i}", g) for i in range(1, TRANSLATORS + 1)]
    plan += [(f"{naming}{first + i}", f"segmenter-{i}", gs) for i in range(TRANSLATORS + 1)]
    for name, role, spec in plan:
        if only is not None and name not in only:
            continue
        state = {k: torch.from_numpy(v) for k, v in weights(role, published_shapes(spec)).items()}
        if form in ("eager", "both"):
            torch.save(state, folder / f"latest_net_{name}.pth")
        if form in ("serialized", "both"):
            as_torchscript(state, folder / f"{name}.pt", statistics)
    lines: dict[str, object] = {
        "model": "DeepLIIF",
        "modalities_no": TRANSLATORS,
        "net_g": net_g,
        "net_gs": net_gs,
        "ngf": 64,
        "norm": norm,
        "padding": padding,
        "upsample": upsample,
        "seg_gen": True,
        "scale_size": scale_size,
        "input_no": 1,
    }
    if naming != "G5":
        lines["mod_id_seg"] = naming[1:]
    lines |= options or {}
    write_options(folder, lines)
    return folder


def write_options(folder: Path, lines: dict[str, object]) -> None:
    """Write ``train_opt.txt`` in the published layout."""
    body = [f"{k:>25}: {v!s:<30}" for k, v in sorted(lines.items()) if v is not None]
    rules = "----------------- Options ---------------", "----------------- End -------------------"
    (folder / "train_opt.txt").write_text("\n".join([rules[0], *body, rules[1]]) + "\n", encoding="utf-8")


def recorded_shapes(reference: Path) -> dict[str, dict[str, list[int]]]:
    """Contents of networks.json."""
    shapes: dict[str, dict[str, list[int]]] = json.loads((reference / "networks.json").read_text())
    return shapes
