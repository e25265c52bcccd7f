"""Published default thresholds, from counts that can be added up over cores."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepliif_ray.errors import ConfigError

Resolution = Literal["40x", "20x", "10x"]
_LARGE_NOISE = {"40x": 16000, "20x": 4000, "10x": 1000}
_SQRT_SIZE_RANGE = {"40x": (4, 7, 10), "20x": (3, 4, 6), "10x": (2, 2, 3)}  # least, default, most
_KDE_POINTS = 500
_MPP_40X = 0.25
LEAST_CELL = 128
"""px at 40x: 8 µm². What is larger counts as a cell, where sizes are areas. The published rule looks for a
gap in the sizes of a slide's own cells; on small fields it finds another one for the slightest change of
light, and a tenth of the cells came and went with it. Of 20 to 240 px, 100 to 160 found most cells of seven
training tiles (detection quality 0.493 to 0.497; 0.476 at 49 px, 0.469 at 240)."""


@dataclass(frozen=True)
class SizeRules:
    """The published size rules at one scale.

    Attributes
    ----------
    resolution : {'40x', '20x', '10x'}
        Whose numbers apply.
    factor : float
        Pixels that one pixel of those numbers stands for: 1 where the published numbers apply as they are.
    least : int, optional
        A cell is larger than this, px at 40x; None: the published rule derives it from the cells.
    """

    resolution: str
    factor: float = 1.0
    least: int | None = None

    @classmethod
    def physical(cls, mpp: float) -> "SizeRules":
        """Return the rules of 40x as areas: a pixel of theirs is 0.0625 µm², whatever the slide's are."""
        return cls("40x", (_MPP_40X / mpp) ** 2, LEAST_CELL)

    def pixels(self, size: int) -> int:
        """Return a size that is meant at the rules' own scale in pixels of the slide."""
        return round(size * self.factor)

    def large_noise(self, value: int | str | None) -> int | None:
        """Return `large_noise_threshold` in pixels of the slide."""
        limit = large_noise_threshold(value, self.resolution)
        return None if limit is None else self.pixels(limit)

    def size_threshold(self, values: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
        """Return in pixels of the slide what a counted cell is larger than."""
        if self.least is not None:
            return self.pixels(self.least)
        return size_threshold_of_counts(values, counts, self.resolution, self.factor)


def large_noise_threshold(value: int | str | None, resolution: str) -> int | None:
    """Return the size in pixels from which a component is noise, or None for no limit.

    Parameters
    ----------
    value : int, 'default' or None
    resolution : {'40x', '20x', '10x'}

    Raises
    ------
    ConfigError
        ``value`` or ``resolution`` is none of these.
    """
    if resolution not in _LARGE_NOISE:
        raise ConfigError(f"resolution is {resolution!r}; use one of {', '.join(_LARGE_NOISE)}")
    if value == "default":
        return _LARGE_NOISE[resolution]
    if value is None or (isinstance(value, int) and value > 0):
        return value
    raise ConfigError(f"large_noise_thresh is {value!r}; use a positive number of pixels, 'default' or None")


@njit(cache=True)
def _density(roots: NDArray[np.float64], counts: NDArray[np.int64], step: float) -> NDArray[np.float32]:
    density = np.zeros(_KDE_POINTS, dtype=np.float32)
    total = counts.sum()
    for i in range(_KDE_POINTS):
        at = i * step
        value = 0.0
        for j in range(roots.shape[0]):
            distance = at - roots[j]
            value += counts[j] * (np.exp(-(distance * distance / 2)) / np.sqrt(2 * np.pi))
        density[i] = value / total
    return density


class SizeCounts:
    """How many cells have each size, and how many of those are positive by majority.

    What the thresholds and counts of a slide need of its cells, whatever their number.
    """

    def __init__(self) -> None:
        self._counts: dict[int, tuple[int, int]] = {}

    def add(self, area: NDArray[np.int64], positive: NDArray[np.bool_]) -> None:
        """Count cells by their sizes in pixels; ``positive`` tells which are so by majority."""
        values, place, counts = np.unique(area, return_inverse=True, return_counts=True)
        positives = np.bincount(place, weights=positive, minlength=len(values)).astype(np.int64)
        for value, count, of_these in zip(values.tolist(), counts.tolist(), positives.tolist(), strict=True):
            known = self._counts.get(value, (0, 0))
            self._counts[value] = known[0] + count, known[1] + of_these

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the sizes, ascending, the cells of each, and the positive ones among them."""
        sizes = sorted(self._counts)
        table = np.array([self._counts[size] for size in sizes], dtype=np.int64).reshape(-1, 2)
        return np.array(sizes, dtype=np.int64), table[:, 0], table[:, 1]


def size_threshold(sizes: NDArray[np.int64], resolution: str) -> int:
    """Return the published default size threshold in pixels.

    The first minimum of a Gaussian kernel density (bandwidth 1) of the square roots of the sizes, kept in
    the range that the resolution allows.

    Parameters
    ----------
    sizes : ndarray of int64, shape (N,)
        Sizes in pixels of all cells; their order does not matter.
    resolution : {'40x', '20x', '10x'}
    """
    values, counts = np.unique(sizes, return_counts=True)
    return size_threshold_of_counts(values, counts, resolution)


def size_threshold_of_counts(
    values: NDArray[np.int64], counts: NDArray[np.int64], resolution: str, factor: float = 1.0
) -> int:
    """Return `size_threshold` of ``counts`` cells of each of the sizes ``values``, distinct and ascending.

    ``factor`` is the number of pixels of these sizes that make one of the published ones.
    """
    if counts.sum() < 2:
        return 0
    roots = np.sqrt(values / factor)
    step = float((roots[-1] + 1) / _KDE_POINTS)
    density = _density(roots, counts, step)
    inner = density[1:-1]
    minima = np.flatnonzero((inner < density[:-2]) & (inner < density[2:]))
    root = float((minima[0] if len(minima) else 0) * step)  # one point before the minimum
    least, default, most = _SQRT_SIZE_RANGE[resolution]
    if root < least:
        root = least
    elif root > most:
        root = default
    return round(root * root * factor)


def marker_threshold(histogram: NDArray[np.int64]) -> int:
    """Return the published default marker threshold.

    90 % of the way from the 0.1 to the 99.9 percentile of the marker image's non-zero pixels.

    Parameters
    ----------
    histogram : ndarray of int64, shape (256,)
        Pixels by marker value.
    """
    cumulative = np.cumsum(histogram[1:])
    total = int(cumulative[-1])
    if total == 0:
        return 0

    def percentile(percent: float) -> int:
        rank = percent / 100 * (total - 1)
        below = int(rank)
        low, high = (
            int(np.searchsorted(cumulative, r, side="right")) + 1 for r in (below, min(below + 1, total - 1))
        )
        return round(low + (high - low) * (rank - below))

    low, high = percentile(0.1), percentile(99.9)
    return round((high - low) * 0.9) + low
