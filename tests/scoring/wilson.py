"""Confidence intervals of a percentage of cells."""

from math import nan, sqrt
from statistics import NormalDist

from deepliif_ray.errors import ConfigError


def wilson(positive: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of ``positive`` out of ``total``, in percent.

    Parameters
    ----------
    positive, total : int
        Cells called positive, cells counted.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    lower, upper : float
        Percent, 0–100. Both are NaN when nothing was counted, as the index itself is unknown then; the SQL
        views (``wilson_lower_percent``, ``wilson_upper_percent``) give NULL.

    Raises
    ------
    ConfigError
        The counts or the level are impossible.

    References
    ----------
    E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    if not 0 <= positive <= total:
        raise ConfigError(f"{positive} positive of {total} cells is impossible; give 0 <= positive <= total")
    if not 0 < level < 1:
        raise ConfigError(f"level {level} is not a coverage; give a number between 0 and 1, such as 0.95")
    if total == 0:
        return nan, nan
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = positive / total
    centre = share + z * z / (2 * total)
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 100 / (1 + z * z / total)
    lower = (centre - half) * scale if positive else 0.0  # exactly so, which rounding would miss
    upper = (centre + half) * scale if positive < total else 100.0
    return lower, upper
