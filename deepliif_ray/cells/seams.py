"""Fragments of cores joined into the cells of a slide, one row of cores at a time.

Fragments are the nodes of a graph whose edges are the pixels that touch across the seams between cores.
Union-find over it decides which open regions reach the slide's border; those that do not are holes and join
the cells around them.

The graph is never held whole. A component is final as soon as nothing of it lies on the lower side of the row
of cores and no open region beside it does (whether that one is a hole is not known before it ends). Where
rims are measured, it must not lie so near to that side either that its rim may go beyond. Final components
are given out and forgotten; the others are carried into the next row, each as one node. So memory follows the
width of a row of cores and what hangs over its lower side, not the height of the slide.
"""

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepliif_ray.cells.fragments import CoreFragments
from deepliif_ray.cells.labels import KNOWN, find, union
from deepliif_ray.cells.measures import M
from deepliif_ray.cells.nearest import RIM_COLUMNS, RIM_NUMBERS
from deepliif_ray.cells.nodes import Nodes, SlideCells, finish
from deepliif_ray.cells.rim_seams import RimSeams
from deepliif_ray.cells.rims import RimReach

_BACKGROUND = 0
_LOW = 0xFFFFFFFF
_RIM = [M[name] for name in RIM_NUMBERS]


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


class SeamJoiner:
    """Joins cores to cells, row by row.

    Parameters
    ----------
    column_edges : ndarray of int64
        Where the cores' columns begin and end.
    noise_thresh, large_noise_thresh : int, int or None
        Only cells with a size between them (exclusive) are given out.
    reach : RimReach, optional
        That of the cores; None if nothing was measured around nuclei.
    """

    def __init__(
        self,
        column_edges: NDArray[np.int64],
        *,
        noise_thresh: int,
        large_noise_thresh: int | None,
        reach: RimReach | None = None,
    ) -> None:
        self._widths = np.diff(column_edges).tolist()
        self._slide_width = int(column_edges[-1])
        self._noise = noise_thresh
        self._limit = np.iinfo(np.int64).max if large_noise_thresh is None else large_noise_thresh
        self._carried = Nodes.background()
        self._above = np.zeros(self._slide_width, dtype=np.int32)  # nodes along the lower side so far
        self._contacts = np.empty(0, dtype=np.int64)  # of open regions not known to be holes
        self._first = True
        self._rim_seams = None if reach is None else RimSeams(column_edges, reach)
        self._rims = np.empty((0, RIM_COLUMNS), dtype=np.int64)  # in open regions not known to be holes

    @property
    def carried(self) -> int:
        """Components that are not final yet."""
        return len(self._carried) - 1

    def add(self, cores: list[CoreFragments], height: int, *, last: bool) -> SlideCells:
        """Take the next row of cores; return the cells that are final with it.

        Parameters
        ----------
        cores : list of CoreFragments
            One for each column.
        height : int
            Their height in pixels.
        last : bool
            Whether this row is the slide's last.
        """
        parts, contacts, sides, rims = [self._carried], [self._contacts], [], [self._rims]
        offset = len(self._carried) - 1
        offsets = []
        for core, width in zip(cores, self._widths, strict=True):
            shifted = np.where(core.sides > 0, core.sides + offset, _BACKGROUND).astype(np.int32)
            sides.append(np.split(shifted, [height, height + width, 2 * height + width]))
            pairs = core.contacts.astype(np.int64) + offset
            contacts.append((pairs[:, 0] << 32) | pairs[:, 1])
            parts.append(Nodes.of_core(core))
            rims.append(core.rims.copy())
            rims[-1][:, :2] += np.where(core.rims[:, :2] > 0, offset, 0)
            offsets.append(offset)
            offset += len(core.measures)
        nodes = Nodes.concatenate(parts)
        kinds = nodes.measures[:, M["kind"]].astype(np.uint8)
        parent = np.arange(len(nodes), dtype=np.int32)
        for left, right in pairwise(sides):
            contacts.append(_join_lines(parent, kinds, left[2], right[0]))
        if not self._first:
            top = np.concatenate([side[1] for side in sides])
            contacts.append(_join_lines(parent, kinds, self._above, top))
        self._first = False
        if self._rim_seams is not None:
            self._rim_seams.add(cores, offsets, height, last=last)
        below = np.concatenate([side[3] for side in sides]) if not last else np.empty(0, dtype=np.int32)
        return self._settle(nodes, kinds, parent, np.concatenate(contacts), np.concatenate(rims), below)

    def _settle(
        self,
        nodes: Nodes,
        kinds: NDArray[np.uint8],
        parent: NDArray[np.int32],
        contacts: NDArray[np.int64],
        rims: NDArray[np.int64],
        below: NDArray[np.int32],
    ) -> SlideCells:
        """Close the holes that are known, give out what is final, carry the rest."""
        roots = _roots(parent)
        goes_on = np.zeros(len(nodes), dtype=np.bool_)
        goes_on[roots[below]] = True
        inner = (kinds != KNOWN) & (roots != _BACKGROUND)
        _join_contacts(parent, contacts, inner & ~goes_on[roots])
        waiting = contacts[(inner & goes_on[roots])[contacts >> 32]]
        roots = _roots(parent)
        held = np.zeros(len(nodes), dtype=np.bool_)
        held[roots[below]] = True
        held[roots[waiting & _LOW]] = True
        rims = self._count_rims(nodes, kinds, roots, rims)
        held[rims[:, 1]] = True
        if self._rim_seams is not None:
            held[roots[self._rim_seams.waiting]] = True

        members = np.flatnonzero(roots != _BACKGROUND)
        members = members[np.argsort(roots[members], kind="stable")]
        starts = np.flatnonzero(np.diff(roots[members], prepend=-1))
        ends = np.append(starts[1:], len(members)) if len(starts) else starts
        joined, first = nodes.join(members, starts, self._slide_width)
        area = joined[:, M["area"]]
        is_held = held[roots[members[starts]]]
        keep = np.flatnonzero(~is_held & (area > self._noise) & (area < self._limit))
        keep = keep[np.argsort(first[keep], kind="stable")]
        cells = finish(nodes.select(members, starts[keep], ends[keep], joined[keep]))

        carry = np.flatnonzero(is_held)
        drawn = (area[carry] < self._limit) & (joined[carry, M["kind"]] == KNOWN)
        number = np.zeros(len(nodes), dtype=np.int32)
        number[roots[members[starts[carry]]]] = np.arange(1, len(carry) + 1)
        self._carried = Nodes.concatenate(
            [
                Nodes.background(),
                nodes.select(members, starts[carry], ends[carry], joined[carry], drawn=drawn),
            ]
        )
        self._above = number[roots[below]]
        pairs = number[roots[waiting >> 32]].astype(np.int64) << 32 | number[roots[waiting & _LOW]]
        self._contacts = np.unique(pairs)
        self._rims = rims
        self._rims[:, :2] = number[rims[:, :2]]
        if self._rim_seams is not None:
            self._rim_seams.carry(number[roots])
        return cells

    def _count_rims(
        self, nodes: Nodes, kinds: NDArray[np.uint8], roots: NDArray[np.int32], rims: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Add what was counted around nuclei to their nodes; return the rest, by components.

        What lies in the background counts. What lies in a hole is nucleus now, and does not. The rest is in
        regions of which neither is known yet.
        """
        is_nucleus = np.zeros(len(nodes), dtype=np.bool_)
        is_nucleus[roots[kinds == KNOWN]] = True
        if self._rim_seams is not None:
            rims = np.concatenate([rims, self._rim_seams.settle(roots, is_nucleus[roots])])
        region, nucleus = roots[rims[:, 0]], roots[rims[:, 1]]
        counts = region == _BACKGROUND
        np.add.at(nodes.measures, np.ix_(nucleus[counts], _RIM), rims[counts, 2:])
        waits = ~counts & ~is_nucleus[region]
        pairs, place = np.unique(
            np.stack([region[waits], nucleus[waits]], axis=1), axis=0, return_inverse=True
        )
        left = np.zeros((len(pairs), RIM_COLUMNS), dtype=np.int64)
        left[:, :2] = pairs
        np.add.at(left[:, 2:], place.reshape(-1), rims[waits, 2:])
        return left


def join_rows(
    cores: Iterable[CoreFragments],
    column_edges: NDArray[np.int64],
    row_edges: NDArray[np.int64],
    *,
    noise_thresh: int,
    large_noise_thresh: int | None,
    reach: RimReach | None = None,
) -> Iterator[SlideCells]:
    """Join the fragments of all cores of a slide; yield the cells that are final after each row of cores.

    Each yield is in the row order of first pixels; of one that follows, cells may begin further up.

    Parameters
    ----------
    cores : iterable of CoreFragments
        Row by row.
    column_edges, row_edges : ndarray of int64
        Where the cores' columns and rows begin and end.
    noise_thresh, large_noise_thresh : int, int or None
        Only cells with a size between them (exclusive) are kept.
    reach : RimReach, optional
        That of the cores; None if nothing was measured around nuclei.
    """
    joiner = SeamJoiner(
        column_edges, noise_thresh=noise_thresh, large_noise_thresh=large_noise_thresh, reach=reach
    )
    remaining = iter(cores)
    heights = np.diff(row_edges).tolist()
    for row, height in enumerate(heights):
        line = list(islice(remaining, len(column_edges) - 1))
        yield joiner.add(line, height, last=row == len(heights) - 1)
