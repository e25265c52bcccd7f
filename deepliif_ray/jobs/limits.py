"""Thresholds that fail a job: ``failed_percent > 2``."""

import math
import operator
import re
from collections.abc import Mapping, Sequence

OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
PATTERN = r"^\s*[A-Za-z][\w.]*\s*(>=|<=|>|<)\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_LIMIT = re.compile(r"\s*(?P<figure>[A-Za-z][\w.]*)\s*(?P<operator>>=|<=|>|<)\s*(?P<value>\S+)\s*", re.ASCII)


def parse(limit: str) -> tuple[str, str, float]:
    """Return figure, operator and value of a limit.

    Raises
    ------
    ValueError
        It is not one.
    """
    match = _LIMIT.fullmatch(limit)
    try:
        value = float(match["value"]) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or not math.isfinite(value):
        raise ValueError("write a figure, one of > >= < <=, and a number, such as failed_percent > 2")
    return match["figure"], match["operator"], value


def breaches(limits: Sequence[str], figures: Mapping[str, float]) -> list[str]:
    """Return a sentence for every limit that ``figures`` do not keep.

    A figure that is not there, or is not a number, keeps no limit: a check that silently does not run is
    worse than a job that fails.
    """
    found = []
    for limit in limits:
        figure, sign, value = parse(limit)
        actual = figures.get(figure)
        if actual is None:
            known = ", ".join(sorted(figures)) or "none"
            found.append(f"{limit}: there is no figure {figure}; this job has {known}")
        elif math.isnan(actual) or OPERATORS[sign](actual, value):
            found.append(f"{limit}: {figure} is {actual:g}")
    return found
