"""Models: tiles in, segmentation and marker maps out.

`load_model` takes the URL of a model bundle or of a published model folder, or a registered model's name.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deepliif_ray import storage
from deepliif_ray.errors import ModelError
from deepliif_ray.models import plugins
from deepliif_ray.models.base import Inference, Model, check_choice
from deepliif_ray.models.stain import Stain
from deepliif_ray.native import PUBLISHED, NativeView

__all__ = ["Inference", "Model", "check_model", "load_model", "native_view", "registered_models"]

_ZOO = Path(__file__).parent / "zoo"
_REGISTERED = {
    "compact": "small network shipped with its weights: segmentation and four modalities; see its card",
    "stain": "classical: color deconvolution, thresholds, watershed; nuclear markers; no weights, CPU only",
}


def registered_models() -> dict[str, str]:
    """Return the names that `load_model` knows without a folder, each with a one-line description.

    Those of this package come first; others offer theirs by entry points (`deepliif_ray.models.plugins`).
    """
    return {**plugins.offered(), **_REGISTERED}


def native_view(uri: str) -> NativeView:
    """Return how a model wants to see tissue, without a published folder's weights.

    Raises
    ------
    ModelError
        The bundle cannot be used.
    """
    from deepliif_ray.models.bundle import is_bundle  # slow to import

    model = load_model(uri, "cpu") if uri in registered_models() or is_bundle(uri) else None
    return PUBLISHED if model is None else model.native


def check_model(uri: str, device: str | None, precision: str | None) -> str:
    """Refuse at no cost what `load_model` is sure to refuse; return the model's name or absolute URL.

    Raises
    ------
    ConfigError
        The name of the device or precision is none.
    ModelError
        There is no model of this name or at this URL.
    StorageError
        The store of the URL does not answer.
    """
    check_choice(device, precision)
    known = registered_models()
    if uri in known:
        return uri
    url = storage.absolute(uri)
    if not storage.exists(url):
        raise ModelError(
            f"{uri}: no such model; use one of {', '.join(known)}, or the URL of a model bundle or a "
            "published model folder"
        )
    return url


def modalities_of(uri: str) -> tuple[str, ...] | None:
    """Return the names of the modalities that a model can make, without loading its weights.

    Returns
    -------
    tuple of str or None
        The names as `load_model` takes them; None of a model of another package, which alone knows.

    Raises
    ------
    ModelError
        The folder cannot be used.
    """
    if uri == Stain.name:
        return Stain.modality_names
    if uri not in _REGISTERED and uri in plugins.offered():
        return None
    from deepliif_ray.models.bundle import ARCHITECTURE, describe, is_bundle, spec_of
    from deepliif_ray.models.checkpoint import modality_names

    folder = str(_ZOO / uri) if uri in _REGISTERED else uri
    if not is_bundle(folder):
        return modality_names(folder)
    described = describe(folder)
    return spec_of(described, folder).modalities if described.get("architecture") == ARCHITECTURE else None


def load_model(
    uri: str,
    device: str | None = None,
    precision: str | None = None,
    modalities: Sequence[str] = (),
    batch_size: int | None = None,
) -> Model:
    """Load a model.

    Parameters
    ----------
    uri : str
        Name of a registered model, or URL or path of a model bundle or a published model folder. Installed
        packages may offer more names, and more architectures of bundles.
    device : str, optional
        ``cpu``, ``cuda`` or ``cuda:N``; by default the GPU if there is one.
    precision : str, optional
        ``float32`` or ``bfloat16``; by default bfloat16 on a GPU made for it, else float32. On one kind of
        device, a tile's result at one precision does not depend on its batch or the number of threads.
    modalities : sequence of str
        Modalities that `Model.infer` will be asked for; the marker needs no mention.
    batch_size : int, optional
        Tiles that networks run at once on a GPU, which bounds its memory; 8 when not given.

    Raises
    ------
    ConfigError
        The device, precision or a modality is not to be had.
    ModelError
        The folder cannot be used; the message names the files.
    """
    check_choice(device, precision)
    if uri == Stain.name:
        return Stain(modalities)
    request = plugins.Request(
        modalities=modalities, device=device, precision=precision, batch_size=batch_size
    )
    if uri not in _REGISTERED and uri in plugins.offered():
        return plugins.make(uri, request)
    # PyTorch is slow to import, and only networks need it.
    from deepliif_ray.models.bundle import ARCHITECTURE, describe, is_bundle, read_bundle
    from deepliif_ray.models.checkpoint import load_checkpoint
    from deepliif_ray.models.compact import Compact
    from deepliif_ray.models.deepliif import DeepLIIF
    from deepliif_ray.models.device import choose_device, choose_precision

    folder = str(_ZOO / uri) if uri in _REGISTERED else uri
    described = describe(folder) if is_bundle(folder) else None
    if described is not None:
        architecture = described.get("architecture")
        if isinstance(architecture, str) and architecture != ARCHITECTURE:
            return plugins.make(architecture, replace(request, folder=folder, described=described))
    chosen = choose_device(device)
    chosen_precision = choose_precision(precision, chosen)
    model: Compact | DeepLIIF
    if described is not None:
        model = Compact(read_bundle(folder, described), modalities, chosen, chosen_precision)
    else:
        name = uri.rstrip("/").rpartition("/")[2] or uri
        model = DeepLIIF(name, load_checkpoint(folder, modalities), chosen, chosen_precision)
    if batch_size is not None and chosen.type == "cuda":
        model.batch_size = batch_size
    return model
