"""What became of each cell of an image, and the picture of it."""

import numpy as np

from deepliif_ray.evaluation.detection import detect
from deepliif_ray.evaluation.fields import Cells, Rules, find_cells
from deepliif_ray.evaluation.pictures import EXTRA, HIT, MISSED, Marks, draw_evaluation
from deepliif_ray.evaluation.scores import Scores
from deepliif_ray.evaluation.segmentation import panoptic_quality
from deepliif_ray.evaluation.truth import Points, Truth

_CLASSES = (("positive", True), ("negative", False))


def picture(cells: Cells, truth: Truth, rules: Rules, reach: float, model: str, scores: Scores) -> bytes:
    """Return a PNG of the IHC with true and false positives and false negatives of each class.

    Centroids are matched within ``reach`` px; without them the cells of the mask, whose IoU must exceed one
    half, and cells are outlined too: found ones, and true ones that were missed.
    """
    title, key = ("F1", "f1_mean") if truth.points is not None else ("Dice", "dice_mean")
    caption = (
        f"{model} · {truth.name} · {title} {scores[key]:.3f} (mean of classes) · "
        f"index {scores['index_percent']:.1f} %, truth {scores['true_index_percent']:.1f} %"
    )
    if truth.points is not None:
        return draw_evaluation(truth.rgb, _of_points(cells, truth.points, reach), [], caption)
    assert truth.mask is not None
    true_cells = find_cells(truth.mask, rules=rules)
    marks, outlines = [], []
    for kind, positive in _CLASSES:
        ours, theirs = cells.labels_of(positive), true_cells.labels_of(positive)
        matched = panoptic_quality(ours, theirs)
        here, there = cells.xy[cells.positive == positive], true_cells.xy[true_cells.positive == positive]
        marks += [
            Marks(kind, HIT, here[matched.found]),
            Marks(kind, EXTRA, np.delete(here, matched.found, axis=0)),
            Marks(kind, MISSED, np.delete(there, matched.truth, axis=0)),
        ]
        lost = np.delete(np.unique(theirs[theirs > 0]), matched.truth)
        outlines += [(kind, ours), (kind, np.where(np.isin(theirs, lost), theirs, 0).astype(np.int32))]
    return draw_evaluation(truth.rgb, marks, outlines, caption)


def _of_points(cells: Cells, truth: Points, reach: float) -> list[Marks]:
    hits = detect(cells.xy, cells.positive, truth.xy, truth.positive, reach)
    marks = []
    for kind, positive in _CLASSES:
        here, there = cells.xy[cells.positive == positive], truth.xy[truth.positive == positive]
        found = hits[kind].found >= 0
        marks += [
            Marks(kind, HIT, here[found]),
            Marks(kind, EXTRA, here[~found]),
            Marks(kind, MISSED, there[hits[kind].truth < 0]),
        ]
    return marks
