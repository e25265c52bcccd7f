"""Fragments of cores joined into the cells of a slide.

Fragments are the nodes of a graph whose edges are the pixels that touch across the seams between cores.
Union-find over it decides which open regions reach the slide's border; those that do not are holes and join
the cells around them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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


def _sides(
    core: CoreFragments, height: int, width: int, base: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    sides = np.where(core.sides > 0, core.sides + base, _BACKGROUND).astype(np.int32)
    left, top, right, bottom = np.split(sides, [height, height + width, 2 * height + width])
    return left, top, right, bottom


def _gather(points: NDArray[Any], begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[Any]:
    """Return the rows ``begins[i]:ends[i]`` of ``points``, one range after the other."""
    lengths = ends - begins
    total = int(lengths.sum())
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    gathered: NDArray[Any] = points[np.repeat(begins, lengths) + within]
    return gathered


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
    parts: list[CoreFragments] = []
    bases: list[int] = []
    sides = []
    count = 1  # node 0 is the background
    for index, core in enumerate(cores):
        row, column = divmod(index, len(widths))
        base = count - 1
        sides.append(_sides(core, int(heights[row]), int(widths[column]), base))
        parts.append(core)
        bases.append(base)
        count += len(core.measures)
    histogram = np.stack([core.marker_histogram for core in parts]).sum(axis=0)
    measures = np.concatenate([np.zeros((1, len(MEASURES)), dtype=np.int64), *(c.measures for c in parts)])
    kinds = measures[:, _M["kind"]].astype(np.uint8)
    parent = np.arange(count, dtype=np.int32)

    columns = len(widths)
    contacts = [
        ((core.contacts[:, 0].astype(np.int64) + base) << 32) | (core.contacts[:, 1].astype(np.int64) + base)
        for core, base in zip(parts, bases, strict=True)
    ]
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
    points, point_ends = _outlines(parts, bases, members, starts, keep, joined)
    return SlideCells(
        measures={name: joined[keep, i] for name, i in _M.items()},
        points=points,
        point_ends=point_ends,
        marker_histogram=histogram,
    )


def _outlines(
    parts: list[CoreFragments],
    bases: list[int],
    members: NDArray[np.int64],
    starts: NDArray[np.int64],
    keep: NDArray[np.int64],
    joined: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the outlines of the kept cells; those of more than one fragment are traced again."""
    points = np.concatenate([core.points for core in parts])
    runs = np.concatenate([core.runs for core in parts])
    zero = np.zeros(1, dtype=np.int64)
    point_ends, run_ends = (
        np.concatenate([zero, *((getattr(c, name) + shift) for c, shift in zip(parts, shifts, strict=True))])
        for name, shifts in (
            ("point_ends", np.cumsum([0] + [len(c.points) for c in parts])[:-1].tolist()),
            ("run_ends", np.cumsum([0] + [len(c.runs) for c in parts])[:-1].tolist()),
        )
    )
    point_begins, run_begins = _begins(point_ends), _begins(run_ends)
    sizes = np.diff(starts, append=len(members))
    alone = (sizes[keep] == 1) & (joined[keep, _M["touches"]] & SHARED == 0)

    simple = members[starts[keep[alone]]]
    several = keep[~alone]
    fragments = _gather(members[:, None], starts[several], starts[several] + sizes[several])[:, 0]
    cell_of = np.repeat(np.arange(len(several)), sizes[several])
    with_outline = point_ends[fragments] > point_begins[fragments]
    run_counts = np.bincount(
        cell_of, weights=run_ends[fragments] - run_begins[fragments], minlength=len(several)
    ).astype(np.int64)
    drawn = fragments[with_outline]
    traced, traced_ends = retrace(
        joined[several][:, [_M[name] for name in ("x0", "y0", "x1", "y1")]],
        _gather(runs, run_begins[fragments], run_ends[fragments]),
        np.cumsum(run_counts),
        _gather(points, point_begins[drawn], point_ends[drawn]),
        np.cumsum(point_ends[drawn] - point_begins[drawn]),
        cell_of[with_outline],
    )
    pool = np.concatenate([points, traced])
    begins, ends = np.empty(len(keep), dtype=np.int64), np.empty(len(keep), dtype=np.int64)
    begins[alone], ends[alone] = point_begins[simple], point_ends[simple]
    begins[~alone], ends[~alone] = _begins(traced_ends) + len(points), traced_ends + len(points)
    return _gather(pool, begins, ends), np.cumsum(ends - begins)
