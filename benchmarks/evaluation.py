"""How good models are on real tissue, beside the paper's figures and what is asked of them: a Markdown page.

    python -m benchmarks.evaluation --shared ../shared [--models stain,compact] [--only SECTION]
                                    [--output DIR]

See README.md beside this file for what is comparable with the paper and what is not.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from benchmarks.acceptance import Found, asked, graded, scanners, tints
from benchmarks.markdown import header, percent, row
from deepliif_ray.evaluation.evaluate import evaluate
from deepliif_ray.evaluation.fields import find_cells
from deepliif_ray.evaluation.results import ModelScores
from deepliif_ray.evaluation.scores import index_scores, mask_scores
from deepliif_ray.evaluation.statistics import compare_paired
from deepliif_ray.evaluation.truth import read_truths
from deepliif_ray.models import Model, load_model

PAPER = {
    "pixel_accuracy_mean": 94.18,
    "dice_mean": 68.15,
    "iou_mean": 53.20,
    "aji_mean": 53.48,
    "index_error_percent": 6.07,
}
"""Ghahremani et al. 2022 on their masks of BCData, percent and percentage points."""

MASKS = {
    "pixel_accuracy_mean": "pixel accuracy, %",
    "dice_positive": "Dice positive, %",
    "dice_negative": "Dice negative, %",
    "dice_mean": "Dice, %",
    "iou_mean": "IoU, %",
    "aji_mean": "AJI, %",
    "pq_mean": "PQ, %",
    "index_error_percent": "quantification difference, points",
}
POINTS = {
    "f1_positive": "F1 positive, %",
    "f1_negative": "F1 negative, %",
    "f1_mean": "F1, mean of classes, %",
    "f1_any": "F1 regardless of class, %",
    "index_error_percent": "quantification difference, points",
}


@dataclass(frozen=True)
class Section:
    """A folder with truth, and how it is evaluated."""

    title: str
    folder: str
    kind: str
    metrics: dict[str, str]
    mpp: float | None = None
    reach_um: float | None = None


SECTIONS = {
    "bcdata": Section("BCData, six fields, expert centroids (10 px)", "bcdata", "points", POINTS),
    "shidc": Section(
        "SHIDC, six fields of another camera, expert centroids", "shidc", "points", POINTS, 0.16, 2.4
    ),
    "official": Section(
        "Two tiles against the published model's segmentation", "deepliif/official", "seg", MASKS
    ),
    "truth": Section("The same two tiles against their ground truth", "deepliif/official", "truth", MASKS),
    "train": Section("Two training strips against their ground truth", "deepliif/train", "seg", MASKS),
}


def section(models: list[Model], shared: Path, what: Section, output: str | None) -> list[ModelScores]:
    """Evaluate every model by itself."""
    to = output and f"{output}/{what.folder.replace('/', '-')}-{what.kind}"
    return [
        evaluate(
            model,
            str(shared / "data" / what.folder),
            to and f"{to}/{model.name}",
            kind=what.kind,
            mpp=what.mpp,
            reach_um=what.reach_um,
        ).models[0]
        for model in models
    ]


def recorded(folder: Path) -> ModelScores:
    """Return the figures of the published model's recorded maps against the ground truth."""
    images = {}
    for found, truth in zip(read_truths(str(folder), "seg"), read_truths(str(folder), "truth"), strict=True):
        assert found.mask is not None and truth.mask is not None
        cells, true_cells = find_cells(found.mask), find_cells(truth.mask)
        scores = index_scores(cells.positive, true_cells.positive)
        images[truth.name] = scores | mask_scores(cells, true_cells)
    return ModelScores("published model", digest="", precision="", images=images)


def summary(scores: list[ModelScores], metrics: dict[str, str]) -> None:
    """Print the means of every model, one column each."""
    header("", *(model.name for model in scores))
    for name, title in metrics.items():
        row(title, *(percent(name, model.means.get(name)) for model in scores))
    images = dict.fromkeys(n for m in scores for n in m.means if n.startswith(("mse_", "ssim_")))
    for name in images:
        measure, _, modality = name.partition("_")
        values = (model.means.get(name) for model in scores)
        row(f"{measure.upper()} {modality}", *("–" if value is None else f"{value:.4f}" for value in values))
    if scores[0].pooled:
        for name in ("f1_positive", "f1_negative", "f1_mean"):
            row(f"{POINTS[name]}, all cells pooled", *(percent(name, m.pooled.get(name)) for m in scores))


def by_image(scores: list[ModelScores], name: str, title: str) -> None:
    """Print one figure of every image."""
    print(f"\n{title}, by image\n")
    header("", *scores[0].images)
    for model in scores:
        row(model.name, *(percent(name, image.get(name)) for image in model.images.values()))


def paired_tests(scores: list[ModelScores]) -> None:
    """Print whether each two models differ."""
    for first, second in combinations(scores, 2):
        for name in ("f1_mean", "index_error_percent"):
            found = compare_paired(first.figures(name), second.figures(name))
            if found is not None:
                shapiro = "–" if found.shapiro_p is None else f"{found.shapiro_p:.3f}"
                print(
                    f"\n{second.name} − {first.name}, {POINTS[name]}: {percent(name, found.difference)}; "
                    f"Wilcoxon p = {found.wilcoxon_p:.3f} (n = {found.n}), Shapiro-Wilk p = {shapiro}"
                )


def paper(points: list[ModelScores], masks: list[ModelScores]) -> None:
    """Print the paper's figures for BCData beside the nearest there is here."""
    print("\n### Beside the paper's figures for BCData\n")
    header(
        "",
        "paper, BCData (masks)",
        *(f"{model.name}, six BCData fields (points)" for model in points),
        *(f"{model.name}, two tiles (masks)" for model in masks),
    )
    for name, value in PAPER.items():
        row(
            MASKS[name],
            f"{value:.2f}",
            *(percent(name, model.means.get(name)) for model in points),
            *(percent(name, model.means.get(name)) for model in masks),
        )


def main() -> None:
    """Measure and print."""
    names_of_sections = (*SECTIONS, "graded", "scanners", "tint")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/")
    parser.add_argument("--models", default="stain,compact", help="names or URLs, separated by commas")
    parser.add_argument("--only", action="append", choices=names_of_sections, help="a section; repeatable")
    parser.add_argument("--output", help="URL of a folder for pictures and figures of each section")
    arguments = parser.parse_args()
    wanted = arguments.only or names_of_sections
    shared: Path = arguments.shared.resolve()  # manifests lie elsewhere

    names = arguments.models.split(",")
    models = [load_model(name) for name in names]
    results: dict[str, list[ModelScores]] = {}
    found: Found = {}
    for key, what in SECTIONS.items():
        if key not in wanted:
            continue
        results[key] = scores = section(models, shared, what, arguments.output)
        if what.kind == "truth":
            scores.append(recorded(shared / "data" / what.folder))
        scale = "" if what.mpp is None else f" ({what.mpp:g} µm per pixel, within {what.reach_um:g} µm)"
        print(f"\n### {what.title}{scale}\n")
        summary(scores, what.metrics)
        if what.kind == "points":
            by_image(scores, "f1_mean", POINTS["f1_mean"])
            by_image(scores, "index_error_percent", POINTS["index_error_percent"])
            paired_tests(scores)
    if "bcdata" in results and "truth" in results:
        paper(results["bcdata"], results["truth"])
    if "bcdata" in results:
        found["bcdata_f1"] = [100 * scores.means["f1_mean"] for scores in results["bcdata"]]
        found["bcdata_index"] = [scores.means["index_error_percent"] for scores in results["bcdata"]]
    if "shidc" in results:
        for kind in ("positive", "negative"):
            found[f"shidc_{kind}"] = [100 * scores.means[f"f1_{kind}"] for scores in results["shidc"]]
    others: dict[str, Callable[[], Found]] = {
        "graded": lambda: graded(models, shared),
        "scanners": lambda: scanners(names, shared),
        "tint": lambda: tints(models, shared),
    }
    for key, measure in others.items():
        if key in wanted:
            found |= measure()
    asked(found, [model.name for model in models])


if __name__ == "__main__":
    main()
