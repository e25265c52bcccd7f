"""Logs: every line is one object, names its run, and keeps secrets to itself."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepliif_ray import Execution, logs, score, storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.synthetic import write_cohort

LOG = logging.getLogger("deepliif_ray.tests")


@pytest.fixture(autouse=True)
def _as_before():
    logger, context = logging.getLogger(logs.ROOT), (logs.current(), logs._Context.run_id)
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    logs._Context.config, logs._Context.run_id = context


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_in_json_lines(tmp_path):
    manifest = write_cohort(tmp_path / "cohort", patients=1, side=520)
    with manifest.open("a") as file:
        file.write("gone,P9,Ki67,gone.svs,x\n")
    logs.start(logs.log_config("json"), str(tmp_path / "log.jsonl"))
    summary = score(
        str(manifest), str(tmp_path / "results"), model="stain", execution=Execution(engine="local")
    )
    found = lines(tmp_path / "log.jsonl")
    assert {line["run_id"] for line in found} == {summary.run_id}
    assert all({"time", "level", "event"} <= set(line) for line in found)
    events = [line["event"] for line in found]
    assert events[0] == "run.started" and events[-1] == "run.finished"
    assert events.count("slide.committed") == 2
    failed = next(line for line in found if line["event"] == "slide.failed")
    assert (failed["slide_id"], failed["reason"]) == ("gone", "missing")
    assert (found[-1]["scored"], found[-1]["failed"]) == (2, 1)


@given(text=st.text(max_size=200))
@pytest.mark.parametrize("form", logs.FORMATS)
def test_any_text_stays_on_one_line(form, text):
    formatter = logs.JsonFormatter() if form == "json" else logs.HumanFormatter()
    record = LOG.makeRecord(LOG.name, logging.INFO, "", 0, text, (), None, extra={"slide_id": text})
    line = formatter.format(record)
    assert "\n" not in line and "\r" not in line
    if form == "json":
        assert set(json.loads(line)) >= {"event", "slide_id"}


@pytest.mark.parametrize(
    "text",
    [
        "s3://me:hunter2@bucket/a.svs: no such file",
        "https://x/a.svs?X-Amz-Signature=hunter2&X-Amz-Expires=60",
        "https://x/a.svs?X-Amz-Credential=hunter2%2Fus-east-1",
        "AWS_SECRET_ACCESS_KEY=hunter2",
        "{'secret': 'hunter2', 'key': 1}",
        '{"aws_session_token": "hunter2"}',
        "ACCESS_KEY_ID: hunter2",
        "password = hunter2",
    ],
)
def test_secrets_are_left_out(tmp_path, text):
    logs.start(logs.log_config("json"), str(tmp_path / "log"))
    LOG.warning(text, extra={"why": text})
    try:
        raise ValueError(text)
    except ValueError:
        LOG.exception("trouble")
    written = (tmp_path / "log").read_text()
    assert "hunter2" not in written and "***" in written


def test_messages_without_secrets_stay_as_they_are():
    text = "s3://bucket/a@b/slide #1.svs: 0.25 µm per pixel (manifest); the key of slide 'a' is a-12ab"
    assert storage.scrub(text) == text


def test_levels_and_formats(tmp_path):
    logs.start(logs.log_config(), str(tmp_path / "log"))
    LOG.info("quiet")
    LOG.warning("heard", extra={"slide_id": "a\nb", "_of_a_library": 1})
    assert (tmp_path / "log").read_text().endswith('warning heard slide_id="a\\nb"\n')
    assert "quiet" not in (tmp_path / "log").read_text()
    with pytest.raises(ConfigError, match="log format"):
        logs.log_config("xml")
    with pytest.raises(ConfigError, match="log level"):
        logs.log_config("json", "loud")
    with pytest.raises(ConfigError, match="cannot be written"):
        logs.start(logs.log_config(), str(tmp_path / "no" / "log"))


def test_nothing_is_said_unless_asked(capsys):
    logger = logging.getLogger(logs.ROOT)
    logger.handlers[:] = [h for h in logger.handlers if isinstance(h, logging.NullHandler)]
    logger.propagate = True
    LOG.warning("unheard")
    assert capsys.readouterr().err == ""
