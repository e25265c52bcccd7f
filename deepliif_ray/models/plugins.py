"""Models of other packages: installed beside this one, and named like its own.

A package offers a model by an entry point of the group ``deepliif_ray.models``. Its name is what ``--model``
takes, or what ``architecture`` of a bundle's ``model.json`` says. A bundle may come from anywhere and
importing a module runs it, so the bundle names no module: whoever installs packages decides what there is to
run. ``examples/onnx_engine.py`` is such a package in one file.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from deepliif_ray.errors import ModelError
from deepliif_ray.models.base import Model
from deepliif_ray.storage import shown

GROUP = "deepliif_ray.models"
_VALUES = (
    "name", "digest", "device", "precision", "modality_names", "background_marker", "has_marker",
    "native",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What an entry point is called with; it returns a `Model`.

    Parameters
    ----------
    folder : str, optional
        URL of the bundle that names the entry point; None if it was named itself.
    described : mapping
        The bundle's ``model.json``, not checked.
    modalities : sequence of str
        What `Model.infer` will be asked for beside segmentation and marker.
    device, precision, batch_size
        As `deepliif_ray.load_model` takes them; None where nobody said.
    """

    folder: str | None = None
    described: Mapping[str, Any] = field(default_factory=dict)
    modalities: Sequence[str] = ()
    device: str | None = None
    precision: str | None = None
    batch_size: int | None = None


def offered() -> dict[str, str]:
    """Return the names that installed packages offer, and which package does."""
    return {entry.name: f"of the package {_package(entry)}" for entry in _installed(tuple(sys.path))}


def make(name: str, request: Request) -> Model:
    """Return the model that an installed package makes.

    Raises
    ------
    ModelError
        No package offers one of this name, several do, or what it makes is no model.
    """
    what = f"model {name!r}" if request.folder is None else f"{request.folder}: architecture {shown(name)}"
    found = {entry.value: entry for entry in _installed(tuple(sys.path)) if entry.name == name}
    if len(found) != 1:
        packages = ", ".join(sorted(map(_package, found.values())))
        why = f"{packages} all offer it" if found else "none offers it"
        raise ModelError(
            f"{what} is to come from an installed package, and {why}; packages offer models by entry points "
            f"of the group {GROUP}"
        )
    (entry,) = found.values()
    what = f"{what} of the package {_package(entry)}"
    try:
        model = entry.load()(request)
    except (ImportError, AttributeError, TypeError) as error:
        raise ModelError(f"{what} cannot be made ({error})") from error
    lacking = [value for value in (*_VALUES, "infer") if not hasattr(model, value)]
    if lacking:
        raise ModelError(f"{what} lacks {', '.join(lacking)}; see deepliif_ray.models.base.Model")
    made: Model = model
    return made


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return what packages offer; finding it reads a file of every package that is installed."""
    return tuple(entry_points(group=GROUP))


def _package(entry: EntryPoint) -> str:
    return entry.value if entry.dist is None else str(entry.dist.name)
