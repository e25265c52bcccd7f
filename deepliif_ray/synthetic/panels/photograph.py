"""The microscope's part in synthetic tissue: light absorbed by stains, lens, sensor, pen marks."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepliif_ray.synthetic.panels.nuclei import FloatArray, Rng, smooth_noise
from deepliif_ray.synthetic.panels.staining import Canvas
from deepliif_ray.training.panels.files import UInt8Array

_HEMATOXYLIN = (
    (0.75, 0.60, 0.26),
    (0.62, 0.70, 0.33),
    (0.70, 0.62, 0.36),
    (0.84, 0.50, 0.18),
    (0.80, 0.54, 0.26),
    (0.55, 0.72, 0.42),
    (0.88, 0.46, 0.12),
)
_DAB = (
    (0.30, 0.55, 0.78),
    (0.40, 0.57, 0.70),
    (0.27, 0.50, 0.82),
    (0.56, 0.58, 0.59),
    (0.25, 0.65, 0.72),
    (0.22, 0.54, 0.81),
)


def photograph(rng: Rng, canvas: Canvas) -> UInt8Array:
    """Return the IHC image (side, side, 3): stains absorb, the lens blurs, the sensor adds noise."""
    side = len(canvas.owner)
    blue = _vector(rng, _HEMATOXYLIN)
    brown = _vector(rng, _DAB)
    glass = np.clip(rng.normal((241, 241, 240), (6, 6, 7)), 205, 255)
    density = canvas.hematoxylin[..., None] * blue + canvas.dab[..., None] * brown
    if rng.random() < 0.06:
        line = np.abs(smooth_noise(rng, side, 90)) < rng.uniform(0.01, 0.08)
        density *= 1 + ndimage.gaussian_filter(line.astype(np.float32), 3)[..., None]
    light = glass * 10 ** -(density * np.float32(1 / np.log(10) * 1.6))
    # Cameras differ most in their tone curve; that of the glass itself is undone before a model sees a tile.
    light = glass * (light / glass) ** float(np.exp(rng.uniform(np.log(0.65), np.log(1.5))))
    if rng.random() < 0.06:
        light = _pen(rng, light)
    shade = 1 + rng.uniform(0, 0.03) * smooth_noise(rng, side, 120)
    light = ndimage.gaussian_filter(light * shade[..., None], (*(rng.uniform(0.3, 1.2),) * 2, 0))
    grain = ndimage.gaussian_filter(rng.normal(0, rng.uniform(0.5, 5.0), light.shape), (0.6, 0.6, 0))
    image: UInt8Array = np.clip(light + grain, 0, 255).round().astype(np.uint8)
    return image


def _vector(rng: Rng, choices: tuple[tuple[float, float, float], ...]) -> FloatArray:
    mixed = np.array(choices).T @ rng.dirichlet(np.full(len(choices), 0.6))
    vector = np.clip(mixed + rng.normal(0, 0.035, 3), 0.05, 1)
    result: FloatArray = (vector / np.linalg.norm(vector)).astype(np.float32)
    return result


def _pen(rng: Rng, light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw a felt-tip stroke over the image."""
    side = len(light)
    ink = np.array([(0.9, 0.25, 0.3), (0.3, 0.75, 0.4), (0.25, 0.3, 0.9), (0.2, 0.2, 0.2)])[rng.integers(4)]
    ys, xs = np.mgrid[:side, :side]
    turn = rng.uniform(0, np.pi)
    line = np.sin(turn) * (ys - rng.uniform(0, side)) + np.cos(turn) * (xs - rng.uniform(0, side))
    line = np.abs(line + 6 * smooth_noise(rng, side, 50))
    cover = np.clip((rng.uniform(8, 40) - line) / 4, 0, 1)[..., None] * rng.uniform(0.4, 0.95)
    result: NDArray[np.float64] = light * (1 - cover + cover * ink)
    return result
