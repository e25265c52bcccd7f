"""What synthetic IHC tissue is made of: stain colours, nuclei, stroma and sensor noise, rendered once."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepliif_ray.stains import DAB, HEMATOXYLIN

GLASS = (244, 243, 241)

BLOCK = 256
"""Side of the blocks that tissue is rendered in, pixels."""
SHAPES = 96
UNITS = 150.0
"""Concentrations are uint8 in steps of 1/150."""
TEXTURES = (1024, 1280)
"""Sides of the two parts of the stroma: multiples of the block whose common period is 5,120 px."""


@dataclass(frozen=True)
class Sprites:
    """Pre-rendered nuclei.

    Attributes
    ----------
    nucleus, stained : tuple of ndarray
        Strength of hematoxylin in each nucleus and of DAB in or around it: uint8, ``2 * reach + 1`` square.
    radius : ndarray of float64
        Radius in pixels of the disk as large as each nucleus.
    reach : int
        Pixels from the centre to the border of every sprite.
    """

    nucleus: tuple[NDArray[np.uint8], ...]
    stained: tuple[NDArray[np.uint8], ...]
    radius: NDArray[np.float64]
    reach: int


@lru_cache(maxsize=1)
def color_table() -> NDArray[np.uint8]:
    """Return RGB for each pair of hematoxylin and DAB concentrations, uint8 (65536, 3)."""
    steps = np.arange(256) / UNITS
    density = steps[:, None, None] * np.array(HEMATOXYLIN) + steps[:, None] * np.array(DAB)
    color = np.array(GLASS) * 10**-density
    # Room for the sensor noise, so that adding it cannot wrap around.
    table: NDArray[np.uint8] = np.clip(color.round(), 6, 249).astype(np.uint8).reshape(-1, 3)
    return table


@lru_cache(maxsize=1)
def sensor_noise() -> NDArray[np.uint8]:
    """Return noise of about one grey level, uint8 (7, 256, 256, 3) to be added modulo 256."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1.1, (7, BLOCK, BLOCK, 3)).round().clip(-5, 5)
    return noise.astype(np.int8).view(np.uint8)


@lru_cache(maxsize=4)
def stroma(part: int, mpp: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return part 0 or 1 of the stroma, tileable: hematoxylin and DAB, uint8 ``(TEXTURES[part],) * 2``."""
    rng, size = np.random.default_rng([2, part]), TEXTURES[part]

    def noise(sigma_um: float | tuple[float, float]) -> NDArray[np.float64]:
        sigma = np.divide(sigma_um, mpp)
        field = ndimage.gaussian_filter(rng.normal(size=(size, size)), sigma, mode="wrap")
        scaled: NDArray[np.float64] = field / field.std()
        return scaled

    rows, columns = np.indices((size, size), float)
    # Fibres: streaks along x, sheared and bent; a shear by the whole size keeps them tileable.
    bent = rows + (-1) ** part * columns + 3.0 / mpp * noise(12.0)
    fibres = ndimage.map_coordinates(noise((0.35, 6.0)), [bent, columns], order=1, mode="grid-wrap")
    clouds, fine = noise(5.0), noise(0.25)
    hematoxylin = 3.6 + 1.3 * clouds + 1.5 * fibres + 1.0 * fine
    dab = 2.4 + 0.7 * clouds + 0.8 * fibres
    return hematoxylin.clip(0, 60).astype(np.uint8), dab.clip(0, 60).astype(np.uint8)


@lru_cache(maxsize=8)
def sprites(mpp: float, localisation: str) -> Sprites:
    """Render the library of nuclei: ovals with wavy outlines and chromatin, 5 to 9 µm across."""
    rng = np.random.default_rng(3)
    reach = int(np.ceil(7.5 / mpp))
    axis = np.arange(-reach, reach + 1) + 0.0
    x, y = np.meshgrid(axis, axis)
    angle, distance = np.arctan2(y, x), np.hypot(x, y)
    nuclei, stained, radii = [], [], []
    for _ in range(SHAPES):
        radius = rng.choice([2.6, 3.3, 3.9], p=[0.3, 0.45, 0.25]) * rng.uniform(0.9, 1.12) / mpp
        stretch = rng.choice([1.05, 1.2, 1.6], p=[0.45, 0.4, 0.15]) * rng.uniform(0.95, 1.05)
        turned = angle - rng.uniform(0, np.pi)
        oval = radius / np.sqrt(stretch * np.cos(turned) ** 2 + np.sin(turned) ** 2 / stretch)
        for wave in (2, 3, 4, 5):
            oval = oval * (1 + rng.normal(0, 0.022) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi)))
        depth = oval - distance
        soft = 0.3 / mpp
        body = np.clip(0.5 + depth / (2 * soft), 0, 1)
        chromatin = ndimage.gaussian_filter(rng.normal(size=x.shape), 0.35 / mpp)
        chromatin = np.clip(1 + 0.14 * chromatin / chromatin.std(), 0.6, 1.4)
        rim = np.exp(-((depth - 0.5 / mpp) ** 2) / (2 * (0.4 / mpp) ** 2))
        nucleus = body * (0.72 * chromatin + 0.18 * rim)
        nuclei.append(_as_strength(nucleus))
        if localisation == "nuclear":
            coat = body * (0.8 * chromatin + 0.1 * rim)
        else:
            width = (0.9 if localisation == "membranous" else 1.8) / mpp
            ring = np.clip(0.5 + (depth + width) / (2 * soft), 0, 1) * (1 - 0.45 * body)
            coat = ring * np.clip(chromatin, 0.8, 1.1)
        stained.append(_as_strength(coat))
        radii.append(np.sqrt((body >= 0.5).sum() / np.pi))
    return Sprites(tuple(nuclei), tuple(stained), np.array(radii), reach)


def _as_strength(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return (values * 225).clip(0, 255).astype(np.uint8)
