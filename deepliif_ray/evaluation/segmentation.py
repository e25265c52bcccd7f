"""Segmentation against masks: regions of pixels, and instances of cells.

What the paper's definitions are (Ghahremani et al., Nat Mach Intell 2022; 4:401-412, and the statistics
published with it, ``DeepLIIF_Statistics``): pixel accuracy, Dice and IoU compare one class with everything
else, so background counts through pixel accuracy alone and is no class of its own; they are computed for
positive and for negative cells of each image, averaged over these two classes, then over the images; AJI,
switched off in the statistics as published, likewise. Here the formulas that the paper cites hold. Where
those statistics depart from them, `deepliif_ray.evaluation.published_statistics` lists it, and computes what
they do.

Everywhere, a comparison in which nothing was there and nothing was found is perfect (1), as published of all
but AJI.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MATCH_IOU = 0.5
"""Instances match when their IoU exceeds this; at one half or more a match is the only possible one."""

BoolArray = NDArray[np.bool_]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class RegionScore:
    """How two sets of pixels agree, 0 to 1."""

    pixel_accuracy: float
    dice: float
    iou: float


def region_score(found: BoolArray, truth: BoolArray) -> RegionScore:
    """Compare the pixels of one class.

    With TP, FP, FN, TN the numbers of pixels in both, in ``found`` alone, in ``truth`` alone, in neither:
    pixel accuracy = (TP + TN) / (TP + TN + FP + FN), Dice = 2 TP / (2 TP + FP + FN) and
    IoU = TP / (TP + FP + FN).

    Parameters
    ----------
    found, truth : ndarray of bool, shape (H, W)
    """
    both, either = int((found & truth).sum()), int((found | truth).sum())
    if either == 0:
        return RegionScore(1.0, 1.0, 1.0)
    return RegionScore(
        pixel_accuracy=1 - (either - both) / found.size,
        dice=2 * both / (either + both),
        iou=both / either,
    )


@dataclass(frozen=True)
class _Overlaps:
    """The pairs of instances that share pixels, and how many; areas are those of all instances."""

    found: NDArray[np.int64]
    truth: NDArray[np.int64]
    shared: NDArray[np.int64]
    found_areas: NDArray[np.int64]
    truth_areas: NDArray[np.int64]

    @property
    def union(self) -> NDArray[np.int64]:
        return self.found_areas[self.found] + self.truth_areas[self.truth] - self.shared

    @property
    def iou(self) -> NDArray[np.float64]:
        return self.shared / self.union


def _overlaps(found: Labels, truth: Labels) -> _Overlaps:
    present, here = np.unique(np.append(0, found), return_inverse=True)
    true, there = np.unique(np.append(0, truth), return_inverse=True)
    pairs, shared = np.unique(here[1:].astype(np.int64) * len(true) + there[1:], return_counts=True)
    first, second = np.divmod(pairs, len(true))
    cells = (first > 0) & (second > 0)
    return _Overlaps(
        first[cells] - 1,
        second[cells] - 1,
        shared[cells],
        np.bincount(here[1:], minlength=len(present))[1:],
        np.bincount(there[1:], minlength=len(true))[1:],
    )


def aggregated_jaccard(found: Labels, truth: Labels) -> float:
    """Return the aggregated Jaccard index, 0 to 1.

    AJI = Σ_i |G_i ∩ S_j(i)| / (Σ_i |G_i ∪ S_j(i)| + Σ_{k unused} |S_k|), where j(i) is the found instance S
    with the largest IoU with the true instance G_i; a G_i that nothing overlaps adds |G_i| to the
    denominator. As in the reference, one S may serve several G. It is not symmetric, and never above the IoU
    of all instances' pixels taken together.

    Parameters
    ----------
    found, truth : ndarray of int32, shape (H, W)
        0 background; which numbers the instances have does not matter.

    References
    ----------
    Kumar et al., IEEE Trans Med Imaging 2017; 36:1550-1560, algorithm 1.
    """
    pairs = _overlaps(found, truth)
    if len(pairs.found_areas) + len(pairs.truth_areas) == 0:
        return 1.0
    order = np.lexsort((pairs.shared, pairs.iou, pairs.truth))
    best = order[np.append(np.diff(pairs.truth[order]) > 0, True)] if len(order) else order
    missed = np.delete(pairs.truth_areas, pairs.truth[best]).sum()
    unused = np.delete(pairs.found_areas, pairs.found[best]).sum()
    return float(pairs.shared[best].sum() / (pairs.union[best].sum() + missed + unused))


@dataclass(frozen=True)
class Panoptic:
    """Panoptic quality and its factors, 0 to 1, and the instances that were matched.

    Attributes
    ----------
    pq, dq, sq : float
        ``pq = dq × sq``.
    found, truth : ndarray of int64, shape (n,)
        Matched pairs: positions among the sorted numbers of the instances of each map.
    """

    pq: float
    dq: float
    sq: float
    found: NDArray[np.int64]
    truth: NDArray[np.int64]


def panoptic_quality(found: Labels, truth: Labels) -> Panoptic:
    """Return the panoptic quality of instances.

    Instances match when their IoU is above one half. With TP matched pairs, FP found and FN true instances
    left over: DQ = TP / (TP + FP/2 + FN/2), SQ = mean IoU of the pairs (0 without one), PQ = DQ × SQ. It is
    symmetric.

    Parameters
    ----------
    found, truth : ndarray of int32, shape (H, W)
        0 background.

    References
    ----------
    Kirillov et al., Panoptic segmentation, CVPR 2019.
    """
    pairs = _overlaps(found, truth)
    iou = pairs.iou
    matched = iou > MATCH_IOU
    hits, instances = int(matched.sum()), len(pairs.found_areas) + len(pairs.truth_areas)
    here, there = pairs.found[matched], pairs.truth[matched]
    if instances == 0:
        return Panoptic(1.0, 1.0, 1.0, here, there)
    dq = 2 * hits / instances
    sq = float(iou[matched].mean()) if hits else 0.0
    return Panoptic(dq * sq, dq, sq, here, there)
