"""Whole pictures: what they say, and what becomes of slides that are not what they were."""

import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from deepliif_ray import cli
from deepliif_ray.annotations.corrections import import_corrections
from deepliif_ray.annotations.regions import import_regions
from deepliif_ray.contracts import load
from deepliif_ray.errors import (
    ConfigError,
    DeepliifRayError,
    QueryError,
    SlideCrashedError,
    SlideMemoryError,
    SlideTimeoutError,
    StorageError,
)
from deepliif_ray.exports.cells import Calls
from deepliif_ray.pictures import legend, lettering, picture
from deepliif_ray.pictures.colours import ALARM, NEGATIVE, POSITIVE
from deepliif_ray.pictures.picture import draw_picture
from deepliif_ray.query import ask
from tests.annotations import files
from tests.few import few
from tests.pictures import scored

IMAGE = scored.gradient(600, 1000)
CELLS = [(100, 80, True), (130, 80, False), (500, 300, True), (900, 500, False)]


def cells(half=5):
    return [scored.cell(n, x, y, half, positive=positive) for n, (x, y, positive) in enumerate(CELLS)]


@pytest.fixture
def path(tmp_path):
    return scored.slide(tmp_path, IMAGE)


@pytest.fixture
def root(tmp_path, path):
    root = str(tmp_path / "results")
    scored.commit(root, cells(), path=path, width_px=1000, height_px=600)
    return root


def pixels(file):
    return np.asarray(Image.open(file).convert("RGB"))


def test_a_field_over_its_tissue(root, tmp_path):
    done = draw_picture(root, "S-1", tmp_path / "a.png", at=(50, 40, 200, 150), width=800)
    assert (done.shows, done.n_called, done.n_positive, done.warnings) == ("outlines", 2, 1, ())
    found = pixels(tmp_path / "a.png")
    assert found.shape[1] == 800 and found.shape[0] > 600
    assert tuple(found[(75 - 40) * 4, (95 - 50) * 4]) == POSITIVE
    assert tuple(found[(75 - 40) * 4, (125 - 50) * 4]) == NEGATIVE
    assert tuple(found[100, 700]) == tuple(IMAGE[40 + 25, 50 + 175])
    assert Image.open(tmp_path / "a.png").text["Title"] == "Ki67, slide S-1"
    (index,) = ask(root, "FROM slide_indices").to_pylist()
    assert f"4 cells called, 2 positive; index {index['index_percent']:.2f} %" in " ".join(done.texts)
    assert "Here: 2 cells with their centre in x 50 to 250, y 40 to 190 px; 1 positive, 50.00 %" in done.texts
    assert {"positive: 1", "negative: 1"} < set(done.texts)


def test_the_same_picture_has_the_same_bytes(root, tmp_path):
    for name in "ab":
        draw_picture(root, "S-1", tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_flags_and_what_was_chosen_are_written(tmp_path):
    root = str(tmp_path / "results")
    scored.commit(root, cells(), stain_residual=0.9, focus=3.0, warnings=["odd"])
    done = draw_picture(root, "S-1", tmp_path / "a.png", without_slide=True, calls=Calls(corrections=False))
    text = " ".join(done.texts)
    assert "Flag not_hematoxylin_dab: colours that hematoxylin and DAB do not make" in text
    assert "Flag out_of_focus" in text and "without corrections" in text and "warnings: 1" in text
    assert "too few cells" in text and "Research use only" in text
    found = pixels(tmp_path / "a.png")
    assert (found[:12] == ALARM).all(axis=2).mean() > 0.5
    assert done.warnings == ()


def test_every_flag_has_its_words():
    (said,) = [
        column["description"]
        for column in load("views")["views"]["slide_quality"]["columns"]
        if isinstance(column, dict) and column["name"] == "flags"
    ]
    assert all(flag in said for flag in legend.FLAGS)
    assert len(legend.FLAGS) == said.split(":")[1].split(".")[0].count(",") + 1


def test_a_slide_that_is_gone(root, path, tmp_path, capsys):
    path.unlink()
    sys.argv[1:] = ["picture", root, "S-1", "--output", str(tmp_path / "a.png"), "--at", "50,40,200,150"]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert said.out == "" and "warning: slide 'S-1': Without the slide, cells on white" in said.err
    assert "no such file" in said.err
    found = pixels(tmp_path / "a.png")
    colours = {tuple(colour) for colour in np.unique(found.reshape(-1, 3), axis=0).tolist()}
    assert {ALARM, POSITIVE, NEGATIVE, (255, 255, 255)} <= colours


def test_a_slide_that_is_another_now(root, path, tmp_path):
    scored.slide(tmp_path, 255 - IMAGE)
    done = draw_picture(root, "S-1", tmp_path / "a.png")
    assert "not the file that was scored" in done.warnings[0] and done.n_called == 4
    assert done.texts[0] == "Without the slide, cells on white: its file is not the one that was scored"
    assert not any(str(tmp_path) in text for text in done.texts)
    assert not (pixels(tmp_path / "a.png") == 255 - IMAGE[300, 700]).all(axis=2).any()


@pytest.mark.parametrize("content", few([b"", b"no slide at all", b"II*\0" + bytes(200)], 1))
def test_a_slide_that_cannot_be_read(root, path, tmp_path, content):
    path.write_bytes(content)
    scored.commit(root, cells(), path=path, width_px=1000, height_px=600, second=9)
    done = draw_picture(root, "S-1", tmp_path / "a.png", heat="index")
    assert "Without the slide, cells on white" in done.warnings[0] and done.n_called == 4


@pytest.mark.parametrize(
    "error", few([SlideCrashedError, SlideTimeoutError, SlideMemoryError, StorageError], 1)
)
def test_a_slide_that_ends_its_reader(root, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error("a.tiff: reading it crashed")

    monkeypatch.setattr(picture, "read_view", fail)
    done = draw_picture(root, "S-1", tmp_path / "a.png")
    assert done.warnings == ("Without the slide, cells on white: a.tiff: reading it crashed",)
    assert done.n_called == 4 and done.texts[0].startswith("Without the slide, cells on white: its ")


def test_without_a_slide_none_is_opened(root, path, tmp_path):
    path.unlink()
    done = draw_picture(root, "S-1", tmp_path / "a.png", without_slide=True)
    assert done.warnings == () and done.n_called == 4


def test_what_is_refused(root, tmp_path):
    def message(kind, *arguments, **more):
        with pytest.raises(kind) as error:
            draw_picture(root, *arguments, **more)
        assert isinstance(error.value, DeepliifRayError)
        return str(error.value)

    there = tmp_path / "there.png"
    there.write_bytes(b"mine")
    assert "there is no slide 'S-9'; there are 'S-1'" in message(ConfigError, "S-9", tmp_path / "a.png")
    assert "--overwrite" in message(ConfigError, "S-1", there)
    assert ".png" in message(ConfigError, "S-1", tmp_path / "a.jpg")
    assert "no such folder" in message(ConfigError, "S-1", tmp_path / "no" / "a.png")
    assert "'S-1'" in message(ConfigError, "S-1", tmp_path / "a.png", at=(1000, 0, 5, 5))
    assert "leave one" in message(ConfigError, "S-1", tmp_path / "a.png", strength=True, heat="index")
    assert "no slide has a region" in message(QueryError, "S-1", tmp_path / "a.png", calls=Calls(region="T"))
    none = Calls({"size_thresh": 9000})
    assert "'S-1': no cell counts" in message(QueryError, "S-1", tmp_path / "a.png", calls=none)
    assert there.read_bytes() == b"mine" and {p.name for p in tmp_path.glob("*.png")} == {"there.png"}
    draw_picture(root, "S-1", there, overwrite=True)
    assert there.read_bytes().startswith(b"\x89PNG")


def test_a_field_without_cells_is_a_picture(root, tmp_path):
    done = draw_picture(root, "S-1", tmp_path / "a.png", at=(600, 100, 50, 50))
    assert done.n_called == 0 and "Here: 0 cells" in " ".join(done.texts)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>&amp;", "x" * 1000, "切片 一\u202e\n\x1b[31m", "' \" ;--"]
)
def test_odd_ids(tmp_path, name):
    root = str(tmp_path / "results")
    scored.commit(root, cells(), name)
    done = draw_picture(root, name, tmp_path / "a.png", without_slide=True)
    title = done.texts[0]
    assert all(unicodedata.category(c) not in ("Cc", "Cf") for c in title)
    assert pixels(tmp_path / "a.png").shape[1] == 1600
    if name.isascii() and name.isprintable():
        assert title == f"Ki67, slide {name}"


def test_text_is_cut_and_wrapped_to_its_room():
    of = lettering.font(20)
    assert lettering.shortened("short", of, 500) == "short"
    cut = lettering.shortened("x" * 500 + "END", of, 200)
    assert of.getlength(cut) <= 200 and "…" in cut and cut.endswith("END")
    lines = lettering.wrapped("some words " * 40 + "y" * 300, of, 300, 4)
    assert len(lines) == 4 and all(of.getlength(line) <= 300 for line in lines)
    assert lettering.drawable("µm² – Übergang … ×") == "µm2 - Ubergang … x"
    assert lettering.drawable("a\u202eb\u5207\x00") == "a\\u202eb\\u5207\\x00"
    assert lettering.room("µm", of) == lettering.room("um", of)


def test_small_cells_become_a_map(tmp_path):
    root = str(tmp_path / "results")
    scored.commit(root, cells(), width_px=20_000, height_px=15_000)
    done = draw_picture(root, "S-1", tmp_path / "a.png", without_slide=True)
    assert done.shows == "index" and "too small for outlines" in done.warnings[0]
    assert "1 to 19 cells" in done.texts and "% of called cells positive, squares of 100 µm" in done.texts
    done = draw_picture(root, "S-1", tmp_path / "b.png", without_slide=True, heat="density", square_um=500)
    assert done.shows == "density" and done.warnings == ()
    assert "positive cells per square mm, squares of 500 µm" in done.texts and done.n_called == 4


def test_regions_and_hot_spots(root, tmp_path):
    drawn = [
        files.feature(files.box(50, 40, 300, 200), "Tumor"),
        files.feature(files.box(400, 250, 600, 400), "Exclude"),
    ]
    import_regions(root, [files.write(tmp_path, "S-1.geojson", drawn)], slide="S-1", read_slides=False)
    done = draw_picture(root, "S-1", tmp_path / "a.png", hot_spots=2, hot_spot_cells=2)
    text = " ".join(done.texts)
    assert done.n_called == 3 and "Hot spot 1: 50.00 % of 2 cells" in text
    assert any("1 of 2 hot spots" in warning or "no other circle" in warning for warning in done.warnings)
    found = pixels(tmp_path / "a.png")
    row = found[round(120 * 1.6)]
    assert (row[round(50 * 1.6) - 3 : round(50 * 1.6) + 3] == (0, 158, 115)).all(axis=1).any()
    scored.commit(root, cells(), "S-2")
    with pytest.raises(QueryError, match=r"'S-2': no cell counts in regions of class 'Tumor'.*no regions"):
        draw_picture(root, "S-2", tmp_path / "b.png", calls=Calls(region="Tumor"))
    done = draw_picture(root, "S-1", tmp_path / "b.png", calls=Calls(region="tumor"), heat="index")
    assert done.n_called == 2 and "only in regions of class tumor" in " ".join(done.texts)


@pytest.mark.slow
def test_what_people_said_is_told(root, tmp_path):
    (tmp_path / "c.csv").write_text("x,y,call\n100,80,negative\n130,80,not_a_cell\n")
    import_corrections(root, [str(tmp_path / "c.csv")], slide="S-1", author="me")
    done = draw_picture(root, "S-1", tmp_path / "a.png")
    assert {"called by a person: 1", "no cell, says a person: 1", "positive: 1", "negative: 2"} < set(
        done.texts
    )


def test_bounds_are_the_area_unless_one_is_asked_for(tmp_path, path):
    root = str(tmp_path / "results")
    bounds = {"bounds_x": 90, "bounds_y": 60, "bounds_width": 300, "bounds_height": 200}
    scored.commit(root, cells(), path=path, width_px=1000, height_px=600, **bounds)
    done = draw_picture(root, "S-1", tmp_path / "a.png")
    assert done.view.area == (90, 60, 300, 200) and done.view.columns == 1200
    found = pixels(tmp_path / "a.png")
    assert tuple(found[(75 - 60) * 4, (95 - 90) * 4]) == POSITIVE
    assert tuple(found[4 * 100 + 1, 4 * 200 + 1]) == tuple(IMAGE[160, 290])


@pytest.mark.parametrize("at", ["1,2,3", "a,b,c,d", "", "1,2,3,4.5"])
def test_areas_that_are_none(root, tmp_path, at, capsys):
    sys.argv[1:] = ["picture", root, "S-1", "--output", str(tmp_path / "a.png"), "--at", at]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "--at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("most", "um", "text"), [(260, 200, "200 µm"), (99, 50, "50 µm"), (4100, 2000, "2 mm"), (1, 1, "1 µm")]
)
def test_scale_bars_are_round(most, um, text):
    from deepliif_ray.pictures.frame import bar_length_um, length

    assert bar_length_um(most) == um and length(um) == text


def test_real_slides(shared_data, tmp_path):
    """A real field is drawn over its own pixels."""
    from deepliif_ray.slides import open_slide

    field = next(p for p in sorted((shared_data / "fields").rglob("*.png")) if p.stat().st_size > 100_000)
    with open_slide(field) as slide:
        width, height = slide.width, slide.height
        tissue = slide.read_rgb(0, 0, 0, width, height)
    root = str(tmp_path / "results")
    here = [scored.cell(0, 50, 40, positive=True)]
    scored.commit(root, here, path=field, width_px=width, height_px=height)
    done = draw_picture(root, "S-1", tmp_path / "a.png", at=(0, 0, 200, 150), width=800)
    assert done.warnings == ()
    found = pixels(tmp_path / "a.png")[:600, :800]
    assert (found[400:, 400:] == tissue[100:150, 100:200].repeat(4, 0).repeat(4, 1)).all()
