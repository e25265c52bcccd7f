"""Work that kills its process is given up after some deaths, and nothing else with it."""

import itertools
import multiprocessing
import os
import signal

import pyarrow as pa
import pytest

from deepliif_ray.config import ScoreConfig
from deepliif_ray.engine.ray import attempts
from deepliif_ray.engine.ray.attempts import attempt
from deepliif_ray.engine.steps import TileFailure, TileTask
from deepliif_ray.engine.work import RunContext, prepare
from deepliif_ray.manifest import read_manifest

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def context(tmp_path) -> RunContext:
    return RunContext(
        str(tmp_path), "run", "stain", "stain", "digest", None, "float32", 0, ScoreConfig(), None
    )


@pytest.fixture
def works(context, cohort):
    return [prepare(context, entry)[0] for entry in read_manifest(str(cohort)).slides[:2]]


def tasks(work, *ordinals):
    return [TileTask(work.staging, ordinal) for ordinal in ordinals]


def in_new_process(context, items, deadly) -> int:
    """Work on items as a process that has just started does; return its exit code."""

    def work():
        attempts._blocks = itertools.count()

        def do(group):
            if {item.staging for item in group} & deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return group

        done, failed = attempt(context, "infer", items, do)
        os._exit(10 * len(done) + len(failed))

    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    return process.exitcode


def test_a_deadly_block_is_given_up_and_its_slide_with_it(context, works):
    bad, good = works
    deadly = {bad.staging}
    for _ in range(attempts.MOST_DEATHS):
        assert in_new_process(context, [*tasks(bad, 0, 1), *tasks(good, 0)], deadly) == -signal.SIGKILL
    assert in_new_process(context, [*tasks(bad, 0, 1), *tasks(good, 0)], deadly) == 12
    assert in_new_process(context, [*tasks(bad, 2, 3), *tasks(good, 1)], deadly) == 12
    done, failed = attempt(context, "infer", tasks(bad, 2), list)
    assert not done
    assert (failed[0].failure.reason, failed[0].failure.stage) == ("crashed", "infer")
    assert bad.entry.uri in failed[0].failure.message
    assert "tiles infer-0-1" in failed[0].failure.message


def test_what_gets_through_or_only_fails_leaves_no_note(context, works, tmp_path):
    good, other = works

    def do(group):
        if group[0].staging == other.staging:
            raise MemoryError
        return group

    done, failed = attempt(context, "infer", [*tasks(good, 0, 1), *tasks(other, 0)], do)
    assert done == tasks(good, 0, 1)
    assert [(item.task, item.failure.reason) for item in failed] == [(tasks(other, 0)[0], "internal")]
    assert not list(tmp_path.rglob("attempts/*/*"))


def test_tiles_that_failed_before_are_not_tried(context, works):
    known = TileFailure(tasks(works[0], 0)[0], None)
    assert attempt(context, "infer", [known], lambda group: pytest.fail(str(group)) if group else []) == (
        [],
        [known],
    )


def test_old_processes_write_no_notes(context, works, monkeypatch):
    monkeypatch.setattr(attempts, "_blocks", itertools.count(attempts._NOTED))
    monkeypatch.setattr(attempts.storage, "write_bytes", lambda *_: pytest.fail("wrote a note"))
    assert attempt(context, "infer", [*tasks(works[0], 0), *tasks(works[1], 0)], list)[0] == [
        *tasks(works[0], 0),
        *tasks(works[1], 0),
    ]


def test_asked_again_a_round_plans_the_same_tiles(context, cohort, works):
    from pathlib import Path

    work, entry = works[0], works[0].entry
    _, all_of_them = prepare(context, entry)
    block = pa.table({"ordinal": [0, 1, 2]})
    with pa.ipc.new_file(str(Path(work.staging) / "0000000-0000002.arrow"), block.schema) as writer:
        writer.write_table(block)
    assert prepare(context, entry)[1] == all_of_them
    assert prepare(context, entry, 1)[1] == all_of_them[3:]
