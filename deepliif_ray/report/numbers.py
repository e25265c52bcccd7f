"""Numbers as a report writes them; ``page/tables.js`` writes them in the same way."""

from decimal import ROUND_HALF_UP, Decimal
from math import isfinite

UNKNOWN = "unknown"


def fixed(value: float | None, digits: int = 1) -> str:
    """Return a number with so many decimals and commas between thousands; `UNKNOWN` for None.

    A half is rounded away from zero, as JavaScript's ``toFixed`` does.
    """
    if value is None or not isfinite(value):
        return UNKNOWN
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{abs(rounded) if rounded == 0 else rounded:,}".replace("-", "−")


def whole(value: int | None) -> str:
    """Return a whole number with commas between thousands; `UNKNOWN` for None."""
    return UNKNOWN if value is None else f"{value:,}".replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """Return a percentage with its sign."""
    return UNKNOWN if value is None else f"{fixed(value, digits)} %"


def between(low: float | None, high: float | None, digits: int = 1) -> str:
    """Return the ends of a range; `UNKNOWN` if one is missing."""
    if low is None or high is None:
        return UNKNOWN
    return f"{fixed(low, digits)} – {fixed(high, digits)}"


def duration(seconds: float | None) -> str:
    """Return seconds as hours, minutes and seconds."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{fixed(seconds, 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
