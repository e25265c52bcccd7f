"""Rims across the seams of cores: what lies along the sides of cores is settled a row of cores at a time.

A pixel's nucleus is at most R rows and columns away (`RimReach.pixels`). So when a row of cores is known,
these pixels can be settled:

- those along the seam to the row above, up to R rows on either side;
- those along the seams between its columns, but for R rows at its lower side.

The 2 R lowest lines of pixels wait for the next row: those that are not settled, and above them as many
again, because these may hold their nuclei. So memory follows the slide's width. Rows of cores may be lower
than R; then lines of several rows wait.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.cells.fragments import CoreFragments
from deepliif_ray.cells.nearest import RIM_COLUMNS, settle_rims
from deepliif_ray.cells.rims import RimReach, from_frame

_ALL_SEEN = np.zeros(4, dtype=np.bool_)


class RimSeams:
    """Settles pixels along seams, row of cores by row of cores: `add`, then `settle`, then `carry`.

    Parameters
    ----------
    column_edges : ndarray of int64
        Where the cores' columns begin and end.
    reach : RimReach
    """

    def __init__(self, column_edges: NDArray[np.int64], reach: RimReach) -> None:
        self._edges = column_edges.tolist()
        self._reach = reach
        width = self._edges[-1]
        is_beside = np.zeros(width, dtype=np.bool_)
        for edge in self._edges[1:-1]:
            is_beside[max(0, edge - 2 * reach.pixels) : edge + 2 * reach.pixels] = True
        self._beside = np.flatnonzero(is_beside)
        self._top = self._bottom = self._settled = 0  # rows of the slide: of the newest cores, and of pixels
        self._is_last = False
        # Lines of pixels across the slide that end at the seam above, or lie beside seams between columns.
        self._lines = np.zeros((0, width), dtype=np.int32), np.zeros((0, width), dtype=np.uint16)
        self._lowest = self._columns = self._lines

    def add(self, cores: Sequence[CoreFragments], offsets: Sequence[int], height: int, *, last: bool) -> None:
        """Take the sides of the next row of cores.

        Parameters
        ----------
        cores : sequence of CoreFragments
            One for each column.
        offsets : sequence of int
            What to add to the fragments of each to have nodes.
        height : int
            Their height in pixels.
        last : bool
            Whether this row is the slide's last.
        """
        first = self._bottom == 0
        self._top, self._bottom, self._is_last = self._bottom, self._bottom + height, last
        reach, width = self._reach.pixels, self._edges[-1]
        deep = min(height, 2 * reach)
        upper, lower, beside = (
            (np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.uint16))
            for shape in ((deep, width), (deep, width), (height, len(self._beside)))
        )
        for core, offset, (x0, x1) in zip(cores, offsets, pairwise(self._edges), strict=True):
            shared = np.array([x0 > 0, not first, x1 < width, not last])
            numbered = np.where(core.frame_labels > 0, core.frame_labels + np.int32(offset), 0)
            begin, end = np.searchsorted(self._beside, [x0, x1]).tolist()
            columns = self._beside[begin:end] - x0
            for kind, (flat, depth) in enumerate(((numbered, 2 * reach), (core.frame_asked, reach))):
                image = from_frame(flat, (height, x1 - x0), shared, depth)
                upper[kind][:, x0:x1] = image[:deep]
                lower[kind][:, x0:x1] = image[height - deep :]
                beside[kind][:, begin:end] = image[:, columns]
        nodes, asked = self._lines
        self._lines = np.concatenate([nodes, upper[0]]), np.concatenate([asked, upper[1]])
        self._lowest, self._columns = lower, beside

    def settle(self, roots: NDArray[np.int32], is_nucleus: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the rims of the pixels whose surroundings are known now, shape (P, RIM_COLUMNS).

        Parameters
        ----------
        roots : ndarray of int32, shape (N,)
            The component of each node.
        is_nucleus : ndarray of bool, shape (N,)
            Whether the component of each node is one.
        """
        reach, deep = self._reach.pixels, len(self._lowest[0])
        stop = self._bottom if self._is_last else max(self._settled, self._bottom - reach)
        middle = min(stop, self._top + reach) if self._top else 0
        begin = self._top + deep - len(self._lines[0])  # row of the first of the lines
        found = [
            self._settle(self._lines, (self._settled - begin, middle - begin), roots, is_nucleus),
            self._settle(self._columns, (middle - self._top, stop - self._top), roots, is_nucleus),
        ]
        self._settled = stop
        nodes, asked = self._lowest if deep == 2 * reach else self._lines
        first = len(nodes) if self._is_last else max(0, len(nodes) - 2 * reach)
        self._lines = nodes[first:], asked[first:]
        return np.concatenate(found)

    def _settle(
        self,
        lines: tuple[NDArray[np.int32], NDArray[np.uint16]],
        rows: tuple[int, int],
        roots: NDArray[np.int32],
        is_nucleus: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        if rows[0] >= rows[1]:
            return np.empty((0, RIM_COLUMNS), dtype=np.int64)
        nodes, asked = lines
        found: NDArray[np.int64] = settle_rims(
            nodes, roots, is_nucleus[nodes], asked, rows, _ALL_SEEN, *self._reach.limits
        )
        return found

    @property
    def waiting(self) -> NDArray[np.int32]:
        """Nodes along the lines that wait for the next row."""
        return self._lines[0]

    def carry(self, numbers: NDArray[np.int32]) -> None:
        """Give the nodes along those lines the numbers that they have from now on."""
        self._lines = numbers[self._lines[0]], self._lines[1]
