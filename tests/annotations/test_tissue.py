"""Tissue in regions of a slide with tissue; and the commands, as people type them."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from deepliif_ray import cli, score
from deepliif_ray.annotations.current import attach
from deepliif_ray.annotations.regions import import_regions
from deepliif_ray.config import Execution
from deepliif_ray.synthetic import write_cohort
from tests.annotations.files import box, feature, listing, slides, write

SIDE = 700


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tissue")
    manifest = write_cohort(folder / "cohort", patients=1, markers=["Ki67"], side=2 * SIDE)
    score(
        str(manifest),
        str(folder / "results"),
        model="stain",
        execution=Execution(engine="local"),
    )
    return folder


@pytest.fixture
def root(scored, tmp_path):
    shutil.copytree(scored / "results", tmp_path / "results")
    return str(tmp_path / "results")


def regions_of(root, tmp_path, *features, **options):
    import_regions(root, [write(tmp_path, "P01-Ki67.geojson", list(features))], author="me", **options)
    return {row["region_id"]: row for row in attach(root, slides(root)).regions.to_pylist()}


def test_tissue_adds_up(root, tmp_path):
    slide = slides(root).to_pylist()[0]
    width, height = slide["width_px"], slide["height_px"]
    assert slide["tissue_mm2"] > 0.001 and slide["n_cells"] > 20
    cut = width * 0.437
    lobes = {
        "type": "MultiPolygon",
        "coordinates": [
            [[[0, 0], [width, 0], [0, height], [0, 0]], [[9, 9], [99, 9], [9, 99], [9, 9]]],
            [[[10, 10], [90, 10], [10, 90], [10, 10]]],
        ],
    }
    half = {"type": "Polygon", "coordinates": [[[width, 0], [width, height], [0, height]]]}
    rows = regions_of(
        root,
        tmp_path,
        feature(box(0, 0, width, height), "All", "all"),
        feature(box(0, 0, cut, height), "Left", "left"),
        feature(box(cut, 0, width, height), "Right", "right"),
        feature(lobes, "Corner", "corner"),
        feature(half, "Other", "other"),
    )
    tissue = {name: row["class_tissue_mm2"] for name, row in rows.items()}
    assert tissue["all"] == pytest.approx(slide["tissue_mm2"], rel=1e-12)
    assert tissue["left"] + tissue["right"] == pytest.approx(tissue["all"], rel=1e-12)
    assert 0 < tissue["left"] < tissue["all"]
    lost = (90**2 - 80**2) / 2 * slide["mpp"] ** 2 / 1e6  # at most, where there is tissue between the lobes
    assert tissue["all"] - lost - 1e-12 <= tissue["corner"] + tissue["other"] <= tissue["all"] + 1e-12
    assert {row["slide_tissue_mm2"] for row in rows.values()} == {slide["tissue_mm2"]}
    assert {row["tissue_reason"] for row in rows.values()} == {None}
    assert rows["left"]["n_cells"] + rows["right"]["n_cells"] == rows["all"]["n_cells"] == slide["n_cells"]


def test_what_excludes_counts_nowhere(root, tmp_path):
    slide = slides(root).to_pylist()[0]
    width, height = slide["width_px"], slide["height_px"]
    rows = regions_of(
        root,
        tmp_path,
        feature(box(0, 0, width, height), "All", "all"),
        feature(box(0, 0, width / 2, height), "Ignore*", "out"),
        feature(box(0, 0, width * 0.75, height), "exclude", "more"),
        feature(box(width * 0.75, 0, width, height), "Right", "right"),
    )
    assert rows["all"]["class_tissue_mm2"] == pytest.approx(rows["right"]["class_tissue_mm2"])
    assert rows["all"]["slide_tissue_mm2"] == pytest.approx(rows["right"]["class_tissue_mm2"])
    left = slide["tissue_mm2"] - rows["right"]["class_tissue_mm2"]
    assert rows["more"]["class_tissue_mm2"] == pytest.approx(left)
    assert rows["all"]["class_n_cells"] == rows["right"]["n_cells"] < rows["all"]["n_cells"]


def test_a_slide_that_cannot_be_read_or_is_another(root, scored, tmp_path, monkeypatch):
    whole = feature(box(0, 0, 400, 400), "Tumor", "a")
    slide = Path(slides(root)["uri"][0].as_py())
    away = slide.with_suffix(".away")
    slide.rename(away)
    try:
        row = regions_of(root, tmp_path, whole)["a"]
        assert row["class_tissue_mm2"] is None and "no such file" in row["tissue_reason"]
        other = write_cohort(tmp_path / "other", patients=1, markers=["Ki67"], side=2 * SIDE, seed=9).parent
        shutil.copy(other / "P01-Ki67.tiff", slide)
        assert "changed since it was scored" in regions_of(root, tmp_path, whole)["a"]["tissue_reason"]
        slide.unlink()
    finally:
        away.rename(slide)
    assert regions_of(root, tmp_path, whole, read_slides=False)["a"]["class_tissue_mm2"] is None
    assert run("regions", "refresh", root) == 0
    (row,) = attach(root, slides(root)).regions.to_pylist()
    assert row["class_tissue_mm2"] > 0 and row["tissue_reason"] is None
    monkeypatch.setitem(sys.modules, "deepliif_ray.annotations.tissue", None)
    with pytest.raises(ModuleNotFoundError):  # none of an extra: told as it is
        regions_of(root, tmp_path, whole)


def run(*arguments):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["deepliif-ray", *map(str, arguments)])
        cli.main()
    return exit_.value.code or 0


def test_commands(root, tmp_path, capsys):
    assert run("regions", "list", root) == run("corrections", "list", root) == 0
    said = capsys.readouterr().err
    assert "no regions here" in said and "no corrections here" in said
    features = [feature(box(0, 0, 400, 400), "Tumor", "a"), feature({"type": "Point", "coordinates": [1, 1]})]
    path = write(tmp_path, "P01-Ki67.geojson", features)
    assert run("regions", "import", root, path, "--no-tissue", "--author", "A. Reader") == 0
    said = capsys.readouterr().err
    assert "passed over, as no region: 1 × Point" in said and "1 regions of 1 slides imported as " in said
    import_id = said.split()[-1]
    assert run("regions", "import", root, path, "--no-tissue") == 0
    assert "replaces the regions of: P01-Ki67" in capsys.readouterr().err
    assert run("regions", "list", root, "--all", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["class"], row["state"]) for row in rows] == [("Tumor", "replaced"), ("Tumor", "current")]
    assert rows[0]["import_id"] == import_id and rows[0]["author"] == "A. Reader"
    assert run("regions", "drop", root, rows[1]["import_id"]) == 0
    assert run("regions", "export", root, "P01-Ki67", tmp_path / "out.geojson") == 0
    assert json.loads((tmp_path / "out.geojson").read_bytes())["features"][0]["id"] == "a"
    x, y = (slides_cell(root)[name] for name in ("x", "y"))
    (tmp_path / "c.csv").write_text(f"slide_id,x,y,call\nP01-Ki67,{x},{y},positive\nP01-Ki67,1,1,negative\n")
    assert run("corrections", "import", root, tmp_path / "c.csv") == 3
    said = capsys.readouterr().err
    assert "matches no cell: c.csv: row 3" in said and "1 negative, 1 positive imported as" in said
    assert run("corrections", "list", root, "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["is_current"] for row in rows] == [True, False]
    assert run("corrections", "drop", root, rows[0]["import_id"]) == 0
    before = listing(root)
    bad = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]}
    path = write(tmp_path, "P01-Ki67.geojson", [feature(bad), feature(box(0, 0, 9, 9))])
    assert run("regions", "import", root, path, "--no-tissue") == 2
    assert "error: nothing was imported: 1 features" in capsys.readouterr().err and listing(root) == before
    assert run("regions", "import", root, path, "--no-tissue", "--skip-refused") == 3
    assert "left out: P01-Ki67.geojson: feature 1" in capsys.readouterr().err
    assert run("regions", "drop", root, "nothing") == run("corrections", "drop", root, "x") == 2
    assert run("status", root) == 0


def slides_cell(root):
    import pyarrow.parquet as pq

    return pq.read_table(f"{root}/{slides(root)['cells_path'][0].as_py()}", columns=["x", "y"]).to_pylist()[5]
