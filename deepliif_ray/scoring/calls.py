"""The published rules that turn a cell's measurements into counted or not, positive or negative.

The same rules in SQL are in ``query/sql/called_cells.sql``; a test holds the two together.
"""

from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepliif_ray.errors import ConfigError


class Index(TypedDict):
    """Counts of called cells and the published index."""

    num_total: int
    num_pos: int
    num_neg: int
    percent_pos: float


def call_cells(
    area_px: ArrayLike,
    majority_positive: ArrayLike,
    marker_max: ArrayLike | None = None,
    od: ArrayLike | None = None,
    *,
    size_thresh: float,
    size_thresh_upper: float | None = None,
    marker_thresh: float | None = None,
    od_thresh_lower: float | None = None,
    od_thresh_upper: float | None = None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Call every cell by the published rules.

    A cell is counted when ``size_thresh < area_px < size_thresh_upper``. It is positive when most of its
    classified pixels are, or when its marker value exceeds ``marker_thresh``; but never when its optical
    density lies outside the limits given.

    Parameters
    ----------
    area_px : array_like, shape (n,)
        Sizes, px.
    majority_positive : array_like of bool, shape (n,)
        Whether positive pixels are at least as many as negative ones.
    marker_max : array_like, shape (n,), optional
        Largest marker value, 0–255; None when the model has no marker image, and ``marker_thresh`` then has
        no effect.
    od : array_like, shape (n,), optional
        Optical density × 100, a whole number or its unrounded mean (``od_mean``; rounded half to even here,
        as published). Needed with either limit.
    size_thresh, size_thresh_upper, marker_thresh, od_thresh_lower, od_thresh_upper : float, optional
        Thresholds; None switches one off.

    Returns
    -------
    counted, positive : ndarray of bool, shape (n,)
        ``positive`` is only meaningful, and only ever true, where ``counted`` is.

    Raises
    ------
    ConfigError
        A limit of the optical density is given without ``od``.

    References
    ----------
    DeepLIIF 1.2.7, classification of cells.
    """
    area = np.asarray(area_px)
    counted = area > size_thresh
    if size_thresh_upper is not None:
        counted &= area < size_thresh_upper
    positive = np.array(majority_positive, dtype=np.bool_)
    if marker_thresh is not None and marker_max is not None:
        positive |= np.asarray(marker_max) > marker_thresh
    if od_thresh_lower is not None or od_thresh_upper is not None:
        if od is None:
            raise ConfigError("limits of the optical density need the cells' optical density; give od")
        rounded = np.rint(np.asarray(od, dtype=np.float64))
        if od_thresh_lower is not None:
            positive &= rounded >= od_thresh_lower
        if od_thresh_upper is not None:
            positive &= rounded <= od_thresh_upper
    return counted, counted & positive


def index(counted: NDArray[np.bool_], positive: NDArray[np.bool_]) -> Index:
    """Count called cells as the published software reports them.

    Parameters
    ----------
    counted, positive : ndarray of bool, shape (n,)
        As `call_cells` returns them.

    Returns
    -------
    Index
        ``num_total``, ``num_pos``, ``num_neg``, and ``percent_pos`` rounded to 0.1 (0 without a cell).
    """
    total = int(np.count_nonzero(counted))
    positives = int(np.count_nonzero(counted & positive))
    percent = round(positives / total * 100, 1) if positives else 0.0
    return Index(num_total=total, num_pos=positives, num_neg=total - positives, percent_pos=percent)
