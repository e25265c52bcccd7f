"""How many nuclei models find on tissue of other cameras whose nuclei are marked: a Markdown page.

    python -m benchmarks.marked --shared ../shared [--models stain,compact]

``nuclei.csv`` has the marks: all nuclei of 44 squares of 64 µm, on fields of cameras and stains that are not
those of the training strips. They were made by eye, and not by a pathologist. A mark is ``positive``,
``negative``, ``either`` (a nucleus whose class is not clear) or ``unclear`` (it may be no nucleus). Models
learned from these images, as other models labelled them, and never from the marks; constants that follow the
network may be chosen by them, since none of the images is for evaluation.
"""

import argparse
import csv
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.markdown import header, percent, row
from deepliif_ray.evaluation.detection import Counts, match_points
from deepliif_ray.evaluation.fields import Rules, find_cells, infer_field
from deepliif_ray.models import Model, load_model

MARKS = Path(__file__).with_name("nuclei.csv")
MPP = 0.25
SIDE, AROUND, RIM = 256, 256, 6
"""px: of a square; of tissue around it that the model sees as well; of its rim, where cells are cut."""
REACH, UNCLEAR_REACH = 10.0, 14.0
"""px between a mark and its cell at most; around an unclear mark where a cell is neither right nor wrong."""
TILE_UM = 100.0
"""µm: the side of an endometrium tile."""
CAMERAS = {
    "unlabelled/field_17925.jpg": 0.12,
    "unlabelled/field_17926.jpg": 0.2,
    "unlabelled/field_17927.jpg": 0.15,
    "unlabelled/field_17928.jpg": 0.07,
    "unlabelled/ki67_20x_blue_filter.tif": 0.25,
    "deepliif/large/ROI_1.png": 0.25,
    "deepliif/large/ROI_7.png": 0.25,
}
"""µm per pixel, by eye: those of the fields are not stated."""
NONE = Counts(0, 0, 0)


@dataclass
class Square:
    """A square of an image and its marks; lengths are px of 0.25 µm.

    Attributes
    ----------
    image : str
        Path below the data's folder.
    left, top : int
        Its corner on the image.
    xy : list of (float, float)
        Of each mark, from that corner.
    kinds : list of str
        What each mark is.
    """

    image: str
    left: int
    top: int
    xy: list[tuple[float, float]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tally:
    """What became of marks and cells: regardless of class, and of the marks with a class."""

    any: Counts = NONE
    positive: Counts = NONE
    negative: Counts = NONE

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, key) + getattr(other, key) for key in vars(self)))


def squares() -> list[Square]:
    """Read the marks."""
    found: dict[tuple[str, int, int], Square] = {}
    with MARKS.open(newline="") as file:
        for line in csv.DictReader(file):
            key = (line["image"], int(line["left"]), int(line["top"]))
            square = found.setdefault(key, Square(*key))
            square.xy.append((float(line["x"]), float(line["y"])))
            square.kinds.append(line["nucleus"])
    return list(found.values())


def read(data: Path, image: str) -> NDArray[np.uint8]:
    """Return an image at the scale of the marks."""
    picture = Image.open(data / image).convert("RGB")
    scale = CAMERAS.get(image, TILE_UM / picture.width) / MPP
    size = (round(picture.width * scale), round(picture.height * scale))
    way = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(picture.resize(size, way))


def compare(square: Square, xy: NDArray[np.float64], positive: NDArray[np.bool_]) -> Tally:
    """Match the cells found near a square, their centres from its corner, with its marks."""
    marks, kinds = np.array(square.xy), np.array(square.kinds)
    unclear = marks[kinds == "unclear"]
    hits = match_points(xy, marks, REACH)

    def inside(points: NDArray[np.float64]) -> NDArray[np.bool_]:
        within: NDArray[np.bool_] = np.all((points >= RIM) & (points < SIDE - RIM), axis=1)
        return within

    close = np.zeros(len(xy), bool)
    for mark in unclear:
        close |= np.hypot(*(xy - mark).T) <= UNCLEAR_REACH
    wrong = inside(xy) & (hits.found < 0) & ~close
    counted = inside(marks) & (kinds != "unclear")
    seen = hits.truth >= 0
    called = np.zeros(len(marks), bool)
    called[seen] = positive[hits.truth[seen]]
    tallies = [Counts(int((counted & seen).sum()), int(wrong.sum()), int((counted & ~seen).sum()))]
    for is_positive, kind, other in ((True, "positive", "negative"), (False, "negative", "positive")):
        of_kind, as_kind = counted & (kinds == kind), seen & (called == is_positive)
        right = int((of_kind & as_kind).sum())
        false = int((counted & (kinds == other) & as_kind).sum() + (wrong & (positive == is_positive)).sum())
        tallies.append(Counts(right, false, int(of_kind.sum()) - right))
    return Tally(*tallies)


def measure(model: Model, data: Path) -> dict[str, Tally]:
    """Return the tally of each image's squares; endometrium tiles by their slide."""
    by_image = defaultdict(list)
    for square in squares():
        by_image[square.image].append(square)
    found: dict[str, Tally] = defaultdict(Tally)
    for image, of_image in by_image.items():
        rgb = read(data, image)
        for square in of_image:
            top, left = max(0, square.top - AROUND), max(0, square.left - AROUND)
            part = rgb[top : square.top + SIDE + AROUND, left : square.left + SIDE + AROUND]
            cells = find_cells(infer_field(model, part, mpp=MPP).seg, rules=Rules(mpp=MPP))
            xy = cells.xy.reshape(-1, 2) + np.array([left - square.left, top - square.top])
            near = ((xy > -REACH) & (xy < SIDE + REACH)).all(axis=1)
            name = Path(image).stem.split("_r")[0]
            found[name] += compare(square, xy[near], cells.positive[near])
    return dict(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/")
    parser.add_argument("--models", default="stain,compact", help="names or URLs, separated by commas")
    arguments = parser.parse_args()
    for name in arguments.models.split(","):
        tallies = measure(load_model(name), arguments.shared / "data")
        print(f"\n### {name}\n")
        header("image", "nuclei", "recall, %", "precision, %", "F1, %", "F1 positive, %", "F1 negative, %")
        for image, tally in {**tallies, "all, pooled": sum(tallies.values(), Tally())}.items():
            kinds = (tally.positive, tally.negative)
            figures = [tally.any.recall, tally.any.precision, tally.any.f1]
            of_kinds = [k.f1 if k.true_positives + k.false_negatives else None for k in kinds]
            marks = tally.any.true_positives + tally.any.false_negatives
            row(image, marks, *(percent("", figure) for figure in figures + of_kinds))


if __name__ == "__main__":
    main()
