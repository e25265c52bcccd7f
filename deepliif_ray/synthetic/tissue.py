"""Procedural IHC tissue with known truth, for demonstrations, tests and measurements of scale.

Everything is a function of the seed and of the position, so any rectangle of a slide of any size can be
rendered alone and is the same each time. Pixels are mixed in optical-density space with the stain vectors of
Ruifrok & Johnston (2001): hematoxylin in every nucleus and faintly in the stroma, DAB in positive nuclei, or,
for membranous and cytoplasmic markers, around and faintly over positive nuclei.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.errors import ConfigError
from deepliif_ray.synthetic.appearance import (
    BLOCK,
    SHAPES,
    TEXTURES,
    Sprites,
    color_table,
    sensor_noise,
    sprites,
    stroma,
)

TRUTH_DTYPE = np.dtype([("x", "f8"), ("y", "f8"), ("radius", "f8"), ("positive", "?")])

_SPACING_UM = 9.6
_JITTER = 0.24
_COARSE = 16
# What each hash of a position decides.
_SALTS = {name: salt for salt, name in enumerate(("x", "y", "there", "shape", "dark", "positive", "dab"))}
_TISSUE, _HOTSPOT = 101, 102


class SyntheticTissue:
    """An image of IHC-stained tissue, rendered as it is sliced.

    Parameters
    ----------
    width, height : int
        Pixels.
    seed : int
        Everything follows from it.
    mpp : float
        Micrometres per pixel; nuclei keep their size in µm.
    positive_percent : float
        About how many of 100 nuclei are positive; `truth` has the actual ones.
    localisation : str
        Where DAB lies: ``nuclear``, ``membranous`` or ``cytoplasmic``.
    density : float
        Share of the places for nuclei that are taken, 0 to 1.
    coverage : float
        About how much of the image is tissue, 0 to 1; the rest is glass.

    Raises
    ------
    ConfigError
        A parameter is out of range.
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        seed: int = 0,
        mpp: float = 0.25,
        positive_percent: float = 30.0,
        localisation: str = "nuclear",
        density: float = 0.7,
        coverage: float = 0.7,
    ) -> None:
        if width < 1 or height < 1:
            raise ConfigError(f"synthetic tissue of {width} × {height} pixels: there is nothing to render")
        if localisation not in ("nuclear", "membranous", "cytoplasmic"):
            raise ConfigError(f"localisation {localisation!r} is not nuclear, membranous or cytoplasmic")
        if not (0 <= positive_percent <= 100 and 0 <= density <= 1 and 0 <= coverage <= 1):
            raise ConfigError("positive_percent must be within 0 to 100, density and coverage within 0 to 1")
        if not 0.1 <= mpp <= 1.0:
            raise ConfigError(f"mpp {mpp} is not within 0.1 to 1")
        self.width, self.height, self.seed, self.mpp = width, height, seed, mpp
        self._positive = positive_percent / 100
        self._density = density
        self._coverage = coverage
        self._spacing = _SPACING_UM / mpp
        self._sprites = sprites(mpp, localisation)
        self._stroma = tuple(stroma(part, mpp) for part in range(len(TEXTURES)))
        self._noise = sensor_noise()
        self._colors = color_table()

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(height, width, 3)``."""
        return self.height, self.width, 3

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.uint8]:
        """Render the pixels ``[y0:y1, x0:x1]``: uint8 RGB."""
        y0, y1, _ = key[0].indices(self.height)
        x0, x1, _ = key[1].indices(self.width)
        out = np.empty((max(0, y1 - y0), max(0, x1 - x0), 3), np.uint8)
        for top in range(y0 - y0 % BLOCK, y1, BLOCK):
            for left in range(x0 - x0 % BLOCK, x1, BLOCK):
                block = self._render(left, top)
                ys = max(top, y0), min(top + BLOCK, y1)
                xs = max(left, x0), min(left + BLOCK, x1)
                part = block[ys[0] - top : ys[1] - top, xs[0] - left : xs[1] - left]
                out[ys[0] - y0 : ys[1] - y0, xs[0] - x0 : xs[1] - x0] = part
        return out

    def truth(self) -> NDArray[np.void]:
        """Return every nucleus: fields ``x, y`` (centre) and ``radius`` in pixels, ``positive``."""
        return self._nuclei(0, 0, self.width, self.height).truth

    def _nuclei(self, x0: float, y0: float, x1: float, y1: float) -> "_Nuclei":
        """Return the nuclei whose centres lie in a rectangle.

        They sit on a jittered hexagonal lattice, each place's fate decided by a hash of its indices.
        """
        pitch = self._spacing * np.sqrt(0.75)
        rows = np.arange(np.floor(y0 / pitch) - 1, np.floor(y1 / pitch) + 2)
        columns = np.arange(np.floor(x0 / self._spacing) - 2, np.floor(x1 / self._spacing) + 2)
        j, i = (axis.ravel().astype(np.int64) for axis in np.meshgrid(rows, columns, indexing="ij"))
        u = {name: _uniform(self.seed, i, j, salt) for name, salt in _SALTS.items()}
        x = (i + 0.5 * (j % 2) + 0.5 + _JITTER * (2 * u["x"] - 1)) * self._spacing
        y = (j + 0.5) * pitch + _JITTER * (2 * u["y"] - 1) * self._spacing
        # Whole nuclei only: none is cut by the slide's edge.
        edge = self._sprites.reach
        there = (x >= max(x0, edge)) & (x < min(x1, self.width - edge))
        there &= (y >= max(y0, edge)) & (y < min(y1, self.height - edge))
        there &= u["there"] < self._density
        there[there] = self._tissue(x[there], y[there]) > 0.6
        x, y, u = x[there], y[there], {name: values[there] for name, values in u.items()}
        shape = (u["shape"] * SHAPES).astype(np.int64)
        # Positive nuclei gather: twice as likely in some places as in others.
        local = 0.65 + 0.7 * _smooth(self.seed, x, y, 160.0 / self.mpp, _HOTSPOT)
        truth = np.zeros(x.size, TRUTH_DTYPE)
        truth["x"], truth["y"] = x, y
        truth["radius"] = self._sprites.radius[shape]
        truth["positive"] = u["positive"] < self._positive ** (1 / np.maximum(local, 1e-6))
        return _Nuclei(truth, shape, u["dark"], u["dab"])

    def _tissue(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how much tissue there is at positions: 0 (glass) to 1."""
        large = _smooth(self.seed, x, y, 300.0 / self.mpp, _TISSUE)
        fine = _smooth(self.seed, x, y, 60.0 / self.mpp, _TISSUE + 50)
        # Noise of this make has its quantiles nearly on a straight line about one half.
        level = 0.5 + 0.62 * (0.5 - self._coverage)
        value = 0.8 * large + 0.2 * fine
        margin = np.minimum.reduce([x, y, self.width - x, self.height - y]) * self.mpp
        inside = np.clip((margin - 4.0) / 8.0, 0, 1) if self._coverage < 1 else 1.0
        return np.clip((value - level) * 40 + 0.5, 0, 1) * inside

    def _render(self, left: int, top: int) -> NDArray[np.uint8]:
        """Return the block of pixels whose top left corner is given, edge blocks in full."""
        tissue = self._tissue_block(left, top)
        hematoxylin = np.zeros((BLOCK, BLOCK), np.uint8)
        dab = np.zeros((BLOCK, BLOCK), np.uint8)
        if tissue is not None:
            for stain, plane in enumerate((hematoxylin, dab)):
                base = np.zeros((BLOCK, BLOCK), np.uint8)
                for part, size in zip(self._stroma, TEXTURES, strict=True):
                    y, x = top % size, left % size
                    base += part[stain][y : y + BLOCK, x : x + BLOCK]
                plane[:] = tissue * base
        reach = self._sprites.reach
        nuclei = self._nuclei(left - reach, top - reach, left + BLOCK + reach, top + BLOCK + reach)
        nuclei.stamp(self._sprites, hematoxylin, dab, left, top)
        index = hematoxylin.astype(np.uint16) << 8
        index |= dab
        rgb: NDArray[np.uint8] = self._colors[index]
        rgb += self._noise[(left + top) // BLOCK % len(self._noise)]
        return rgb

    def _tissue_block(self, left: int, top: int) -> NDArray[np.float32] | None:
        """Return the tissue of a block, float32 (256, 256), or None if it has none."""
        ticks = np.arange(BLOCK // _COARSE + 1) * _COARSE
        x, y = np.meshgrid(left + ticks.astype(float), top + ticks.astype(float))
        coarse = self._tissue(x, y).astype(np.float32)
        if not coarse.any():
            return None
        if coarse.min() == 1:
            return np.ones((BLOCK, BLOCK), dtype=np.float32)
        return (_UPSAMPLE @ coarse @ _UPSAMPLE.T).astype(np.float32, copy=False)


@dataclass(frozen=True)
class _Nuclei:
    """Nuclei and how each looks."""

    truth: NDArray[np.void]
    shape: NDArray[np.int64]
    dark: NDArray[np.float64]
    dab: NDArray[np.float64]

    @cached_property
    def strengths(self) -> tuple[list[int], list[int]]:
        """Strengths of hematoxylin and DAB in 256ths of a sprite's."""
        positive = self.truth["positive"]
        blue = np.where(positive, 25 + 55 * self.dark, 55 + 100 * self.dark)
        brown = np.where(positive, 80 + 170 * self.dab, 0)
        return blue.astype(int).tolist(), brown.astype(int).tolist()

    def stamp(
        self, sprites: Sprites, hematoxylin: NDArray[np.uint8], dab: NDArray[np.uint8], left: int, top: int
    ) -> None:
        """Draw the nuclei into the two stain planes of a block."""
        xs = np.floor(self.truth["x"]).astype(int).tolist()
        ys = np.floor(self.truth["y"]).astype(int).tolist()
        blues, browns = self.strengths
        for x, y, shape, blue, brown in zip(xs, ys, self.shape.tolist(), blues, browns, strict=True):
            x0, y0 = x - left - sprites.reach, y - top - sprites.reach
            _stamp(hematoxylin, sprites.nucleus[shape], x0, y0, blue)
            if brown:
                _stamp(dab, sprites.stained[shape], x0, y0, brown)


def _stamp(plane: NDArray[np.uint8], sprite: NDArray[np.uint8], x: int, y: int, strength: int) -> None:
    side = sprite.shape[0]
    rows = slice(max(0, y), max(0, min(plane.shape[0], y + side)))
    columns = slice(max(0, x), max(0, min(plane.shape[1], x + side)))
    part = plane[rows, columns]
    if part.size:
        cut = sprite[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        scaled = (cut * np.uint16(strength)) >> 8
        np.maximum(part, scaled.astype(np.uint8), out=part)


def _uniform(seed: int, i: NDArray[np.int64], j: NDArray[np.int64], salt: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each pair of indices: SplitMix64 of them, the seed and ``salt``."""
    mixer = np.uint64(0x9E3779B97F4A7C15)
    state = np.uint64((seed * 1_000_003 + salt) & 0xFFFFFFFFFFFFFFFF) * np.ones_like(i, np.uint64)
    for part in (i, j):
        state = (state ^ part.astype(np.uint64)) + mixer
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    uniform: NDArray[np.float64] = (state >> np.uint64(11)).astype(np.float64) / 2.0**53
    return uniform


def _smooth(
    seed: int, x: NDArray[np.float64], y: NDArray[np.float64], scale: float, salt: int
) -> NDArray[np.float64]:
    """Return value noise in [0, 1] that varies over ``scale`` pixels, at positions."""
    i, j = np.floor(x / scale).astype(np.int64), np.floor(y / scale).astype(np.int64)
    u, v = x / scale - i, y / scale - j
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    top = _uniform(seed, i, j, salt) * (1 - u) + _uniform(seed, i + 1, j, salt) * u
    bottom = _uniform(seed, i, j + 1, salt) * (1 - u) + _uniform(seed, i + 1, j + 1, salt) * u
    return top * (1 - v) + bottom * v


def _upsampling() -> NDArray[np.float32]:
    """Return the matrix that interpolates `_COARSE`-spaced values linearly to the pixels of a block."""
    place = np.arange(BLOCK) / _COARSE
    weights = 1 - np.abs(place[:, None] - np.arange(BLOCK // _COARSE + 1))
    matrix: NDArray[np.float32] = np.clip(weights, 0, 1).astype(np.float32)
    return matrix


_UPSAMPLE = _upsampling()
