"""Published model folders: options, and the networks that are needed, checked key by key.

A folder holds ``train_opt.txt`` and the networks in one or both of two forms: eager
``latest_net_{name}.pth`` (a state dict) and serialized ``{name}.pt`` (TorchScript). When every needed network
is there serialized, that form is read, as published inference does by default; otherwise the eager one.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, ModelError, StorageError
from deepliif_ray.models.archive import MAX_BYTES, read_state, read_torchscript
from deepliif_ray.models.networks import FIRST_WEIGHT, GeneratorSpec, build_generator
from deepliif_ray.models.options import OPTIONS_FILE, ModelOptions, parse_options, resolve_options

EAGER_PREFIX = "latest_net_"
MAX_OPTIONS_BYTES = 1 << 20
MAX_WIDTH = 1024
MAX_LISTED = 5
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_SPECTRAL = ".parametrizations.weight."


@dataclass(frozen=True)
class Checkpoint:
    """What was read from a model folder.

    Parameters
    ----------
    options : ModelOptions
        The folder's options.
    translators, segmenters : dict of int to torch.nn.Module
        Networks by their index in ``options``, float32 on the CPU; only those that are needed.
    digest : str
        32 hexadecimal digits that change with the weights that segmentation and marker depend on, or with an
        option that affects results; the same for either form and either naming scheme of one model.
    """

    options: ModelOptions
    translators: dict[int, nn.Module]
    segmenters: dict[int, nn.Module]
    digest: str


def load_checkpoint(uri: str, modalities: Sequence[str] = ()) -> Checkpoint:
    """Read the model folder at ``uri``.

    Parameters
    ----------
    uri : str
        URL or path of the folder.
    modalities : sequence of str
        Modalities wanted beside segmentation and marker; their translators are read too.

    Raises
    ------
    ModelError
        A file is missing, damaged, or does not fit the options.
    ConfigError
        The model has no modality of a name in ``modalities``.
    """
    files, options = _described(uri)
    unknown = [name for name in modalities if name not in options.modality_names]
    if unknown:
        known = ", ".join(options.modality_names) or "none"
        raise ConfigError(f"{uri}: has no modality {', '.join(unknown)}; its modalities are: {known}")

    weighted = [index for index, weight in enumerate(options.seg_weights) if weight]
    base = {index - 1 for index in weighted if index} | {m for m in [options.marker] if m is not None}
    wanted = base | {options.modality_names.index(name) for name in modalities}
    plan = [(options.translator_name(i), options.translators[i]) for i in sorted(wanted)]
    plan += [(options.segmenter_name(i), options.segmenters[i]) for i in weighted]
    urls = _choose(uri, files, [name for name, _ in plan])

    extra = {options.translator_name(i) for i in wanted - base}
    digest = hashlib.sha256(_fingerprint(options))
    networks: dict[str, nn.Module] = {}
    for name, spec in plan:
        state = _read(urls[name])
        networks[name] = _build(spec, state, urls[name])
        if name not in extra:
            _update(digest, state)
    return Checkpoint(
        options,
        {i: networks[options.translator_name(i)] for i in sorted(wanted)},
        {i: networks[options.segmenter_name(i)] for i in weighted},
        digest.hexdigest()[:32],
    )


def modality_names(uri: str) -> tuple[str, ...]:
    """Return the modalities of a model folder without reading weights; raises as `load_checkpoint`."""
    return _described(uri)[1].modality_names


def _described(uri: str) -> tuple[set[str], ModelOptions]:
    """Return the names of a folder's files, and what it says about itself."""
    files = _list(uri)
    source = storage.join(uri, OPTIONS_FILE)
    return files, resolve_options(parse_options(_text(uri, files)), _networks(files), source)


def _list(uri: str) -> set[str]:
    """Names of the files in the folder itself."""
    start = len(storage.join(uri, ""))
    try:
        names = {url[start:] for url in storage.list_files(uri)}
    except StorageError as error:
        raise ModelError(f"{uri}: the model folder cannot be listed ({error})") from error
    if not names:
        raise ModelError(f"{uri}: no such model folder, and no registered model of that name")
    return {name for name in names if "/" not in name}


def _networks(files: Iterable[str]) -> list[str]:
    """Names of the generators that the files are for, without double."""
    eager = {f.removeprefix(EAGER_PREFIX).removesuffix(".pth") for f in files if _is_eager(f)}
    serialized = {f.removesuffix(".pt") for f in files if f.startswith("G") and f.endswith(".pt")}
    return sorted(eager | serialized)


def _is_eager(file: str) -> bool:
    return file.startswith(f"{EAGER_PREFIX}G") and file.endswith(".pth")


def _choose(uri: str, files: set[str], names: Sequence[str]) -> dict[str, str]:
    """Return the URL to read each network from."""
    missing: dict[str, list[str]] = {}
    for form in ("{}.pt", EAGER_PREFIX + "{}.pth"):
        chosen = {name: form.format(name) for name in names}
        missing[form] = [file for file in chosen.values() if file not in files]
        if not missing[form]:
            return {name: storage.join(uri, file) for name, file in chosen.items()}
    fewest = min(missing.values(), key=len)
    raise ModelError(
        f"{uri}: missing {', '.join(fewest)}; the folder needs these beside {OPTIONS_FILE}, or all of its "
        "networks in the other form (eager latest_net_G1.pth …, serialized G1.pt …)"
    )


def _bytes(url: str, limit: int) -> bytes:
    try:
        size = storage.size(url)
        if size is not None and size > limit:
            raise ModelError(f"{url}: has {size} bytes; at most {limit} are read from such a file")
        return storage.read_bytes(url)
    except (StorageError, OSError) as error:
        raise ModelError(f"{url}: cannot be read ({error})") from error


def _text(uri: str, files: set[str]) -> str:
    if OPTIONS_FILE not in files:
        raise ModelError(f"{uri}: missing {OPTIONS_FILE}; a model folder holds it beside its networks")
    url = storage.join(uri, OPTIONS_FILE)
    try:
        return _bytes(url, MAX_OPTIONS_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{url}: not a text file in UTF-8 ({error})") from error


def _read(url: str) -> dict[str, Tensor]:
    """Return the learned tensors of the network at ``url``, in order of name, running statistics left out."""
    data = _bytes(url, MAX_BYTES)
    state = read_torchscript(data, url) if url.endswith(".pt") else read_state(data, url)
    if state and all(name.startswith("module.") for name in state):  # saved from DataParallel
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {name: state[name] for name in sorted(state) if name.rpartition(".")[2] not in _STATISTICS}


def _fingerprint(options: ModelOptions) -> bytes:
    """Everything but the weights that results depend on; names of files do not matter."""
    values = asdict(options)
    del values["segmenter_prefix"], values["first_segmenter"]
    return json.dumps(values, sort_keys=True).encode()


def _update(digest: "hashlib._Hash", state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)


def _build(spec: GeneratorSpec, state: dict[str, Tensor], url: str) -> nn.Module:
    """Return the network with ``state`` in it; its width is that of the first layer's weights."""
    if spec.norm == "spectral":
        state = _apply_spectral(state, url)
    first = state.get(FIRST_WEIGHT[spec.family])
    if first is None or first.dim() != 4 or not 0 < first.shape[0] <= MAX_WIDTH:
        raise ModelError(f"{url}: has no usable {FIRST_WEIGHT[spec.family]}; it is not a {spec.architecture}")
    spec = replace(spec, width=first.shape[0])
    problems: list[str] = []
    # Trained with dropout or not: it renumbers layers, and the options do not say it reliably.
    for dropout in (False, True):
        with torch.device("meta"):
            network = build_generator(replace(spec, dropout=dropout))
        found = _differences(network.state_dict(), state)
        if not found:
            floats = {name: tensor.to(torch.float32).contiguous() for name, tensor in state.items()}
            network.load_state_dict(floats, assign=True)
            return network.requires_grad_(False).eval()
        problems = problems or found
    listed = "; ".join(problems[:MAX_LISTED])
    more = f"; and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
    raise ModelError(
        f"{url}: does not fit the network that {OPTIONS_FILE} describes ({spec.architecture}, norm "
        f"{spec.norm}, padding {spec.padding}, upsample {spec.upsample}): {listed}{more}"
    )


def _differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is unexpected" for name in state if name not in expected]
    for name, tensor in expected.items():
        if name not in state:
            continue
        if state[name].shape != tensor.shape:
            problems.append(f"{name} has shape {list(state[name].shape)}, not {list(tensor.shape)}")
        elif not state[name].is_floating_point():
            problems.append(f"{name} holds {state[name].dtype}, not floats")
    return problems


def _apply_spectral(state: Mapping[str, Tensor], url: str) -> dict[str, Tensor]:
    """Divide each weight by its spectral norm, as the layer does at inference (Miyato et al. 2018)."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, found, part = name.partition(_SPECTRAL)
        if not found:
            result[name] = tensor
        elif part == "original":
            left, right = (state.get(f"{layer}{_SPECTRAL}0.{vector}") for vector in ("_u", "_v"))
            transposed = left is not None and tensor.dim() == 4 and left.shape != tensor.shape[:1]
            matrix = (tensor.transpose(0, 1) if transposed else tensor).flatten(1).float()
            if left is None or right is None or (*left.shape, *right.shape) != tuple(matrix.shape):
                raise ModelError(f"{url}: the spectral norm of {layer} is missing or of another shape")
            result[f"{layer}.weight"] = tensor / torch.dot(left.float(), matrix @ right.float())
    return result
