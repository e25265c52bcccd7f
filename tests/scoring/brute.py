"""Hot spots by looking at every circle, as they are defined."""

import math

import numpy as np


def brute_hot_spots(x, y, positive, *, cells=None, area_mm2=None, by="share", count=1, min_cells=None):
    """Return the fields of each hot spot, best first."""
    x, y, positive = np.asarray(x, float), np.asarray(y, float), np.asarray(positive, bool)
    if min_cells is None:
        min_cells = 500 if by == "share" and cells is None else 1
    candidates = []
    for i in range(len(x)):
        distance2 = (x - x[i]) ** 2 + (y - y[i]) ** 2
        if cells is None:
            radius2, area = area_mm2 * 1e6 / math.pi, area_mm2
        elif cells > len(x):
            continue
        else:
            radius2 = float(np.sort(distance2)[cells - 1])
            area = math.pi * radius2 / 1e6
        within = distance2 <= radius2
        n, p = int(within.sum()), int((within & positive).sum())
        if n < min_cells or (by == "density" and radius2 == 0):
            continue
        score = p / n if by == "share" else p / radius2 if cells else p
        density = p / area if area > 0 else None
        row = (float(x[i]), float(y[i]), math.sqrt(radius2), area, n, p, 100 * p / n, density)
        candidates.append(((-score, 0 if cells else -n, y[i], x[i], i), row))
    chosen = []
    for _, row in sorted(candidates):
        if len(chosen) < count and not any(_overlap(row, other) for other in chosen):
            chosen.append(row)
    return chosen


def _overlap(one, other):
    apart = math.sqrt((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2)
    return apart < one[2] + other[2] or one[:2] == other[:2]
