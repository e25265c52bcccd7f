"""The published rules, naively, on a whole map: what the fast code is held against."""

import math

import numpy as np
from scipy import ndimage

EIGHT = np.ones((3, 3))


def cells(seg, marker, rgb, noise_thresh, large_noise_thresh, seg_thresh=120):
    """Return cells in row order of first pixels: dicts of what the ``cells`` table has."""
    red, green, blue = (seg[..., c].astype(int) for c in range(3))
    known = (red + blue > seg_thresh) & (green <= 80)
    positive = known & (red >= blue)
    regions, _ = ndimage.label(~known)
    border = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    background = ~known & np.isin(regions, border[border > 0])
    labels, count = ndimage.label(~background, structure=EIGHT)
    table = [math.log10(255 / max(v, 1)) for v in range(256)]
    result = []
    for index in range(1, count + 1):
        ys, xs = np.nonzero(labels == index)
        if not (len(ys) > noise_thresh and (large_noise_thresh is None or len(ys) < large_noise_thresh)):
            continue
        n_positive = int(positive[ys, xs].sum())
        n_negative = int((known & ~positive)[ys, xs].sum())
        od = sum(round((table[r] + table[g] + table[b]) * 100) for r, g, b in rgb[ys, xs].tolist())
        edge = (ys == 0) | (xs == 0) | (ys == seg.shape[0] - 1) | (xs == seg.shape[1] - 1)
        result.append(
            {
                "first": (int(ys[0]), int(xs[0])),
                "area_px": len(ys),
                "positive_px": n_positive,
                "negative_px": n_negative,
                "majority_positive": n_positive >= n_negative,
                "marker_max": int(marker[ys, xs].max()),
                "x": xs.sum() / len(xs),
                "y": ys.sum() / len(ys),
                "od_mean": od / len(ys),
                "bbox_x0": int(xs.min()),
                "bbox_y0": int(ys.min()),
                "bbox_x1": int(xs.max()) + 1,
                "bbox_y1": int(ys.max()) + 1,
                "on_slide_edge": bool(edge.any()),
            }
        )
    return sorted(result, key=lambda cell: cell.pop("first"))


def size_density(sizes):
    """Return the published density estimate of the square roots of the sizes, and its step."""
    roots = np.sqrt(sizes)
    step = (roots.max() + 1) / 500
    points = np.arange(500)[:, None] * step
    values = np.exp(-((points - roots) ** 2) / 2) / math.sqrt(2 * math.pi)
    return (values.sum(axis=1) / len(sizes)).astype(np.float32), step
