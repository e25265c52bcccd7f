"""How a scanner shows glass and hematoxylin, and tiles brought to what a model knows.

One section was measured on two scanners: the optical density of its blue pixels was 0.175 on one and 0.098
on the other. A model with fixed thresholds finds fewer nuclei on the paler picture. Glass is white on one
scanner, cream on another, and grey under a camera; a network that knows white glass calls the same nucleus
otherwise on cream. Both are measured once a slide, so that tiles agree where they overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.native import NativeView

WHITE_PERCENTILE = 99
BLUER = 1.15
DARK_PERCENTILE, LEAST_SHARE = 95, 0.25
MOST_OD = 1.0
ENOUGH_PERCENT = 10.0
ENOUGH_PATCHES = 12
MOST_FACTOR = 2.0
LEAST_WHITE = 120.0
"""Grey levels; no lamp that one can work with shows glass so dark. What is darker is tissue without a gap."""


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
    def measure(
        cls, patches: Sequence[NDArray[np.float32]], white: NDArray[np.float64] | None = None
    ) -> Self | None:
        """Measure pixels of patches of tissue; None if no pixel is blue.

        A pixel is blue if it absorbs more red than blue light, as hematoxylin does and DAB does not, and if
        it is at least a quarter as dark as the darker of such pixels: so that ``od`` doubles if all densities
        do.

        Parameters
        ----------
        patches : sequence of ndarray of float32, shape (height, width, 3)
            RGB, grey levels, 64 µm wide, at about 0.5 µm a pixel.
        white : ndarray of float64, shape (3,), optional
            Their `light_of_gaps`, if it is known.
        """
        white = light_of_gaps(patches) if white is None else white
        if white is None:
            return None
        pixels = np.concatenate([patch.reshape(-1, 3) for patch in patches])
        density = np.log10(white / np.maximum(pixels, 1.0))
        mean = density.mean(axis=1)
        stained = (density[:, 0] > BLUER * density[:, 2]) & (mean > 0) & (mean < MOST_OD)
        if not stained.any():
            return None
        stained &= mean >= LEAST_SHARE * np.percentile(mean[stained], DARK_PERCENTILE)
        red, green, blue = (float(channel) for channel in white)
        od = float(np.median(density[stained, 0]))
        return cls(od, 100 * float(stained.mean()), (red, green, blue), len(patches))

    def factor(self, native_od: float) -> float:
        """Return by what a paler slide's densities are multiplied to show its hematoxylin at ``native_od``.

        With less than 10 % of blue pixels or fewer than 12 patches the factor nears 1: a few cells say
        little of a scanner. It is at most 2, and never below 1: nuclei that are dark by themselves stay so,
        and models find them.
        """
        trust = min(1.0, self.percent / ENOUGH_PERCENT) * min(1.0, self.patches / ENOUGH_PATCHES)
        return float(min(MOST_FACTOR, max(1.0, (native_od / self.od) ** trust)))


def light_of_gaps(patches: Sequence[NDArray[np.float32]]) -> NDArray[np.float64] | None:
    """Return the 99th percentile of red, green and blue of patches of tissue: gaps between cells show glass.

    Each channel by itself, so a tint of the lamp changes the answer by just that tint.

    Parameters
    ----------
    patches : sequence of ndarray of float32, shape (height, width, 3)
        RGB, grey levels, at about 0.5 µm a pixel.

    Returns
    -------
    ndarray of float64, shape (3,)
        At least 1; None without a patch.
    """
    if not patches:
        return None
    pixels = np.concatenate([patch.reshape(-1, 3) for patch in patches])
    white: NDArray[np.float64] = np.maximum(np.percentile(pixels, WHITE_PERCENTILE, axis=0), 1.0)
    return white


def light_through(
    patches: Sequence[NDArray[np.float32]], white: NDArray[np.float64] | None = None
) -> tuple[float, float, float] | None:
    """Return the colour of light that no tissue has dimmed, as gaps within tissue show it.

    Parameters
    ----------
    patches : sequence of ndarray of float32, shape (height, width, 3)
        As `light_of_gaps` takes them.
    white : ndarray of float64, shape (3,), optional
        Its answer, if it is known.

    Returns
    -------
    tuple of float
        Red, green and blue, grey levels; None if nothing tells: no patch, or none of it is brighter than
        `LEAST_WHITE`.
    """
    found = light_of_gaps(patches) if white is None else white
    if found is None or found.min() < LEAST_WHITE:
        return None
    red, green, blue = (min(float(channel), 255.0) for channel in found)
    return red, green, blue


def contrast_for(
    native: NativeView, counterstain: Counterstain | None, white: tuple[float, float, float] | None
) -> "Contrast | None":
    """Return what brings a slide's tiles to what a model knows; None if it is to see them as they are.

    Parameters
    ----------
    native : NativeView
        What the model knows.
    counterstain : Counterstain, optional
        Hematoxylin of the slide.
    white : tuple of float, optional
        See `light_through`; without it glass stays as it is.
    """
    factor = 1.0 if native.od is None or counterstain is None else counterstain.factor(native.od)
    if native.white is not None and white is not None:
        return Contrast(factor, white, native.white)
    return None if native.od is None or counterstain is None else Contrast(factor, counterstain.white)


@dataclass(frozen=True)
class Contrast:
    """A change of a slide's contrast.

    Attributes
    ----------
    factor : float
        Optical densities are multiplied by it.
    white : tuple of float
        RGB of the slide's glass.
    onto : float, optional
        Grey level that glass becomes; None: it stays as it is.
    """

    factor: float
    white: tuple[float, float, float]
    onto: float | None = None

    def apply(self, tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a tile with the change, uint8 (height, width, 3)."""
        light = np.arange(256)[:, None] / np.array(self.white)
        onto = np.array(self.white) if self.onto is None else self.onto
        table = np.rint(np.minimum(255, onto * light**self.factor)).astype(np.uint8)
        changed = np.empty_like(tile)
        for channel in range(3):
            np.take(table[:, channel], tile[..., channel], out=changed[..., channel])
        return changed
