"""Stain around nuclei: the rim within 2 µm of a nucleus, and the cytoplasm, which reaches to 4 µm.

A nucleus is a component as `deepliif_ray.cells.seams` joins it, holes included, whatever its size. A pixel of no
nucleus belongs to the nearest nucleus pixel, by the Euclidean distance between the pixels' centres; of several
that are as near, to the first in row order. So a pixel has one owner, expansions do not overlap, and whose it is
follows from positions alone, before anybody knows which nuclei are one.

A core settles each pixel that has a nucleus pixel nearer than the nearest pixel of another core. The others lie along
its sides. They are kept with their stain, and settled when cores are joined (`deepliif_ray.cells.rim_seams`). A pixel
of a region that is not known to be background counts for a nucleus only once that region turns out to be no hole, so
what is counted is kept by region and nucleus.
"""

import math
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

RIM_UM, CYTOPLASM_UM = 2.0, 4.0
STAINED_OD = 0.2
"""DAB optical density from which a pixel of the rim is stained; QuPath's for 1+, as in schemas/markers.yaml."""
RIM_SCALE = 1000
"""Optical densities around nuclei are summed as integers in units of 1/RIM_SCALE, rounded pixel by pixel: what is kept of
the sides of cores takes half the space that millionths would."""
RIM_NUMBERS = ("rim", "rim_dab", "rim_stained", "cytoplasm", "cytoplasm_dab")
"""What is counted of each nucleus, as `deepliif_ray.cells.measures.NUMBERS` calls it: pixels, their DAB, 100 for each
stained one (a sum of percents); and of the cytoplasm, the rim included, pixels and their DAB."""
RIM_COLUMNS = 2 + len(RIM_NUMBERS)
"""Columns of an array of rims: a region that is no nucleus (0: background), a nucleus, and `RIM_NUMBERS`."""

_STAINED = round(STAINED_OD * RIM_SCALE)
_NONE = np.iinfo(np.int16).max
_FAR = 2**40
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
        """Rows or columns that lie between a pixel and its nucleus, at most."""
        return math.isqrt(self.cytoplasm_squared)


@njit(cache=True)
def asked_pixels(
    rgb: NDArray[np.uint8], labels: NDArray[np.int32], is_nucleus: NDArray[np.bool_], stains: NDArray[np.int64]
) -> NDArray[np.uint16]:
    """Return 1 plus the DAB of every pixel that is of no nucleus, in units of 1/RIM_SCALE, and 0 of the others.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    labels : ndarray of int32, shape (H, W)
    is_nucleus : ndarray of bool, shape (N,)
        Of each label.
    stains : ndarray of int64, shape (3, 2, 256)
        Parts of DAB in millionths: `deepliif_ray.cells.fragments.STAINS`.
    """
    height, width = labels.shape
    asked = np.zeros((height, width), dtype=np.uint16)
    for y in range(height):
        for x in range(width):
            if not is_nucleus[labels[y, x]]:
                dab = stains[0, 1, rgb[y, x, 0]] + stains[1, 1, rgb[y, x, 1]] + stains[2, 1, rgb[y, x, 2]]
                asked[y, x] = 1 + (max(0, dab) + 500) // 1000
    return asked


@njit(cache=True)
def _vertical(
    labels: NDArray[np.int32], is_nucleus: NDArray[np.bool_], y0: int, y1: int, reach: int
) -> NDArray[np.int16]:
    """Return how many rows down the nearest nucleus pixel of the column is (up: negative); up where both are."""
    height, width = labels.shape
    offsets = np.empty((y1 - y0, width), dtype=np.int16)
    last = np.full(width, -_FAR, dtype=np.int64)  # row of the last nucleus pixel above, then below
    for y in range(max(0, y0 - reach), y1):
        for x in range(width):
            if is_nucleus[labels[y, x]]:
                last[x] = y
            if y >= y0:
                offsets[y - y0, x] = last[x] - y if y - last[x] <= reach else _NONE
    last[:] = _FAR
    for y in range(min(height, y1 + reach) - 1, y0 - 1, -1):
        for x in range(width):
            if is_nucleus[labels[y, x]]:
                last[x] = y
            if y < y1:
                down = last[x] - y
                if down <= reach and down < abs(offsets[y - y0, x]):
                    offsets[y - y0, x] = down
    return offsets


@njit(cache=True)
def settle_rims(
    labels: NDArray[np.int32],
    roots: NDArray[np.int32],
    is_nucleus: NDArray[np.bool_],
    asked: NDArray[np.uint16],
    rows: tuple[int, int],
    shared: NDArray[np.bool_],
    rim_squared: int,
    cytoplasm_squared: int,
) -> NDArray[np.int64]:
    """Count the asked pixels whose nearest nucleus is certain; 0 is then written over them.

    Parameters
    ----------
    labels : ndarray of int32, shape (H, W)
    roots : ndarray of int32, shape (N,)
        What each label stands for.
    is_nucleus : ndarray of bool, shape (N,)
        Of each label.
    asked : ndarray of uint16, shape (H, W)
        See `asked_pixels`; written to.
    rows : tuple of int
        First and last row to look at, half-open.
    shared : ndarray of bool, shape (4,)
        Whether beyond the left, top, right and bottom side there may be nuclei that are not seen here.
    rim_squared, cytoplasm_squared : int
        See `RimReach`.

    Returns
    -------
    ndarray of int64, shape (P, RIM_COLUMNS)
        A row for each pair of region and nucleus, by what they stand for.
    """
    height, width = labels.shape
    y0, y1 = rows
    reach = np.int64(math.sqrt(cytoplasm_squared))
    far = height + width + reach
    offsets = _vertical(labels, is_nucleus, y0, y1, reach)
    found = np.zeros((64, RIM_COLUMNS), dtype=np.int64)
    following = np.empty(64, dtype=np.int64)  # the next row of `found` of the same nucleus
    newest = np.full(len(roots), -1, dtype=np.int64)  # the last one, by nucleus
    used = 0
    gaps = np.empty(width, dtype=np.int64)
    for y in range(y0, y1):
        line = offsets[y - y0]
        gap = far  # columns to the next one that has a nucleus pixel within reach
        for x in range(width):
            gap = 0 if line[x] != _NONE else gap + 1
            gaps[x] = gap
        gap = far
        for x in range(width - 1, -1, -1):
            gap = 0 if line[x] != _NONE else gap + 1
            gaps[x] = min(gaps[x], gap)
        above = y + 1 if shared[1] else far
        below = height - y if shared[3] else far
        for x in range(width):
            if asked[y, x] == 0:
                continue
            nearest = cytoplasm_squared + 1
            down = right = 0
            for step in range(gaps[x], reach + 1):
                if step * step > nearest:
                    break
                for side in range(2 if step else 1):
                    column = x + step if side else x - step
                    if column < 0 or column >= width or line[column] == _NONE:
                        continue
                    offset = np.int64(line[column])
                    distance = step * step + offset * offset
                    # Left comes before right, so of equal ones in one row the first is there already.
                    if distance < nearest or (distance == nearest and offset < down):
                        nearest, down, right = distance, offset, column - x
            outside = min(above, below)
            if shared[0]:
                outside = min(outside, x + 1)
            if shared[2]:
                outside = min(outside, width - x)
            if outside * outside <= min(nearest, cytoplasm_squared):
                continue
            dab = np.int64(asked[y, x]) - 1
            asked[y, x] = 0
            if nearest > cytoplasm_squared:
                continue
            region, nucleus = roots[labels[y, x]], roots[labels[y + down, x + right]]
            row = newest[nucleus]
            while row >= 0 and found[row, 0] != region:
                row = following[row]
            if row < 0:
                if used == len(found):
                    found = np.concatenate((found, np.zeros_like(found)))
                    following = np.concatenate((following, np.empty_like(following)))
                row = used
                used += 1
                found[row, 0], found[row, 1] = region, nucleus
                following[row] = newest[nucleus]
                newest[nucleus] = row
            if nearest <= rim_squared:
                found[row, 2] += 1
                found[row, 3] += dab
                found[row, 4] += 100 if dab >= _STAINED else 0
            found[row, 5] += 1
            found[row, 6] += dab
    return found[:used]


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
    asked = asked_pixels(np.ascontiguousarray(rgb), labels, is_nucleus, stains)
    themselves = np.arange(len(is_nucleus), dtype=np.int32)
    rows = 0, len(labels)
    rims = settle_rims(
        labels, themselves, is_nucleus, asked, rows, shared, reach.rim_squared, reach.cytoplasm_squared
    )
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


def frame(
    shape: tuple[int, int], shared: NDArray[np.bool_], depth: int
) -> tuple[tuple[slice, slice], ...]:
    """Return the parts of a core within ``depth`` pixels of its shared sides: four rectangles, none overlapping.

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
