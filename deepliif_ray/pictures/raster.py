"""Which cell each pixel of a picture belongs to, and the lines along the cells' edges.

Pillow's polygons have whole numbers as corners and include both ends, so that cells become a pixel larger.
scikit-image fills one polygon a call, which is slow for the cells of a large picture.
"""

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.pictures.view import View

Int32Array = NDArray[np.int32]


def fill(
    labels: Int32Array, points: NDArray[np.float64], owner: NDArray[np.int64], first: int, view: View
) -> None:
    """Write the number of its cell into each pixel whose centre lies in an outline.

    A centre on an edge belongs to what lies right of it or below, so that outlines that share an edge share
    no pixel, and none between them is lost.

    Parameters
    ----------
    labels : ndarray of int32, shape (rows, columns)
        Is written to; 0 is no cell.
    points : ndarray of float64, shape (n, 2)
        Corners of closed rings one after the other, level-0 pixel-edge coordinates.
    owner : ndarray of int64, shape (n,)
        Ring of each corner, ascending.
    first : int
        Number of ring 0.
    view : View
    """
    placed = view.to_picture(points)
    (x0, y0), (x1, y1), ring = placed[:-1].T, placed[1:].T, owner[:-1]
    top, end = np.ceil(np.minimum(y0, y1) - 0.5), np.ceil(np.maximum(y0, y1) - 0.5)
    top, end = (np.clip(rows, 0, view.rows).astype(np.int64) for rows in (top, end))
    lines = np.where(owner[1:] == ring, end - top, 0)
    edge = np.repeat(np.arange(len(lines)), lines)
    row = top[edge] + _within(lines)
    x = x0[edge] + (row + 0.5 - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
    order = np.lexsort((x, row, ring[edge]))
    column = np.clip(np.ceil(x[order] - 0.5), 0, view.columns).astype(np.int64)
    # A closed ring crosses a row an even number of times: in, out, in, out.
    starts, run_row, run_ring = column[::2], row[order][::2], ring[edge][order][::2]
    length = column[1::2] - starts
    run = np.repeat(np.arange(len(length)), length)
    labels[run_row[run], starts[run] + _within(length)] = first + run_ring[run]


def borders(labels: Int32Array, thickness: int) -> NDArray[np.bool_]:
    """Return which pixels lie at the edge of their cell, ``thickness`` pixels inwards.

    The edge of the picture is none of a cell's: one that is cut there stays open.
    """
    edge = np.zeros(labels.shape, bool)
    for here, there in _NEIGHBOURS:
        edge[here] |= labels[here] != labels[there]
    is_cell = labels > 0
    edge &= is_cell
    for _ in range(thickness - 1):
        wider = edge.copy()
        for here, there in _NEIGHBOURS:
            wider[here] |= edge[there] & (labels[here] == labels[there])
        edge = wider
    return edge


_ALL, _HEAD, _TAIL = slice(None), slice(None, -1), slice(1, None)
_NEIGHBOURS = (
    ((_HEAD, _ALL), (_TAIL, _ALL)),
    ((_TAIL, _ALL), (_HEAD, _ALL)),
    ((_ALL, _HEAD), (_ALL, _TAIL)),
    ((_ALL, _TAIL), (_ALL, _HEAD)),
)


def _within(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, … for each of runs that lie one after the other."""
    counted: NDArray[np.int64] = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return counted
