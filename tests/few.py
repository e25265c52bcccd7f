"""Cases of a test of which a few always run, and the others with the slow ones."""

from collections.abc import Iterable
from typing import Any

import pytest


def few(cases: Iterable[Any], kept: int) -> list[Any]:
    """Return parameters of which ``kept``, spread over all of them, are not slow.

    A case is a value, or a tuple of a value for each parameter: of one, where the value is itself a tuple.
    """
    every = list(cases)
    always = {round(place * (len(every) - 1) / max(kept - 1, 1)) for place in range(kept)}
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=() if place in always else pytest.mark.slow
        )
        for place, case in enumerate(every)
    ]
