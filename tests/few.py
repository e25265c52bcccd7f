"""Cases of a test of which a few always run, and the others with the slow ones."""

from collections.abc import Iterable
from typing import Any

import pytest


def few(cases: Iterable[Any], kept: int) -> list[Any]:
    """Return parameters of which ``kept``, spread over all of them, are not slow.

    A case is what `pytest.mark.parametrize` takes: a value, or a tuple of some.
    """
    every = list(cases)
    always = {round(place * (len(every) - 1) / max(kept - 1, 1)) for place in range(kept)}
    return [
        case
        if place in always
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for place, case in enumerate(every)
    ]
