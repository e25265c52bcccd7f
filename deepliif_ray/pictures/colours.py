"""Colours of pictures: those of published overlays, of strengths, and of maps."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

POSITIVE: Colour = (255, 0, 0)
NEGATIVE: Colour = (0, 0, 255)
"""As published DeepLIIF draws them over the tissue."""
STRENGTHS: tuple[Colour, ...] = (NEGATIVE, (255, 215, 0), (255, 125, 0), (225, 0, 0))
"""Of 0, 1+, 2+ and 3+: the stronger the darker, which people see who see no red or green, and bright enough
to stand out from DAB."""
NO_CELL: Colour = (70, 70, 70)
TISSUE: Colour = (0, 0, 0)
REGIONS: tuple[Colour, ...] = ((0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0))
"""Of classes of regions, in turn: of the palette of Okabe and Ito, told apart by the colour-blind."""
EXCLUDED: Colour = (90, 90, 90)
ALARM: Colour = (150, 0, 20)
PAPER: Colour = (255, 255, 255)
INK: Colour = (0, 0, 0)
PALE_INK: Colour = (95, 95, 95)

_ENDS = ((38, 24, 120), (196, 62, 112), (255, 226, 92))
# Oklab, B. Ottosson 2020: equal distances in it look about equally far apart.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@cache
def heat() -> NDArray[np.uint8]:
    """Return the colours of a map from its least to its greatest value, uint8 of shape (256, 3).

    Violet, red, yellow. Steps are equally long in Oklab, and it becomes lighter all the way: so it tells
    values apart in print without colour too.
    """
    ends = _to_oklab(np.array(_ENDS, float))
    along = np.append(0, np.cumsum(np.linalg.norm(np.diff(ends, axis=0), axis=1)))
    steps = np.linspace(0, along[-1], 256)
    lab = np.column_stack([np.interp(steps, along, ends[:, channel]) for channel in range(3)])
    return np.rint(_to_srgb(lab)).astype(np.uint8)


def oklab(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return sRGB colours, shape (n, 3), in Oklab: lightness, green to red, blue to yellow."""
    return _to_oklab(colours.astype(float))


def _to_oklab(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    value = srgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    lab: NDArray[np.float64] = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return lab


def _to_srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T
    linear = np.clip(linear, 0, 1)
    value = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    srgb: NDArray[np.float64] = 255 * value
    return srgb
