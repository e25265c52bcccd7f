"""Model bundles: a folder with ``model.json`` (what the model is) and ``weights.safetensors``.

``model.json`` names the architecture and its sizes, what comes out, how segmentations are weighted, the
digest of the weights, and, for people, what the model was trained on, its metrics and its licence. Weights
are plain tensors: reading a bundle never runs code from it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from deepliif_ray import storage
from deepliif_ray.errors import ModelError
from deepliif_ray.models.calling import CallRule
from deepliif_ray.models.compact_spec import CompactSpec
from deepliif_ray.models.local_contrast import ContrastRule

MODEL_FILE, WEIGHTS_FILE = "model.json", "weights.safetensors"
FORMAT = "deepliif_ray.model/1"
ARCHITECTURE = "compact"
"""What bundles of this package hold; others are for installed packages (`deepliif_ray.models.plugins`)."""
DTYPES = {"float16": torch.float16, "float32": torch.float32}
MAX_JSON_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 1 << 30
_DIGEST_DIGITS = 32


@dataclass(frozen=True)
class Bundle:
    """What was read from a bundle.

    Parameters
    ----------
    name : str
        The model's name.
    spec : CompactSpec
        Its layers.
    weights : dict of str to Tensor
        Its state dict, in the dtype it was stored in.
    digest : str
        32 hexadecimal digits over layers and weights.
    metadata : dict
        Everything else that ``model.json`` says.
    """

    name: str
    spec: CompactSpec
    weights: dict[str, Tensor]
    digest: str
    metadata: dict[str, Any]


def is_bundle(uri: str) -> bool:
    """Return whether the folder ``uri`` holds a bundle."""
    return storage.exists(storage.join(uri, MODEL_FILE))


def write_bundle(
    uri: str,
    name: str,
    spec: CompactSpec,
    weights: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    dtype: str = "float16",
) -> str:
    """Write a compact model as a bundle; ``model.json`` is written last.

    Parameters
    ----------
    uri : str
        URL of the folder.
    name : str
        The model's name.
    spec : CompactSpec
        Its layers.
    weights : mapping of str to Tensor
        Its state dict.
    metadata : mapping
        Anything JSON can hold: training data, recipe, metrics, licence.
    dtype : str
        ``float16`` or ``float32``: how weights are stored.

    Returns
    -------
    str
        The digest.

    Raises
    ------
    ModelError
        A weight is not finite once stored.
    StorageError
        The folder cannot be written.
    """
    stored = {key: value.detach().cpu().contiguous().to(DTYPES[dtype]) for key, value in weights.items()}
    if bad := [key for key, value in stored.items() if not value.isfinite().all()]:
        raise ModelError(f"{uri}: {', '.join(bad[:5])} not finite as {dtype}; was training stable?")
    data = save(stored)
    digest = _digest(spec, data)
    described = {
        **metadata,
        "format": FORMAT,
        "name": name,
        "architecture": ARCHITECTURE,
        "layers": asdict(spec),
        "outputs": ["seg", *spec.modalities],
        "segmentation_weights": [1.0],
        "weights": {
            "file": WEIGHTS_FILE,
            "dtype": dtype,
            "parameters": sum(value.numel() for value in stored.values()),
        },
        "digest": digest,
    }
    storage.write_bytes(storage.join(uri, WEIGHTS_FILE), data)
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    storage.write_bytes(storage.join(uri, MODEL_FILE), text.encode())
    return digest


def describe(uri: str) -> dict[str, Any]:
    """Return ``model.json`` of the bundle at ``uri``.

    Raises
    ------
    ModelError
        It is missing, too large, or not of this format.
    """
    source = storage.join(uri, MODEL_FILE)
    try:
        described = json.loads(_bounded(source, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source}: not JSON: {error}; copy the bundle again") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ModelError(f"{source}: not a model of format {FORMAT}")
    return described


def read_bundle(uri: str, described: dict[str, Any] | None = None) -> Bundle:
    """Read the bundle at ``uri``; ``described`` is what `describe` said of it, if it was asked before.

    Raises
    ------
    ModelError
        A file is missing, too large, damaged, or not what the digest says.
    """
    source = storage.join(uri, MODEL_FILE)
    described = describe(uri) if described is None else described
    if described.get("architecture") != ARCHITECTURE:
        raise ModelError(
            f"{source}: architecture {storage.shown(described.get('architecture'))} is not known here"
        )
    spec = spec_of(described, uri)
    path = storage.join(uri, WEIGHTS_FILE)
    data = _bounded(path, MAX_WEIGHTS_BYTES)
    digest = _digest(spec, data)
    if digest != described.get("digest"):
        raise ModelError(
            f"{path}: digest {digest} is not the {described.get('digest')} of {MODEL_FILE}; "
            "the two do not belong together or a copy is damaged"
        )
    try:
        weights = load(data)
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors file: {error}; copy the bundle again") from error
    return Bundle(str(described.get("name") or "compact"), spec, weights, digest, described)


def spec_of(described: dict[str, Any], uri: str) -> CompactSpec:
    """Return the layers that ``model.json`` describes; ``uri`` is the bundle's, for messages.

    Raises
    ------
    ModelError
        They make no compact network.
    """
    layers, source = described.get("layers"), storage.join(uri, MODEL_FILE)
    try:
        values: dict[str, Any] = dict(layers or {})
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        for key, rule in (("call", CallRule), ("local_contrast", ContrastRule)):
            if values.get(key) is not None:
                values[key] = rule(**values[key])
        return CompactSpec(**values)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{source}: layers {storage.shown(layers)} make no compact network: {error}"
        ) from error


def _bounded(url: str, limit: int) -> bytes:
    if not storage.exists(url):
        raise ModelError(f"{url}: no such file; a model bundle holds {MODEL_FILE} and {WEIGHTS_FILE}")
    size = storage.size(url)
    if size is not None and size > limit:
        raise ModelError(f"{url}: {size:,} bytes, more than the {limit:,} that such a file may have")
    return storage.read_bytes(url)


def _digest(spec: CompactSpec, data: bytes) -> str:
    described = asdict(spec)
    for name in ("native_mpp", "native_od", "native_white", "call", "smoothing", "local_contrast"):
        if described[name] == getattr(CompactSpec, name):  # as before bundles said it
            del described[name]
    layers = json.dumps(described, sort_keys=True)
    content = layers.encode() + b"\0" + hashlib.sha256(data).digest()
    return hashlib.sha256(content).hexdigest()[:_DIGEST_DIGITS]
