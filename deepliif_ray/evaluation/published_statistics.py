"""Masks compared as the statistics published with DeepLIIF compare them, to meet a table of a paper.

The folder ``DeepLIIF_Statistics`` of nadeemlab/DeepLIIF (read at commit eab8bdd) is followed with its option
``--raw_segmentation``. It departs from what `deepliif_ray.evaluation.segmentation` does in these points:

1. Both masks are resized to 512 px a side, smoothly, before they are compared. Masks of that size stay as
   they are; others get grey rims.
2. A true pixel is positive if it has any red and negative if it has any blue, whatever its green. So a grey
   rim between red and blue counts for both classes. Here true masks are read by the rule that found ones are.
3. A found pixel is positive if red exceeds 100 and is at least as high as blue, negative if blue exceeds 100
   and red; never with a green of 100 or more. Regions of such pixels (eight neighbours, both classes
   together) become of one class, that of the majority, positive in a tie; those under 50 px go. Holes stay.
4. Where no pixel is found truly, all measures of that class are 0, pixel accuracy too; 1 if there is nothing
   to find and nothing was found.
5. AJI pairs regions one to one, true ones in the order of their first pixels, each with the region not yet
   taken that shares most pixels; true regions without a partner are left out of the union; nothing against
   nothing is 0. (The published script has it switched off.)
6. The index counts regions of equal grey of the red and of the blue channel, of 10 and more: of the true
   mask, and of the refined mask of the found one. Here cells are counted by the published scoring rules.
7. Structural similarity takes the range of values as 255 although they lie within 0 to 1.

Precision, recall and F1 of that script are of pixels; F1 is the same number as Dice, and is not repeated. Its
inception score, FID and sliced Wasserstein distance are not computed here.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

from deepliif_ray.cells.refine import refine_mask
from deepliif_ray.evaluation.fields import Rules
from deepliif_ray.evaluation.scores import Scores

SIDE = 512
SSIM_RANGE = 255.0
_LEAST_COLOUR = 100
_BOUNDARY = 100
_LEAST_PX = 50
_LEAST_GREY = 10
_BITS = 11
_EIGHT = np.ones((3, 3), dtype=bool)

UInt8Array = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]


def published_scores(seg: UInt8Array, truth: UInt8Array, rules: Rules) -> Scores:
    """Return the published measures of a segmentation map against a true mask.

    Parameters
    ----------
    seg, truth : ndarray of uint8, shape (H, W, 3)
        Red positive, blue negative, green boundary.
    rules : Rules
        For the refined mask, whose regions make the index: the nearest published resolution, ``seg_thresh``
        and ``size_thresh``.

    Returns
    -------
    dict of str to float
        ``pixel_accuracy``, ``pixel_precision``, ``pixel_recall``, ``dice``, ``iou`` and ``aji`` of each class
        and their means, and what `index_scores` has.
    """
    found = class_masks(resized(seg))
    true = resized(truth)
    scores: Scores = {}
    for kind, ours, theirs in (
        ("positive", found[0], true[..., 0] > 0),
        ("negative", found[1], true[..., 2] > 0),
    ):
        scores |= {f"{name}_{kind}": value for name, value in pixel_scores(ours, theirs).items()}
        scores[f"aji_{kind}"] = one_to_one_jaccard(ours, theirs)
    for name in [name.removesuffix("_positive") for name in scores if name.endswith("_positive")]:
        scores[f"{name}_mean"] = (scores[f"{name}_positive"] + scores[f"{name}_negative"]) / 2
    refined = refine_mask(
        seg,
        resolution=rules.nearest_resolution,
        seg_thresh=rules.seg_thresh,
        size_thresh=rules.size_thresh,
    )
    cells, index = counted_regions(refined)
    true_cells, true_index = counted_regions(truth)
    return scores | {
        "cells": float(cells),
        "true_cells": float(true_cells),
        "index_percent": index,
        "true_index_percent": true_index,
        "index_error_percent": abs(index - true_index),
    }


def resized(image: UInt8Array, side: int = SIDE) -> UInt8Array:
    """Return an image with ``side`` pixels a side, by the bilinear filter of OpenCV, which looks at 2 × 2 px.

    Weights have 11 bits and products are cut, as there. With OpenCV 4.10 and 5.0 the result was the same to
    the bit for images of 512 to 1,024 px; of smaller ones a value in a thousand differed, by 1.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    side : int
    """
    if image.shape[:2] == (side, side):
        return image
    (top, bottom, a, b), (left, right, c, d) = (_bilinear(length, side) for length in image.shape[:2])
    grey = image.astype(np.int64)
    rows = (grey[:, left] * c[:, None] + grey[:, right] * d[:, None]) >> 4
    upper, lower = (rows[top] * a[:, None, None]) >> 16, (rows[bottom] * b[:, None, None]) >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _bilinear(length: int, side: int) -> tuple[NDArray[np.int64], ...]:
    """Return the pixels before and after each new one along an axis, and their weights in 1/2048."""
    at = ((np.arange(side) + 0.5) * (length / side) - 0.5).astype(np.float32)
    before = np.clip(np.floor(at), 0, length - 1)
    # Beyond the centres of the first and the last pixel there is nothing to mix with.
    share = np.where((at < 0) | (before == length - 1), np.float32(0), at - before)
    after = np.minimum(before + 1, length - 1)
    weights = (np.rint(weight * 2**_BITS) for weight in (1 - share, share))
    first, second, one, other = (values.astype(np.int64) for values in (before, after, *weights))
    return first, second, one, other


def class_masks(seg: UInt8Array) -> tuple[BoolArray, BoolArray]:
    """Return which pixels of a segmentation map are positive and which negative; see point 3 above.

    Parameters
    ----------
    seg : ndarray of uint8, shape (H, W, 3)
    """
    red, green, blue = (seg[..., channel] for channel in range(3))
    inside = green < _BOUNDARY
    positive = inside & (red > _LEAST_COLOUR) & (red >= blue)
    negative = inside & (blue > _LEAST_COLOUR) & (blue > red)
    regions, _ = ndimage.label(positive | negative, _EIGHT)
    areas, reds, blues = (
        np.bincount(regions.ravel(), weights=weights)
        for weights in (None, positive.ravel(), negative.ravel())
    )
    kept = areas >= _LEAST_PX
    kept[0] = False
    return (kept & (reds >= blues))[regions], (kept & (reds < blues))[regions]


def pixel_scores(found: BoolArray, truth: BoolArray) -> Scores:
    """Return the published measures of the pixels of one class; see point 4 above.

    Parameters
    ----------
    found, truth : ndarray of bool, shape (H, W)
    """
    names = ("pixel_accuracy", "pixel_precision", "pixel_recall", "dice", "iou")
    hits, ours, theirs = int((found & truth).sum()), int(found.sum()), int(truth.sum())
    if hits == 0:
        return dict.fromkeys(names, float(ours + theirs == 0))
    either = ours + theirs - hits
    values = (
        1 - (either - hits) / found.size,
        hits / ours,
        hits / theirs,
        2 * hits / (ours + theirs),
        hits / either,
    )
    return dict(zip(names, values, strict=True))


def one_to_one_jaccard(found: BoolArray, truth: BoolArray) -> float:
    """Return the published variant of the aggregated Jaccard index; see point 5 above.

    Parameters
    ----------
    found, truth : ndarray of bool, shape (H, W)
    """
    ours, theirs = (label(mask, background=0) for mask in (found, truth))  # type: ignore[no-untyped-call]
    our_areas, their_areas = np.bincount(ours.ravel()), np.bincount(theirs.ravel())
    pairs, shared = np.unique(
        theirs.ravel().astype(np.int64) * len(our_areas) + ours.ravel(), return_counts=True
    )
    partners: dict[int, list[tuple[int, int]]] = {}
    for pair, pixels in zip(pairs.tolist(), shared.tolist(), strict=True):
        theirs_number, number = divmod(pair, len(our_areas))
        if theirs_number and number:
            partners.setdefault(theirs_number, []).append((number, pixels))
    taken: set[int] = set()
    intersection = union = 0
    for theirs_number in sorted(partners):
        free = [pair for pair in partners[theirs_number] if pair[0] not in taken]
        if not free:
            continue
        number, pixels = max(free, key=lambda pair: (pair[1], -pair[0]))
        taken.add(number)
        intersection += pixels
        union += int(their_areas[theirs_number] + our_areas[number]) - pixels
    union += sum(int(area) for number, area in enumerate(our_areas) if number and number not in taken)
    return intersection / union if union else 0.0


def counted_regions(mask: UInt8Array) -> tuple[int, float]:
    """Return the number of regions and the percentage of red ones; see point 6 above.

    As published, a channel without a single pixel of background has one region fewer than there are.

    Parameters
    ----------
    mask : ndarray of uint8, shape (H, W, 3)
    """
    grey = np.where(mask < _LEAST_GREY, 0, mask)
    red, blue = (
        len(np.unique(label(grey[..., channel], background=0))) - 1  # type: ignore[no-untyped-call]
        for channel in (0, 2)
    )
    return red + blue, 100 * red / (red + blue) if red + blue else 0.0
