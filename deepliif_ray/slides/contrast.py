"""How dark a scanner shows hematoxylin, and tiles of pale slides brought to what a model knows.

One section was measured on two scanners: the optical density of its blue pixels was 0.175 on one and 0.098
on the other. A model with fixed thresholds finds fewer nuclei on the paler picture. The density is measured
once a slide, so that tiles agree where they overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

WHITE_PERCENTILE = 99
BLUER = 1.15
DARK_PERCENTILE, LEAST_SHARE = 95, 0.25
MOST_OD = 1.0
ENOUGH_PERCENT = 10.0
ENOUGH_PATCHES = 12
MOST_FACTOR = 2.0


@dataclass(frozen=True)
class Counterstain:
    """Hematoxylin as a slide shows it.

    Attributes
    ----------
    od : float
        Median red optical density of blue pixels, relative to ``white``.
    percent : float
        Share of blue pixels.
    white : tuple of float
        The 99th percentile of red, green and blue, grey levels.
    patches : int
        Of how many patches.
    """

    od: float
    percent: float
    white: tuple[float, float, float]
    patches: int

    @classmethod
    def measure(cls, patches: Sequence[NDArray[np.float32]]) -> Self | None:
        """Measure pixels of patches of tissue; None if no pixel is blue.

        A pixel is blue if it absorbs more red than blue light, as hematoxylin does and DAB does not, and if
        it is at least a quarter as dark as the darker of such pixels: so that ``od`` doubles if all densities
        do.

        Parameters
        ----------
        patches : sequence of ndarray of float32, shape (height, width, 3)
            RGB, grey levels, 64 µm wide, at about 0.5 µm a pixel.
        """
        if not patches:
            return None
        pixels = np.concatenate([patch.reshape(-1, 3) for patch in patches])
        white = np.maximum(np.percentile(pixels, WHITE_PERCENTILE, axis=0), 1.0)
        density = np.log10(white / np.maximum(pixels, 1.0))
        mean = density.mean(axis=1)
        stained = (density[:, 0] > BLUER * density[:, 2]) & (mean > 0) & (mean < MOST_OD)
        if not stained.any():
            return None
        stained &= mean >= LEAST_SHARE * np.percentile(mean[stained], DARK_PERCENTILE)
        red, green, blue = (float(channel) for channel in white)
        od = float(np.median(density[stained, 0]))
        return cls(od, 100 * float(stained.mean()), (red, green, blue), len(patches))

    def contrast(self, native_od: float) -> "Contrast":
        """Return what shows a paler slide's hematoxylin at ``native_od``.

        With less than 10 % of blue pixels or fewer than 12 patches the factor nears 1: a few cells say
        little of a scanner. It is at most 2, and never below 1: nuclei that are dark by themselves stay so,
        and models find them.
        """
        trust = min(1.0, self.percent / ENOUGH_PERCENT) * min(1.0, self.patches / ENOUGH_PATCHES)
        return Contrast(min(MOST_FACTOR, max(1.0, (native_od / self.od) ** trust)), self.white)


@dataclass(frozen=True)
class Contrast:
    """A change of a slide's contrast.

    Attributes
    ----------
    factor : float
        Optical densities are multiplied by it.
    white : tuple of float
        RGB that stays as it is.
    """

    factor: float
    white: tuple[float, float, float]

    def apply(self, tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a tile with the change, uint8 (height, width, 3)."""
        grey = np.arange(256)[:, None] / np.array(self.white)
        table = np.rint(np.minimum(255, np.array(self.white) * grey**self.factor)).astype(np.uint8)
        changed = np.empty_like(tile)
        for channel in range(3):
            np.take(table[:, channel], tile[..., channel], out=changed[..., channel])
        return changed
