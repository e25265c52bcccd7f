"""The disk of the results is full from any moment on, or for one moment: runs end typed and can be run again."""

import errno
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from deepliif_ray import optimize, score
from deepliif_ray.errors import DeepliifRayError
from deepliif_ray.slides.cohort import write_cohort
from tests.engine.disk import Watch
from tests.engine.results import tables


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
def small(tmp_path_factory):
    """Manifest of two small slides, and results of them that can be joined."""
    folder = tmp_path_factory.mktemp("full")
    manifest = write_cohort(folder / "cohort", patients=2, markers=("Ki67",), side=400)
    score(str(manifest), str(folder / "results"), model="stain", engine="local")
    return manifest, folder / "results"


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


def try_all(small, folder: Path, what, first: Path | None, every: int) -> None:
    """Do ``what`` to results while room ends after one, two, three calls, …; each time look and run again."""
    manifest, whole = small
    expected = tables(whole)
    counts, failures = Counter(), []
    for lasting in (True, False):
        for room in range(1 if lasting else 1 + every // 2, 10**6, every):
            name = f"{'for good' if lasting else 'once'} at {room}"
            root = folder / name.replace(" ", "-")
            root.mkdir()
            if first is not None:
                shutil.copytree(first, root / "results")
            results = str(root / "results")
            disk = FullDisk(root, elsewhere=True, room=room, lasting=lasting)
            problems = []
            with disk.on():
                try:
                    what(manifest, results)
                    counts["ended well"] += 1
                except DeepliifRayError as error:
                    counts["typed"] += 1
                    if "No space left" not in str(error):
                        problems.append(f"does not say why: {error}")
                except Exception as error:
                    problems.append(f"{type(error).__name__}: {error}")
            counts["trials"] += 1
            problems += spoilt(root)
            try:
                summary = score(str(manifest), results, model="stain", engine="local", take_over=True)
                if summary.failed or any(not tables(results)[n].equals(expected[n]) for n in expected):
                    problems.append("run again: other tables")
            except Exception as error:
                problems.append(f"run again: {type(error).__name__}: {error}")
            failures += [f"{name}: {problem}" for problem in problems]
            if disk.calls < room:
                break
            shutil.rmtree(root)
    print(dict(counts))
    assert counts["typed"] > 3
    assert not failures, "\n".join([f"{len(failures)} of {dict(counts)}:", *failures[:40]])


def a_run(manifest, results) -> None:
    score(str(manifest), results, model="stain", engine="local")


def joining(_, results) -> None:
    optimize(results, keep_minutes=0)


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_on_a_disk_that_is_full(small, tmp_path, every):
    try_all(small, tmp_path, a_run, None, every)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_joining_on_a_disk_that_is_full(small, tmp_path, every):
    try_all(small, tmp_path, joining, small[1], every)
