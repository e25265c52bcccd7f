"""How far index and cells move when pictures change."""

import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deepliif_ray import storage
from deepliif_ray.cli import evaluation as _command  # noqa: F401
from deepliif_ray.cli.common import app
from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.fields import Rules
from deepliif_ray.evaluation.robustness import (
    Reading,
    Robustness,
    Shift,
    count,
    draw,
    measure_robustness,
)
from deepliif_ray.evaluation.sweep_plot import Sweep, draw_sweeps
from deepliif_ray.evaluation.sweeps import SWEEPS
from deepliif_ray.models.base import Inference
from deepliif_ray.native import NativeView

RED, BLUE = (255, 0, 0), (0, 0, 255)


class Strict:
    """Finds pixels that are nearly the red or blue of what was drawn; a scale of its own if given one."""

    name, digest, device, precision = "strict", "0", "cpu", "float32"
    modality_names = ()
    background_marker = 0
    has_marker = False

    def __init__(self, native_mpp=None):
        self.native, self.sides = NativeView(native_mpp), []

    def infer(self, tiles, modalities=()):
        self.sides.append(tiles.shape[1])
        red, blue = ((tiles[..., one] > 180) & (tiles[..., two] < 60) for one, two in ((0, 2), (2, 0)))
        seg = np.zeros_like(tiles)
        seg[red], seg[blue] = RED, BLUE
        return Inference(seg, None)


def drawn():
    """A field of 320 px: 12 red and 12 blue squares of 16 px, 6 and 6 of them in the middle circle."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(200, 250, (320, 320, 1), dtype=np.uint8).repeat(3, axis=2)
    places = [(x, y) for y in (20, 90, 150, 210, 280) for x in (20, 90, 150, 210, 280)][:24]
    for number, (x, y) in enumerate(places):
        rgb[y : y + 16, x : x + 16] = RED if number % 2 else BLUE
    return rgb


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def images():
    url = "memory://robust-fields"
    storage.write_bytes(f"{url}/one.png", png(drawn()))
    storage.write_bytes(f"{url}/two.png", png(drawn()[:200]))
    yield url
    storage.remove(url)


def test_steps_are_all_there():
    assert list(SWEEPS) == ["tint", "gamma", "blur", "jpeg", "scale", "rotation", "noise"]
    names = [(step.sweep, step.name) for steps in SWEEPS.values() for step in steps]
    assert len(set(names)) == len(names)
    white = np.full((8, 8, 3), 200, np.uint8)
    tints = {step.name: step.change(white, 0.25)[0, 0].tolist() for step in SWEEPS["tint"]}
    assert tints["yellow 1"] == [200, 190, 172] and tints["bluish 1"] == [172, 190, 200]
    assert tints["yellow 0.5"] == [200, 195, 186]
    assert [step.mpp for step in SWEEPS["scale"]] == [0.15, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert [step.name for steps in SWEEPS.values() for step in steps if step.circle] == ["45°"]


def test_what_moves_a_model_and_what_does_not(images):
    found = measure_robustness(Strict(), images)
    rows = {(row["sweep"], row["step"]): row for row in found.table.to_pylist()}
    assert len(rows) == sum(map(len, SWEEPS.values()))
    for step in ("90°", "180°", "270°", "mirror", "45°"):
        row = rows["rotation", step]
        assert (row["index_shift_points_most"], row["cells_change_percent_most"]) == (0, 0)
    # Red of 255 stays red in yellow light; blue of 255 is 219 then, and in bluish light red likewise.
    assert rows["tint", "yellow 1"]["cells_change_percent_most"] == 0
    # Blurred by 1 µm, 4 px, squares of 16 px keep the colour in their middle; by nothing else are cells lost.
    assert rows["noise", "sd 2"]["index_shift_points_mean"] == 0
    assert {row["fields"] for row in rows.values()} == {2}
    by_field = found.by_field.to_pylist()
    assert [row["image"] for row in by_field[:1] + by_field[-1:]] == ["one", "two"]
    one = next(row for row in by_field if row["step"] == "45°")
    assert 0 < one["cells_before"] == one["cells"] < 24


def test_a_shift_by_hand():
    before, after = Reading(40, 25.0), Reading(50, 22.0)
    shift = Shift("a", "tint", "yellow 1", before, after)
    assert (shift.index_points, shift.cells_percent) == (-3, pytest.approx(25))
    gone = Shift("b", "tint", "yellow 1", before, Reading(0, None))
    assert (gone.index_points, gone.cells_percent) == (None, -100)
    empty = Shift("c", "tint", "yellow 1", Reading(0, None), Reading(3, 0.0))
    assert (empty.index_points, empty.cells_percent) == (None, None)
    more = Shift("d", "tint", "yellow 1", before, Reading(40, 26.0))
    found = Robustness("f", "m", "0", "float32", Rules(), {}, (shift, gone, empty, more))
    assert found.table.to_pylist() == [
        {
            "sweep": "tint",
            "step": "yellow 1",
            "fields": 4,
            "index_shift_points_mean": 2,  # 3 and 1, whatever their sign
            "index_shift_points_most": -3,
            "cells_change_percent_mean": pytest.approx((25 + 100 + 0) / 3),
            "cells_change_percent_most": -100,
        }
    ]


def test_the_model_is_told_the_scale(images):
    model = Strict(native_mpp=0.25)
    measure_robustness(model, f"{images}", sweeps=["scale"])
    assert set(model.sides) == {512, *(round(128 / mpp) for mpp in (0.15, 0.2, 0.3, 0.4, 0.5, 0.6))}
    published = Strict()
    measure_robustness(published, f"{images}", sweeps=["scale"])
    assert set(published.sides) == {512, 256}


def test_pixel_sizes_and_sizes_in_pixels(images):
    storage.write_bytes(f"{images}/mpp.csv", b"name,mpp\none,0.3\n")
    # Squares have 256 px of 0.3 µm, so 1,024 px of 0.15 µm; larger than 200 px of 0.3 µm is larger than 800.
    found = measure_robustness(Strict(native_mpp=0.25), images, mpp=0.25, size_thresh=200, sweeps=["scale"])
    assert found.mpp == {"one": 0.3, "two": 0.25}
    one = [row for row in found.by_field.to_pylist() if row["image"] == "one"]
    assert one[0]["step"] == "0.15 µm/px" and one[0]["cells"] == one[0]["cells_before"] == 24
    none = pytest.raises(ConfigError, match="strict finds no cell in any image as it is")
    with none:
        measure_robustness(Strict(), images, mpp=0.25, size_thresh=300, sweeps=["tint"])


def test_cells_in_the_circle_alone():
    rgb = drawn()[60:260, 60:260]
    everywhere, within = (count(Strict(), rgb, Rules(), circle=circle).cells for circle in (False, True))
    # 3 × 3 squares, centres at 37.5, 97.5 and 157.5 px of 200. The circle's radius is 100 − 8 / 0.25 = 68 px:
    # corners lie 82 to 88 px from the middle, the others at most 62.
    assert (everywhere, within) == (9, 5)
    # At 0.125 µm the rim would be 64 px, but it is half the square at most: 50 px, and one is in it.
    assert count(Strict(), rgb, Rules(mpp=0.125), circle=True).cells == 1
    assert count(Strict(), np.full_like(rgb, 255), Rules()) == Reading(0, None)


def test_what_is_written(images, tmp_path):
    seen = []
    found = measure_robustness(
        Strict(), images, str(tmp_path), sweeps=["tint", "rotation"], watch=lambda p: seen.append(p.share)
    )
    assert len(seen) == 2 * (8 + 5) and seen == sorted(seen) and seen[0] == 0 and seen[-1] < 1
    written = json.loads((tmp_path / "robustness.json").read_text())
    assert written["mpp"] == {"one": 0.25, "two": 0.25}
    assert [row["step"] for row in written["steps"]][-1] == "45°" and len(written["fields"]) == 26
    assert (tmp_path / "robustness.svg").read_text() == draw(found)
    again = measure_robustness(Strict(), images, sweeps=["tint", "rotation"])
    assert again == found


def test_the_plot():
    svg = draw_sweeps("a < b", [Sweep("tint", ["x", "y< & z"], [(0, 1.5), (0, 0.5), (1, -0.5)], [])])
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert "a < b" in texts and "y<" in texts and "& z" in texts  # two lines
    assert "+2" in texts and "−2" in texts  # 1.5 rounded up
    assert "+5" in texts  # never a narrower scale than ±5 % of cells
    high, low, below = (float(dot.get("cy")) for dot in root.iter(f"{space}circle"))
    bars = [line for line in root.iter(f"{space}line") if line.get("stroke-width") == "2"]
    assert high < low < below  # SVG counts downwards
    assert float(bars[0].get("y1")) == pytest.approx((high + low) / 2, abs=0.1)
    assert float(bars[1].get("y1")) == below


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sweeps": ["colour"]}, "sweep colour is not known; use tint, gamma"),
        ({"mpp": 9}, "mpp: 9 µm per pixel is outside"),
        ({"images": "memory://nowhere"}, "no images here"),
    ],
)
def test_options_that_cannot_be_used(images, options, message):
    with pytest.raises(ConfigError, match=message):
        measure_robustness(**({"model": Strict(), "images": images} | options))


def test_command(images, tmp_path, monkeypatch):
    monkeypatch.setattr("deepliif_ray.evaluation.robustness.SWEEPS", {"tint": SWEEPS["tint"][:1]})
    defaults = measure_robustness.__kwdefaults__
    monkeypatch.setitem(defaults, "sweeps", ("tint",))
    arguments = ["evaluate", "stain", "--images", images, "--robustness", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, "--mpp", "0.25", "--format", "json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert (row["sweep"], row["step"], row["fields"]) == ("tint", "bluish 1", 2)
    assert "2 fields at 0.25 µm per pixel, each step beside the field as it is" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"robustness.json", "robustness.svg"}
    result = CliRunner().invoke(app, ["evaluate", "stain", "--truth", images, "--robustness", "--per-image"])
    assert result.exit_code == 0 and "one" in result.stdout, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--robustness"], "give one of them"),
        (["--robustness", "--images", "a", "--truth", "b"], "give one of them"),
        (["stain", "--robustness", "--images", "a"], "MODEL2 say nothing of one model's robustness"),
        (["--robustness", "--images", "a", "--kind", "seg", "--reach-um", "2"], "--kind, --reach-um say"),
        (["--images", "a"], "--images goes with --robustness"),
        ([], "give --truth"),
    ],
)
def test_command_refuses(arguments, message):
    result = CliRunner().invoke(app, ["evaluate", "stain", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
