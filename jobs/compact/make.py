"""What the recipe of the shipped model does beside training: ``python make.py STEP …``, see ``train.sh``.

make.py sources DATA               manifests of unlabelled images: cameras.csv, endonuke.csv
make.py view MODEL OUTPUT          the same weights, shown canonical glass, cells called by a rule
make.py correct STRIPS DATA        labels of tiles with known centres of nuclei, corrected by these
make.py average ONE OTHER OUTPUT   the mean of two models' weights
make.py call BEFORE MODEL OUTPUT PANELS…  the rule that calls cells, fitted on panels
"""

import csv
import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from deepliif_ray.evaluation.fields import infer_field, shown
from deepliif_ray.evaluation.truth import read_truths
from deepliif_ray.models import Model, load_model
from deepliif_ray.models.bundle import read_bundle, write_bundle
from deepliif_ray.models.calling import MOST_BROWN, MOST_LOG_ODDS, CallRule, brownness, evidence
from deepliif_ray.models.compact_spec import CompactSpec
from deepliif_ray.models.local_contrast import ContrastRule
from deepliif_ray.native import NativeView
from deepliif_ray.synthetic.panels import draw_segmentation

WHITE = 240.0
"""Grey level that glass is brought to: that of most synthetic tiles."""
OD = 0.2
"""Hematoxylin that paler slides are brought to, see the model card."""
SMOOTHING = 1.4
"""What the network is shown is smoother than what it learned from; see there."""
CONTRAST = ContrastRule(network=0.8, contrast=1.0, offset=-0.4)
"""How its shares are weighed with local contrast; see there."""
MPP = 0.25
TEACHER = CallRule(network=1.0, dab=12.0, offset=-1.8, least=0.03, most=0.3)
"""Calls what the first step finds on cameras that it has not seen: pale nuclei as the network says, dark
brown ones as positive. By eye, on the unlabelled fields."""
CAMERAS = {
    "unlabelled/field_17925.jpg": 0.12,
    "unlabelled/field_17926.jpg": 0.2,
    "unlabelled/field_17927.jpg": 0.15,
    "unlabelled/field_17928.jpg": 0.07,
    "unlabelled/hdab256.tif": 0.25,
    "unlabelled/ki67_20x_blue_filter.tif": 0.25,
    "deepliif/large/ROI_1.png": 0.25,
    "deepliif/large/ROI_7.png": 0.25,
}
"""µm per pixel. Those of the fields are not stated: nuclei were brought to the size of others by eye."""
POINTS = ("c12ea4", "a028ca")
"""EndoNuke images whose centres of nuclei are complete."""
SOME_POINTS = ("302d4d",)
"""EndoNuke images where some nuclei have no centre: those that have one add cells, and none is taken away."""
ENDONUKE_UM = 100.0
REACH = 8
DOT = 9
LEAST, MOST = 0.03, 0.2
"""Of the real training tiles, 0 to 3 % of cells below 0.02 are positive in truth; above 0.2, 67 to 100 % of
those of each tile."""
MOST_TILES = 60
"""Of one source that a call is fitted on."""
FloatArray = NDArray[np.float64]


def sources(data: Path) -> None:
    """Write the manifests of unlabelled images."""
    endonuke = {}
    for path in sorted((data / "endonuke").glob("*.png")):
        with Image.open(path) as image:
            endonuke[path] = ENDONUKE_UM / image.width
    cameras = {data / name: mpp for name, mpp in CAMERAS.items()}
    for target, images in (("cameras.csv", cameras), ("endonuke.csv", endonuke)):
        with Path(target).open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["slide_id", "patient_id", "marker", "uri", "mpp"])
            rows.writerows([path.stem, path.stem, "Ki67", path, f"{mpp:.4f}"] for path, mpp in images.items())


def view(model: str, output: str) -> None:
    """Write a model that is shown, and weighs contrast, as the shipped one is, for teaching."""
    bundle = read_bundle(model)
    write_bundle(output, bundle.name, _completed(bundle.spec, TEACHER), bundle.weights, bundle.metadata)


def _completed(spec: CompactSpec, call: CallRule) -> CompactSpec:
    """Return ``spec`` with what the teacher and the shipped model have in common."""
    return replace(spec, native_white=WHITE, smoothing=SMOOTHING, local_contrast=CONTRAST, call=call)


def average(one: str, other: str, output: str) -> None:
    """Write the mean of two bundles' weights; what ``other`` says of itself is kept.

    Half of the way between weights before and after fine-tuning on few tiles is often better on tissue that
    neither has seen than both ends (Wortsman et al. 2022, WiSE-FT).
    """
    before, after = read_bundle(one), read_bundle(other)
    if any(
        getattr(before.spec, part) != getattr(after.spec, part) for part in ("widths", "depths", "modalities")
    ):
        sys.exit(f"{one} and {other} have other layers")
    mean = {key: (before.weights[key].float() + value.float()) / 2 for key, value in after.weights.items()}
    write_bundle(output, after.name, after.spec, mean, {**after.metadata, "averaged_with": one})


def correct(strips: Path, data: Path) -> None:
    """Take what lies at no centre out of the labels of tiles with known centres, and add what is missing."""
    for path in sorted(strips.glob("*.png")):
        marked = (s for s in _images(data) if s.startswith(POINTS + SOME_POINTS))
        stem = next((s for s in marked if f"-{s}_" in path.name), None)
        if stem is None:
            continue
        strip = np.array(Image.open(path))
        side = strip.shape[0]
        scale = ENDONUKE_UM / Image.open(data / "endonuke" / f"{stem}.png").width / MPP
        with (data / "endonuke" / f"{stem}_centroids.csv").open(newline="") as stream:
            centres = [(float(row["x"]) * scale, float(row["y"]) * scale) for row in csv.DictReader(stream)]
        seg, ihc = strip[:, -side:], strip[:, :side]
        inside = [(x, y) for x, y in centres if x < side and y < side]
        strip[:, -side:] = _corrected(seg, ihc, inside, stem.startswith(POINTS))
        Image.fromarray(strip).save(path)


def _images(data: Path) -> list[str]:
    return [path.name.removesuffix("_centroids.csv") for path in (data / "endonuke").glob("*_centroids.csv")]


def _corrected(
    seg: NDArray[np.uint8], ihc: NDArray[np.uint8], centres: list[tuple[float, float]], are_all: bool
) -> NDArray[np.uint8]:
    labels, count = ndimage.label(seg[..., 0].astype(int) + seg[..., 2] > 127)
    ys, xs = np.mgrid[: len(seg), : len(seg)]
    kept = np.full(count + 1, not are_all)
    kept[0] = False
    dots = np.zeros(labels.shape, np.int32)
    for number, (x, y) in enumerate(centres, count + 1):
        around = labels[(xs - x) ** 2 + (ys - y) ** 2 <= REACH**2]
        here = np.bincount(around, minlength=count + 1)[1:]
        if here.size and here.max() > 0.2 * np.pi * REACH**2:
            kept[1 + int(here.argmax())] = True
        else:
            dots[((xs - x) ** 2 + (ys - y) ** 2 <= DOT**2) & (labels == 0)] = number
    owner = np.where(kept[labels], labels, dots)
    brown = brownness(shown(NativeView(white=WHITE), ihc, MPP), WHITE)
    numbers = np.arange(count + len(centres) + 1)
    positive = np.nan_to_num(ndimage.mean(brown, owner, numbers)) > 0.15
    positive[: count + 1] = (
        ndimage.mean(seg[..., 0].astype(float) - seg[..., 2], labels, numbers[: count + 1]) > 0
    )
    return draw_segmentation(owner.astype(np.int32), positive)


def call(before: str, model: str, output: str, panels: list[str]) -> None:
    """Fit the rule that calls cells: a logistic regression, each source weighing the same.

    It is fitted with the network of before it had seen the panels: of tiles that it has learned by heart, its
    word alone is right.
    """
    bundle = read_bundle(model)
    network = _uncalled(before)
    rows, truth, weight = [], [], []
    for source in panels:
        features, positive = _cells(network, source)
        rows.append(features)
        truth.append(positive)
        weight.append(np.full(len(positive), 1 / max(len(positive), 1)))
    network_weight, dab, offset = _logistic(
        np.concatenate(rows), np.concatenate(truth), np.concatenate(weight)
    )
    rounded = (round(value, 3) for value in (network_weight, dab, offset))
    rule = CallRule(*rounded, LEAST, MOST)
    spec = replace(_completed(bundle.spec, rule), native_od=OD)
    metadata = {**bundle.metadata, "call_fitted_on": [Path(source).name for source in panels]}
    write_bundle(output, bundle.name, spec, bundle.weights, metadata)
    sys.stdout.write(json.dumps(vars(rule)) + "\n")


def _uncalled(model: str) -> Model:
    """Load a model without its rule: the odds of a cell that is called are those of its call."""
    bundle = read_bundle(model)
    with TemporaryDirectory() as folder:
        write_bundle(folder, bundle.name, replace(bundle.spec, call=None), bundle.weights, bundle.metadata)
        return load_model(folder, "cpu", "float32")


def _cells(network: Model, source: str) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return log odds and brownness (N, 2) of the cells of panels, and which are positive in truth."""
    features, positive = [], []
    for tile in islice(read_truths(source, "seg"), MOST_TILES):
        assert tile.mask is not None
        found = evidence(infer_field(network, tile.rgb).seg, shown(network.native, tile.rgb, MPP), WHITE)
        numbers = np.arange(1, len(found.brown) + 1)
        red, blue = (ndimage.mean(tile.mask[..., c].astype(float), found.labels, numbers) for c in (0, 2))
        known = np.maximum(red, blue) > 80
        odds = np.clip(found.log_odds, -MOST_LOG_ODDS, MOST_LOG_ODDS)
        features.append(np.stack([odds, np.clip(found.brown, 0, MOST_BROWN)], axis=1)[known])
        positive.append((red > blue)[known])
    return np.concatenate(features), np.concatenate(positive)


def _logistic(
    x: FloatArray, y: NDArray[np.bool_], weight: FloatArray, ridge: float = 1e-3, rounds: int = 50
) -> tuple[float, float, float]:
    """Return the weights and the offset of a logistic regression, by Newton's method."""
    x = np.column_stack([x, np.ones(len(x))])
    beta = np.zeros(x.shape[1])
    weight = weight / weight.sum()
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        slope = x.T @ (weight * (y - p)) - ridge * beta * [1, 0.01, 0]
        curve = (x * (weight * p * (1 - p))[:, None]).T @ x + ridge * np.diag([1, 0.01, 1e-6])
        beta = beta + np.linalg.solve(curve, slope)
    network, dab, offset = (float(value) for value in beta)
    return network, dab, offset


def main() -> None:
    """Run one step."""
    step, *given = sys.argv[1:]
    if step == "sources":
        sources(Path(given[0]))
    elif step == "view":
        view(*given)
    elif step == "average":
        average(*given)
    elif step == "correct":
        correct(Path(given[0]), Path(given[1]))
    elif step == "call":
        call(given[0], given[1], given[2], given[3:])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
