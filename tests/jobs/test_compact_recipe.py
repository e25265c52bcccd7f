"""The parts of the shipped model's recipe that are not commands of the package."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepliif_ray.models.bundle import read_bundle, write_bundle
from deepliif_ray.models.compact import CompactNetwork
from deepliif_ray.models.compact_spec import CompactSpec

AVERAGE = Path(__file__).parents[2] / "jobs" / "compact" / "average.py"
SPEC = CompactSpec(widths=(4, 8), depths=(1, 1))


def write(folder, value: float, spec=SPEC, **metadata) -> str:
    state = {key: torch.full_like(w, value) for key, w in CompactNetwork(spec).state_dict().items()}
    write_bundle(str(folder), "tiny", spec, state, metadata)
    return str(folder)


@pytest.fixture
def average(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["average.py", *map(str, arguments)])
        runpy.run_path(str(AVERAGE), run_name="__main__")

    return run


def test_the_mean_of_two(tmp_path, average):
    before = write(tmp_path / "before", 0.0)
    after = write(tmp_path / "after", 2.0, trained=7)
    average(before, after, tmp_path / "mean")
    mean = read_bundle(str(tmp_path / "mean"))
    assert all((value == 1.0).all() for value in mean.weights.values())
    assert mean.metadata["trained"] == 7
    assert mean.metadata["averaged_with"] == before


def test_other_layers_are_refused(tmp_path, average):
    before = write(tmp_path / "before", 0.0)
    other = write(tmp_path / "other", 0.0, replace(SPEC, widths=(4, 12)))
    with pytest.raises(SystemExit, match="other layers"):
        average(before, other, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
