"""Which cell each pixel of a picture belongs to, and the lines along the cells' edges."""

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.exports.scanlines import fill_rings
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
    count = int(owner[-1]) + 1 if len(owner) else 0
    fill_rings(labels, view.to_picture(points), owner, np.arange(first, first + count, dtype=np.int32))


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
