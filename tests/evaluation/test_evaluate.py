import io
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deepliif_ray import storage
from deepliif_ray.cli import evaluation as _command  # noqa: F401
from deepliif_ray.cli.common import app
from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.evaluate import evaluate
from deepliif_ray.models.base import Inference
from deepliif_ray.native import PUBLISHED, NativeView

RED, BLUE = (255, 0, 0), (0, 0, 255)


class Drawn:
    """Finds what is drawn in red and blue in the image itself, shifted by some pixels."""

    digest, device, precision = "0", "cpu", "float32"
    modality_names = ("Hema",)
    background_marker = 0
    has_marker = False
    native = PUBLISHED

    def __init__(self, name="drawn", shift=0, swap=False):
        self.name, self.shift, self.swap = name, shift, swap

    def infer(self, tiles, modalities=()):
        kept = np.where(np.ptp(tiles, axis=3, keepdims=True) == 255, tiles, 0).astype(np.uint8)
        seg = np.roll(kept[..., ::-1] if self.swap else kept, self.shift, axis=2)
        return Inference(seg, None, dict.fromkeys(modalities, tiles))


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def field(cells):
    """A field with squares of 20 px at x, y, and the mask that shows them."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(180, 250, (200, 200, 1), dtype=np.uint8).repeat(3, axis=2)
    mask = np.zeros_like(rgb)
    for x, y, positive in cells:
        rgb[y : y + 20, x : x + 20] = mask[y : y + 20, x : x + 20] = RED if positive else BLUE
    return rgb, mask


CELLS = {"one": [(20, 20, 1), (80, 20, 1), (20, 80, 0), (80, 80, 0)], "two": [(20, 20, 1), (120, 20, 0)]}


@pytest.fixture
def truth():
    url = "memory://evaluated"
    for name, cells in CELLS.items():
        rgb, mask = field(cells)
        storage.write_bytes(f"{url}/{name}/ihc.png", png(rgb))
        storage.write_bytes(f"{url}/{name}/truth.png", png(mask))
        storage.write_bytes(f"{url}/{name}/hematoxylin.png", png(rgb))
        rows = "".join(f"{x + 9.5},{y + 9.5},{positive}\n" for x, y, positive in cells)
        storage.write_bytes(f"{url}/points/{name}.png", png(rgb))
        storage.write_bytes(f"{url}/points/{name}.csv", f"x,y,positive\n{rows}".encode())
    yield url
    storage.remove(url)


def test_perfect(truth):
    evaluation = evaluate(Drawn(), truth)
    (scores,) = evaluation.models
    assert set(scores.images) == {"one", "two", "points/one", "points/two"}
    means = scores.means
    for name in ("pixel_accuracy", "dice", "iou", "aji", "pq", "dq", "sq", "precision", "recall", "f1"):
        assert means[f"{name}_positive"] == means[f"{name}_negative"] == means[f"{name}_mean"] == 1
    assert (means["index_error_percent"], means["mse_hematoxylin"], means["ssim_hematoxylin"]) == (0, 0, 1)
    assert scores.pooled["f1_any"] == 1


def test_shifted_by_hand(truth):
    # Squares of 20 × 20 px, found 5 px to the right: each shares 20 × 15 = 300 px of a union of 500.
    (scores,) = evaluate(Drawn(shift=5), f"{truth}/one").models
    one = scores.images["one"]
    for kind in ("positive", "negative", "mean"):
        assert one[f"iou_{kind}"] == one[f"aji_{kind}"] == one[f"pq_{kind}"] == pytest.approx(300 / 500)
        assert one[f"dice_{kind}"] == pytest.approx(600 / (600 + 200))
        assert one[f"pixel_accuracy_{kind}"] == pytest.approx(1 - 2 * 200 / 200**2)
        assert one[f"dq_{kind}"] == 1
    # 12 px to the right: 160 px of a union of 640, no matches; the pixels still count.
    one = evaluate(Drawn(shift=12), f"{truth}/one").models[0].images["one"]
    assert (one["pq_any"], one["index_error_percent"]) == (0, 0)
    assert one["aji_any"] == one["iou_mean"] == pytest.approx(160 / 640)


def test_unequal_images(truth):
    storage.write_bytes(f"{truth}/points/two.csv", b"x,y,positive\n29.5,29.5,0\n")
    (scores,) = evaluate(Drawn(), f"{truth}/points").models
    # Of "two" one positive and one negative cell are found; the one true cell, where the positive one is, is
    # negative: positive 0 hits of 1 and 0, negative 0 of 1 and 1; regardless of class 1 of 2 and 1.
    two = scores.images["two"]
    assert (two["f1_positive"], two["f1_negative"], two["f1_mean"]) == (0, 0, 0)
    assert two["f1_any"] == pytest.approx(2 / (2 + 1))
    assert (two["index_percent"], two["true_index_percent"], two["index_error_percent"]) == (50, 0, 50)
    assert scores.means["f1_mean"] == 0.5
    assert scores.means["index_error_percent"] == 25
    # Together: positive 2 hits, 1 extra, 0 missed; negative 2 hits, 1 extra, 1 missed.
    assert scores.pooled["f1_positive"] == pytest.approx(4 / (4 + 1))
    assert scores.pooled["f1_negative"] == pytest.approx(4 / (4 + 2))


def test_two_models_and_what_is_written(truth):
    output = "memory://evaluation-output"
    models = [Drawn("good"), Drawn("bad", swap=True)]
    evaluation = evaluate(models, truth, output)
    try:
        written = json.loads(storage.read_bytes(f"{output}/evaluation.json"))
        assert [model["name"] for model in written["models"]] == ["good", "bad"]
        assert written["models"][1]["mean"]["f1_mean"] == 0
        assert written["comparison"]["dice_mean"]["difference"] == -1
        names = storage.list_files(f"{output}/pictures")
        assert len(names) == 8
        for name in names:
            with Image.open(io.BytesIO(storage.read_bytes(name))) as picture:
                assert picture.width >= 400
    finally:
        storage.remove(output)
    summary = {row["metric"]: row for row in evaluation.summary.to_pylist()}
    assert summary["dice_mean"] == {
        "metric": "dice_mean", "good": 1, "bad": 0, "difference": -1, "wilcoxon_p": 0.5, "shapiro_p": None,
    }  # fmt: skip
    rows = evaluation.table.to_pylist()
    assert [row["image"] for row in rows if row["model"] == "bad"] == [
        "one", "points/one", "points/two", "two", "mean", "pooled",
    ]  # fmt: skip
    assert {type(row["dice_mean"]) for row in rows if row["image"] == "one"} == {float}


def test_models_of_one_name_are_numbered(truth):
    names = [model.name for model in evaluate([Drawn(), Drawn()], truth).models]
    assert names == ["drawn (1)", "drawn (2)"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": []}, "0 models"),
        ({"model": [Drawn()] * 3}, "3 models"),
        ({"reach_px": -1}, "reach_px"),
        ({"resolution": "4x"}, "4x"),
        ({"truth": "memory://nowhere"}, "no images here"),
        ({"reach_um": -0.1}, r"reach_um is -0\.1; give a distance of at least 0 µm"),
        ({"reach_px": 10, "reach_um": 2.5}, r"reach_px is 10 and reach_um 2\.5; give one of them"),
        ({"mpp": 25}, "mpp: 25 µm per pixel is outside"),
        ({"protocol": "paper"}, "protocol 'paper' is not known; use one of formulas, published"),
    ],
)
def test_options_that_cannot_be_used(truth, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(**({"model": Drawn(), "truth": truth} | options))


def test_command(truth, tmp_path):
    result = CliRunner().invoke(
        app,
        ["evaluate", "stain", "--truth", f"{truth}/points", "--output", str(tmp_path), "--format", "json"],
    )
    assert result.exit_code == 0, result.output
    metrics = {row["metric"]: row["stain"] for row in json.loads(result.stdout)}
    assert metrics["true_cells"] == 3
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["one.png", "two.png"]


def shifted(truth, **options):
    """Figures of "points/one" of a model that finds everything 5 px to the right."""
    (scores,) = evaluate(Drawn(shift=5), f"{truth}/points", **options).models
    return scores.images["one"]


def test_reach_in_micrometres(truth):
    assert shifted(truth, reach_px=5)["f1_any"] == 1
    assert shifted(truth, reach_px=4.9)["f1_any"] == 0
    # 5 px are 1.25 µm at 40x, 2.5 µm at 20x, 0.8 µm at 0.16.
    assert [shifted(truth, reach_um=reach)["f1_any"] for reach in (1.25, 1.24)] == [1, 0]
    at_20x = [shifted(truth, reach_um=reach, resolution="20x")["f1_any"] for reach in (2.5, 2.49)]
    assert at_20x == [1, 0]
    assert [shifted(truth, reach_um=reach, mpp=0.16)["f1_any"] for reach in (0.8, 0.79)] == [1, 0]
    assert [shifted(truth, mpp=mpp)["f1_any"] for mpp in (0.5, 0.51)] == [1, 0]  # 2.5 µm when not given


def test_scale_and_reach_are_told(truth):
    storage.write_bytes(f"{truth}/points/mpp.csv", b"name,mpp\ntwo,0.5\n")
    evaluation = evaluate(Drawn(), f"{truth}/points", mpp=0.16, reach_um=2.4)
    told = evaluation.as_json()
    assert told["images"] == {"one": {"mpp": 0.16, "reach_px": 15}, "two": {"mpp": 0.5, "reach_px": 4.8}}
    assert (told["mpp"], told["reach_px"], told["protocol"]) == (None, None, "formulas")
    assert evaluation.described == (
        "2 images at 0.16 to 0.5 µm per pixel; cells match within 2.4 µm (4.8 to 15 px)"
    )
    rows = {row["image"]: (row["mpp"], row["reach_px"]) for row in evaluation.table.to_pylist()}
    assert rows == {"one": (0.16, 15), "two": (0.5, 4.8), "mean": (None, None), "pooled": (None, None)}
    masks = evaluate(Drawn(), f"{truth}/one")
    assert (masks.as_json()["mpp"], masks.as_json()["reach_px"]) == (0.25, 10)
    assert masks.described == "1 image at 0.25 µm per pixel"  # no centroids, so no reach


def test_models_see_their_own_scale(truth):
    model = Drawn()
    model.native, sides, infer = NativeView(0.25), [], model.infer
    model.infer = lambda tiles, modalities=(): sides.append(tiles.shape[1]) or infer(tiles, modalities)
    evaluate(model, f"{truth}/points", mpp=0.16)
    assert set(sides) == {800}


def test_the_published_protocol(truth):
    scores = evaluate(Drawn(shift=5), f"{truth}/one", protocol="published").models[0].images["one"]
    # 200 px become 512: squares of 51.2 px, 12.8 px apart. Red and blue do not touch, so Dice is that of the
    # squares but for the rims, which are true wherever there is any colour.
    assert scores["dice_mean"] == pytest.approx(0.75, abs=0.02)
    assert scores["pixel_recall_mean"] < scores["pixel_precision_mean"]
    assert (scores["true_cells"], scores["index_error_percent"]) == (4, 0)
    assert "pq_mean" not in scores
    same = evaluate(Drawn(), f"{truth}/one", protocol="published").models[0].images["one"]
    assert same["ssim_hematoxylin"] == 1
    with pytest.raises(ConfigError, match="one: the published protocol compares masks, and there is none"):
        evaluate(Drawn(), f"{truth}/points", protocol="published")


def test_command_says_scale_and_reach(truth):
    arguments = ["evaluate", "stain", "--truth", f"{truth}/points", "--mpp", "0.16", "--reach-um", "2.4"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "2 images at 0.16 µm per pixel; cells match within 2.4 µm (15 px)" in result.stderr


def test_stain_on_real_fields_with_expert_centroids(shared_data):
    """Measured when written: F1 0.675 (mean of fields and classes), 4.3 points between the indices."""
    means = evaluate("stain", str(shared_data / "bcdata")).models[0].means
    assert means["f1_mean"] == pytest.approx(0.675, abs=0.03)
    assert means["index_error_percent"] == pytest.approx(4.3, abs=1.5)


def test_published_counts_of_real_strips(shared_data):
    published = json.loads((shared_data / "deepliif" / "train" / "official_counts.json").read_text())
    (scores,) = evaluate("stain", str(shared_data / "deepliif" / "train")).models
    for name, counts in published.items():
        assert scores.images[name]["true_cells"] == counts["num_total"]
        assert round(scores.images[name]["true_index_percent"], 1) == counts["percent_pos"]
