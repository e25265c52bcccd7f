"""Fragments of cores joined into the cells of a slide.

Fragments are the nodes of a graph whose edges are the pixels that touch across the seams between cores.
Union-find over it decides which open regions reach the slide's border; those that do not are holes and join
the cells around them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepliif_ray.cells.contours import retrace
from deepliif_ray.cells.fragments import MEASURES, SHARED, CoreFragments
from deepliif_ray.cells.labels import KNOWN, find, union

_M = {name: i for i, name in enumerate(MEASURES)}
_MINIMA = [_M[name] for name in ("x0", "y0")]
_MAXIMA = [_M[name] for name in ("marker", "x1", "y1")]
_BACKGROUND = 0


@dataclass(frozen=True)
class SlideCells:
    """The cells of a slide, in the row order of their first pixels.

    Attributes
    ----------
    measures : dict of str to ndarray of int64, shape (N,)
        The measures of `deepliif_ray.cells.fragments.MEASURES`, joined.
    points : ndarray of int32, shape (P, 2)
        Outlines of all cells, one after the other.
    point_ends : ndarray of int64, shape (N,)
    marker_histogram : ndarray of int64, shape (256,)
    """

    measures: dict[str, NDArray[np.int64]]
    points: NDArray[np.int32]
    point_ends: NDArray[np.int64]
    marker_histogram: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.point_ends)


@njit(cache=True)
def _join_lines(
    parent: NDArray[np.int32], kinds: NDArray[np.uint8], a: NDArray[np.int32], b: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Join two facing lines of nodes; return contacts ``open << 32 | known`` across them."""
    contacts = np.empty(len(a), dtype=np.int64)
    used = 0
    for i in range(len(a)):
        here_known = kinds[a[i]] == KNOWN
        if (kinds[b[i]] == KNOWN) == here_known:
            union(parent, a[i], b[i])
        else:
            unknown, cell = (b[i], a[i]) if here_known else (a[i], b[i])
            if unknown != _BACKGROUND:
                contacts[used] = (np.int64(unknown) << 32) | np.int64(cell)
                used += 1
        if here_known:
            for j in (i - 1, i + 1):
                if 0 <= j < len(b) and kinds[b[j]] == KNOWN:
                    union(parent, a[i], b[j])
    return contacts[:used]


@njit(cache=True)
def _join_contacts(
    parent: NDArray[np.int32], contacts: NDArray[np.int64], is_hole: NDArray[np.bool_]
) -> None:
    for contact in contacts:
        unknown = contact >> 32
        if is_hole[unknown]:
            union(parent, unknown, contact & 0xFFFFFFFF)


@njit(cache=True)
def _roots(parent: NDArray[np.int32]) -> NDArray[np.int32]:
    roots = np.empty_like(parent)
    for node in range(len(parent)):
        roots[node] = find(parent, node)
    return roots


class _Pieces:
    """The fragments of all cores, numbered as the nodes of one graph; node 0 is the background."""

    def __init__(self) -> None:
        zero = np.zeros(1, dtype=np.int64)
        self.measures = [np.zeros((1, len(MEASURES)), dtype=np.int64)]
        self.contacts: list[NDArray[np.int64]] = []
        self.sides: list[list[NDArray[np.int32]]] = []
        self.points, self.point_ends = [np.empty((0, 2), dtype=np.int32)], [zero]
        self.runs, self.run_ends = [np.empty((0, 3), dtype=np.int32)], [zero]
        self.histogram = np.zeros(256, dtype=np.int64)
        self._last = self._points = self._runs = 0

    def add(self, core: CoreFragments, height: int, width: int) -> None:
        """Append the fragments of the next core."""
        sides = np.where(core.sides > 0, core.sides + self._last, _BACKGROUND).astype(np.int32)
        self.sides.append(np.split(sides, [height, height + width, 2 * height + width]))
        pairs = core.contacts.astype(np.int64) + self._last
        self.contacts.append((pairs[:, 0] << 32) | pairs[:, 1])
        self.measures.append(core.measures)
        self.points.append(core.points)
        self.point_ends.append(core.point_ends + np.int64(self._points))
        self.runs.append(core.runs)
        self.run_ends.append(core.run_ends + np.int64(self._runs))
        self.histogram += core.marker_histogram
        self._last += len(core.measures)
        self._points += len(core.points)
        self._runs += len(core.runs)


@njit(cache=True)
def _copy_ranges(
    source: NDArray[np.int32],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    target: NDArray[np.int32],
    places: NDArray[np.int64],
) -> None:
    """Copy the rows ``begins[i]:ends[i]`` of ``source`` to ``target``, from row ``places[i]`` on."""
    for i in range(len(begins)):
        target[places[i] : places[i] + ends[i] - begins[i]] = source[begins[i] : ends[i]]


def _gather(
    source: NDArray[np.int32], begins: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the rows ``begins[i]:ends[i]`` of ``source`` one range after the other, and where each ends."""
    gathered_ends = np.cumsum(ends - begins)
    gathered = np.empty((int(gathered_ends[-1]) if len(ends) else 0, source.shape[1]), dtype=source.dtype)
    _copy_ranges(source, begins, ends, gathered, _begins(gathered_ends))
    return gathered, gathered_ends


def _begins(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(min(len(ends), 1), dtype=np.int64), ends[:-1]])


def join_cores(
    cores: Iterable[CoreFragments],
    column_edges: NDArray[np.int64],
    row_edges: NDArray[np.int64],
    *,
    noise_thresh: int,
    large_noise_thresh: int | None,
) -> SlideCells:
    """Join the fragments of all cores of a slide into its cells.

    Parameters
    ----------
    cores : iterable of CoreFragments
        Row by row.
    column_edges, row_edges : ndarray of int64
        Where the cores' columns and rows begin and end.
    noise_thresh, large_noise_thresh : int, int or None
        Only cells with a size between them (exclusive) are kept.
    """
    heights, widths = np.diff(row_edges), np.diff(column_edges)
    columns = len(widths)
    pieces = _Pieces()
    for index, core in enumerate(cores):
        row, column = divmod(index, columns)
        pieces.add(core, int(heights[row]), int(widths[column]))
    sides, contacts = pieces.sides, pieces.contacts
    measures = np.concatenate(pieces.measures)
    pieces.measures.clear()
    kinds = measures[:, _M["kind"]].astype(np.uint8)
    parent = np.arange(len(measures), dtype=np.int32)

    for column in range(1, columns):
        left = np.concatenate([sides[i][2] for i in range(column - 1, len(sides), columns)])
        right = np.concatenate([sides[i][0] for i in range(column, len(sides), columns)])
        contacts.append(_join_lines(parent, kinds, left, right))
    for start in range(columns, len(sides), columns):
        above = np.concatenate([sides[i][3] for i in range(start - columns, start)])
        below = np.concatenate([sides[i][1] for i in range(start, start + columns)])
        contacts.append(_join_lines(parent, kinds, above, below))
    is_hole = (_roots(parent) != _BACKGROUND) & (kinds != KNOWN)
    _join_contacts(parent, np.concatenate(contacts), is_hole)
    roots = _roots(parent)

    members = np.flatnonzero((kinds == KNOWN) | is_hole)
    members = members[np.argsort(roots[members], kind="stable")]
    starts = np.flatnonzero(np.diff(roots[members], prepend=-1))
    joined = np.add.reduceat(measures[members], starts, axis=0) if len(members) else measures[:0]
    # The first pixel in row order is that of the least (y, x) among the members.
    slide_width = int(column_edges[-1])
    keys = measures[:, _M["first_y"]] * slide_width + measures[:, _M["first_x"]]
    if len(members):
        joined[:, _MINIMA] = np.minimum.reduceat(measures[members][:, _MINIMA], starts, axis=0)
        joined[:, _MAXIMA] = np.maximum.reduceat(measures[members][:, _MAXIMA], starts, axis=0)
        joined[:, _M["touches"]] = np.bitwise_or.reduceat(measures[members, _M["touches"]], starts)
        first = np.minimum.reduceat(keys[members], starts)
    else:
        first = keys[:0]
    joined[:, _M["first_y"]], joined[:, _M["first_x"]] = np.divmod(first, slide_width)
    area = joined[:, _M["area"]]
    limit = np.iinfo(np.int64).max if large_noise_thresh is None else large_noise_thresh
    keep = np.flatnonzero((area > noise_thresh) & (area < limit))
    keep = keep[np.argsort(first[keep], kind="stable")]
    points, point_ends = _outlines(pieces, members, starts, keep, joined)
    return SlideCells(
        measures={name: joined[keep, i] for name, i in _M.items()},
        points=points,
        point_ends=point_ends,
        marker_histogram=pieces.histogram,
    )


def _outlines(
    pieces: _Pieces,
    members: NDArray[np.int64],
    starts: NDArray[np.int64],
    keep: NDArray[np.int64],
    joined: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the outlines of the kept cells; those of more than one fragment are traced again."""
    points, runs = np.concatenate(pieces.points), np.concatenate(pieces.runs)
    point_ends, run_ends = np.concatenate(pieces.point_ends), np.concatenate(pieces.run_ends)
    point_begins, run_begins = _begins(point_ends), _begins(run_ends)
    sizes = np.diff(starts, append=len(members))
    alone = (sizes[keep] == 1) & (joined[keep, _M["touches"]] & SHARED == 0)

    simple = members[starts[keep[alone]]]
    several = keep[~alone]
    fragments, fragment_ends = _gather(
        members[:, None].astype(np.int32), starts[several], starts[several] + sizes[several]
    )
    fragments = fragments[:, 0]
    cell_of = np.repeat(np.arange(len(several)), np.diff(fragment_ends, prepend=0))
    drawn = point_ends[fragments] > point_begins[fragments]
    own_runs, own_run_ends = _gather(runs, run_begins[fragments], run_ends[fragments])
    own_points, own_point_ends = _gather(points, point_begins[fragments[drawn]], point_ends[fragments[drawn]])
    traced, traced_ends = retrace(
        joined[several][:, [_M[name] for name in ("x0", "y0", "x1", "y1")]],
        own_runs,
        np.append(own_run_ends, 0)[fragment_ends - 1],
        own_points,
        own_point_ends,
        cell_of[drawn],
    )
    lengths = np.empty(len(keep), dtype=np.int64)
    lengths[alone] = point_ends[simple] - point_begins[simple]
    lengths[~alone] = np.diff(traced_ends, prepend=0)
    ends = np.cumsum(lengths)
    outlines = np.empty((int(ends[-1]) if len(ends) else 0, 2), dtype=np.int32)
    places = ends - lengths
    _copy_ranges(points, point_begins[simple], point_ends[simple], outlines, places[alone])
    _copy_ranges(traced, _begins(traced_ends), traced_ends, outlines, places[~alone])
    return outlines, ends
