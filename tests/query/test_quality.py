"""Flags of quality control: opinions, made in SQL."""

import pytest

from deepliif_ray import connect
from tests.query import fake_results as fake

GOOD = {
    "focus": 400.0,
    "tissue_percent": 40.0,
    "pen_percent": 0.0,
    "hematoxylin_od": 0.1,
    "dab_od": 0.1,
    "stain_residual": 0.1,
    "background_grey": 240.0,
    "background_cast": 3.0,
}
FLAGS = {
    "out_of_focus": {"focus": 10.0},
    "little_tissue": {"tissue_percent": 0.5},
    "pen": {"pen_percent": 2.0},
    "pale_hematoxylin": {"hematoxylin_od": 0.01},
    "not_hematoxylin_dab": {"stain_residual": -0.2},
    "dark_background": {"background_grey": 150.0},
    "tinted_background": {"background_cast": 60.0},
    "bad_tiles": {"n_tiles_bad": 1},
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("results"))
    fake.commit(root, "good", [], **GOOD, n_tiles_bad=0)
    fake.commit(root, "unknown", [])
    fake.commit(root, "all", [], **GOOD | {k: v for bad in FLAGS.values() for k, v in bad.items()})
    for flag, values in FLAGS.items():
        fake.commit(root, flag, [], **GOOD | values, n_tiles_empty=1, n_tiles_masked=2)
    with connect(root) as opened:
        yield opened


def test_each_flag(connection):
    found = dict(connection.execute("SELECT slide_id, flags FROM slide_quality").fetchall())
    assert found["good"] == found["unknown"] == []
    assert sorted(found["all"]) == sorted(FLAGS)
    assert all(found[flag] == [flag] for flag in FLAGS)


def test_shares_of_tiles(connection):
    query = "SELECT skipped_percent, bad_percent FROM slide_quality WHERE slide_id = 'bad_tiles'"
    assert connection.execute(query).fetchall() == [(75.0, 25.0)]


def test_other_thresholds(connection):
    query = """SELECT slide_id FROM slide_quality_at(focus_min := 5, pen_max_percent := 5, cast_max := 99,
        residual_min := -0.3)
        WHERE len(flags) = 0 ORDER BY ALL"""
    found = [row[0] for row in connection.execute(query).fetchall()]
    assert found == ["good", "not_hematoxylin_dab", "out_of_focus", "pen", "tinted_background", "unknown"]


def test_indices_of_slides_without_flags(connection):
    query = "SELECT i.* FROM slide_indices AS i JOIN slide_quality USING (slide_id) WHERE len(flags) = 0"
    assert {row[0] for row in connection.execute(query).fetchall()} == {"good", "unknown"}


@pytest.mark.parametrize(
    ("model", "area", "small", "flags"),
    [
        ("stain", 24.0, 0.0, ["implausible_scale"]),
        ("stain", 26.0, 0.0, []),
        ("compact", 24.0, 0.0, []),
        ("compact", 13.0, 0.0, ["implausible_scale"]),
        ("compact", 66.0, 0.0, ["implausible_scale"]),
        ("compact", 30.0, 61.0, ["implausible_scale"]),
        ("stain", None, None, []),
    ],
)
def test_scale_that_nuclei_contradict(tmp_path, model, area, small, flags):
    values = {**GOOD, "model_name": model, "nucleus_area_um2": area, "small_percent": small}
    fake.commit(str(tmp_path), "a", [], **values)
    with connect(str(tmp_path)) as opened:
        assert opened.execute("SELECT flags FROM slide_quality").fetchall() == [(flags,)]
        asked = "SELECT flags FROM slide_quality_at(nucleus_min_um2 := 1, nucleus_max_um2 := 999)"
        kept = [] if small == 0 or small is None else flags
        assert opened.execute(asked).fetchall() == [(kept,)]
