"""Nodes of the graph that joins fragments: what is known of each, in flat arrays.

A node is a fragment, or a component of fragments joined so far. It has joined measures, and, as long as its
outline may be wanted, the pixels and outlines of its fragments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepliif_ray.cells.contours import retrace
from deepliif_ray.cells.fragments import SHARED, CoreFragments
from deepliif_ray.cells.measures import MAXIMA, MINIMA, NUMBERS, M

_BOX = [M[name] for name in ("x0", "y0", "x1", "y1")]


@dataclass(frozen=True)
class SlideCells:
    """Cells of a slide, in the row order of their first pixels.

    Attributes
    ----------
    measures : ndarray of int64, shape (N, len(NUMBERS))
        The measures of `deepliif_ray.cells.measures.NUMBERS`, joined.
    points : ndarray of int32, shape (P, 2)
        Outlines of all cells, one after the other.
    point_ends : ndarray of int64, shape (N,)
    """

    measures: NDArray[np.int64]
    points: NDArray[np.int32]
    point_ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.point_ends)

    def __getitem__(self, part: slice) -> "SlideCells":
        """Return the cells ``part``, a slice without a step."""
        ends = self.point_ends[part]
        first = int(begins(self.point_ends)[part][0]) if len(ends) else 0
        last = int(ends[-1]) if len(ends) else 0
        return SlideCells(self.measures[part], self.points[first:last], ends - first)

    @classmethod
    def merge(cls, pieces: Sequence["SlideCells"]) -> "SlideCells":
        """Return the cells of all pieces in the row order of their first pixels."""
        if len(pieces) == 1:
            return pieces[0]
        measures = np.concatenate([np.empty((0, len(NUMBERS)), np.int64), *(p.measures for p in pieces)])
        order = np.lexsort((measures[:, M["first_x"]], measures[:, M["first_y"]]))
        points = np.concatenate([np.empty((0, 2), np.int32), *(p.points for p in pieces)])
        ends = _shifted([p.point_ends for p in pieces], [len(p.points) for p in pieces])
        points, point_ends = _gather(points, begins(ends)[order], ends[order])
        return cls(measures[order], points, point_ends)


@dataclass(frozen=True)
class Nodes:
    """Nodes of the graph; node 0 of a graph is the background.

    Attributes
    ----------
    measures : ndarray of int64, shape (N, len(NUMBERS))
    sizes : ndarray of int64, shape (N,)
        Fragments joined in each node.
    runs, run_ends : ndarray of int32, shape (R, 3); ndarray of int64, shape (N,)
        Pixels (y, x0, x1) of its fragments that touch a shared side.
    points, point_ends : ndarray of int32, shape (P, 2); ndarray of int64, shape (O,)
        Outlines of its fragments that touch none.
    outline_ends : ndarray of int64, shape (N,)
        Where the outlines of each node end.
    """

    measures: NDArray[np.int64]
    sizes: NDArray[np.int64]
    runs: NDArray[np.int32]
    run_ends: NDArray[np.int64]
    points: NDArray[np.int32]
    point_ends: NDArray[np.int64]
    outline_ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def background(cls) -> Self:
        """Return the background alone."""
        none = np.zeros(1, dtype=np.int64)
        return cls(
            measures=np.zeros((1, len(NUMBERS)), dtype=np.int64),
            sizes=none,
            runs=np.empty((0, 3), dtype=np.int32),
            run_ends=none,
            points=np.empty((0, 2), dtype=np.int32),
            point_ends=none[:0],
            outline_ends=none,
        )

    @classmethod
    def of_core(cls, core: CoreFragments) -> Self:
        """Return the fragments of one core."""
        ends = core.point_ends.astype(np.int64)
        drawn = ends > begins(ends)
        return cls(
            measures=core.measures,
            sizes=np.ones(len(core.measures), dtype=np.int64),
            runs=core.runs,
            run_ends=core.run_ends.astype(np.int64),
            points=core.points,
            point_ends=ends[drawn],
            outline_ends=np.cumsum(drawn),
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Nodes"]) -> Self:
        """Return the nodes of all parts, one part after the other."""
        return cls(
            measures=np.concatenate([p.measures for p in parts]),
            sizes=np.concatenate([p.sizes for p in parts]),
            runs=np.concatenate([p.runs for p in parts]),
            run_ends=_shifted([p.run_ends for p in parts], [len(p.runs) for p in parts]),
            points=np.concatenate([p.points for p in parts]),
            point_ends=_shifted([p.point_ends for p in parts], [len(p.points) for p in parts]),
            outline_ends=_shifted([p.outline_ends for p in parts], [len(p.point_ends) for p in parts]),
        )

    def join(
        self, members: NDArray[np.int64], starts: NDArray[np.int64], slide_width: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the joined measures of components, and the place of each one's first pixel.

        Parameters
        ----------
        members : ndarray of int64
            Nodes, component by component.
        starts : ndarray of int64, shape (C,)
            Where in ``members`` each component starts.
        slide_width : int
            Pixels of a row of the slide.
        """
        measures = self.measures[members]
        if not len(members):
            return measures, np.empty(0, dtype=np.int64)
        joined = np.add.reduceat(measures, starts, axis=0)
        joined[:, MINIMA] = np.minimum.reduceat(measures[:, MINIMA], starts, axis=0)
        joined[:, MAXIMA] = np.maximum.reduceat(measures[:, MAXIMA], starts, axis=0)
        joined[:, M["touches"]] = np.bitwise_or.reduceat(measures[:, M["touches"]], starts)
        # The first pixel in row order is that of the least (y, x) among the members.
        places = measures[:, M["first_y"]] * slide_width + measures[:, M["first_x"]]
        first = np.minimum.reduceat(places, starts)
        joined[:, M["first_y"]], joined[:, M["first_x"]] = np.divmod(first, slide_width)
        return joined, first

    def select(
        self,
        members: NDArray[np.int64],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        joined: NDArray[np.int64],
        drawn: NDArray[np.bool_] | None = None,
    ) -> "Nodes":
        """Return components as nodes of their own, in the order asked for.

        Parameters
        ----------
        members : ndarray of int64
            Nodes, component by component.
        starts, ends : ndarray of int64, shape (C,)
            Where in ``members`` each component lies.
        joined : ndarray of int64, shape (C, len(NUMBERS))
            Its joined measures.
        drawn : ndarray of bool, shape (C,), optional
            Whose pixels and outlines to keep; by default all.
        """
        wanted = ends if drawn is None else np.where(drawn, ends, starts)
        picked, picked_ends = _ranges(starts, wanted)
        own = members[picked]
        runs, run_ends = _gather(self.runs, begins(self.run_ends)[own], self.run_ends[own])
        outlines, outline_ends = _ranges(begins(self.outline_ends)[own], self.outline_ends[own])
        points, point_ends = _gather(
            self.points, begins(self.point_ends)[outlines], self.point_ends[outlines]
        )
        everyone, everyone_ends = _ranges(starts, ends)
        counted = np.append(0, np.cumsum(self.sizes[members[everyone]]))
        return Nodes(
            measures=joined,
            sizes=counted[everyone_ends] - counted[begins(everyone_ends)],
            runs=runs,
            run_ends=np.append(0, run_ends)[picked_ends],
            points=points,
            point_ends=point_ends,
            outline_ends=np.append(0, outline_ends)[picked_ends],
        )


def finish(nodes: Nodes) -> SlideCells:
    """Return final components as cells; those of more than one fragment are traced again."""
    alone = (nodes.sizes == 1) & (nodes.measures[:, M["touches"]] & SHARED == 0)
    outline_begins, point_begins = begins(nodes.outline_ends), begins(nodes.point_ends)
    simple = outline_begins[alone]
    several = np.flatnonzero(~alone)
    runs, run_ends = _gather(nodes.runs, begins(nodes.run_ends)[several], nodes.run_ends[several])
    outlines, outline_ends = _ranges(outline_begins[several], nodes.outline_ends[several])
    points, point_ends = _gather(nodes.points, point_begins[outlines], nodes.point_ends[outlines])
    cell_of = np.repeat(np.arange(len(several)), np.diff(outline_ends, prepend=0))
    boxes = np.ascontiguousarray(nodes.measures[several][:, _BOX])  # of one row or of many, in one order
    traced, traced_ends = retrace(boxes, runs, run_ends, points, point_ends, cell_of)
    lengths = np.empty(len(nodes), dtype=np.int64)
    lengths[alone] = nodes.point_ends[simple] - point_begins[simple]
    lengths[~alone] = np.diff(traced_ends, prepend=0)
    ends = np.cumsum(lengths)
    drawn = np.empty((int(ends[-1]) if len(ends) else 0, 2), dtype=np.int32)
    places = ends - lengths
    _copy_ranges(nodes.points, point_begins[simple], nodes.point_ends[simple], drawn, places[alone])
    _copy_ranges(traced, begins(traced_ends), traced_ends, drawn, places[~alone])
    return SlideCells(nodes.measures, drawn, ends)


def begins(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where ranges begin that lie one after the other and end at ``ends``."""
    return np.concatenate([np.zeros(min(len(ends), 1), dtype=np.int64), ends[:-1]])


def _shifted(ends: list[NDArray[np.int64]], lengths: list[int]) -> NDArray[np.int64]:
    """Return the ends of ranges in arrays of ``lengths`` as ends in the arrays' concatenation."""
    offsets = np.cumsum([0, *lengths[:-1]])
    return np.concatenate(
        [np.empty(0, np.int64), *(e + offset for e, offset in zip(ends, offsets, strict=False))]
    )


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
        for row in range(ends[i] - begins[i]):
            for column in range(source.shape[1]):
                target[places[i] + row, column] = source[begins[i] + row, column]


def _gather(
    source: NDArray[np.int32], first: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the rows ``first[i]:ends[i]`` of ``source`` one range after the other, and where each ends."""
    gathered_ends = np.cumsum(ends - first)
    gathered = np.empty((int(gathered_ends[-1]) if len(ends) else 0, source.shape[1]), dtype=source.dtype)
    _copy_ranges(source, first, ends, gathered, begins(gathered_ends))
    return gathered, gathered_ends


def _ranges(first: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers ``first[i]`` to ``ends[i] - 1`` one range after the other, and where each ends."""
    lengths = ends - first
    range_ends = np.cumsum(lengths)
    total = int(range_ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(first - begins(range_ends), lengths), range_ends
