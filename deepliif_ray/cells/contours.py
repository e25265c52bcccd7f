"""Outlines of cells: traced, simplified, filled, and written as WKB polygons.

The outline is the published one: the cell's boundary pixels, clockwise from its first pixel in row order
(Moore neighbourhood), with the points inside straight lines removed. Vertices are pixel indices.
"""

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

_DX = np.array([-1, 0, 1, 1, 1, 0, -1, -1], dtype=np.int64)  # clockwise from the upper left
_DY = np.array([-1, -1, -1, 0, 1, 1, 1, 0], dtype=np.int64)
_MIN_RING = 4
_HEADER = np.frombuffer(
    b"\x01\x03\x00\x00\x00\x01\x00\x00\x00", dtype=np.uint8
)  # little-endian polygon, one ring


@njit(cache=True)
def grow(out: NDArray[np.int32], needed: int) -> NDArray[np.int32]:
    """Return ``out`` if it has ``needed`` rows, else a larger copy of it."""
    if needed <= out.shape[0]:
        return out
    bigger = np.empty((2 * needed + 64, out.shape[1]), dtype=np.int32)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            bigger[row, column] = out[row, column]
    return bigger


@njit(cache=True)
def _inside(labels: NDArray[np.int32], y: int, x: int, label: int) -> bool:
    return bool(0 <= y < labels.shape[0] and 0 <= x < labels.shape[1] and labels[y, x] == label)


@njit(cache=True)
def trace(
    labels: NDArray[np.int32], x: int, y: int, label: int, out: NDArray[np.int32], used: int
) -> tuple[NDArray[np.int32], int]:
    """Append the simplified outline of one cell to ``out``.

    Parameters
    ----------
    labels : ndarray of int32, shape (H, W)
    x, y : int
        The first pixel of ``label`` in row order.
    label : int
    out : ndarray of int32, shape (N, 2)
        Points x, y; grown when full.
    used : int
        Points in ``out``.

    Returns
    -------
    out, used
        The (possibly new) array and its number of points.
    """
    first_x, first_y = x, y
    back = 6
    while back >= 0 and not _inside(labels, y + _DY[back], x + _DX[back], label):
        back -= 1
    out = grow(out, used + 1)
    out[used, 0], out[used, 1] = x, y
    used += 1
    if back < 0:
        return out, used
    # The walk ends with the step from the pixel before the first one to the first one.
    last_x, last_y = x + _DX[back], y + _DY[back]
    before = -1
    while True:
        step = back + 1
        while not _inside(labels, y + _DY[step % 8], x + _DX[step % 8], label):
            step += 1
        step %= 8
        if before >= 0 and before != step:
            out = grow(out, used + 1)
            out[used, 0], out[used, 1] = x, y
            used += 1
        next_x, next_y = x + _DX[step], y + _DY[step]
        if x == last_x and y == last_y and next_x == first_x and next_y == first_y:
            return out, used
        before = step
        back = (step + 4) % 8
        x, y = next_x, next_y


@njit(cache=True)
def fill_holes(mask: NDArray[np.int32]) -> None:
    """Set the zeros of ``mask`` that its border does not reach (4-connected) to 1, in place.

    Parameters
    ----------
    mask : ndarray of int32, shape (H, W)
        0 or 1; its outermost pixels must be 0.
    """
    height, width = mask.shape
    stack = np.empty((64, 2), dtype=np.int32)
    stack[0, 0], stack[0, 1] = 0, 0
    mask[0, 0] = 2
    depth = 1
    while depth > 0:
        depth -= 1
        y, x = stack[depth, 0], stack[depth, 1]
        for side in range(1, 8, 2):
            ny, nx = y + _DY[side], x + _DX[side]
            if 0 <= ny < height and 0 <= nx < width and mask[ny, nx] == 0:
                mask[ny, nx] = 2
                stack = grow(stack, depth + 1)
                stack[depth, 0], stack[depth, 1] = ny, nx
                depth += 1
    for y in range(height):
        for x in range(width):
            mask[y, x] = 0 if mask[y, x] == 2 else 1


@njit(cache=True)
def fill_outline(mask: NDArray[np.int32], points: NDArray[np.int32], x0: int, y0: int) -> None:
    """Draw an outline and what it encloses into ``mask``, in place.

    Parameters
    ----------
    mask : ndarray of int32, shape (H, W)
    points : ndarray of int32, shape (N, 2)
        A simplified outline, as `trace` makes it.
    x0, y0 : int
        Position of the mask's upper left pixel.
    """
    count = points.shape[0]
    left, right = points[0, 0], points[0, 0]
    top, bottom = points[0, 1], points[0, 1]
    for i in range(count):
        left, right = min(left, points[i, 0]), max(right, points[i, 0])
        top, bottom = min(top, points[i, 1]), max(bottom, points[i, 1])
    left, top = left - 1, top - 1
    own = np.zeros((bottom - top + 2, right - left + 2), dtype=np.int32)
    for i in range(count):
        x, y = points[i, 0], points[i, 1]
        to_x, to_y = points[(i + 1) % count, 0], points[(i + 1) % count, 1]
        own[y - top, x - left] = 1
        while x != to_x or y != to_y:
            x += (to_x > x) - (to_x < x)
            y += (to_y > y) - (to_y < y)
            own[y - top, x - left] = 1
    fill_holes(own)
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            if own[y, x]:
                mask[y + top - y0, x + left - x0] = 1


@njit(cache=True)
def retrace(
    boxes: NDArray[np.int64],
    runs: NDArray[np.int32],
    run_ends: NDArray[np.int64],
    points: NDArray[np.int32],
    point_ends: NDArray[np.int64],
    cell_of_outline: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Trace cells that are made of several fragments.

    Parameters
    ----------
    boxes : ndarray of int64, shape (N, 4)
        Bounding box of each cell: x0, y0, x1, y1, half-open.
    runs : ndarray of int32, shape (R, 3)
        Horizontal runs of pixels y, x0, x1 (half-open), sorted by cell.
    run_ends : ndarray of int64, shape (N,)
        Where the runs of each cell end.
    points : ndarray of int32, shape (P, 2)
        Outlines of fragments that lie inside one core, sorted by cell.
    point_ends : ndarray of int64, shape (O,)
        Where each of these outlines ends.
    cell_of_outline : ndarray of int64, shape (O,)
        The cell that each of these outlines belongs to, ascending.

    Returns
    -------
    outlines : ndarray of int32, shape (Q, 2)
    ends : ndarray of int64, shape (N,)
        Where the outline of each cell ends.
    """
    out = np.empty((1024, 2), dtype=np.int32)
    ends = np.empty(boxes.shape[0], dtype=np.int64)
    used, one = int(np.int64(0)), int(np.int64(1))  # numba would compile `trace` once more for each literal
    outline = 0
    for cell in range(boxes.shape[0]):
        x0, y0 = boxes[cell, 0] - 1, boxes[cell, 1] - 1
        mask = np.zeros((boxes[cell, 3] - y0 + 1, boxes[cell, 2] - x0 + 1), dtype=np.int32)
        for run in range(run_ends[cell - 1] if cell > 0 else 0, run_ends[cell]):
            for x in range(runs[run, 1] - x0, runs[run, 2] - x0):
                mask[runs[run, 0] - y0, x] = 1
        while outline < cell_of_outline.shape[0] and cell_of_outline[outline] == cell:
            begin = point_ends[outline - 1] if outline > 0 else 0
            fill_outline(mask, points[begin : point_ends[outline]], x0, y0)
            outline += 1
        fill_holes(mask)
        first = int(np.int64(0))
        while mask[1, first] == 0:
            first += 1
        begin = used
        out, used = trace(mask, first, one, one, out, used)
        for point in range(begin, used):
            out[point, 0] += x0
            out[point, 1] += y0
        ends[cell] = used
    return out[:used], ends


@njit(cache=True)
def _write_wkb(
    points: NDArray[np.int32], ends: NDArray[np.int64], header: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    offsets = np.zeros(ends.shape[0] + 1, dtype=np.int32)
    begin = 0
    for cell in range(ends.shape[0]):
        ring = max(ends[cell] - begin + 1, _MIN_RING)
        offsets[cell + 1] = offsets[cell] + header.shape[0] + 4 + 16 * ring
        begin = ends[cell]
    data = np.empty(offsets[-1], dtype=np.uint8)
    begin = 0
    for cell in range(ends.shape[0]):
        count = ends[cell] - begin
        ring = max(count + 1, _MIN_RING)
        at = offsets[cell]
        for byte in range(header.shape[0]):
            data[at + byte] = header[byte]
        at += header.shape[0]
        for byte in range(4):
            data[at + byte] = (ring >> (8 * byte)) & 255
        at += 4
        coordinates = np.empty(2 * ring, dtype=np.float64)
        for point in range(ring):
            source = begin + point if point < count else begin
            coordinates[2 * point] = points[source, 0]
            coordinates[2 * point + 1] = points[source, 1]
        plain = coordinates.view(np.uint8)
        for byte in range(16 * ring):
            data[at + byte] = plain[byte]
        begin = ends[cell]
    return data, offsets


def encode_wkb(points: NDArray[np.int32], ends: NDArray[np.int64]) -> pa.BinaryArray:
    """Return outlines as little-endian WKB polygons.

    The ring is closed by repeating its first point, which is also repeated where a ring would have fewer
    than the four points that WKB readers expect.

    Parameters
    ----------
    points : ndarray of int32, shape (P, 2)
    ends : ndarray of int64, shape (N,)
        Where each outline ends in ``points``.
    """
    data, offsets = _write_wkb(points, ends, _HEADER)
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


def decode_wkb(polygon: bytes) -> NDArray[np.int32]:
    """Return the vertices of an outline written by `encode_wkb`, shape (N, 2), x and y, not closed."""
    ring = np.frombuffer(polygon, dtype="<f8", offset=len(_HEADER) + 4).reshape(-1, 2).astype(np.int32)
    last = len(ring)
    while last > 1 and (ring[last - 1] == ring[0]).all():
        last -= 1
    return ring[:last]
