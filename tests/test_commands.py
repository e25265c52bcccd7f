"""The command line as people meet it: help, examples, choosing slides, indices on a narrow screen."""

import re
import shlex
import sys

import polars as pl
import pytest
import typer.main

from deepliif_ray import cli
from deepliif_ray.cli.common import app
from deepliif_ray.cli.journeys import JOURNEYS, WITHIN
from deepliif_ray.query import ask
from deepliif_ray.synthetic import write_cohort

GROUP = typer.main.get_command(app)
EXAMPLES = [
    shown for commands in (*JOURNEYS.values(), WITHIN) for examples in commands.values() for shown in examples
]


def run(*arguments):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["deepliif-ray", *map(str, arguments)])
        cli.main()
    return exit_.value.code or 0


def leaves(group=GROUP, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name)


def test_every_command_has_its_place_and_an_example():
    assert {name for commands in JOURNEYS.values() for name in commands} == set(GROUP.commands)
    with_example = {
        name for commands in (*JOURNEYS.values(), WITHIN) for name, shown in commands.items() if shown
    }
    assert with_example == {" ".join(path) for path in leaves()}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_can_be_typed(example):
    command, name, rest = GROUP, "deepliif-ray", shlex.split(example.removesuffix(" > job.json"))
    context = command.make_context(name, [], resilient_parsing=True)
    while hasattr(command, "commands"):
        name, *rest = rest
        command = command.get_command(context, name)
    command.make_context(name, rest)


def test_help_is_by_journey_and_says_nothing_of_types_of_flags(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("-h") == 0
    shown = capsys.readouterr().out
    places = [shown.index(panel) for panel in JOURNEYS]
    assert places == sorted(places) and "bool" not in shown
    for path in leaves():
        assert run(*path, "-h") == 0
        shown = capsys.readouterr().out
        assert "bool" not in shown and "Example" in shown and "-h" in shown
        assert max(map(len, shown.splitlines())) <= 80


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("commands") / "cohort", patients=2, side=300)


@pytest.fixture(scope="module")
def results(cohort):
    results = cohort.parent.parent / "results"
    assert run("score", cohort, results, "--engine", "local", "--model", "stain") == 0
    return results


def scored(results):
    return ask(str(results), "SELECT slide_id FROM slides ORDER BY 1")["slide_id"].to_pylist()


@pytest.mark.slow
def test_a_few_slides_and_then_the_rest(cohort, tmp_path, capsys):
    options = ("--engine", "local", "--model", "stain")
    results = tmp_path / "results"
    assert run("score", cohort, results, *options, "--slide", "P02-CD3", "--prune") == 0
    assert scored(results) == ["P02-CD3"]
    assert run("score", cohort, results, *options, "--limit", 1) == 0
    first = pl.read_csv(cohort)["slide_id"][0]
    assert scored(results) == sorted(["P02-CD3", first])
    assert "2 more are left for later" in capsys.readouterr().err
    # A slide that was not asked for is no leftover, and is not retired.
    assert run("score", cohort, results, *options, "--slide", first, "--prune") == 0
    assert "0 scored, 1 done before" in (said := capsys.readouterr().err) and "retired" not in said
    assert ask(str(results), "FROM leftovers").num_rows == 0
    assert run("score", cohort, results, *options) == 0
    assert len(scored(results)) == 4
    assert run("score", cohort, results, *options, "--slide", "P99") == 2
    assert "there is no slide 'P99'" in capsys.readouterr().err
    assert run("score", cohort, results, *options, "--limit", 0) == 2


def test_indices_fit_80_columns_and_lose_nothing_elsewhere(results, capsys, tmp_path):
    for options in ((), ("--slides",), ("--by", "site")):
        assert run("index", results, *options) == 0
        said = capsys.readouterr()
        assert max(map(len, said.out.splitlines())) <= 80
        assert options == ("--by", "site") or "note 1: " in said.err
    assert run("index", results, "--output", tmp_path / "a.csv") == 0
    everything = ask(str(results), "FROM patient_indices").column_names
    assert pl.read_csv(tmp_path / "a.csv").columns == everything


def test_one_patient(results, capsys):
    assert run("index", results, "--patient", "P02", "--format", "csv") == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["P02", "P02"]
    assert run("index", results, "--patient", "P'9") == 0
    assert '''no slides of patient "P'9"''' in capsys.readouterr().err


def test_patients_by_a_column_of_the_manifest(results, capsys, tmp_path):
    assert run("index", results, "--by", "site", "--output", tmp_path / "a.csv") == 0
    found = pl.read_csv(tmp_path / "a.csv")
    patients = pl.from_arrow(ask(str(results), "FROM patient_indices"))
    sites = pl.from_arrow(
        ask(str(results), "SELECT DISTINCT patient_id, marker, attributes['site'] AS site FROM slides")
    )
    expected = patients.join(sites, on=["patient_id", "marker"]).sort("marker", "site")
    assert found["marker"].to_list() == expected["marker"].to_list()
    assert found["site"].to_list() == expected["site"].to_list()
    assert found["median"].to_list() == pytest.approx(expected["index_percent"].to_list())
    assert found["patients"].to_list() == [1] * 4
    assert (
        found["no_index"].sum() == expected["index_percent"].null_count() == 1
    )  # no cell in so small a slide
    assert run("index", results, "--by", "site", "--marker", "MIB-1", "--format", "csv") == 0
    assert re.findall(r"^\w+", capsys.readouterr().out, re.MULTILINE) == ["marker", "Ki67", "Ki67"]
    assert run("index", results, "--by", "stage") == 2
    assert "no slide has a column 'stage'; there are site" in capsys.readouterr().err
    assert run("index", results, "--by", "site", "--slides") == 2
