"""All figures of one image, by name.

Names end in the class they are of: ``_positive``, ``_negative``; ``_mean`` is the mean of these two; ``_any``
regards cells of both classes as one. Ratios are 0 to 1, percentages end in ``_percent``.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.cells.labels import NEGATIVE, POSITIVE
from deepliif_ray.evaluation.detection import Counts, Hits, index_percent
from deepliif_ray.evaluation.fields import Cells
from deepliif_ray.evaluation.modalities import mean_squared_error, structural_similarity_index
from deepliif_ray.evaluation.segmentation import aggregated_jaccard, panoptic_quality, region_score

Scores = dict[str, float]
_RATIOS = ("precision", "recall", "f1")
_COUNTS = ("true_positives", "false_positives", "false_negatives")


def index_scores(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Scores:
    """Return the model's and the true index, and how far they lie apart.

    The error is the paper's *IHC quantification difference*: |100 P / (P + N) of the model − the same of the
    truth|, in percentage points, for P positive and N negative cells. The statistics published with the paper
    count connected regions of red and of blue; here cells are counted by the published scoring rules.

    Parameters
    ----------
    found, truth : ndarray of bool, shape (n,) and (m,)
        Which cells are positive.
    """
    ours, theirs = index_percent(found), index_percent(truth)
    return {
        "cells": float(len(found)),
        "true_cells": float(len(truth)),
        "index_percent": ours,
        "true_index_percent": theirs,
        "index_error_percent": abs(ours - theirs),
    }


def point_scores(hits: Mapping[str, Hits]) -> Scores:
    """Return precision, recall and F1 of each class, their means, and the counts they are made of.

    Parameters
    ----------
    hits : dict of str to Hits
        As `detect` returns them.
    """
    counts = {kind: of_kind.counts for kind, of_kind in hits.items()}
    return _ratios(counts) | {
        f"{name}_{kind}": float(getattr(count, name)) for kind, count in counts.items() for name in _COUNTS
    }


def pooled_scores(images: Iterable[Mapping[str, float]]) -> Scores:
    """Return precision, recall and F1 of the cells of all images together; empty if none has points.

    Parameters
    ----------
    images : iterable of dict
        Figures of images, as `point_scores` returns them among others.
    """
    with_points = [image for image in images if "f1_any" in image]
    if not with_points:
        return {}
    return _ratios(
        {
            kind: Counts(*(int(sum(image[f"{name}_{kind}"] for image in with_points)) for name in _COUNTS))
            for kind in ("positive", "negative", "any")
        }
    )


def _ratios(counts: Mapping[str, Counts]) -> Scores:
    by_class = {name: {kind: getattr(count, name) for kind, count in counts.items()} for name in _RATIOS}
    scores = {f"{name}_{kind}": value for name, values in by_class.items() for kind, value in values.items()}
    return scores | {
        f"{name}_mean": (values["positive"] + values["negative"]) / 2 for name, values in by_class.items()
    }


def mask_scores(found: Cells, truth: Cells) -> Scores:
    """Return pixel accuracy, Dice, IoU, AJI and panoptic quality of each class, and their means.

    Parameters
    ----------
    found, truth : Cells
        Of the model's map and of the true mask. Pixels are compared by the published pixel rule, instances
        are the cells counted.
    """
    scores: Scores = {}
    for kind, value in (("positive", POSITIVE), ("negative", NEGATIVE)):
        region = region_score(found.classes == value, truth.classes == value)
        ours, theirs = (cells.labels_of(value == POSITIVE) for cells in (found, truth))
        scores |= {
            f"pixel_accuracy_{kind}": region.pixel_accuracy,
            f"dice_{kind}": region.dice,
            f"iou_{kind}": region.iou,
            **_instances(ours, theirs, kind),
        }
    for name in [name.removesuffix("_positive") for name in scores if name.endswith("_positive")]:
        scores[f"{name}_mean"] = (scores[f"{name}_positive"] + scores[f"{name}_negative"]) / 2
    return scores | _instances(found.labels, truth.labels, "any")


def _instances(found: NDArray[np.int32], truth: NDArray[np.int32], kind: str) -> Scores:
    panoptic = panoptic_quality(found, truth)
    return {
        f"aji_{kind}": aggregated_jaccard(found, truth),
        f"pq_{kind}": panoptic.pq,
        f"dq_{kind}": panoptic.dq,
        f"sq_{kind}": panoptic.sq,
    }


def modality_scores(
    found: Mapping[str, NDArray[np.uint8]],
    truth: Mapping[str, NDArray[np.uint8]],
    value_range: float = 1.0,
) -> Scores:
    """Return MSE and SSIM of every modality that both have.

    Parameters
    ----------
    found, truth : dict of str to ndarray of uint8, shape (H, W, 3)
        By canonical name (see `canonical`).
    value_range : float
        See `structural_similarity_index`.
    """
    scores: Scores = {}
    for name in sorted(found.keys() & truth.keys()):
        scores[f"mse_{name}"] = mean_squared_error(found[name], truth[name])
        scores[f"ssim_{name}"] = structural_similarity_index(found[name], truth[name], value_range)
    return scores
