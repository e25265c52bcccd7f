"""Stain around nuclei: the rim within 2 µm of a nucleus, and the cytoplasm, which reaches to 4 µm.

A nucleus is a component as `deepliif_ray.cells.seams` joins it, holes included, whatever its size. A pixel
of no nucleus belongs to the nearest nucleus pixel, by the Euclidean distance between the pixels' centres; of
several that are as near, to the first in row order. So a pixel has one owner, expansions do not overlap, and
whose it is follows from positions alone, before anybody knows which nuclei are one.

A core settles each pixel that has a nucleus pixel nearer than the nearest pixel of another core. The others
lie along its sides. They are kept with their stain, and settled when cores are joined
(`deepliif_ray.cells.rim_seams`). A region that is not classified may turn out to be a hole, and then
nothing in it is rim, so what is counted is kept by region and nucleus.
"""

import math
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.cells.nearest import RIM_COLUMNS, asked_pixels, settle_rims

RIM_UM, CYTOPLASM_UM = 2.0, 4.0
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class RimReach:
    """How far rims and cytoplasm reach, in pixels.

    Attributes
    ----------
    rim_squared, cytoplasm_squared : int
        Largest squared distance to the nearest nucleus pixel.
    """

    rim_squared: int
    cytoplasm_squared: int

    @classmethod
    def at(cls, mpp: float) -> Self:
        """Return the reach on a slide of ``mpp`` µm per pixel."""
        return cls(int((RIM_UM / mpp) ** 2), int((CYTOPLASM_UM / mpp) ** 2))

    @property
    def pixels(self) -> int:
        """Rows or columns between a pixel and its nucleus, at most."""
        return math.isqrt(self.cytoplasm_squared)

    @property
    def limits(self) -> tuple[int, int, int]:
        """``pixels``, ``rim_squared`` and ``cytoplasm_squared``."""
        return self.pixels, self.rim_squared, self.cytoplasm_squared


_Rims = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint16]]
_NO_RIMS = np.empty((0, RIM_COLUMNS), dtype=np.int64)


def rims_of_core(
    labels: NDArray[np.int32],
    is_nucleus: NDArray[np.bool_],
    rgb: NDArray[np.uint8] | None,
    shared: NDArray[np.bool_],
    reach: RimReach | None,
    stains: NDArray[np.int64],
) -> _Rims:
    """Return ``rims``, ``frame_labels`` and ``frame_asked`` of `deepliif_ray.cells.fragments.CoreFragments`.

    Parameters
    ----------
    labels : ndarray of int32, shape (H, W)
        Fragments of a core; 0 is background.
    is_nucleus : ndarray of bool, shape (F + 1,)
        Of each label.
    rgb : ndarray of uint8, shape (H, W, 3), optional
    shared : ndarray of bool, shape (4,)
        Whether the left, top, right and bottom side is shared with another core.
    reach : RimReach, optional
    stains : ndarray of int64, shape (3, 2, 256)
        See `asked_pixels`.
    """
    if rgb is None or reach is None:
        return _NO_RIMS, np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint16)
    nuclei = is_nucleus[labels]
    asked = asked_pixels(np.ascontiguousarray(rgb), nuclei, stains)
    themselves = np.arange(len(is_nucleus), dtype=np.int32)
    rows = 0, len(labels)
    rims = settle_rims(labels, themselves, nuclei, asked, rows, shared, *reach.limits)
    return rims, to_frame(labels, shared, 2 * reach.pixels), to_frame(asked, shared, reach.pixels)


def rims_of_blank(
    fragment: int, shape: tuple[int, int], shared: NDArray[np.bool_], reach: RimReach | None
) -> _Rims:
    """Return the same of a core of ``shape`` that is one region, of no nucleus, and has a density of 0."""
    depths = (0, 0) if reach is None else (2 * reach.pixels, reach.pixels)
    labels, asked = (
        to_frame(np.full(shape, value, dtype=dtype), shared, depth)
        for value, dtype, depth in zip((fragment, 1), (np.int32, np.uint16), depths, strict=True)
    )
    return _NO_RIMS, labels, asked


def frame(shape: tuple[int, int], shared: NDArray[np.bool_], depth: int) -> tuple[tuple[slice, slice], ...]:
    """Return the parts of a core within ``depth`` pixels of its shared sides: four separate rectangles.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the core.
    shared : ndarray of bool, shape (4,)
        Whether the left, top, right and bottom side are.
    depth : int
    """
    height, width = shape
    left, top, right, bottom = (depth if side else 0 for side in shared.tolist())
    upper, inner = min(top, height), min(left, width)
    lower, outer = max(upper, height - bottom), max(inner, width - right)
    across, middle = slice(0, width), slice(upper, lower)
    return (
        (slice(0, upper), across),
        (slice(lower, height), across),
        (middle, slice(0, inner)),
        (middle, slice(outer, width)),
    )


def to_frame(image: NDArray[_T], shared: NDArray[np.bool_], depth: int) -> NDArray[_T]:
    """Return the pixels of an image of a core that lie in its `frame`, flat."""
    height, width = image.shape
    return np.concatenate([image[part].reshape(-1) for part in frame((height, width), shared, depth)])


def from_frame(
    flat: NDArray[_T], shape: tuple[int, int], shared: NDArray[np.bool_], depth: int
) -> NDArray[_T]:
    """Return the image that `to_frame` took pixels from, 0 elsewhere."""
    image = np.zeros(shape, dtype=flat.dtype)
    begin = 0
    for part in frame(shape, shared, depth):
        target = image[part]
        target[...] = flat[begin : begin + target.size].reshape(target.shape)
        begin += target.size
    return image
