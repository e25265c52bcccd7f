"""Kernels for what lies around nuclei: whose a pixel is, and what is counted (`deepliif_ray.cells.rims`)."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

STAINED_OD = 0.2
"""DAB optical density from which a pixel of the rim is stained: QuPath's for 1+ (schemas/markers.yaml)."""
RIM_SCALE = 1000
"""Optical densities around nuclei are summed as integers in units of 1/RIM_SCALE, rounded pixel by pixel: of
the sides of cores they are stored, and take half the space that millionths would."""
RIM_NUMBERS = ("rim", "rim_dab", "rim_stained", "cytoplasm", "cytoplasm_dab")
"""What is counted of each nucleus, as `deepliif_ray.cells.measures.NUMBERS` calls it: pixels, their DAB, 100
for each stained one (a sum of percents); and of the cytoplasm, the rim included, pixels and their DAB."""
RIM_COLUMNS = 2 + len(RIM_NUMBERS)
"""Columns of an array of rims: a region that is no nucleus (0: background), a nucleus, and `RIM_NUMBERS`."""

_STAINED = round(STAINED_OD * RIM_SCALE)


@njit(cache=True)
def asked_pixels(
    rgb: NDArray[np.uint8], nuclei: NDArray[np.bool_], stains: NDArray[np.int64]
) -> NDArray[np.uint16]:
    """Return 1 plus the DAB of every pixel outside nuclei, in units of 1/RIM_SCALE, and 0 inside.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    nuclei : ndarray of bool, shape (H, W)
    stains : ndarray of int64, shape (3, 2, 256)
        Parts of DAB in millionths: `deepliif_ray.cells.densities.STAINS`.
    """
    height, width = nuclei.shape
    asked = np.zeros((height, width), dtype=np.uint16)
    for y in range(height):
        for x in range(width):
            if not nuclei[y, x]:
                dab = stains[0, 1, rgb[y, x, 0]] + stains[1, 1, rgb[y, x, 1]] + stains[2, 1, rgb[y, x, 2]]
                asked[y, x] = 1 + (max(0, dab) + 500) // 1000
    return asked


@njit(cache=True)
def _vertical(nuclei: NDArray[np.bool_], y0: int, y1: int, reach: int) -> NDArray[np.int16]:
    """Return how many rows down the nearest nucleus pixel of the column is (up: negative); up where both are.

    Below ``-reach`` there is none. The loops have no branches, so that they run on many columns at once.
    """
    height, width = nuclei.shape
    none = reach + 1
    offsets = np.empty((y1 - y0, width), dtype=np.int16)
    rows = np.full(width, none, dtype=np.int16)  # to the last nucleus pixel above, then below
    for y in range(max(0, y0 - reach), y1):
        for x in range(width):
            rows[x] = 0 if nuclei[y, x] else min(rows[x] + 1, none)
        if y >= y0:
            for x in range(width):
                offsets[y - y0, x] = -rows[x]
    rows[:] = none
    for y in range(min(height, y1 + reach) - 1, y0 - 1, -1):
        for x in range(width):
            rows[x] = 0 if nuclei[y, x] else min(rows[x] + 1, none)
        if y < y1:
            for x in range(width):
                offset = offsets[y - y0, x]
                offsets[y - y0, x] = rows[x] if rows[x] < -offset else offset
    return offsets


@njit(cache=True)
def _envelope(
    offsets: NDArray[np.int16], reach: int, columns: NDArray[np.int64], starts: NDArray[np.int64]
) -> int:
    """Find for each pixel of a row the column in which its nearest nucleus pixel lies.

    The squared distances to the nucleus pixel of each column are parabolas, of which the lowest is sought. Of
    two as low, the one whose pixel is higher up counts, then the left one.

    Parameters
    ----------
    offsets : ndarray of int16, shape (W,)
        Rows to the nucleus pixel of each column, as of `_vertical`.
    reach : int
    columns, starts : ndarray of int64, shape (W,)
        Written to: the columns that are nearest somewhere, and the pixel from which on each is.

    Returns
    -------
    int
        How many columns there are.

    References
    ----------
    Felzenszwalb and Huttenlocher, Distance transforms of sampled functions, Theory of Computing 2012;
    8:415-428.
    """
    used = 0
    for x in range(len(offsets)):
        offset = int(offsets[x])
        if offset < -reach:
            continue
        start = 0
        while used > 0:
            other = int(columns[used - 1])
            down = int(offsets[other])
            # Of all pixels from which it is no farther to column x than to the other one, the first.
            ahead = (x - other) * (x + other) + offset * offset - down * down
            start = max(0, (ahead - (offset < down)) // (2 * (x - other)) + 1)
            if start > starts[used - 1]:
                break
            used -= 1
            start = 0
        columns[used], starts[used] = x, start
        used += 1
    return used


@njit(cache=True)
def settle_rims(
    labels: NDArray[np.int32],
    roots: NDArray[np.int32],
    nuclei: NDArray[np.bool_],
    asked: NDArray[np.uint16],
    rows: tuple[int, int],
    shared: NDArray[np.bool_],
    reach: int,
    rim_squared: int,
    cytoplasm_squared: int,
) -> NDArray[np.int64]:
    """Count the asked pixels whose nearest nucleus is certain; 0 is then written over them.

    Parameters
    ----------
    labels : ndarray of int32, shape (H, W)
    roots : ndarray of int32, shape (N,)
        What each label stands for.
    nuclei : ndarray of bool, shape (H, W)
        Whether the label of each pixel is a nucleus.
    asked : ndarray of uint16, shape (H, W)
        See `asked_pixels`; written to.
    rows : tuple of int
        First and last row to look at, half-open.
    shared : ndarray of bool, shape (4,)
        Whether beyond the left, top, right and bottom side there may be nuclei that are not seen here.
    reach, rim_squared, cytoplasm_squared : int
        See `deepliif_ray.cells.rims.RimReach`; ``reach`` is its `pixels`.

    Returns
    -------
    ndarray of int64, shape (P, RIM_COLUMNS)
        A row for each pair of region and nucleus, by what they stand for.
    """
    height, width = labels.shape
    y0, y1 = rows
    far = height + width + reach
    offsets = _vertical(nuclei, y0, y1, reach)
    found = np.zeros((64, RIM_COLUMNS), dtype=np.int64)
    following = np.empty(64, dtype=np.int64)  # the next row of `found` of the same nucleus
    newest = np.full(len(roots), -1, dtype=np.int64)  # the last one, by nucleus
    used = 0
    columns, starts = np.empty(width, dtype=np.int64), np.empty(width, dtype=np.int64)
    for y in range(y0, y1):
        line = offsets[y - y0]
        n_columns = _envelope(line, reach, columns, starts)
        outer = min(y + 1 if shared[1] else far, height - y if shared[3] else far)
        at, label, row = 0, -1, -1
        region = nucleus = column = down = squared = 0
        begin = 0  # pixel from which on the next one of the columns is to be looked for
        for x in range(width):
            if asked[y, x] == 0:
                continue
            if x >= begin:
                while at + 1 < n_columns and starts[at + 1] <= x:
                    at += 1
                begin = int(starts[at + 1]) if at + 1 < n_columns else far
                squared = cytoplasm_squared + 1
                if n_columns > 0:
                    column = int(columns[at])
                    down = int(line[column])
                    squared = down * down
                    nucleus = int(roots[labels[y + down, column]])
                row = -1
            nearest = min(squared + (x - column) * (x - column), cytoplasm_squared + 1)
            outside = min(outer, x + 1 if shared[0] else far, width - x if shared[2] else far)
            if outside * outside <= min(nearest, cytoplasm_squared):
                continue
            dab = int(asked[y, x]) - 1
            asked[y, x] = 0
            if nearest > cytoplasm_squared:
                continue
            if labels[y, x] != label:
                label = int(labels[y, x])
                region = int(roots[label])
                row = -1
            if row < 0:
                row = int(newest[nucleus])
                while row >= 0 and found[row, 0] != region:
                    row = int(following[row])
                if row < 0:
                    if used == len(found):
                        found = np.concatenate((found, np.zeros_like(found)))
                        following = np.concatenate((following, np.empty_like(following)))
                    row = used
                    used += 1
                    found[row, 0], found[row, 1] = region, nucleus
                    following[row] = newest[nucleus]
                    newest[nucleus] = row
            in_rim = int(nearest <= rim_squared)  # a factor: branches that cannot be foreseen are slow
            found[row, 2] += in_rim
            found[row, 3] += in_rim * dab
            found[row, 4] += 100 * in_rim * int(dab >= _STAINED)
            found[row, 5] += 1
            found[row, 6] += dab
    return found[:used]
