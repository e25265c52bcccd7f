"""Hot spots and spatial results of committed cells: by slide, from Python and from the command line."""

import json
import logging

import numpy as np
import pytest

import deepliif_ray
from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.query import ask
from tests.query import fake_results as fake
from tests.scoring.brute import brute_hot_spots
from tests.test_commands import run

ODD = "S'2"


def cells_at(x_um, y_um, positive):
    return [
        fake.cell(i, positive=bool(p), x=x / 0.25, y=y / 0.25, x_um=x, y_um=y)
        for i, (x, y, p) in enumerate(zip(x_um, y_um, positive, strict=True))
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    results = str(tmp_path_factory.mktemp("places"))
    rng = np.random.default_rng(0)
    for name, n in (("S1", 120), (ODD, 60), ("S3", 4)):
        x, y = rng.random((2, n)) * 300
        cells = cells_at(x, y, rng.random(n) < 0.3)
        cells += [fake.cell(n, area_px=5, positive=True, x_um=1.0, y_um=1.0)]  # too small to count
        fake.commit(results, name, cells, patient_id=f"P-{name}")
    fake.commit(results, "S0", [], patient_id="P-S0")
    fake.commit(results, "C1", cells_at([1, 2], [1, 2], [True, False]), marker="CD3")
    return results


def called(results, slide):
    table = ask(results, f"SELECT x_um, y_um, positive FROM called_cells WHERE slide_id = '{slide}'")
    return [table[name].to_numpy() for name in ("x_um", "y_um", "positive")]


def test_hot_spots_of_each_slide(results, caplog):
    with caplog.at_level(logging.WARNING):
        table = deepliif_ray.hot_spots(results, marker="MIB-1", cells=10, count=2)
    rows = table.to_pylist()
    assert [(row["slide_id"], row["rank"]) for row in rows] == [(ODD, 1), (ODD, 2), ("S1", 1), ("S1", 2)]
    assert [line for line in caplog.messages if "no hot spot" in line] == [
        "slide 'S0': no hot spot: it has 0 counted cells, fewer than the 10 of a circle",
        "slide 'S3': no hot spot: it has 4 counted cells, fewer than the 10 of a circle",
    ]
    names = ("x_um", "y_um", "radius_um", "area_mm2", "n_cells", "n_positive", "share_percent")
    expected = brute_hot_spots(*called(results, "S1"), cells=10, count=2)
    for row, spot in zip(rows[2:], expected, strict=True):
        assert [row[name] for name in (*names, "density_per_mm2")] == list(spot)
        assert (row["x"], row["y"]) == pytest.approx((spot[0] / 0.25, spot[1] / 0.25))
        assert row["notes"] and row["patient_id"] == "P-S1" and row["marker"] == "Ki67"


def test_hot_spots_on_the_command_line(results, capsys, tmp_path):
    assert run("hot-spots", results, "--marker", "Ki67", "--slide", ODD, "--cells", 10) == 0
    said = capsys.readouterr()
    assert ODD in said.out and "S1" not in said.out and "note 1: all nuclei count" in said.err
    assert max(map(len, said.out.splitlines())) <= 80
    assert run("hot-spots", results, "--marker", "Ki67") == 0
    assert "'S1': no hot spot: it has 120 counted cells, fewer than the 500" in capsys.readouterr().err
    options = ("--area-mm2", "0.01", "--by", "density", "--count", 30, "--output", tmp_path / "a.json")
    assert run("hot-spots", results, "--marker", "Ki67", *options) == 0
    assert "other circle that counts has room" in capsys.readouterr().err
    found = json.loads((tmp_path / "a.json").read_text())
    assert {row["slide_id"] for row in found} == {"S1", ODD, "S3"}
    assert run("hot-spots", results, "--marker", "Ki67", "--area-mm2", "0.01") == 0
    assert "no circle of 0.01 mm² holds 500 of its 120 counted cells" in capsys.readouterr().err


def test_spatial_results_of_each_slide(results, capsys):
    table = deepliif_ray.spatial(results, marker="Ki67", ripley_um=[20, 50], hexagon_cells=5, hexagon_um=60)
    rows = {row["slide_id"]: row for row in table.to_pylist()}
    assert list(rows) == [ODD, "S0", "S1", "S3"]
    x, y, positive = called(results, "S1")
    row = rows["S1"]
    assert (row["n_called"], row["n_positive"]) == (120, positive.sum())
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + np.diag(np.full(120, np.inf))
    assert row["nearest_positive_um"] == pytest.approx(
        np.median(apart[np.ix_(positive, positive)].min(axis=1))
    )
    near = apart <= 50
    has = near.any(axis=1)
    shares = 100 * (near[has] & positive).sum(axis=1) / near[has].sum(axis=1)
    assert row["share_near_percent"] == pytest.approx(shares.mean())
    assert row["share_near_positive_percent"] == pytest.approx(shares[positive[has]].mean())
    assert row["l_minus_r_20_um"] is not None and row["n_hexagons"] > 3 and row["entropy_bits"] > 0
    assert rows["S0"]["n_called"] == 0 and rows["S0"]["entropy_bits"] is None
    assert run("spatial", results, "--marker", "Ki67", "--slide", "S1") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert run("spatial", results, "--marker", "CD3", "--ripley-um", 20, "--format", "csv") == 0
    assert "l_minus_r_20_um" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["hot-spots", "spatial"])
def test_what_is_not_there_is_told_by_name(results, command, capsys):
    assert run(command, results, "--marker", "CD8") == 2
    assert "no slide of marker 'CD8'; markers there are: CD3, Ki67" in capsys.readouterr().err
    assert run(command, results, "--marker", "Ki67", "--slide", "C1", "--slide", "S1") == 2
    assert "no slide of Ki67 is called 'C1'" in capsys.readouterr().err


def test_wrong_options_are_told_before_results_are_read():
    with pytest.raises(ConfigError, match="cells is 0"):
        deepliif_ray.hot_spots("nowhere", marker="Ki67", cells=0)
    for wrong in ({"radius_um": 0}, {"ripley_um": [-1]}, {"ripley_um": [5, 5]}, {"hexagon_um": -2}):
        with pytest.raises(ConfigError):
            deepliif_ray.spatial("nowhere", marker="Ki67", **wrong)


def test_a_slide_whose_cells_cannot_be_used_is_named(tmp_path, capsys):
    results = str(tmp_path)
    fake.commit(results, "bad", cells_at([1, 2], [float("nan"), 2], [True, False]))
    with pytest.raises(ConfigError, match="slide 'bad': a centroid is not finite"):
        deepliif_ray.hot_spots(results, marker="Ki67", cells=1)
    fake.commit(results, "lost", cells_at([1, 2], [1, 2], [True, False]), attempt="a1")
    next(tmp_path.glob("cells/*/*-a1.parquet")).unlink()
    assert run("hot-spots", results, "--marker", "Ki67", "--slide", "lost", "--cells", 1) == 0
    assert "slide 'lost': its cells are damaged" in capsys.readouterr().err


def test_a_marker_without_results(tmp_path):
    fake.run(str(tmp_path), "r1")
    with pytest.raises(QueryError, match="markers there are: none"):
        deepliif_ray.spatial(str(tmp_path), marker="Ki67")
