"""The parts of the shipped model's recipe that are not commands of the package."""

import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from deepliif_ray.models.bundle import read_bundle, write_bundle
from deepliif_ray.models.calling import CallRule
from deepliif_ray.models.compact import CompactNetwork
from deepliif_ray.models.compact_spec import CompactSpec

RECIPE = Path(__file__).parents[2] / "jobs" / "compact"
MAKE = RECIPE / "make.py"
SPEC = CompactSpec(widths=(4, 8), depths=(1, 1))


def write(folder, value: float, spec=SPEC, **metadata) -> str:
    state = {key: torch.full_like(w, value) for key, w in CompactNetwork(spec).state_dict().items()}
    write_bundle(str(folder), "tiny", spec, state, metadata)
    return str(folder)


@pytest.fixture
def average(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["make.py", "average", *map(str, arguments)])
        runpy.run_path(str(MAKE), run_name="__main__")

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


def test_a_call_is_fitted_on_what_no_rule_has_called(tmp_path):
    called = write(tmp_path / "called", 0.5, replace(SPEC, call=CallRule(1.0, 12.0, -1.8, 0.03, 0.3)))
    model = runpy.run_path(str(MAKE))["_uncalled"](called)
    assert model.spec == SPEC


@pytest.mark.parametrize("are_all", [True, False])
def test_marks_add_cells_and_take_others_away_only_where_all_have_one(are_all):
    corrected = runpy.run_path(str(MAKE))["_corrected"]
    seg = np.zeros((96, 96, 3), np.uint8)
    seg[20:40, 20:40, 2] = seg[60:80, 60:80, 2] = 255
    found = corrected(seg, np.full_like(seg, 240), [(30.0, 30.0), (30.0, 75.0)], are_all)
    is_cell = found[..., 0].astype(int) + found[..., 2] > 127
    assert is_cell[30, 30] and is_cell[75, 30], "one that was found, one that was missing"
    assert is_cell[70, 70] != are_all


RECORDER = """#!/usr/bin/env bash
echo "$*" >> "$COMMANDS"
case "$1 $2" in
  "panels synthesize") mkdir "$3" ;;
  "panels distill") [ -e "$3/model.json" ] && [ -e "$4" ] && mkdir "$5" ;;
  *) mkdir -p "$3" && cp -r "$BUNDLE" "$3/model" ;;
esac
"""
"""Stands in for ``deepliif-ray``, which would take an hour."""
PYTHON = """#!/usr/bin/env bash
shift
echo "make $*" >> "$COMMANDS"
case "$1" in
  view) [ -e "$2/model.json" ] && cp -r "$BUNDLE" "$3" ;;
  average) cp -r "$BUNDLE" "$4" ;;
  call) [ -e "$3/model.json" ] && cp -r "$BUNDLE" "$4" ;;
  sources) touch cameras.csv endonuke.csv ;;
esac
"""
"""Stands in for ``python make.py``, whose steps are about networks."""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Run the script, and return the commands it gave."""
    data = tmp_path / "data/deepliif"
    for tile in ("34_3", "6_2"):
        (data / "official" / tile).mkdir(parents=True)
    for tile in ("442", "445", "448"):
        (data / "more" / tile).mkdir(parents=True)
    (data / "train").mkdir()
    for name in ("Bladder1", "Lung1"):
        (data / "train" / f"{name}.png").touch()
    (tmp_path / "bin").mkdir()
    for command, text in (("deepliif-ray", RECORDER), ("python", PYTHON)):
        recorder = tmp_path / "bin" / command
        recorder.write_text(text)
        recorder.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("COMMANDS", str(tmp_path / "commands"))
    monkeypatch.setenv("BUNDLE", write(tmp_path / "bundle", 1.0, data=f"{tmp_path / 'work'}/synthetic"))

    def run(*held_out):
        (tmp_path / "commands").write_text("")
        command = [RECIPE / "train.sh", tmp_path / "data", tmp_path / "work", *held_out]
        subprocess.run(command, check=True, capture_output=True)
        return (tmp_path / "commands").read_text().splitlines()

    return run


@pytest.mark.slow
def test_each_step_once_and_in_order(recipe, tmp_path):
    (tmp_path / "work/synthetic.part/left by a stop").mkdir(parents=True)
    real = " ".join(f"real/{name}" for name in ("34_3", "442", "445", "448", "6_2", "Bladder1", "Lung1"))
    data = tmp_path / "data"
    assert recipe() == [
        "panels synthesize synthetic.part --count 600 --seed 8",
        "train pretrained.yaml pretrained --engine local",
        "make view pretrained/model teacher.part",
        f"make sources {data}",
        "panels distill teacher cameras.csv cameras.part --max-tiles 64 --min-tissue-percent 0",
        "panels distill teacher endonuke.csv endonuke.part --tile-size 400 --min-tissue-percent 10",
        f"make correct endonuke.part {data}",
        "train finetuned.yaml finetuned --engine local",
        "make average pretrained/model finetuned/model averaged",
        f"make call teacher averaged model {real}",
    ]
    assert not list((tmp_path / "work/synthetic").iterdir())
    model = read_bundle(str(tmp_path / "work/model"))
    assert model.metadata["data"] == "synthetic", "named from WORK, wherever that was"
    assert not [command for command in recipe() if command.startswith(("train", "panels"))]


@pytest.mark.slow
def test_a_tile_left_out_is_in_no_source(recipe, tmp_path):
    recipe()
    commands = recipe("6_2")
    assert [c for c in commands if c.startswith("train")] == [
        "train without-6_2.yaml without-6_2 --engine local"
    ]
    assert (
        commands[-1].startswith("make call teacher averaged model-without-6_2 ")
        and "6_2" not in commands[-1][44:]
    )
    config = yaml.safe_load((tmp_path / "work/without-6_2.yaml").read_text())
    uris = [source["uri"] for source in config["data"]]
    real = [f"real/{name}" for name in ("Bladder1", "Lung1", "34_3", "442", "445", "448")]
    assert uris == ["synthetic", *real, "cameras", "endonuke"]


@pytest.mark.slow
def test_several_tiles_are_left_out_at_once(recipe, tmp_path):
    last = recipe("442+445+448")[-1]
    panels = " ".join(f"real/{name}" for name in ("34_3", "6_2", "Bladder1", "Lung1"))
    assert last == f"make call teacher averaged model-without-442+445+448 {panels}"
    text = (tmp_path / "work/without-442+445+448.yaml").read_text()
    uris = [source["uri"] for source in yaml.safe_load(text)["data"]]
    assert [uri for uri in uris if uri.startswith("real/44")] == [] and len(uris) == 7


@pytest.mark.slow
def test_another_seed_has_folders_of_its_own(recipe, tmp_path):
    recipe()
    assert [c for c in recipe("none", "2") if c.startswith("train")] == [
        "train pretrained-2.yaml pretrained-2 --engine local",
        "train finetuned-2.yaml finetuned-2 --engine local",
    ]
    for step in ("pretrained-2", "finetuned-2"):
        assert yaml.safe_load((tmp_path / f"work/{step}.yaml").read_text())["seed"] == 2
    assert yaml.safe_load((tmp_path / "work/finetuned-2.yaml").read_text())["init"] == "pretrained-2/model"
    assert (tmp_path / "work/model-2/model.json").exists()
