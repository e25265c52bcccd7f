"""The disk is full from any moment on, or for one moment: runs end typed and can be run again."""

import errno
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from deepliif_ray import optimize
from deepliif_ray.engine import finalize
from deepliif_ray.errors import DeepliifRayError, StorageError
from tests.engine.disk import Watch
from tests.engine.generations import Generations, score_local


@dataclass
class FullDisk(Watch):
    """A disk that refuses what needs room once ``room`` such calls were made: all of them, or only one.

    A write that is refused has written half of its bytes.
    """

    room: int = 10**9
    lasting: bool = True
    calls: int = 0

    def before(self, kind: str, path: str) -> None:
        self.calls += 1
        if self.calls == self.room or (self.lasting and self.calls > self.room):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def file(self, opened, name: str):
        return _File(self, opened, name)


class _File:
    """A file opened for writing whose writes ask the disk for room."""

    def __init__(self, disk: FullDisk, opened, name: str) -> None:
        self._disk, self._opened, self._name = disk, opened, name

    def write(self, data):
        try:
            self._disk.before("write", self._name)
        except OSError:
            self._opened.write(data[: len(data) // 2])
            raise
        return self._opened.write(data)

    def __getattr__(self, name):
        return getattr(self._opened, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._opened.close()


@pytest.fixture(scope="module")
def whole(generations, tmp_path_factory) -> Path:
    """Results that can be joined."""
    results = tmp_path_factory.mktemp("full")
    score_local(generations.second, str(results))
    return results


def spoilt(results: Path) -> list[str]:
    """Return the objects that are not whole, and temporary files that were left."""
    found = []
    for path in results.rglob("*"):
        if path.is_dir():
            continue
        data = path.read_bytes()
        try:
            match path.suffix:
                case ".parquet":
                    pq.read_table(pa.BufferReader(data))
                case ".arrow":
                    pa.ipc.open_file(pa.BufferReader(data)).read_all()
                case ".json" | ".beat" | ".released":
                    json.loads(data)
                case _ if "attempts" in path.parts:
                    assert data
                case _:
                    found.append(f"{path.name}: left over")
        except (pa.ArrowException, ValueError, OSError, AssertionError) as error:
            found.append(f"{path.relative_to(results)}: {error}")
    return found


@pytest.mark.slow
def test_a_record_that_is_there_though_its_write_failed_counts(generations, tmp_path, monkeypatch):
    """The disk, or a store whose answer is lost, says after the commit that it did not work."""
    commit = finalize.commit_slide

    def and_fail(*args):
        commit(*args)
        raise StorageError("No space left on device")

    monkeypatch.setattr(finalize, "commit_slide", and_fail)
    assert score_local(generations.second, str(tmp_path / "results")).failed == 2
    monkeypatch.undo()
    assert score_local(generations.second, str(tmp_path / "results")).skipped == 2
    assert generations.differs(str(tmp_path / "results")) is None


def try_all(generations: Generations, folder: Path, what, first: Path | None, every: int) -> None:
    """Do ``what`` to results while room ends after one, two, three calls, …; each time look and run again."""
    counts, failures = Counter(), []
    for lasting in (True, False):
        for room in range(1 if lasting else 1 + every // 2, 10**6, every):
            root = folder / f"{'for-good' if lasting else 'once'}-at-{room}"
            root.mkdir()
            if first is not None:
                shutil.copytree(first, root / "results")
            results = str(root / "results")
            disk = FullDisk(root, elsewhere=True, room=room, lasting=lasting)
            counts["trials"] += 1
            with disk.on():
                problems = [ending(partial(what, generations.second, results), counts)]
            problems += spoilt(root)
            again = partial(score_local, generations.second, results, take_over=True)
            problems += [f"run again: {problem}" for problem in (ending(again, Counter()),) if problem]
            problems.append(generations.differs(results))
            failures += [f"{root.name}: {problem}" for problem in problems if problem]
            shutil.rmtree(root)
            if disk.calls < room:
                break
    print(dict(counts))
    assert counts["typed"] and counts["ended well"]
    assert not failures, "\n".join([f"{len(failures)} of {dict(counts)}:", *failures[:40]])


def ending(call, counts: Counter) -> str | None:
    """Return what is wrong with how a call ends on a full disk, None if nothing is."""
    try:
        summary = call()
    except DeepliifRayError as error:
        counts["typed"] += 1
        return None if "No space left" in str(error) else f"does not say why: {error}"
    except Exception as error:  # noqa: BLE001  # told as what is wrong
        return f"{type(error).__name__}: {error}"
    told = getattr(summary, "failures", ())
    counts["slides failed" if told else "ended well"] += 1
    return next((f"does not say why: {why}" for _, why in told if "No space left" not in why), None)


def joining(_, results: str):
    return optimize(results, keep_minutes=0)


@pytest.mark.parametrize("every", [37, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_on_a_disk_that_is_full(generations, tmp_path, every):
    try_all(generations, tmp_path, score_local, None, every)


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_joining_on_a_disk_that_is_full(generations, whole, tmp_path, every):
    try_all(generations, tmp_path, joining, whole, every)
