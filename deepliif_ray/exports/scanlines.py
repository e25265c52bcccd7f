"""Which pixels outlines enclose.

Pillow's polygons have whole numbers as corners and include both ends, so that cells become a pixel larger.
scikit-image fills one polygon a call, which is slow for the cells of a large picture.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.integer[Any])


def fill_rings(
    labels: NDArray[Number], corners: NDArray[np.float64], owner: NDArray[np.int64], numbers: NDArray[Number]
) -> NDArray[Number]:
    """Write the number of its ring into each pixel whose centre lies in it.

    A centre on an edge belongs to what lies right of it or below, so that outlines that share an edge share
    no pixel, and none between them is lost. What lies beyond ``labels`` is left out.

    Parameters
    ----------
    labels : ndarray of integers, shape (rows, columns)
        Is written to; where rings overlap, the last one counts.
    corners : ndarray of float64, shape (n, 2)
        x and y of corners of closed rings one after the other, in pixel edges of ``labels``.
    owner : ndarray of int64, shape (n,)
        Ring of each corner, ascending.
    numbers : ndarray of integers, shape (rings,)
        What is written for each ring.

    Returns
    -------
    ndarray of integers
        The numbers of the rings that have a pixel here, each once, ascending.
    """
    rows, columns = labels.shape
    (x0, y0), (x1, y1), ring = corners[:-1].T, corners[1:].T, owner[:-1]
    top, end = np.ceil(np.minimum(y0, y1) - 0.5), np.ceil(np.maximum(y0, y1) - 0.5)
    top, end = (np.clip(edge, 0, rows).astype(np.int64) for edge in (top, end))
    lines = np.where(owner[1:] == ring, end - top, 0)
    edge = np.repeat(np.arange(len(lines)), lines)
    row = top[edge] + _within(lines)
    x = x0[edge] + (row + 0.5 - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
    order = np.lexsort((x, row, ring[edge]))
    column = np.clip(np.ceil(x[order] - 0.5), 0, columns).astype(np.int64)
    # A closed ring crosses a row an even number of times: in, out, in, out.
    starts, run_row, run_ring = column[::2], row[order][::2], ring[edge][order][::2]
    length = column[1::2] - starts
    run = np.repeat(np.arange(len(length)), length)
    labels[run_row[run], starts[run] + _within(length)] = numbers[run_ring[run]]
    return np.unique(numbers[run_ring[length > 0]])


def _within(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, … for each of runs that lie one after the other."""
    counted: NDArray[np.int64] = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return counted
