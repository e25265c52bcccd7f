"""Synthetic tissue for training: procedural IHC tiles with known nuclei and all target panels.

Made to teach variety, not to look like one laboratory's slides: every tile draws its own stains (hue,
strength, saturation), nuclei (size, shape, density, overlap, chromatin, focus, patchy DAB), arrangement
(scattered, nests, glands, spindle cells, lymphocytes, stromal cells among others), localisation of the
marker, background, and artefacts (debris, smears, anthracosis, pen, folds, blur). Light is absorbed as in
Beer–Lambert's law: pixels are mixed as optical densities of hematoxylin and DAB, with stain vectors around
those of Ruifrok & Johnston (2001).

Lengths are pixels at 40x (0.25 µm).
"""

import numpy as np

from deepliif_ray.errors import ConfigError
from deepliif_ray.synthetic.panels.nuclei import draw_tissue, place_nuclei
from deepliif_ray.synthetic.panels.photograph import photograph
from deepliif_ray.synthetic.panels.staining import add_debris, add_smears, add_stroma, paint, stain_around
from deepliif_ray.synthetic.panels.targets import draw_segmentation, draw_targets
from deepliif_ray.training.panels.files import Panels

__all__ = ["draw_segmentation", "synthetic_panels"]

LOCALISATIONS = ("nuclear", "cytoplasmic", "membranous")
_LOCALISATION_SHARES = (0.78, 0.12, 0.10)
_MARGIN = 24


def synthetic_panels(seed: int, index: int, size: int = 512) -> Panels:
    """Return tile ``index`` of the endless series that ``seed`` names.

    Parameters
    ----------
    seed, index : int
        Everything follows from the two; tiles do not depend on one another.
    size : int
        Side of the tile in pixels, at least 64.

    Returns
    -------
    Panels
        The IHC tile (size, size, 3) and its hematoxylin, DAPI, Lap2, marker and segmentation panels.

    Raises
    ------
    ConfigError
        ``size`` is below 64.
    """
    if size < 64:
        raise ConfigError(f"synthetic tile of {size} px: a tile has at least 64")
    rng = np.random.default_rng([seed, index])
    side = size + 2 * _MARGIN
    localisation = str(rng.choice(LOCALISATIONS, p=_LOCALISATION_SHARES))
    tissue = draw_tissue(rng, side)
    nuclei = place_nuclei(rng, side, tissue, localisation)
    canvas = paint(rng, nuclei, side)
    if localisation == "nuclear":
        add_smears(rng, canvas, nuclei)
    else:
        stain_around(rng, canvas, nuclei, localisation, tissue)
    add_stroma(rng, canvas, tissue)
    add_debris(rng, canvas)
    inner = (slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
    ihc = np.ascontiguousarray(photograph(rng, canvas)[inner])
    targets = draw_targets(canvas, nuclei)
    name = f"synthetic-{seed}-{index:05d}"
    return Panels(name, ihc, {key: np.ascontiguousarray(image[inner]) for key, image in targets.items()})
