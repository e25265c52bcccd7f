"""A run followed from outside, through what its lease says."""

import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from deepliif_ray import cli, storage, watching
from deepliif_ray.engine.run.progress import Progress
from tests.query import fake_results as fake


def write_lease(results, progress, *, run_id="r1", age_s=0.0):
    beat = datetime.now(UTC) - timedelta(seconds=age_s)
    lease = {"run_id": run_id, "host": "h", "pid": 7, "started_at": beat.isoformat()}
    lease |= {"beat_at": beat.isoformat(), "progress": progress.snapshot()}
    storage.write_bytes(storage.join(results, "_lease.json"), json.dumps(lease).encode())


def run(*arguments):
    command = ["deepliif-ray", *(str(a) for a in arguments)]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", command)
        cli.main()
    return exit_.value.code or 0


@pytest.fixture
def progress():
    made = Progress(slides=4, skipped=1, planned=2, tiles_planned=40, tiles_done=10, cells=1234)
    made.started -= 5
    made.spend({"infer": 3.0, "read": 1.0})
    made.fail("bad\nslide", "corrupt", "its pixels cannot be decoded")
    return made


def test_what_is_shown(tmp_path, progress):
    root = str(tmp_path)
    write_lease(root, progress)
    text = "\n".join(watching.Watcher(root).look().lines())
    assert "2/4 slides, 2 left · 1 failed (1 corrupt) · 10/40 tiles · 2.0 tiles/s · 1,234 cells" in text
    assert " to go" in text and "infer 75 %" in text and "last sign of life 0 s ago" in text
    assert r"failed: 'bad\nslide': corrupt" in text
    write_lease(root, progress, age_s=3700)
    assert "no sign of life for 1:01:4" in "\n".join(watching.Watcher(root).look().lines())


def test_a_slow_clock_elsewhere_does_not_matter_twice(tmp_path, progress):
    watcher = watching.Watcher(str(tmp_path))
    write_lease(str(tmp_path), progress, age_s=500)
    assert watcher.look().silent_s > 499
    write_lease(str(tmp_path), progress, age_s=490)  # it beats, so it lives
    assert watcher.look().silent_s < 60
    write_lease(str(tmp_path), progress, age_s=-500)
    assert 0 <= watching.Watcher(str(tmp_path)).look().silent_s < 60


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"progress": 3, "beat_at": 5}', b"{}"])
def test_a_lease_that_makes_no_sense(tmp_path, content):
    storage.write_bytes(str(tmp_path / "_lease.json"), content)
    sight = watching.Watcher(str(tmp_path)).look()
    assert sight.lines() and sight.silent_s < 60


def test_following_a_run_to_its_end(tmp_path, progress, capsys):
    root = str(tmp_path)
    fake.run(root, "r1")
    write_lease(root, progress)

    def go_on():
        for _ in range(10):
            time.sleep(0.1)
            progress.add(tiles_done=3, scored=0)
            write_lease(root, progress)
        ended = {"n_scored": 2, "n_skipped": 1, "n_failed": 1, "n_cells": 9}
        spent = {f"{step}_s": float(step == "infer") for step in progress.spent}
        fake.run(root, "r1", status="finished", timings=spent, **ended)
        storage.remove(storage.join(root, "_lease.json"))

    thread = threading.Thread(target=go_on)
    thread.start()
    code = run("status", root, "--watch", "--interval", "0.1")
    thread.join()
    shown = capsys.readouterr().out.splitlines()
    assert code == 0
    assert sum("tiles/s" in line for line in shown) > 2
    assert sum(line.startswith("failed:") for line in shown) == 1
    assert shown[-2] == "run r1 finished: 2 scored, 1 skipped, 1 failed; 9 cells"
    assert shown[-1] == "time: infer 100 %; the workers waited 0 %"


def test_a_run_that_was_killed_is_not_watched_forever(tmp_path, progress, capsys):
    fake.run(str(tmp_path), "r1")
    write_lease(str(tmp_path), progress, age_s=watching.GONE_S + 60)
    assert run("status", tmp_path, "--watch") == 1
    assert "no sign of life for 6:0" in capsys.readouterr().out


def test_another_run_ends_the_watch(tmp_path, progress):
    root = str(tmp_path)
    write_lease(root, progress)
    seen = []
    for sight in watching.Watcher(root).follow(0.01):
        seen.append(sight.run_id)
        write_lease(root, progress, run_id="r2")
    assert seen == ["r1"]


def test_status_tells_flags_and_what_goes_on(tmp_path, progress, capsys):
    root = str(tmp_path)
    fake.commit(root, "sharp", [], focus=400.0)
    fake.commit(root, "blurred", [], focus=4.0, pen_percent=3.0)
    assert run("status", root, "--watch") == 0
    assert "no run is going on" in capsys.readouterr().out
    write_lease(root, progress)
    assert run("status", root) == 0
    shown = capsys.readouterr().out
    assert "quality control flags 1 slides" in shown and "out_of_focus" in shown and "going on now" in shown
    assert run("status", root, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["quality"][0]["flags"] == ["out_of_focus", "pen"]
    assert answer["live"]["progress"]["cells"] == 1234


@pytest.mark.slow
def test_json_logs_are_all_that_is_said(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("slide_id,patient_id,marker,uri\na,p,Ki67,a.svs\n")
    command = [sys.executable, "-m", "deepliif_ray.cli", "score", manifest, tmp_path / "r"]
    command += ["--model", "stain", "--engine", "local", "--log-format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stdout == ""
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events == ["run.started", "slide.failed", "run.finished"]
    done = subprocess.run([*command, "--model", "none"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert [json.loads(line)["reason"] for line in done.stderr.splitlines()] == ["model"]
