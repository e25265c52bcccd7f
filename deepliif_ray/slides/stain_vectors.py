"""A slide's own hematoxylin and DAB: the colours that its laboratory's stains have on its scanner.

Found as Macenko et al. describe (A method for normalizing histology slides for quantitative analysis, ISBI
2009, 1107-1110): pixels of two stains lie, as optical densities, in the plane of the two stains' vectors, and
between them; the vectors are the extremes of the angle within that plane. Where a slide shows only one of the
stains, or others, the method finds two vectors all the same, so what it finds is checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.stains import DAB, HEMATOXYLIN

LEAST_OD = 0.1
"""Mean over the channels; paler pixels say little of a colour. Published: 0.15 in each channel, which leaves
out all pixels of a pale hematoxylin, since it hardly absorbs blue."""
EXTREME_PERCENTILE = 1.0
LEAST_PIXELS = 500
MOST_ANGLE, LEAST_ANGLE = 25.0, 15.0
LEAST_SHARE = 0.01
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class StainVectors:
    """The stains of a slide, as unit vectors of optical density in red, green and blue.

    Attributes
    ----------
    hematoxylin, dab : tuple of float
        Those of the slide, or where it does not tell them the usual ones (Ruifrok and Johnston 2001).
    dab_percent : float
        Share of stained pixels whose density is more DAB than hematoxylin.
    reason : str, optional
        Why the usual ones are given; None: they are the slide's own.
    """

    hematoxylin: Vector = HEMATOXYLIN
    dab: Vector = DAB
    dab_percent: float = 0.0
    reason: str | None = None

    @classmethod
    def measure(
        cls, patches: Sequence[NDArray[np.float32]], white: tuple[float, float, float] | None
    ) -> "StainVectors":
        """Measure pixels of patches of tissue.

        Parameters
        ----------
        patches : sequence of ndarray of float32, shape (height, width, 3)
            RGB, grey levels, at about 0.5 µm a pixel.
        white : tuple of float, optional
            RGB of light that no tissue has dimmed.
        """
        if white is None or not patches:
            return cls(reason="no tissue beside glass that tells the colour of light")
        pixels = np.concatenate([patch.reshape(-1, 3) for patch in patches]).astype(np.float64)
        density = np.log10(np.array(white) / np.maximum(pixels, 1.0))
        density = density[density.mean(axis=1) > LEAST_OD]
        if len(density) < LEAST_PIXELS:
            return cls(reason="hardly any stain")
        hematoxylin, dab = _extremes(density)
        usual = [np.array(vector) / np.linalg.norm(vector) for vector in (HEMATOXYLIN, DAB)]
        amounts = density @ np.linalg.pinv(np.stack([hematoxylin, dab]))
        share = 100 * float((amounts[:, 1] > amounts[:, 0]).mean())
        off = [_angle(found, known) for found, known in zip((hematoxylin, dab), usual, strict=True)]
        if share < 100 * LEAST_SHARE or share > 100 * (1 - LEAST_SHARE):
            return cls(dab_percent=share, reason="one of the two stains is missing")
        if max(off) > MOST_ANGLE or _angle(hematoxylin, dab) < LEAST_ANGLE:
            return cls(
                dab_percent=share,
                reason=f"colours {off[0]:.0f} and {off[1]:.0f} degrees from hematoxylin and DAB",
            )
        return cls(_as_tuple(hematoxylin), _as_tuple(dab), share)


def _extremes(density: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two extreme directions (the bluer stain first) of densities (N, 3) within their plane."""
    _, vectors = np.linalg.eigh(density.T @ density)
    plane = vectors[:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)  # signs of eigenvectors mean nothing
    angle = np.arctan2(density @ plane[:, 1], density @ plane[:, 0])
    low, high = np.percentile(angle, (EXTREME_PERCENTILE, 100 - EXTREME_PERCENTILE))
    ends = [np.maximum(plane @ np.array([np.cos(turn), np.sin(turn)]), 0.0) for turn in (low, high)]
    ends = [end / np.linalg.norm(end) for end in ends]
    # Hematoxylin absorbs more red than blue, DAB the other way round.
    first, second = sorted(ends, key=lambda end: float(end[2] - end[0]))
    return first, second


def _angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.degrees(np.arccos(np.clip(one @ other, -1.0, 1.0))))


def _as_tuple(vector: NDArray[np.float64]) -> Vector:
    red, green, blue = (round(float(part), 4) for part in vector)
    return red, green, blue
