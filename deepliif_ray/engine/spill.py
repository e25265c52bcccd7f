"""Cells of one slide on their way to the table: on local disk until all are known, given back in order."""

import pickle
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.cells.measures import M
from deepliif_ray.cells.nodes import SlideCells

_IN_MEMORY = 8 * 2**20
"""Bytes up to which nothing is written to disk: small slides never are."""


class CellSpill:
    """Takes cells as they become final, gives them back in the row order of their first pixels.

    A cell that hangs over several rows of cores is final later than others that begin below it, so cells are
    filed by the row of cores that they begin in. Memory holds one row's cells at a time. Use it as a context
    manager; the file has no name and is gone with it.

    Parameters
    ----------
    row_edges : ndarray of int64
        Where the rows of cores begin and end, level-0 pixels.
    """

    def __init__(self, row_edges: NDArray[np.int64]) -> None:
        self._edges = row_edges[1:-1]
        self._places: list[list[int]] = [[] for _ in range(len(row_edges) - 1)]
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="deepliif-ray-")  # noqa: SIM115
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, cells: SlideCells) -> None:
        """Take cells that are in the row order of their first pixels."""
        self._count += len(cells)
        rows = np.searchsorted(self._edges, cells.measures[:, M["first_y"]], side="right")
        for row in np.unique(rows).tolist():
            begin, end = np.searchsorted(rows, [row, row + 1]).tolist()
            self._places[row].append(self._file.tell())
            pickle.dump(cells[begin:end], self._file, protocol=5)

    def pieces(self, least: int) -> Iterator[SlideCells]:
        """Yield all cells in order, in pieces of at least ``least`` cells but for the last."""
        waiting: list[SlideCells] = []
        for places in self._places:
            if places:
                waiting.append(SlideCells.merge([self._load(place) for place in places]))
            if sum(map(len, waiting)) >= least:
                yield SlideCells.merge(waiting)
                waiting = []
        if waiting:
            yield SlideCells.merge(waiting)

    def _load(self, place: int) -> SlideCells:
        self._file.seek(place)
        cells: SlideCells = pickle.load(self._file)
        return cells

    def __enter__(self) -> "CellSpill":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
