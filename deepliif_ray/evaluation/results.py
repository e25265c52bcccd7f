"""What an evaluation found: figures of models, by image and together."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from deepliif_ray.evaluation.fields import Rules
from deepliif_ray.evaluation.scores import Scores, pooled_scores
from deepliif_ray.evaluation.statistics import Comparison, compare_paired

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
class FieldScale:
    """The scale of an image.

    Attributes
    ----------
    mpp : float
        µm per pixel; that of the resolution where nobody said.
    reach_px : float
        How far a hit may lie from a true centroid.
    """

    mpp: float
    reach_px: float


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model, or of two on the same images.

    Attributes
    ----------
    truth, kind : str
        Where the truth was read, and which.
    rules : Rules
        How cells were counted.
    protocol : str
        By which definitions masks were compared; see `deepliif_ray.evaluation.evaluate.PROTOCOLS`.
    models : tuple of ModelScores
    scales : dict of str to FieldScale
        Of each image, by its name.
    """

    truth: str
    kind: str
    rules: Rules
    protocol: str
    models: tuple[ModelScores, ...]
    scales: Mapping[str, FieldScale]

    def the(self, what: str) -> float | None:
        """Return ``mpp`` or ``reach_px`` of all images; None if they differ."""
        values = {getattr(scale, what) for scale in self.scales.values()}
        return values.pop() if len(values) == 1 else None

    @property
    def described(self) -> str:
        """One line on the scale of the images, and on the reach where there are centroids."""
        scales = self.scales.values()
        said = f"{number_of(scales, 'image')} at {span([scale.mpp for scale in scales])} µm per pixel"
        if not self.models[0].pooled:
            return said
        within = span([round(scale.mpp * scale.reach_px, 6) for scale in scales])
        return f"{said}; cells match within {within} µm ({span([scale.reach_px for scale in scales])} px)"

    @property
    def table(self) -> pa.Table:
        """One row an image and model, then each model's ``mean`` and, with centroids, ``pooled``."""
        rows: list[dict[str, Any]] = []
        for model in self.models:
            extra = {MEAN: model.means} | ({POOLED: model.pooled} if model.pooled else {})
            rows += [
                {"model": model.name, "image": image}
                | (vars(self.scales[image]) if image in self.scales else {})
                | scores
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
            "protocol": self.protocol,
            "mpp": self.the("mpp"),
            "reach_px": self.the("reach_px"),
            "images": {name: vars(scale) for name, scale in self.scales.items()},
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


def span(values: Collection[float]) -> str:
    """Return one value as text, or the least and the greatest."""
    ends = sorted({min(values), max(values)})
    return " to ".join(f"{value:g}" for value in ends)


def number_of(things: Collection[object], name: str) -> str:
    """Return how many things there are, as text: ``1 image``, ``2 images``."""
    return f"{len(things)} {name}" + ("" if len(things) == 1 else "s")
