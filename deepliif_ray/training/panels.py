"""Panels: an IHC tile and the images that a model learns to make of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]
IHC, SEG = "ihc", "seg"
MODALITIES = ("hematoxylin", "dapi", "lap2", "marker")
"""The published four, in the order of published strips and of generators G1 to G4."""


@dataclass(frozen=True)
class Panels:
    """One co-registered tile.

    Parameters
    ----------
    name : str
        Where it came from, for messages.
    ihc : numpy.ndarray
        uint8 RGB (H, W, 3).
    targets : dict of str to numpy.ndarray
        uint8 RGB (H, W, 3) each: the modalities by name, and ``seg`` (red positive, blue negative, green
        boundary, black background).
    """

    name: str
    ihc: UInt8Array
    targets: dict[str, UInt8Array]
