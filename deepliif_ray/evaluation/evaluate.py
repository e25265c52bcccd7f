"""Evaluate models on images with known truth."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.detection import REACH_PX, detect
from deepliif_ray.evaluation.fields import Cells, FieldMaps, Rules, find_cells, infer_field
from deepliif_ray.evaluation.outcomes import picture
from deepliif_ray.evaluation.scores import (
    Scores,
    index_scores,
    mask_scores,
    modality_scores,
    point_scores,
    pooled_scores,
)
from deepliif_ray.evaluation.statistics import Comparison, compare_paired
from deepliif_ray.evaluation.truth import Truth, canonical, read_truths
from deepliif_ray.models import Model, load_model
from deepliif_ray.published import SEG_THRESH

MEAN, POOLED = "mean", "pooled"


@dataclass(frozen=True)
class ModelScores:
    """Figures of one model.

    Attributes
    ----------
    name : str
        The model's; numbered where two models share one.
    digest, precision : str
        See `deepliif_ray.models.Model`.
    images : dict of str to dict
        Figures of each image, by its name; see `deepliif_ray.evaluation.scores` for theirs.
    """

    name: str
    digest: str
    precision: str
    images: dict[str, Scores] = field(default_factory=dict)

    def figures(self, name: str) -> list[float]:
        """Return one figure of every image in order; NaN where an image has none."""
        return [scores.get(name, math.nan) for scores in self.images.values()]

    @property
    def means(self) -> Scores:
        """Mean over the images that have the figure."""
        names = dict.fromkeys(name for scores in self.images.values() for name in scores)
        return {name: float(np.nanmean(self.figures(name))) for name in names}

    @property
    def pooled(self) -> Scores:
        """Precision, recall and F1 of the cells of all images together; empty without centroids."""
        return pooled_scores(self.images.values())


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model, or of two on the same images.

    Attributes
    ----------
    truth, kind : str
        Where the truth was read, and which.
    rules : Rules
        How cells were counted.
    reach_px : float
        How far a hit may lie from a true centroid.
    models : tuple of ModelScores
    """

    truth: str
    kind: str
    rules: Rules
    reach_px: float
    models: tuple[ModelScores, ...]

    @property
    def table(self) -> pa.Table:
        """One row an image and model, then each model's ``mean`` and, with centroids, ``pooled``."""
        rows: list[dict[str, Any]] = []
        for model in self.models:
            extra = {MEAN: model.means} | ({POOLED: model.pooled} if model.pooled else {})
            rows += [
                {"model": model.name, "image": image, **scores}
                for image, scores in (model.images | extra).items()
            ]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pa.table({name: [row.get(name) for row in rows] for name in names})

    @cached_property
    def comparison(self) -> dict[str, Comparison]:
        """By metric, the second model against the first; empty unless there are two."""
        if len(self.models) != 2:
            return {}
        first, second = self.models
        names = [name for name in first.means if name in second.means]
        found = {name: compare_paired(first.figures(name), second.figures(name)) for name in names}
        return {name: comparison for name, comparison in found.items() if comparison is not None}

    @property
    def summary(self) -> pa.Table:
        """One row a metric: each model's mean; of two, their difference and the p of the paired tests."""
        names = list(dict.fromkeys(name for model in self.models for name in model.means))
        columns: dict[str, Any] = {"metric": names}
        for model in self.models:
            means = model.means
            columns[model.name] = [means.get(name) for name in names]
        if len(self.models) == 2:
            comparison = self.comparison
            for key in ("difference", "wilcoxon_p", "shapiro_p"):
                values = [getattr(comparison[name], key) if name in comparison else None for name in names]
                columns[key] = pa.array(values, pa.float64())
        return pa.table(columns)

    def as_json(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {
            "truth": self.truth,
            "kind": self.kind,
            "rules": vars(self.rules),
            "reach_px": self.reach_px,
            "models": [
                {
                    "name": model.name,
                    "digest": model.digest,
                    "precision": model.precision,
                    MEAN: model.means,
                    POOLED: model.pooled,
                    "images": model.images,
                }
                for model in self.models
            ],
            "comparison": {name: vars(comparison) for name, comparison in self.comparison.items()},
        }


def evaluate(
    model: str | Model | Sequence[str | Model],
    truth: str,
    output: str | None = None,
    *,
    kind: str = "auto",
    resolution: str = "40x",
    device: str | None = None,
    precision: str | None = None,
    modalities: Sequence[str] = (),
    seg_thresh: int = SEG_THRESH,
    size_thresh: int | None = None,
    marker_thresh: int | str | None = None,
    reach_px: float | None = None,
) -> Evaluation:
    """Evaluate one model, or two against each other, on images with known truth.

    Parameters
    ----------
    model : str, Model, or two of them
        What `deepliif_ray.models.load_model` takes, or a model at hand.
    truth : str
        URL of the folder of images; see `deepliif_ray.evaluation.truth.read_truths` for its layouts.
    output : str, optional
        URL of a folder to write ``evaluation.json`` and ``pictures/MODEL/IMAGE.png`` to.
    kind : {'auto', 'points', 'truth', 'seg'}
        Which truth: centroids, the panel ``truth`` or the panel ``seg``; ``auto`` takes what there is.
    resolution : {'40x', '20x', '10x'}
    device, precision : str, optional
        For models given by name; see `load_model`.
    modalities : sequence of str
        Modality images to compare beside those the model makes anyway, by the model's own names.
    seg_thresh, size_thresh, marker_thresh
        See `deepliif_ray.evaluation.fields.Rules`; the same hold for the model's maps and for true masks.
    reach_px : float, optional
        How far a hit may lie from a true centroid; 10 px at 40x, 5 at 20x, 2.5 at 10x when not given.

    Raises
    ------
    ConfigError
        An option or the truth cannot be used.
    ModelError
        A model cannot be loaded or run.
    StorageError
        A file cannot be read or written.
    """
    rules = Rules(resolution, seg_thresh, size_thresh, marker_thresh)
    reach = REACH_PX[resolution] if reach_px is None else reach_px
    if not reach >= 0:
        raise ConfigError(f"reach_px is {reach_px}; give a distance of at least 0 px")
    given = list(model) if isinstance(model, Sequence) and not isinstance(model, str) else [model]
    if not 1 <= len(given) <= 2:
        raise ConfigError(f"{len(given)} models were given; evaluate one, or compare two")
    truths = read_truths(truth, kind)
    loaded = [
        load_model(item, device, precision, modalities) if isinstance(item, str) else item for item in given
    ]
    names = [item.name for item in loaded]
    results = tuple(
        ModelScores(name if names.count(name) == 1 else f"{name} ({i + 1})", item.digest, item.precision)
        for i, (name, item) in enumerate(zip(names, loaded, strict=True))
    )
    for image in truths:
        for item, result in zip(loaded, results, strict=True):
            maps = infer_field(item, image.rgb, resolution=resolution, modalities=item.modality_names)
            cells = find_cells(maps.seg, maps.marker, rules)
            result.images[image.name] = image_scores(maps, cells, image, rules, reach)
            if output is not None:
                drawn = picture(cells, image, rules, reach, result.name, result.images[image.name])
                storage.write_bytes(storage.join(output, "pictures", result.name, f"{image.name}.png"), drawn)
    evaluation = Evaluation(truth, kind, rules, reach, results)
    if output is not None:
        text = json.dumps(evaluation.as_json(), indent=1, ensure_ascii=False) + "\n"
        storage.write_bytes(storage.join(output, "evaluation.json"), text.encode())
    return evaluation


def image_scores(maps: FieldMaps, cells: Cells, truth: Truth, rules: Rules, reach: float) -> Scores:
    """Return all figures that the truth of an image allows.

    Where there are centroids and a mask, the indices are those of the centroids.
    """
    scores: Scores = {}
    if truth.mask is not None:
        true_cells = find_cells(truth.mask, rules=rules)
        scores |= mask_scores(cells, true_cells) | index_scores(cells.positive, true_cells.positive)
    if truth.points is not None:
        points = truth.points
        scores |= point_scores(detect(cells.xy, cells.positive, points.xy, points.positive, reach))
        scores |= index_scores(cells.positive, points.positive)
    modalities = {canonical(name): image for name, image in maps.modalities.items()}
    return scores | modality_scores(modalities, truth.modalities)
