"""How a slide shows light, hematoxylin and its stains, together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.slides.contrast import Counterstain, light_of_gaps, light_through
from deepliif_ray.slides.stain_vectors import StainVectors


@dataclass(frozen=True)
class Appearance:
    """How a slide shows glass and stains, measured on patches of its tissue.

    Attributes
    ----------
    counterstain : Counterstain, optional
        Its hematoxylin; None where nothing is blue.
    white : tuple of float, optional
        RGB of light that no tissue has dimmed; see `deepliif_ray.slides.contrast.light_through`.
    stains : StainVectors
        Its stains' colours.
    """

    counterstain: Counterstain | None
    white: tuple[float, float, float] | None
    stains: StainVectors

    @classmethod
    def measure(cls, patches: list[NDArray[np.float32]]) -> "Appearance":
        """Measure patches of tissue, float32 RGB (height, width, 3), at about 0.5 µm a pixel."""
        gaps = light_of_gaps(patches)
        white = light_through(patches, gaps)
        return cls(Counterstain.measure(patches, gaps), white, StainVectors.measure(patches, white))
