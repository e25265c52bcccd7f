"""Quantiles of Student's t and of F, for an installation without SciPy."""

from math import exp, lgamma, log, log1p, sqrt

from deepliif_ray.errors import ConfigError

_TINY = 1e-300
_STEPS = 10_000


def t_quantile(share: float, df: float) -> float:
    """Return the value below which Student's t lies with probability ``share``.

    Parameters
    ----------
    share : float
        Between 0 and 1.
    df : float
        Degrees of freedom, above 0; need not be whole.

    Raises
    ------
    ConfigError
        Either is impossible.
    """
    _check(share, df)
    x = _inverse_beta(2 * min(share, 1 - share), df / 2, 0.5)
    size = sqrt(df * (1 - x) / x) if x else float("inf")
    return size if share >= 0.5 else -size


def f_quantile(share: float, df: float, other_df: float) -> float:
    """Return the value below which F with ``df`` and ``other_df`` degrees of freedom lies with ``share``.

    Parameters
    ----------
    share : float
        Between 0 and 1.
    df, other_df : float
        Degrees of freedom of numerator and denominator, above 0; need not be whole.

    Raises
    ------
    ConfigError
        One of them is impossible.
    """
    _check(share, df, other_df)
    x = _inverse_beta(1 - share, other_df / 2, df / 2)
    return other_df * (1 - x) / (df * x) if x else float("inf")


def _check(share: float, *dfs: float) -> None:
    if not (0 < share < 1 and all(0 < df < float("inf") for df in dfs)):
        raise ConfigError(f"no quantile for a share of {share} and {dfs} degrees of freedom")


def _inverse_beta(share: float, a: float, b: float) -> float:
    """Return x with I_x(a, b) = share, by halving the logarithm of x."""
    low, high = -700.0, 0.0
    while high - low > 1e-15 * max(1.0, -high):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _beta(exp(middle), a, b) < share:
            low = middle
        else:
            high = middle
    return exp(high)


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), Abramowitz and Stegun 26.5.8."""
    if x >= 1:
        return 1.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x > (a + 1) / (a + b + 2):  # the fraction of the other tail gets there sooner
        return 1 - front / b * _fraction(1 - x, b, a)
    return front / a * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function, by the method of Lentz."""
    value, upper, lower = 1.0, 1.0, 0.0
    for step in range(1, _STEPS):
        half = step // 2
        if step % 2:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        lower = 1 / _not_zero(1 + term * lower)
        upper = _not_zero(1 + term / upper)
        value *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return 1 / value


def _not_zero(number: float) -> float:
    return number if abs(number) > _TINY else _TINY
