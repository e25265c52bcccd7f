"""Pixels to labelled fragments: classes, connected components and the holes inside them.

One raster scan labels *known* pixels (positive or negative) 8-connectedly and *unknown* pixels
4-connectedly. Within a core, an unknown component is

- **background** if it touches the slide's border,
- **open** if it touches a side that the core shares with a neighbour: only the whole slide can tell whether
  it is background or a hole,
- a **hole** otherwise: it belongs to the cell around it.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

UNKNOWN, POSITIVE, NEGATIVE = 0, 1, 2
KNOWN, OPEN = 1, 2
MAX_GREEN = 80
"""A pixel whose green channel exceeds this is a boundary (published rule)."""


@njit(cache=True)
def find(parent: NDArray[np.int32], node: int) -> int:
    """Return the root of ``node``, halving the path on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(cache=True)
def union(parent: NDArray[np.int32], a: int, b: int) -> int:
    """Join the sets of ``a`` and ``b``; the smaller root stays the root."""
    a, b = find(parent, a), find(parent, b)
    if a < b:
        parent[b] = a
        return a
    parent[a] = b
    return b


@njit(cache=True)
def classify(seg: NDArray[np.uint8], seg_thresh: int) -> NDArray[np.uint8]:
    """Return the class of every pixel of a segmentation map (published rule).

    Parameters
    ----------
    seg : ndarray of uint8, shape (H, W, 3)
    seg_thresh : int
        Red plus blue must exceed it.

    Returns
    -------
    ndarray of uint8, shape (H, W)
        `UNKNOWN`, `POSITIVE` or `NEGATIVE`.
    """
    height, width = seg.shape[0], seg.shape[1]
    classes = np.empty((height, width), dtype=np.uint8)
    for y in range(height):
        for x in range(width):
            red, blue = np.int64(seg[y, x, 0]), np.int64(seg[y, x, 2])
            if red + blue > seg_thresh and seg[y, x, 1] <= MAX_GREEN:
                classes[y, x] = POSITIVE if red >= blue else NEGATIVE
            else:
                classes[y, x] = UNKNOWN
    return classes


@njit(cache=True)
def _components(classes: NDArray[np.uint8]) -> tuple[NDArray[np.int32], int]:
    """Label known pixels 8-connectedly and unknown ones 4-connectedly, from 1, by first pixel."""
    height, width = classes.shape
    labels = np.empty((height, width), dtype=np.int32)
    parent = np.empty(height * width + 1, dtype=np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            known = classes[y, x] != UNKNOWN
            label = 0
            if x > 0 and (classes[y, x - 1] != UNKNOWN) == known:
                label = labels[y, x - 1]
            if y > 0:
                if (classes[y - 1, x] != UNKNOWN) == known:
                    above = labels[y - 1, x]
                    label = (
                        above if label == 0 else (label if label == above else union(parent, label, above))
                    )
                elif known:
                    # the pixel above is unknown, so the upper diagonals are not yet joined to this one
                    if x > 0 and classes[y - 1, x - 1] != UNKNOWN:
                        above = labels[y - 1, x - 1]
                        label = above if label == 0 else union(parent, label, above)
                    if x + 1 < width and classes[y - 1, x + 1] != UNKNOWN:
                        above = labels[y - 1, x + 1]
                        label = above if label == 0 else union(parent, label, above)
            if label == 0:
                count += 1
                label = count
                parent[label] = label
            labels[y, x] = label
    final = np.empty(count + 1, dtype=np.int32)
    final[0] = 0
    components = 0
    for label in range(1, count + 1):
        root = find(parent, label)
        if root == label:
            components += 1
            final[label] = components
        else:
            final[label] = final[root]
    for y in range(height):
        for x in range(width):
            labels[y, x] = final[labels[y, x]]
    return labels, components


@njit(cache=True)
def _sides(labels: NDArray[np.int32], count: int, borders: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return per component 1 if it touches the slide's border, 2 if a shared side, 3 if both, else 0."""
    height, width = labels.shape
    touches = np.zeros(count + 1, dtype=np.uint8)
    bits = np.empty(4, dtype=np.uint8)  # of the left, top, right and bottom side
    for side in range(4):
        bits[side] = 1 if borders[side] else 2
    for y in range(height):
        touches[labels[y, 0]] |= bits[0]
        touches[labels[y, width - 1]] |= bits[2]
    for x in range(width):
        touches[labels[0, x]] |= bits[1]
        touches[labels[height - 1, x]] |= bits[3]
    return touches


@njit(cache=True)
def label_core(
    classes: NDArray[np.uint8], borders: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Label the fragments of one core.

    Parameters
    ----------
    classes : ndarray of uint8, shape (H, W)
        See `classify`.
    borders : ndarray of bool, shape (4,)
        Whether the left, top, right, bottom side of the core lies on the slide's border.

    Returns
    -------
    labels : ndarray of int32, shape (H, W)
        0 is background; fragments count from 1 in the row order of their first pixels.
    kinds : ndarray of uint8, shape (F + 1,)
        `KNOWN` or `OPEN` for each fragment (entry 0 is 0).
    touches : ndarray of uint8, shape (F + 1,)
        Bit 1: touches the slide's border; bit 2: touches a shared side.
    contacts : ndarray of int64, shape (C,)
        ``open << 32 | known`` for pairs of fragments with 4-adjacent pixels (may repeat).
    """
    height, width = classes.shape
    labels, count = _components(classes)
    sides = _sides(labels, count, borders)
    known = np.zeros(count + 1, dtype=np.bool_)
    for y in range(height):
        for x in range(width):
            known[labels[y, x]] = classes[y, x] != UNKNOWN
    parent = np.empty(count + 1, dtype=np.int32)
    for component in range(count + 1):
        is_background = not known[component] and sides[component] & 1
        parent[component] = 0 if is_background else component

    n_contacts = 0
    for y in range(height):
        for x in range(width):
            here = labels[y, x]
            for side in range(2):
                if (side == 0 and x == 0) or (side == 1 and y == 0):
                    continue
                there = labels[y, x - 1] if side == 0 else labels[y - 1, x]
                if there == here:
                    continue
                unknown = there if known[here] else here
                if sides[unknown] == 0:
                    union(parent, here, there)
                elif sides[unknown] == 2:
                    n_contacts += 1

    fragment = np.zeros(count + 1, dtype=np.int32)
    fragments = 0
    for component in range(1, count + 1):
        root = find(parent, component)
        if root == component:
            fragments += 1
            fragment[component] = fragments
        else:
            fragment[component] = fragment[root]
    kinds = np.zeros(fragments + 1, dtype=np.uint8)
    touches = np.zeros(fragments + 1, dtype=np.uint8)
    for component in range(1, count + 1):
        index = fragment[component]
        if index > 0:
            if find(parent, component) == component:
                kinds[index] = KNOWN if known[component] else OPEN
            touches[index] |= sides[component]

    contacts = np.empty(n_contacts, dtype=np.int64)
    used = 0
    for y in range(height):
        for x in range(width):
            here = labels[y, x]
            for side in range(2):
                if (side == 0 and x == 0) or (side == 1 and y == 0):
                    continue
                there = labels[y, x - 1] if side == 0 else labels[y - 1, x]
                if there == here:
                    continue
                unknown, cell = (there, here) if known[here] else (here, there)
                if sides[unknown] == 2:
                    pair = (np.int64(fragment[unknown]) << 32) | np.int64(fragment[cell])
                    if used == 0 or contacts[used - 1] != pair:
                        contacts[used] = pair
                        used += 1
    for y in range(height):
        for x in range(width):
            labels[y, x] = fragment[labels[y, x]]
    return labels, kinds, touches, contacts[:used]
