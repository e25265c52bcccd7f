"""Options of scoring: one place for each, and the command line and job files say the same."""

import inspect
import json
import re

import pytest
from typer.testing import CliRunner

from deepliif_ray import Execution, ScoreConfig, score
from deepliif_ray.cells import extract_cells
from deepliif_ray.cli import common
from deepliif_ray.cli.options import chosen
from deepliif_ray.config import Workers
from deepliif_ray.errors import ConfigError
from deepliif_ray.jobs.config import json_schema, parse_job


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScoreConfig(colour=1), "colour is not a key here; known keys: tile_size"),
        (lambda: ScoreConfig(seg_tresh=1), r"seg_tresh is not a key here; did you mean seg_thresh\?"),
        (lambda: ScoreConfig(seg_thresh=511, overlap=-1), "overlap is -1: .*; seg_thresh is 511: "),
        (
            lambda: ScoreConfig(large_noise_thresh="x"),
            "large_noise_thresh is 'x': .*integer.*, or .*'default'",
        ),
        (lambda: Execution(engine="dask"), "engine is 'dask': Input should be 'ray' or 'local'"),
        (lambda: Execution(device="tpu"), "device is 'tpu': use cpu, cuda or cuda:N"),
        (lambda: Execution(address="a b"), "address is 'a b': use HOST:PORT"),
        (lambda: Execution(engine="local", address="a:1"), "the local engine has no cluster"),
    ],
)
def test_what_is_wrong_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_of_a_file_every_mistake_is_told_at_once():
    job = {"kind": "score_cohort", "manifest": "m", "results": "r", "colour": 1}
    job |= {"thresholds": {"seg_thresh": 511}, "resources": {"actors": 0, "actor": 1}}
    with pytest.raises(ConfigError) as told:
        parse_job(job)
    for text in (
        "colour is not",
        "thresholds.seg_thresh is 511",
        "resources.actors is 0",
        "did you mean actors",
    ):
        assert text in str(told.value)


def test_defaults_have_one_home():
    published = inspect.signature(extract_cells).parameters
    for name in ("seg_thresh", "noise_thresh", "large_noise_thresh"):
        assert getattr(ScoreConfig(), name) == published[name].default
    defaults = inspect.signature(score).parameters
    assert (defaults["config"].default, defaults["execution"].default) == (ScoreConfig(), Execution())


@pytest.fixture
def heard(monkeypatch):
    """What `score` is called with by the command line."""
    calls = {}

    def deaf(*_, **options):
        calls.update(options)
        raise ConfigError("heard")

    monkeypatch.setattr("deepliif_ray.engine.score.score", deaf)
    return calls


def typed(*arguments):
    return CliRunner().invoke(common.app, ["score", "m.csv", "results", *arguments])


def test_every_field_is_an_option_of_the_command_line(heard):
    given = {
        "tile_size": 300, "overlap": 3, "assume_mpp": 0.3, "max_bad_tiles_percent": 2.5, "seg_thresh": 110,
        "noise_thresh": 5, "large_noise_thresh": None,
    }  # fmt: skip
    runs = {
        "engine": "ray", "device": "cuda:1", "precision": "bfloat16", "batch_size": 4, "actors": 2,
        "address": "head:6379", "take_over": True,
    }  # fmt: skip
    assert set(given) == set(ScoreConfig.model_fields) and set(runs) == set(Execution.model_fields)
    words = []
    for name, value in (given | runs).items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, "none" if value is None else str(value)]
    typed(*words)
    assert heard["config"] == ScoreConfig(**given)
    assert heard["execution"] == Execution(**runs)


def test_what_is_not_given_is_as_in_python(heard):
    typed()
    assert (heard["config"], heard["execution"]) == (ScoreConfig(), Execution())
    typed("--large-noise-thresh", "500")
    assert heard["config"].large_noise_thresh == 500
    typed("--large-noise-thresh", "default")
    assert heard["config"] == ScoreConfig()


def test_values_that_cannot_be_are_refused_before_anything_runs(heard):
    for words in (["--seg-thresh", "600"], ["--engine", "dask"], ["--precision", "none"]):
        result = typed(*words)
        assert isinstance(result.exception, ConfigError) and words[1] in str(result.exception)
    assert typed("--seg-thresh", "many").exit_code == 2
    assert not heard


def test_help_says_what_the_fields_say(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    text = CliRunner().invoke(common.app, ["score", "-h"]).output
    for kind in (ScoreConfig, Execution):
        for name, field in kind.model_fields.items():
            assert re.search(rf"--{name.replace('_', '-')}\b", text)
            assert " ".join(field.description.split()) in text


def test_job_files_take_the_same_options():
    schema = json.loads(json_schema())["$defs"]
    assert set(schema["ScoreConfig"]["properties"]) == set(ScoreConfig.model_fields)
    resources = schema["ScoreResources"]["properties"]
    assert set(Workers.model_fields) < set(resources)
    for name, field in Workers.model_fields.items():
        assert resources[name]["description"] == field.description


def test_only_fields_of_the_kind_asked_for_are_taken():
    context = type("Context", (), {"meta": {"deepliif_ray.options": {"seg_thresh": 100, "actors": 2}}})()
    assert chosen(context, ScoreConfig) == ScoreConfig(seg_thresh=100)
    assert chosen(context, Execution) == Execution(actors=2)
