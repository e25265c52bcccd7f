"""Sums over blocks of a slide, from which the interval of its index is made.

The same in SQL is in ``query/sql/counts.sql``; a test holds the two together.
"""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

BLOCK_UM = 500.0
"""Side of a block: cells further apart hardly know of one another, and a slide still has many blocks."""
_ROWS = 1 << 32


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
        block = row * _ROWS + column
        for counter, blocks in ((self._called, block), (self._positive, block[positive])):
            keys, counts = np.unique(blocks, return_counts=True)
            counter.update(dict(zip(keys.tolist(), counts.tolist(), strict=True)))

    def sums(self) -> dict[str, int]:
        """Return ``n_blocks``, and ``blocks_xx``, ``blocks_xn`` and ``blocks_nn`` of the table ``slides``."""
        pairs = [(self._positive[block], called) for block, called in self._called.items()]
        return {
            "n_blocks": len(pairs),
            "blocks_xx": sum(positive * positive for positive, _ in pairs),
            "blocks_xn": sum(positive * called for positive, called in pairs),
            "blocks_nn": sum(called * called for _, called in pairs),
        }
