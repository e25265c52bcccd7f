"""Job files run here."""

import csv
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from deepliif_ray import connect, storage
from deepliif_ray.engine.run import record
from deepliif_ray.errors import ConfigError, ManifestError, lasting_reasons
from deepliif_ray.jobs.run import run_job
from deepliif_ray.synthetic import write_cohort
from deepliif_ray.tables.ledger import Ledger
from tests.few import few
from tests.models.toy_model import ToyModel
from tests.test_cli import run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cohort(tmp_path) -> Path:
    """Manifest of two small slides, in a folder that a test may change."""
    return write_cohort(tmp_path / "cohort", patients=1, side=600)


def write_job(cohort: Path, **options) -> str:
    job = {
        "kind": "score_cohort",
        "manifest": cohort.name,
        "results": "../results",
        "model": "toy",
        "resources": {"engine": "local"},
        "notifications": {"file": "../summary.json"},
    }
    path = cohort.with_name("job.yaml")
    path.write_text(yaml.safe_dump(job | options))
    return str(path)


def add_row(manifest: Path, **changes) -> None:
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, {name: None for row in [*rows, changes] for name in row})
        writer.writeheader()
        writer.writerows([*rows, {**rows[0], **changes}])


def change(manifest: Path, slide_id: str, **changes) -> None:
    lines = list(csv.DictReader(manifest.open(newline="", encoding="utf-8")))
    for row in lines:
        row.update(changes if row["slide_id"] == slide_id else {})
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, {name: None for row in lines for name in row})
        writer.writeheader()
        writer.writerows(lines)


def told(cohort: Path) -> dict:
    return json.loads((cohort.parents[1] / "summary.json").read_text(encoding="utf-8"))


def test_a_job_scores_and_tells(cohort):
    outcome = run_job(write_job(cohort, name="night", metadata={"owner": "us"}, fail_if=["failed > 0"]))
    summary = told(cohort)
    assert (outcome.exit_code, summary["status"], summary["exit_code"]) == (0, "succeeded", 0)
    assert (summary["job"], summary["metadata"]) == ("night", {"owner": "us"})
    assert summary["figures"]["scored"] == 2 and summary["figures"]["failed_percent"] == 0
    assert summary["run_id"] == Ledger(str(cohort.parents[1] / "results")).runs()["run_id"][0].as_py()
    assert run_job(write_job(cohort)).summary["figures"]["skipped"] == 2


@pytest.mark.parametrize(
    ("fail_if", "code"),
    [
        (None, 3),
        (["failed_percent > 34"], 0),
        (["failed_percent > 33", "failed > 5"], 4),
        (["seconds < 0"], 0),
    ],
)
def test_limits_decide_the_exit_code(cohort, fail_if, code, capsys):
    add_row(cohort, slide_id="gone", uri="gone.tiff")
    job = write_job(cohort, **({"fail_if": fail_if} if fail_if else {}))
    assert run("run", job) == code
    shown = capsys.readouterr().err
    assert "failed: 'gone'" in shown and "scored 2" in shown
    assert ("limit broken: failed_percent > 33: failed_percent is 33.3333" in shown) == (code == 4)
    assert told(cohort)["failures"][0]["slide_id"] == "gone"


def test_a_hook_that_fails_loses_nothing(cohort, capsys, monkeypatch):
    monkeypatch.setattr("deepliif_ray.jobs.hooks.DELAYS_S", ())
    hooks = {"webhook": "http://127.0.0.1:9/", "file": "../summary.json"}
    assert run("run", write_job(cohort, notifications=hooks)) == 0
    assert "warning: webhook at 127.0.0.1" in capsys.readouterr().err
    assert told(cohort)["figures"]["scored"] == 2


def test_what_cannot_begin_is_told_too(cohort, capsys):
    cohort.write_text("slide_id\nx\n")
    with pytest.raises(ManifestError):
        run_job(write_job(cohort))
    summary = told(cohort)
    assert (summary["status"], summary["reason"]) == ("failed", "bad_manifest")
    assert run("run", write_job(cohort)) == 2
    assert run("run", str(cohort.with_name("nothing.yaml"))) == 2
    with pytest.raises(ConfigError, match="leave out the address"):
        run_job(write_job(cohort), address="10.0.0.1:6379")


def test_a_stopped_job_tells_and_goes_on(cohort):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(write_job(cohort), watch=stop)
    assert told(cohort)["status"] == "interrupted"
    assert run_job(write_job(cohort)).exit_code == 0


def reprocess(cohort: Path, **options) -> dict:
    figures = run_job(write_job(cohort, kind="reprocess", **options)).summary["figures"]
    return {name: figures[name] for name in ("scored", "skipped", "set_aside", "failed")}


def counts(scored=0, skipped=0, set_aside=0, failed=0) -> dict:
    return {"scored": scored, "skipped": skipped, "set_aside": set_aside, "failed": failed}


def test_reprocess_does_what_is_new_changed_or_worth_another_try(cohort, monkeypatch):
    broken = cohort.parent / "broken.tiff"
    broken.write_bytes(b"not a slide")
    add_row(cohort, slide_id="broken", uri="broken.tiff")
    add_row(cohort, slide_id="gone", uri="gone.tiff")
    assert reprocess(cohort) == counts(scored=2, failed=2)
    with monkeypatch.context() as patch:
        patch.setattr(ToyModel, "infer", lambda *_: pytest.fail("inferred again"))
        # A file that is not there may come; one that cannot be read stays as it is.
        assert reprocess(cohort) == counts(skipped=2, set_aside=1, failed=1)
    (cohort.parent / "gone.tiff").write_bytes((cohort.parent / "P01-Ki67.tiff").read_bytes())
    assert reprocess(cohort) == counts(scored=1, skipped=2, set_aside=1)
    summary = told(cohort)
    assert summary["exit_code"] == 0
    assert (
        summary["figures"]["failed_percent"] == 25 and summary["figures"]["failed_percent_of_attempted"] == 0
    )
    # Scoring as such tries everything again, and what failed then is still what failed.
    assert run_job(write_job(cohort)).summary["figures"]["failed"] == 1
    assert reprocess(cohort) == counts(skipped=3, set_aside=1)
    broken.write_bytes(b"still not a slide")
    assert reprocess(cohort) == counts(skipped=3, failed=1)
    os.utime(broken, ns=(1, 1))
    assert reprocess(cohort) == counts(skipped=3, failed=1)
    broken.write_bytes((cohort.parent / "P01-Ki67.tiff").read_bytes())
    assert reprocess(cohort) == counts(scored=1, skipped=3)


@pytest.mark.parametrize("what", few(["configuration", "software", "mpp", "uri"], 2))
def test_another_origin_is_another_try(cohort, monkeypatch, what):
    for name in ("a.tiff", "b.tiff"):
        (cohort.parent / name).write_bytes(b"no")
    add_row(cohort, slide_id="broken", uri="a.tiff")
    assert reprocess(cohort) == counts(scored=2, failed=1)
    assert reprocess(cohort) == counts(skipped=2, set_aside=1)
    options = {}
    if what == "configuration":
        options = {"thresholds": {"noise_thresh": 5}}
    elif what == "software":
        monkeypatch.setattr("deepliif_ray.engine.run.todo.__version__", "99")
    else:
        change(cohort, "broken", **({"mpp": "0.5"} if what == "mpp" else {"uri": "b.tiff"}))
    found = reprocess(cohort, **options)
    assert (found["failed"], found["set_aside"]) == (1, 0)


def test_a_file_replaced_while_it_failed_is_tried_again(cohort, monkeypatch):
    broken = cohort.parent / "broken.tiff"
    broken.write_bytes(b"not a slide")
    add_row(cohort, slide_id="broken", uri="broken.tiff")
    named = record.origin

    def replaced(job, entry):  # the file arrives whole while its failure is written down
        broken.write_bytes((cohort.parent / "P01-Ki67.tiff").read_bytes())
        return named(job, entry)

    with monkeypatch.context() as patch:
        patch.setattr(record, "origin", replaced)
        assert reprocess(cohort) == counts(scored=2, failed=1)
    assert reprocess(cohort) == counts(scored=1, skipped=2)


def test_a_failure_without_a_version_is_tried_again(cohort, monkeypatch):
    (cohort.parent / "broken.tiff").write_bytes(b"not a slide")
    add_row(cohort, slide_id="broken", uri="broken.tiff")
    sent = record.write_failure
    with monkeypatch.context() as patch:  # as of an object store that does not answer, or older software
        patch.setattr(record, "write_failure", lambda url, row: sent(url, row | {"slide_version": None}))
        assert reprocess(cohort) == counts(scored=2, failed=1)
    assert reprocess(cohort) == counts(skipped=2, failed=1)
    assert reprocess(cohort) == counts(skipped=2, set_aside=1)


def test_another_model_makes_another_generation(cohort, monkeypatch):
    assert reprocess(cohort) == counts(scored=2)
    monkeypatch.setattr(ToyModel, "digest", "another")
    assert reprocess(cohort) == counts(scored=2)
    with connect(cohort.parents[1] / "results") as connection:
        found = connection.execute("SELECT DISTINCT model_digest FROM slides").fetchall()
    assert found == [("another",)]


def test_lasting_reasons():
    assert {"unreadable", "corrupt", "resolution"} <= lasting_reasons()
    assert lasting_reasons().isdisjoint({"storage", "missing", "changed", "crashed", "timeout", "internal"})


def test_retrain_and_evaluate(tmp_path):
    from deepliif_ray.synthetic.panels import synthetic_panels
    from deepliif_ray.training.panels.files import write_panels

    for index in range(2):
        write_panels(str(tmp_path / "panels"), synthetic_panels(0, index, 64))
    config = {"data": [{"uri": "panels"}], "validation": ["panels"], "steps": 1, "crop": 32, "batch_size": 1}
    config |= {"sample_grid_every": 0, "validate_every": 1}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    job = {"kind": "retrain", "config": "train.yaml", "output": "out", "resources": {"engine": "local"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job | {"fail_if": ["l1_seg < 0", "nothing > 1"]}))
    outcome = run_job(str(tmp_path / "job.yaml"))
    assert outcome.exit_code == 4 and len(outcome.broken) == 1
    assert storage.exists(outcome.summary["model"])

    job = {"kind": "evaluate", "model": "out/model", "other": "stain", "truth": "panels", "truth_kind": "seg"}
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(job | {"output": "report"}))
    outcome = run_job(str(tmp_path / "evaluate.yaml"))
    assert outcome.exit_code == 0
    assert "other.index_error_percent" in outcome.summary["figures"]
    assert (tmp_path / "report" / "evaluation.json").exists()


def test_a_job_of_evaluation_says_scale_reach_and_protocol(monkeypatch, tmp_path):
    asked = {}

    def evaluate(*_, **options):
        asked.update(options)
        return SimpleNamespace(models=[SimpleNamespace(name="stain", means={}, pooled={})])

    monkeypatch.setattr("deepliif_ray.evaluation.evaluate.evaluate", evaluate)
    wanted = {"mpp": 0.16, "reach_um": 2.4, "protocol": "published"}
    job = {"kind": "evaluate", "model": "stain", "truth": "panels", **wanted}
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(job))
    assert run_job(str(tmp_path / "evaluate.yaml")).exit_code == 0
    assert {name: asked[name] for name in wanted} == wanted


def test_optimize(cohort):
    run_job(write_job(cohort))
    before = len(list((cohort.parents[1] / "results" / "slides").rglob("*.parquet")))
    path = cohort.with_name("optimize.yaml")
    path.write_text(yaml.safe_dump({"kind": "optimize", "results": "../results"}))
    outcome = run_job(str(path))
    assert outcome.exit_code == 0 and outcome.summary["figures"]
    assert len(list((cohort.parents[1] / "results" / "slides").rglob("*.parquet"))) < before
    assert Ledger(str(cohort.parents[1] / "results")).slides().num_rows == 2
