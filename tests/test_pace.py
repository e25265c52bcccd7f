"""How long a cohort will take."""

from datetime import UTC, datetime, timedelta

import pytest

from deepliif_ray import pace as module
from deepliif_ray.errors import ModelError
from deepliif_ray.pace import Pace, pace
from tests.query import fake_results as fake
from tests.test_cli import run

START = datetime(2026, 1, 1, tzinfo=UTC)


def a_run(root, name, *, tiles, seconds, day=0, model="compact", status="finished"):
    begin = START + timedelta(days=day)
    end = begin + timedelta(seconds=seconds) if status == "finished" else None
    fake.run(root, name, model_uri=model, n_tiles=tiles, started_at=begin, finished_at=end, status=status)


@pytest.fixture
def never(monkeypatch):
    monkeypatch.setattr(module, "_measured", lambda model: None)


def test_the_newest_finished_run_of_this_model_counts(tmp_path, never, monkeypatch):
    root = str(tmp_path)
    fake.commit(root, "a", [fake.cell()])
    a_run(root, "old", tiles=100, seconds=100)
    a_run(root, "good", tiles=1000, seconds=250, day=1)
    a_run(root, "other", tiles=1000, seconds=1, day=2, model="stain")
    a_run(root, "short", tiles=3, seconds=1, day=3)
    a_run(root, "killed", tiles=1000, seconds=1, day=4, status="running")
    assert pace("compact", root) == Pace(4.0, "as run good had")
    (tmp_path / "folder").mkdir()
    assert pace(str(tmp_path / "folder"), root) is None
    monkeypatch.chdir(tmp_path)
    a_run(root, "of a folder", tiles=100, seconds=10, day=5, model=str(tmp_path / "folder"))
    assert pace("folder", root) == Pace(10.0, "as run of a folder had")
    with pytest.raises(ModelError, match="no such model"):
        pace("nothing", root)
    assert pace("compact", str(tmp_path / "none")) is None


def test_without_a_run_a_tile_is_timed_here():
    found = pace("stain")
    assert found.tiles_per_second > 0 and found.seconds(1) == 1 / found.tiles_per_second
    assert "on this machine" in found.source


def test_a_published_folder_is_not_loaded_for_it(tmp_path):
    assert pace(str(tmp_path)) is None
    with pytest.raises(ModelError):
        (tmp_path / "model.json").write_text("{}")
        pace(str(tmp_path))


def test_plan_says_how_long_and_what_it_costs(tmp_path, capsys):
    from deepliif_ray.synthetic import write_cohort

    manifest = write_cohort(tmp_path / "c", patients=1, side=700)
    words = ["plan", manifest, "--tiles-per-second", "0.001", "--price-per-hour", "3.6", "--output"]
    assert run(*words, tmp_path / "plan.csv") == 0
    said = " ".join(capsys.readouterr().err.split())
    tiles = int(said.partition(" of the tiles show tissue")[0].rpartition(" ")[2])
    assert tiles > 4
    minutes = tiles * 1000 // 60
    assert f"about {minutes // 60}:{minutes % 60:02d}" in said and "at 0.001 tiles/s, as you say" in said
    assert f"{tiles:.2f} at 3.6 an hour" in said
