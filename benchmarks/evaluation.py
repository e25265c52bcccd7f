"""How good models are on real tissue, beside the paper's figures: a Markdown page.

    python benchmarks/evaluation.py --shared ../shared [--models stain,compact] [--output DIR]

See README.md beside this file for what is comparable with the paper and what is not.
"""

import argparse
from itertools import combinations
from pathlib import Path

from deepliif_ray.evaluation.evaluate import ModelScores, evaluate
from deepliif_ray.evaluation.fields import find_cells
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
SECTIONS = (
    ("BCData, six fields, expert centroids (10 px)", "bcdata", "points", POINTS),
    ("Two tiles against the published model's segmentation", "deepliif/official", "seg", MASKS),
    ("The same two tiles against their ground truth", "deepliif/official", "truth", MASKS),
    ("Two training strips against their ground truth", "deepliif/train", "seg", MASKS),
)


def percent(name: str, value: float | None) -> str:
    """Return a figure in percent or points."""
    if value is None:
        return "–"
    return f"{value if name.endswith('_percent') else 100 * value:.2f}"


def row(*cells: object) -> None:
    """Print one line of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def header(*titles: str) -> None:
    """Print the head of a Markdown table."""
    row(*titles)
    row("---", *["---:"] * (len(titles) - 1))


def section(models: list[Model], folder: Path, kind: str, output: str | None) -> list[ModelScores]:
    """Evaluate every model by itself."""
    return [
        evaluate(model, str(folder), output and f"{output}/{model.name}", kind=kind).models[0]
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/")
    parser.add_argument("--models", default="stain,compact", help="names or URLs, separated by commas")
    parser.add_argument("--output", help="URL of a folder for pictures and figures of each section")
    arguments = parser.parse_args()

    models = [load_model(name) for name in arguments.models.split(",")]
    results = {}
    for title, folder, kind, metrics in SECTIONS:
        output = arguments.output and f"{arguments.output}/{folder.replace('/', '-')}-{kind}"
        results[title] = section(models, arguments.shared / "data" / folder, kind, output)
        if kind == "truth":
            results[title].append(recorded(arguments.shared / "data" / folder))
        print(f"\n### {title}\n")
        summary(results[title], metrics)
        if kind == "points":
            by_image(results[title], "f1_mean", POINTS["f1_mean"])
            by_image(results[title], "index_error_percent", POINTS["index_error_percent"])
            paired_tests(results[title])
    paper(results[SECTIONS[0][0]], results[SECTIONS[2][0]])


if __name__ == "__main__":
    main()
