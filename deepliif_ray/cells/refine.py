"""The refined mask: counted cells filled red or blue, outlined in green."""

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.cells.extract import extract_cells
from deepliif_ray.cells.labels import NEGATIVE, POSITIVE, classify, label_core
from deepliif_ray.published import SEG_THRESH

_EIGHT = np.ones((3, 3), dtype=bool)
_RED, _GREEN, _BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def refine_mask(
    seg: NDArray[np.uint8],
    *,
    resolution: str = "40x",
    seg_thresh: int = SEG_THRESH,
    size_thresh: int | None = None,
) -> NDArray[np.uint8]:
    """Return the published refined mask of a segmentation map.

    Parameters
    ----------
    seg : ndarray of uint8, shape (H, W, 3)
    resolution : {'40x', '20x', '10x'}
    seg_thresh : int
    size_thresh : int, optional
        Cells count when larger than this; the published default when not given.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        Positive cells red, negative blue, boundaries green, everything else black. A boundary lies outside
        its cell: the background around it, three pixels wide, and the cell's first pixel in row order.

    Raises
    ------
    ConfigError
        See `extract_cells`.
    """
    from scipy import ndimage  # slow to import, and needed here alone

    extracted = extract_cells(seg, resolution=resolution, seg_thresh=seg_thresh)
    thresholds = extracted.thresholds
    least = max(thresholds.size_thresh if size_thresh is None else size_thresh, thresholds.noise_thresh)
    classes = classify(np.ascontiguousarray(seg), seg_thresh)
    labels, _, _, _ = label_core(classes, np.ones(4, dtype=bool))
    areas, positive, negative = (
        np.bincount(labels.ravel(), weights=weights)
        for weights in (None, classes.ravel() == POSITIVE, classes.ravel() == NEGATIVE)
    )
    counted = areas > least
    counted[0] = False
    if thresholds.large_noise_thresh is not None:
        counted &= areas < thresholds.large_noise_thresh

    present, first = np.unique(labels, return_index=True)
    first = first[counted[present]]
    boundary_of = counted[labels]
    boundary_of.ravel()[first] = False
    background = labels == 0
    boundary = ndimage.binary_dilation(boundary_of) & background
    boundary.ravel()[first] = True
    for _ in range(2):
        boundary |= ndimage.binary_dilation(boundary, _EIGHT) & background

    palette = np.zeros((len(areas), 3), dtype=np.uint8)
    palette[counted & (positive >= negative)] = _RED
    palette[counted & (positive < negative)] = _BLUE
    refined = palette[labels]
    refined[boundary] = _GREEN
    return refined
