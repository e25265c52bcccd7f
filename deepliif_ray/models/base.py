"""What every model offers, whatever is inside."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.config import DEVICE, Precision
from deepliif_ray.errors import ConfigError
from deepliif_ray.native import NativeView

PRECISIONS = get_args(Precision)
UInt8Array = NDArray[np.uint8]


@dataclass(frozen=True)
class Inference:
    """What a model found in N tiles of H×W pixels (H = W).

    Parameters
    ----------
    seg : numpy.ndarray
        uint8 (N, H, W, 3): red positive, blue negative, green boundary, black background.
    marker : numpy.ndarray or None
        uint8 (N, H, W): greatest channel of the marker image; None if the model has no marker.
    modalities : dict of str to numpy.ndarray
        The modalities that were asked for, each uint8 (N, H, W, 3).
    """

    seg: UInt8Array
    marker: UInt8Array | None
    modalities: dict[str, UInt8Array] = field(default_factory=dict)


class Model(Protocol):
    """A model that can be asked about tiles. A tile's result depends on that tile alone.

    Attributes
    ----------
    name : str
        Name for people.
    digest : str
        Hexadecimal digits that change when results could; they do not cover ``precision``.
    device, precision : str
        Where and how it computes.
    modality_names : tuple of str
        Modalities that `infer` can return.
    background_marker : int
        Marker value (0–255) that published software gives to a tile it skips as empty.
    has_marker : bool
        Whether `infer` returns a marker map.
    native : NativeView
        How it wants to see tissue: scale, hematoxylin and glass.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def modality_names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def background_marker(self) -> int: ...  # noqa: D102
    @property
    def has_marker(self) -> bool: ...  # noqa: D102
    @property
    def native(self) -> NativeView: ...  # noqa: D102

    def infer(self, tiles: UInt8Array, modalities: Sequence[str] = ()) -> Inference:
        """Return segmentation, marker map and the named modalities of ``tiles``, uint8 (N, H, W, 3).

        Raises
        ------
        ConfigError
            ``tiles`` has another shape or dtype, or a modality is not to be had.
        ModelError
            Inference failed, for example for want of memory.
        """
        ...


def check_tiles(tiles: UInt8Array, modalities: Sequence[str], known: Sequence[str], name: str) -> None:
    """Refuse what `Model.infer` cannot take.

    Raises
    ------
    ConfigError
        ``tiles`` is not uint8 (N, H, W, 3) with H = W > 0, or a modality is not among ``known``.
    """
    shape = tiles.shape
    if tiles.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or not shape[1]:
        raise ConfigError(f"tiles are {tiles.dtype} {shape}; uint8 (N, H, W, 3) with H = W was expected")
    unknown = [modality for modality in modalities if modality not in known]
    if unknown:
        raise ConfigError(
            f"{name}: modality {', '.join(unknown)} is not loaded; load_model(..., modalities=[...]) loads "
            f"those that the model has (loaded now: {', '.join(known) or 'none'})"
        )


def check_choice(device: str | None, precision: str | None) -> None:
    """Refuse the name of a device or precision that no model knows.

    Raises
    ------
    ConfigError
        ``device`` is not ``cpu``, ``cuda`` or ``cuda:N``, or ``precision`` not one of `PRECISIONS`.
    """
    if device is not None and not re.fullmatch(DEVICE, device):
        raise ConfigError(f"device {device!r} is not supported; use cpu, cuda or cuda:N")
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r} is not known; use {' or '.join(PRECISIONS)}")
