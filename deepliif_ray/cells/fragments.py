"""What one core contains of every cell, in numbers that can be added up.

A *core* is the rectangle of pixels that one tile owns; cores partition the slide. Every measurement here is
a count, sum, minimum or maximum of integers, so joining the fragments of a cell gives, to the last bit, what
measuring the whole slide at once would give.
"""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepliif_ray.cells.contours import trace
from deepliif_ray.cells.densities import OD, STAINS
from deepliif_ray.cells.labels import KNOWN, NEGATIVE, OPEN, POSITIVE, classify, label_core
from deepliif_ray.cells.measures import AT, NUMBERS
from deepliif_ray.cells.nearest import RIM_COLUMNS
from deepliif_ray.cells.rims import RimReach, rims_of_blank, rims_of_core

BORDER, SHARED = 1, 2
"""Bits of the number ``touches``: the slide's border, a side shared with a neighbouring core."""

_FAR = np.iinfo(np.int32).max


@dataclass(frozen=True)
class CoreFragments:
    """The fragments of one core; fragment ``i`` (from 1) is row ``i - 1`` of ``measures``.

    Attributes
    ----------
    measures : ndarray of int64, shape (F, len(NUMBERS))
    contacts : ndarray of int32, shape (C, 2)
        Pairs (open fragment, known fragment) with 4-adjacent pixels.
    sides : ndarray of int32, shape (2 H + 2 W,)
        Fragments (0: background) along the left, top, right and bottom row of pixels.
    points, point_ends : ndarray of int32, shape (P, 2) and (F,)
        Outlines of known fragments that touch no shared side.
    runs, run_ends : ndarray of int32, shape (R, 3) and (F,)
        Pixels (y, x0, x1) of known fragments that do.
    marker_histogram : ndarray of int64, shape (256,)
        Pixels of the core by marker value; all zero without a marker image.
    rims : ndarray of int64, shape (P, RIM_COLUMNS)
        What was counted around nuclei, by region and nucleus (`deepliif_ray.cells.rims`).
    frame_labels : ndarray of int32, shape (L,)
        Fragments of the pixels within 2 R of shared sides, where R is `RimReach.pixels`.
    frame_asked : ndarray of uint16, shape (A,)
        Of the pixels within R of them: 1 plus the DAB of those whose nucleus is not certain; else 0.
    """

    measures: NDArray[np.int64]
    contacts: NDArray[np.int32]
    sides: NDArray[np.int32]
    points: NDArray[np.int32]
    point_ends: NDArray[np.int32]
    runs: NDArray[np.int32]
    run_ends: NDArray[np.int32]
    marker_histogram: NDArray[np.int64]
    rims: NDArray[np.int64]
    frame_labels: NDArray[np.int32]
    frame_asked: NDArray[np.uint16]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the flat arrays that `from_arrays` rebuilds this from."""
        return {f.name: getattr(self, f.name).reshape(-1) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """Rebuild fragments from their flat arrays."""
        columns = {"measures": len(NUMBERS), "contacts": 2, "points": 2, "runs": 3, "rims": RIM_COLUMNS}
        return cls(
            **{name: a.reshape(-1, columns[name]) if name in columns else a for name, a in arrays.items()}
        )


@njit(cache=True)
def _measure(
    classes: NDArray[np.uint8],
    labels: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    touches: NDArray[np.uint8],
    marker: NDArray[np.uint8],
    rgb: NDArray[np.uint8],
    origin: tuple[int, int],
    od_table: NDArray[np.float64],
    stains: NDArray[np.int64],
    own: NDArray[np.int64],
    at: Any,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    height, width = labels.shape
    has_marker, has_rgb = marker.shape[0] > 0, rgb.shape[0] > 0
    measures = np.zeros((kinds.shape[0], len(at)), dtype=np.int64)
    histogram = np.zeros(256, dtype=np.int64)
    for fragment in range(kinds.shape[0]):
        measures[fragment, at.kind] = kinds[fragment]
        measures[fragment, at.touches] = touches[fragment]
        measures[fragment, at.marker] = -1
        measures[fragment, at.x0] = _FAR
    for row in range(height):
        y = row + origin[1]
        for column in range(width):
            value = np.int64(marker[row, column]) if has_marker else np.int64(-1)
            if has_marker:
                histogram[value] += 1
            fragment = labels[row, column]
            if fragment == 0:
                continue
            x = column + origin[0]
            m = measures[fragment]
            if m[at.area] == 0:
                m[at.first_x], m[at.first_y], m[at.y0] = x, y, y
            m[at.area] += 1
            m[at.positive] += classes[row, column] == POSITIVE
            m[at.negative] += classes[row, column] == NEGATIVE
            m[at.x] += x
            m[at.y] += y
            m[at.marker] = max(m[at.marker], value)
            m[at.x0] = min(m[at.x0], x)
            m[at.x1] = max(m[at.x1], x + 1)
            m[at.y1] = y + 1
            if has_rgb:
                r, g, b = rgb[row, column, 0], rgb[row, column, 1], rgb[row, column, 2]
                m[at.od] += round((od_table[r] + od_table[g] + od_table[b]) * 100)
                m[at.hematoxylin] += max(0, stains[0, 0, r] + stains[1, 0, g] + stains[2, 0, b])
                m[at.dab] += max(0, stains[0, 1, r] + stains[1, 1, g] + stains[2, 1, b])
                m[at.own_hematoxylin] += max(0, own[0, 0, r] + own[1, 0, g] + own[2, 0, b])
                m[at.own_dab] += max(0, own[0, 1, r] + own[1, 1, g] + own[2, 1, b])
    return measures[1:], histogram


@njit(cache=True)
def _outlines(
    labels: NDArray[np.int32], measures: NDArray[np.int64], origin: tuple[int, int], max_area: int, at: Any
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    points = np.empty((256, 2), dtype=np.int32)
    ends = np.empty(measures.shape[0], dtype=np.int32)
    used = int(np.int64(0))  # see `retrace`
    for i in range(measures.shape[0]):
        m = measures[i]
        if m[at.kind] == KNOWN and not m[at.touches] & SHARED and m[at.area] < max_area:
            begin = used
            points, used = trace(
                labels, m[at.first_x] - origin[0], m[at.first_y] - origin[1], i + 1, points, used
            )
            for point in range(begin, used):
                points[point, 0] += origin[0]
                points[point, 1] += origin[1]
        ends[i] = used
    return points[:used], ends


@njit(cache=True)
def _runs(
    labels: NDArray[np.int32], measures: NDArray[np.int64], origin: tuple[int, int], max_area: int, at: Any
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    height, width = labels.shape
    wanted = np.zeros(measures.shape[0] + 1, dtype=np.bool_)
    for i in range(measures.shape[0]):
        m = measures[i]
        wanted[i + 1] = m[at.kind] == KNOWN and m[at.touches] & SHARED and m[at.area] < max_area
    counts = np.zeros(measures.shape[0] + 1, dtype=np.int32)
    for row in range(height):
        for column in range(width):
            label = labels[row, column]
            if wanted[label] and (column == 0 or labels[row, column - 1] != label):
                counts[label] += 1
    at = np.empty_like(counts)
    ends = np.empty_like(counts)
    total = 0
    for label in range(counts.shape[0]):
        at[label] = total
        total += counts[label]
        ends[label] = total
    runs = np.empty((total, 3), dtype=np.int32)
    for row in range(height):
        for column in range(width):
            label = labels[row, column]
            if wanted[label]:
                if column == 0 or labels[row, column - 1] != label:
                    runs[at[label], 0] = row + origin[1]
                    runs[at[label], 1] = column + origin[0]
                    at[label] += 1
                runs[at[label] - 1, 2] = column + origin[0] + 1
    return runs, ends[1:]


def _or_empty(image: NDArray[np.uint8] | None, dimensions: int) -> NDArray[np.uint8]:
    return np.empty((0,) * dimensions, dtype=np.uint8) if image is None else np.ascontiguousarray(image)


def measure_core(
    seg: NDArray[np.uint8],
    marker: NDArray[np.uint8] | None,
    rgb: NDArray[np.uint8] | None,
    *,
    core: tuple[int, int, int, int],
    slide: tuple[int, int],
    seg_thresh: int,
    large_noise_thresh: int | None,
    own: NDArray[np.int64] | None = None,
    reach: RimReach | None = None,
) -> CoreFragments:
    """Measure the fragments of one core.

    Parameters
    ----------
    seg : ndarray of uint8, shape (H, W, 3)
        Segmentation map of the core.
    marker : ndarray of uint8, shape (H, W), optional
        Marker map of the core.
    rgb : ndarray of uint8, shape (H, W, 3), optional
        The IHC itself; without it optical densities are 0.
    core : tuple of int
        x0, y0, x1, y1 of the core on the slide, half-open.
    slide : tuple of int
        Width and height of the slide.
    seg_thresh : int
        See `deepliif_ray.cells.labels.classify`.
    large_noise_thresh : int, optional
        No outlines or pixels are kept of fragments that are already this large.
    own : ndarray of int64, shape (3, 2, 256), optional
        `deepliif_ray.cells.densities.stain_tables` of the slide's own stains and glass; the usual ones where
        it tells none.
    reach : RimReach, optional
        How far around nuclei to measure; without it, or without the IHC, nothing is measured there.
    """
    x0, y0, x1, y1 = core
    borders = np.array([x0 == 0, y0 == 0, x1 == slide[0], y1 == slide[1]])
    classes = classify(np.ascontiguousarray(seg), seg_thresh)
    labels, kinds, touches, contacts = label_core(classes, borders)
    own = STAINS if own is None else own
    images = _or_empty(marker, 2), _or_empty(rgb, 3)
    measures, histogram = _measure(classes, labels, kinds, touches, *images, (x0, y0), OD, STAINS, own, AT)
    max_area = np.iinfo(np.int64).max if large_noise_thresh is None else large_noise_thresh
    points, point_ends = _outlines(labels, measures, (x0, y0), max_area, AT)
    runs, run_ends = _runs(labels, measures, (x0, y0), max_area, AT)
    pairs = np.unique(contacts)
    rims, frame_labels, frame_asked = rims_of_core(labels, kinds == KNOWN, rgb, ~borders, reach, STAINS)
    return CoreFragments(
        measures=measures,
        contacts=np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1).astype(np.int32),
        sides=np.concatenate([labels[:, 0], labels[0], labels[:, -1], labels[-1]]),
        points=points,
        point_ends=point_ends,
        runs=runs,
        run_ends=run_ends,
        marker_histogram=histogram,
        rims=rims,
        frame_labels=frame_labels,
        frame_asked=frame_asked,
    )


def blank_core(
    *,
    core: tuple[int, int, int, int],
    slide: tuple[int, int],
    background_marker: int | None,
    reach: RimReach | None = None,
) -> CoreFragments:
    """Return the fragments of a core that was never looked at: black segmentation, one marker value.

    Its optical densities are unknown (0), so it may only stand for cores too large to be part of a cell. Such
    a core is of one colour, and so is what lies around it for the width of a tile's overlap, 8 µm by
    default: it is glass up to the next nucleus. A pixel of it that is rim all the same counts as 0.
    """
    x0, y0, x1, y1 = core
    height, width = y1 - y0, x1 - x0
    area = height * width
    histogram = np.zeros(256, dtype=np.int64)
    if background_marker is not None:
        histogram[background_marker] = area
    on_border = x0 == 0 or y0 == 0 or x1 == slide[0] or y1 == slide[1]
    fragments = 0 if on_border else 1
    measures = np.zeros((fragments, len(NUMBERS)), dtype=np.int64)
    if fragments:
        sum_x, sum_y = (x0 + x1 - 1) * width // 2 * height, (y0 + y1 - 1) * height // 2 * width
        marker = -1 if background_marker is None else background_marker
        known = {
            "kind": OPEN, "touches": SHARED, "area": area, "x": sum_x, "y": sum_y, "marker": marker,
            "x0": x0, "y0": y0, "x1": x1, "y1": y1, "first_x": x0, "first_y": y0,
        }  # fmt: skip
        measures[0] = [known.get(name, 0) for name in NUMBERS]
    shared = np.array([x0 > 0, y0 > 0, x1 < slide[0], y1 < slide[1]])
    rims, frame_labels, frame_asked = rims_of_blank(fragments, (height, width), shared, reach)
    return CoreFragments(
        measures=measures,
        contacts=np.empty((0, 2), dtype=np.int32),
        sides=np.full(2 * (height + width), fragments, dtype=np.int32),
        points=np.empty((0, 2), dtype=np.int32),
        point_ends=np.zeros(fragments, dtype=np.int32),
        runs=np.empty((0, 3), dtype=np.int32),
        run_ends=np.zeros(fragments, dtype=np.int32),
        marker_histogram=histogram,
        rims=rims,
        frame_labels=frame_labels,
        frame_asked=frame_asked,
    )
