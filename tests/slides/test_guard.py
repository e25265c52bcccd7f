"""Reading in another process: the same pixels, and files that end that process end nothing else."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepliif_ray import errors
from deepliif_ray.errors import (
    DeepliifRayError,
    ResolutionError,
    SlideCorruptError,
    SlideCrashedError,
    SlideError,
    SlideMemoryError,
    SlideTimeoutError,
    SlideUnreadableError,
)
from deepliif_ray.slides import TileGrid, guard, helper, open_guarded, open_slide, plan_slide, write_pyramid
from tests.few import few

IMAGE = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_pyramid(folder / "a.tiff", IMAGE, mpp=0.25)
    Image.fromarray(np.dstack([IMAGE, IMAGE[..., 0]])).save(folder / "field.png")
    return folder


@pytest.fixture
def bad_child(monkeypatch):
    """Let new helpers be misbehaving ones that are given little time."""
    guard.end_helper()
    monkeypatch.setattr(helper, "COMMAND", ("-P", "-m", "tests.slides.bad_child"))
    monkeypatch.setattr(helper, "TIME_LIMIT_S", 2)
    yield
    guard.end_helper()


@pytest.fixture
def named(slides, tmp_path):
    def link(name: str) -> Path:
        path = tmp_path / f"{name}.tiff"
        path.hardlink_to(slides / "a.tiff")
        return path

    return link


def pid() -> int:
    return guard.current_helper().pid


@pytest.mark.parametrize("name", ["a.tiff", "field.png"])
def test_pixels_and_facts_are_those_of_reading_here(slides, name):
    with open_slide(slides / name) as here, open_guarded(slides / name) as there:
        for fact in ("name", "vendor", "levels", "background", "width", "height", "mpp"):
            assert getattr(here, fact) == getattr(there, fact)
        for x, y in ((0, 0), (400, 100), (800, 600)):
            np.testing.assert_array_equal(here.read_tile(x, y, 256), there.read_tile(x, y, 256))
        for level in range(len(here.levels)):
            np.testing.assert_array_equal(
                here.read_level(level, 3, 2, 40, 50), there.read_level(level, 3, 2, 40, 50)
            )
        assert plan_slide(here, mpp=0.25) == plan_slide(there, mpp=0.25)


def test_one_helper_serves_all_slides_and_threads(slides):
    with open_guarded(slides / "a.tiff") as first:
        before = pid()
        tiles = list(TileGrid(first.width, first.height, 128, 8))
        expected = {t.index: first.read_tile(t.x, t.y, 128).sum() for t in tiles}
        found = [{} for _ in range(4)]

        def work(sums):
            with open_guarded(slides / "a.tiff") as mine:
                for t in tiles:
                    sums[t.index] = mine.read_tile(t.x, t.y, 128).sum()

        threads = [threading.Thread(target=work, args=(sums,)) for sums in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(sums == expected for sums in found)
    assert pid() == before


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    few(
        [
            ("segfault", SlideCrashedError, "SIGSEGV"),
            ("abort", SlideCrashedError, "SIGABRT"),
            ("hang", SlideTimeoutError, "2 s"),
            ("glib", SlideMemoryError, "4 GiB"),
            ("greedy", SlideMemoryError, "4 GiB"),
        ],
        3,
    ),
)
@pytest.mark.parametrize("when", few(["reading", "opening"], 1))
def test_what_ends_the_helper_is_an_error_of_that_slide_alone(
    bad_child, slides, named, name, kind, words, when
):
    path = named(f"{name}-{when}")
    with open_guarded(slides / "a.tiff") as good:
        pixels = good.read_tile(0, 0, 64)
        with pytest.raises(kind, match=words) as caught, open_guarded(path) as bad:
            assert when == "reading"
            bad.read_tile(0, 0, 64)
        assert str(caught.value).startswith(f"{path.name}: {when} it ")
        assert caught.value.reason in ("crashed", "timeout", "memory")
        np.testing.assert_array_equal(good.read_tile(0, 0, 64), pixels)


@pytest.mark.slow
def test_a_hung_helper_is_killed_and_the_next_is_not_late(bad_child, named, slides):
    start = time.monotonic()
    with open_guarded(named("hang")) as bad:
        old = pid()
        with pytest.raises(SlideTimeoutError):
            bad.read_tile(0, 0, 64)
    assert time.monotonic() - start < 60
    with pytest.raises(ProcessLookupError):
        os.kill(old, 0)
    with open_guarded(slides / "a.tiff") as good:
        good.read_tile(0, 0, 64)


def test_unknown_errors_have_a_type(bad_child, named):
    with pytest.raises(SlideUnreadableError, match=r"cannot be opened \(LookupError"):
        open_guarded(named("odd-opening"))
    with open_guarded(named("odd")) as slide, pytest.raises(SlideCorruptError, match="LookupError"):
        slide.read_tile(0, 0, 64)


def test_a_slide_does_not_answer_for_damage_by_another(bad_child, named):
    with open_guarded(named("spoiler")) as first, open_guarded(named("spoiled")) as second:
        first.read_tile(0, 0, 64)
        np.testing.assert_array_equal(second.read_tile(0, 0, 64), first.read_tile(0, 0, 64))


def test_a_helper_killed_from_outside_is_replaced(bad_child, named, slides, monkeypatch):
    path = named("oomkilled")
    end = helper.Helper.end
    monkeypatch.setattr(helper.Helper, "end", lambda self: (Path(f"{path}.seen").touch(), end(self)))
    with open_guarded(path) as slide:
        slide.read_tile(0, 0, 64)
    assert Path(f"{path}.seen").exists()
    with open_guarded(slides / "a.tiff") as slide:
        for _ in range(3):
            os.kill(pid(), signal.SIGKILL)
            slide.read_tile(0, 0, 64)


def test_what_libraries_print_does_no_harm(bad_child, named, capfd):
    with open_guarded(named("chatty")) as slide:
        for _ in range(30):
            slide.read_tile(0, 0, 64)
        assert guard.current_helper().said_bytes < 1_000_000
    assert capfd.readouterr() == ("", "")


def test_a_helper_that_does_not_start_is_no_fault_of_the_slide(slides, monkeypatch):
    guard.end_helper()
    monkeypatch.setattr(helper, "COMMAND", ("-c", "raise SystemExit('no such library')"))
    with pytest.raises(DeepliifRayError, match="no such library") as caught:
        open_guarded(slides / "a.tiff")
    assert not isinstance(caught.value, SlideError)


def test_memory_beyond_the_limit_is_refused(monkeypatch, tmp_path):
    """An image of 64 megapixels takes 0.45 GB to decode; a helper that may take 0.25 GB says so."""
    guard.end_helper()
    monkeypatch.setattr(helper, "MEMORY_LIMIT", 1 << 28)
    Image.new("L", (8000, 8000)).convert("RGB").save(tmp_path / "big.png", compress_level=1)
    Image.fromarray(IMAGE).save(tmp_path / "small.png")
    try:
        with pytest.raises(SlideMemoryError, match=r"big\.png"):
            open_guarded(tmp_path / "big.png")
        open_guarded(tmp_path / "small.png").close()
    finally:
        guard.end_helper()


def test_files_that_vanish_fail_typed(named):
    path = named("gone")
    with open_guarded(path) as slide:
        guard.end_helper()
        path.unlink()
        with pytest.raises(SlideError, match="gone"):
            slide.read_tile(0, 0, 64)
    with pytest.raises(ValueError, match="closed"):
        slide.read_tile(0, 0, 64)


def test_odd_names(slides, tmp_path):
    for name in ["a\nb", "é😐", "a'b\"c", "\udcff\udcfe", "-c", " "]:
        path = tmp_path / name
        path.write_bytes((slides / "field.png").read_bytes())
        with open_guarded(path) as slide:
            assert slide.name == name


def test_pixels_that_are_not_square_are_told_when_asked(tmp_path, monkeypatch):
    from tests.slides.tiffs import tiff

    tiff(tmp_path / "a.tiff", IMAGE, resolution=(40_000, 20_000))
    with open_guarded(tmp_path / "a.tiff") as slide, pytest.raises(ResolutionError, match="not square"):
        _ = slide.mpp


def test_a_forked_process_has_its_own_helper(slides):
    with open_guarded(slides / "a.tiff") as slide:
        mine, pixels = pid(), slide.read_tile(0, 0, 64)

        def child(queue):
            queue.put((slide.read_tile(0, 0, 64), pid()))
            guard.end_helper()

        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        found, theirs = queue.get(timeout=60)
        process.join(30)
        np.testing.assert_array_equal(found, pixels)
        assert theirs != mine
        slide.read_tile(0, 0, 64)
        assert pid() == mine


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_the_helper_dies_with_its_parent(slides, how):
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from deepliif_ray.slides import guard, open_guarded
        slide = open_guarded(Path(sys.argv[1]))
        print(guard.current_helper().pid, flush=True)
        if sys.argv[2] == "killed":
            time.sleep(600)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(slides / "a.tiff"), how], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        if how == "killed":
            parent.kill()
    for _ in range(300):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    pytest.fail("the helper outlived its parent")


def test_the_helper_of_a_killed_parent_stops_even_while_it_hangs(slides, tmp_path):
    (tmp_path / "hang-open.tiff").hardlink_to(slides / "a.tiff")
    program = textwrap.dedent(
        """
        import sys, threading
        from pathlib import Path
        from deepliif_ray.slides import guard, helper, open_guarded
        helper.COMMAND = ("-P", "-m", "tests.slides.bad_child")
        threading.Thread(target=open_guarded, args=(Path(sys.argv[1]),), daemon=True).start()
        while guard.current_helper() is None or not guard.current_helper().slides:
            pass
        print(guard.current_helper().pid, flush=True)
        sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "hang-open.tiff")],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    for _ in range(300):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    pytest.fail("the helper outlived its parent")


def test_the_helper_imports_only_what_reading_needs():
    program = (
        "import json, sys; import deepliif_ray.slides.guard_child; print(json.dumps(sorted(sys.modules)))"
    )
    found = json.loads(subprocess.check_output([sys.executable, "-c", program]))
    assert {"openslide", "numpy"} <= set(found)
    assert not {
        "torch",
        "ray",
        "scipy",
        "pyarrow",
        "duckdb",
        "fsspec",
        "numba",
        "zarr",
        "pydicom",
        "pylibCZIrw",
    } & set(found)


@pytest.mark.parametrize(
    "attempt",
    few(
        [
            "environment",
            "parent-environment",
            "parent-memory",
            "parent-killed",
            "internet",
            "datagram",
            "unix-socket",
            "listen",
            "program",
            "fork",
            "write",
            "append",
            "remove",
            "rename",
            "mode",
            "times",
        ],
        6,
    ),
)
def test_a_helper_that_a_file_took_over_is_alone(bad_child, named, monkeypatch, attempt):
    """What it tries fails, on a kernel that lets it be confined; without one, `doctor` says so."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wJalrXUtnFEMI")
    if attempt != "environment" and guard.gave_up() != ("files", "network"):
        pytest.skip(f"the process that reads slides {guard.protection()}")
    path = named(f"attempt-{attempt}")
    before = path.stat()
    with open_guarded(path) as slide, pytest.raises(SlideCorruptError, match="refused") as caught:
        slide.read_tile(0, 0, 64)
    assert "wJalr" not in str(caught.value)
    assert (path.stat().st_mtime_ns, path.stat().st_mode) == (before.st_mtime_ns, before.st_mode)
    assert sorted(path.parent.iterdir()) == [path]


def test_protection_is_told(monkeypatch):
    for gave_up, words in (
        (
            ("files", "network"),
            "cannot use the network, run programs, write files, look into other processes",
        ),
        (("network",), "cannot use the network, run programs; CAN write files, look into other processes"),
        ((), "is not confined by this system"),
    ):
        monkeypatch.setattr(guard._Guard, "gave_up", lambda _, gave_up=gave_up: gave_up)
        assert guard.protection().startswith(words)


@pytest.mark.parametrize("kind", SlideError.__subclasses__())
def test_errors_travel_between_processes(kind):
    error = pickle.loads(pickle.dumps(kind("a.svs: broken")))
    assert (type(error), str(error)) == (kind, "a.svs: broken")
    assert getattr(errors, kind.__name__) is kind
    assert kind.reason != SlideError.reason
