"""Job files: what is taken, what is refused and how."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.jobs.config import KINDS, json_schema, parse_job, read_job, resolved
from deepliif_ray.jobs.limits import breaches
from deepliif_ray.jobs.schedule import check_cron

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "jobs").glob("*.yaml"))
SCORE = {"kind": "score_cohort", "manifest": "m.csv", "results": "r"}


def schema_errors(options) -> list:
    return list(jsonschema.Draft202012Validator(json.loads(json_schema())).iter_errors(options))


def test_the_schema_for_editors_is_current():
    current = (ROOT / "schemas" / "job.json").read_text(encoding="utf-8")
    assert current == json_schema(), "run: deepliif-ray jobs schema > schemas/job.json"


def test_there_is_an_example_of_every_kind():
    assert {path.stem for path in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_right(path):
    job, _ = read_job(str(path))
    assert job.kind == path.stem
    assert schema_errors(yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": "scor"}, "kind is 'scor'; use one of score_cohort, reprocess"),
        ({"kind": None}, "kind is None"),
        ({"manifest": None}, "manifest is None"),
        ({"results": ""}, "results is ''"),
        ({"resutls": "x"}, "resutls is not a key here; did you mean results?"),
        ({"workers": 2}, "workers is not a key here; did you mean"),
        ({"colour": 2}, "colour is not a key here; known keys: name, schedule"),
        ({"resources": {"actor": 2}}, "resources.actor is not a key here; did you mean actors?"),
        ({"resources": {"actors": 0}}, "resources.actors is 0"),
        ({"resources": {"workers": 2}}, "resources.workers is not a key here"),
        ({"thresholds": {"seg_thresh": 600}}, "thresholds.seg_thresh is 600"),
        ({"thresholds": {"large_noise_thresh": "huge"}}, "thresholds.large_noise_thresh is 'huge'"),
        ({"schedule": {"cron": "0 2 * *"}}, "schedule.cron is '0 2 * *': 4 fields where cron has 5"),
        ({"schedule": {"cron": "61 2 * * *"}}, "minute '61' is not between 0 and 59"),
        ({"schedule": {"cron": "0 2 * * *", "time_zone": "Zurich"}}, "not an IANA time zone"),
        ({"notifications": {"webhook": "example.com"}}, "notifications.webhook is 'example.com'"),
        ({"fail_if": ["failed_percent is high"]}, "fail_if.0 is 'failed_percent is high'"),
        ({"fail_if": ["failures > 2"]}, "'failures' is not a figure of this job; use slides, scored"),
        ({"metadata": {"a": 1}}, "metadata.a is 1"),
        ({"name": "Night Run"}, "name is 'Night Run'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_named(change, expected):
    with pytest.raises(ConfigError) as caught:
        parse_job({**SCORE, **change}, "night.yaml")
    assert str(caught.value).startswith("night.yaml: ")
    assert expected in str(caught.value)


def test_every_problem_is_listed_and_a_missing_key_named():
    with pytest.raises(ConfigError) as caught:
        parse_job({"kind": "retrain", "outptu": "x", "resources": {"workers": 0}})
    found = str(caught.value)
    assert "config is missing" in found and "output is missing" in found
    assert "outptu is not a key here; did you mean output?" in found and "resources.workers is 0" in found


@pytest.mark.parametrize("content", [b"[1]", b"a: [", b"\xff\xfe\x00", b"", b"1: 2"])
def test_a_file_that_is_no_job(content):
    storage.write_bytes("memory://jobs/bad.yaml", content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        read_job("memory://jobs/bad.yaml")


def test_relative_urls_are_taken_from_the_folder_of_the_file():
    job = parse_job({**SCORE, "model": "stain", "notifications": {"file": "last.json"}})
    found = resolved(job, "s3://bucket/jobs")
    assert (found.manifest, found.results) == ("s3://bucket/jobs/m.csv", "s3://bucket/jobs/r")
    assert found.model == "stain" and found.notifications.file == "s3://bucket/jobs/last.json"
    other = parse_job({**SCORE, "model": "models/new", "results": "s3://other/r"})
    assert resolved(other, "/jobs").model == "/jobs/models/new"
    assert resolved(other, "/jobs").results == "s3://other/r"


@pytest.mark.parametrize(
    "text", ["* * * * *", "0 2 * * *", "*/15 0-6,22 1 jan-MAR ?", "5/10 4 31 12 sun", "@daily", "0  2\t* * 6"]
)
def test_cron_that_kubernetes_takes(text):
    check_cron(text)


@pytest.mark.parametrize(
    "text",
    ["", "0 2 * * 7", "0 24 * * *", "0 2 0 * *", "0 2 * 13 *", "*/0 * * * *", "5-1 * * * *", "0 2 * * *-3",
     "1,,2 * * * *", "a * * * *", "TZ=UTC 0 2 * * *", "@every 1h", "0 0 2 * * *", "-1 * * * *"],
)  # fmt: skip
def test_cron_that_it_does_not(text):
    with pytest.raises(ValueError, match=r"."):
        check_cron(text)


def test_limits():
    figures = {"failed_percent": 2.0, "f1.mean": float("nan"), "dice": 0.6}
    assert breaches(["failed_percent > 2", "dice < 0.6", "dice>=.7"], figures) == []
    assert len(breaches(["failed_percent >= 2", "dice <= 6e-1", "f1.mean < 0", "f2 > 1"], figures)) == 4
