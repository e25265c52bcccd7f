"""Sums over blocks of a slide, from which the interval of its index is made (``query/sql/intervals.sql``).

The same in SQL is the macro ``slide_blocks``; a test holds the two together.
"""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

BLOCK_UM = 250.0
"""Side of a block; a window is two by two of them."""
_COLUMNS = 1 << 32
_WINDOWS = (0, 1, _COLUMNS, _COLUMNS + 1)
"""The windows that a block lies in, as steps from its own number."""


class BlockSums:
    """Counts called cells by block, and gives sums that add up over slides.

    Blocks are squares of `BLOCK_UM` in a grid that begins at 0, 0. A cell lies in the block of its centroid.
    """

    def __init__(self) -> None:
        self._called: Counter[int] = Counter()
        self._positive: Counter[int] = Counter()

    def add(self, x_um: NDArray[np.float64], y_um: NDArray[np.float64], positive: NDArray[np.bool_]) -> None:
        """Count called cells, given by their centroids and calls, each of shape (n,)."""
        column, row = (np.floor(values / BLOCK_UM).astype(np.int64) for values in (x_um, y_um))
        block = row * _COLUMNS + column
        for counter, blocks in ((self._called, block), (self._positive, block[positive])):
            keys, counts = np.unique(blocks, return_counts=True)
            counter.update(dict(zip(keys.tolist(), counts.tolist(), strict=True)))

    def sums(self) -> dict[str, int]:
        """Return the columns of the table ``slides`` from ``n_blocks`` to ``window_nn``."""
        called: Counter[int] = Counter()
        positive: Counter[int] = Counter()
        for block, count in self._called.items():
            for step in _WINDOWS:
                called[block + step] += count
                positive[block + step] += self._positive[block]
        return {
            "n_blocks": len(self._called),
            **_squares("block", self._called, self._positive),
            **_squares("window", called, positive),
        }


def _squares(name: str, called: Counter[int], positive: Counter[int]) -> dict[str, int]:
    pairs = [(positive[place], count) for place, count in called.items()]
    return {
        f"{name}_xx": sum(x * x for x, _ in pairs),
        f"{name}_xn": sum(x * n for x, n in pairs),
        f"{name}_nn": sum(n * n for _, n in pairs),
    }
