"""Remote slides on the local disk: one download a machine, resumed, bounded, none evicted that is read."""

import errno
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, SlideChangedError, StorageError
from deepliif_ray.slides import open_guarded, write_pyramid
from deepliif_ray.storage import cache as cache_module
from deepliif_ray.storage import download
from deepliif_ray.storage import quota as room
from deepliif_ray.storage.locks import EXCLUSIVE, SHARED, try_lock
from tests import slow_store

SIZE = 64_000
PROCESSES = multiprocessing.get_context("fork")
PATIENCE_S = 120


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A slide in a slow store: its URL, its content, and the store's log."""
    content = os.urandom(SIZE)
    (tmp_path / "a.svs").write_bytes(content)
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("SLOW_STORE_LOG", str(log))
    return f"slow://{tmp_path}/a.svs", content, log


def fetch(url: str, cache: Path, answers=None, hold=None) -> None:
    """Localize in a process of its own, in ranges of 1000 bytes."""
    assert slow_store.SlowStore.protocol == "slow"
    download.RANGE_BYTES = 1000
    path = storage.localize(url, cache)
    if answers is not None:
        answers.put((os.getpid(), str(path), path.read_bytes()))
    if hold is not None:
        hold.wait(PATIENCE_S)


def slides_in(cache: Path) -> set[str]:
    return {path.name for path in cache.glob("*/*") if path.is_file()}


def test_processes_share_one_download(slow, tmp_path):
    url, content, log = slow
    answers = PROCESSES.Queue()
    processes = [PROCESSES.Process(target=fetch, args=(url, tmp_path / "cache", answers)) for _ in range(3)]
    for process in processes:
        process.start()
    got = [answers.get(timeout=PATIENCE_S) for _ in processes]
    for process in processes:
        process.join(PATIENCE_S)
    assert {bytes(data) for _, _, data in got} == {content} and len({path for _, path, _ in got}) == 1
    assert sorted(map(int, log.read_text().split())) == list(range(0, SIZE, 1000))


def test_a_killed_download_goes_on_where_it_was(slow, tmp_path, monkeypatch):
    url, content, log = slow
    monkeypatch.setenv("SLOW_STORE_S", "0.2")
    process = PROCESSES.Process(target=fetch, args=(url, tmp_path / "cache"))
    process.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(log.read_text().split()) < 24 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE_S)
    before = list(map(int, log.read_text().split()))
    monkeypatch.setattr(download, "RANGE_BYTES", 1000)
    assert storage.localize(url, tmp_path / "cache").read_bytes() == content
    after = list(map(int, log.read_text().split()))[len(before) :]
    assert 0 < len(before) < SIZE // 1000
    assert min(after) > 0 and len(before) + len(after) <= SIZE // 1000 + download.AT_ONCE
    assert not list((tmp_path / "cache").glob("*.part"))


def test_ranges_make_up_the_file(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RANGE_BYTES", 7)
    for size in (0, 1, 6, 7, 8, 28, 29, 1000):
        content = os.urandom(size)
        memory.pipe_file(f"/in/{size}.svs", content)
        assert storage.localize(f"memory://in/{size}.svs", tmp_path).read_bytes() == content


def fill(memory, cache, names, size=1000):
    """Bring slides of ``size`` bytes to the cache, in turn."""
    for name in names:
        if not memory.exists(f"/in/{name}"):
            memory.pipe_file(f"/in/{name}", os.urandom(size))
        storage.localize(f"memory://in/{name}", cache)


@pytest.fixture
def small(monkeypatch):
    """A cache with room for three slides of 1000 bytes, and no patience."""
    monkeypatch.setenv(room.LIMIT_VARIABLE, str(3500 / 2**30))
    monkeypatch.setattr(room, "ROOM_WAIT_S", 0.5)
    monkeypatch.setattr(room, "_PAUSE_S", 0.05)


def test_least_recently_used_goes_first(memory, tmp_path, small):
    fill(memory, tmp_path, ["a", "b", "c", "a", "d"])
    assert slides_in(tmp_path) == {"a", "c", "d"}
    fill(memory, tmp_path, ["b"])
    assert slides_in(tmp_path) == {"a", "b", "d"}
    assert len(list(tmp_path.glob("*.lock"))) == 3


def test_the_bound_holds_over_many(memory, tmp_path, small):
    for n in range(30):
        fill(memory, tmp_path, [f"{n}"], size=400 + 37 * n)
        notes = sum(note.stat().st_size for note in tmp_path.glob("*.sums"))
        assert room.bytes_below(tmp_path) - notes <= 3500 + 200  # and the text of the locks


def test_slides_that_are_read_stay(memory, tmp_path, small):
    fill(memory, tmp_path, ["a"])
    pinned = storage.pin(next(tmp_path.glob("*/a")))
    fill(memory, tmp_path, ["b", "c", "d", "e", "f"])
    assert slides_in(tmp_path) == {"a", "e", "f"}
    pinned.release()
    fill(memory, tmp_path, ["g"])
    assert slides_in(tmp_path) == {"e", "f", "g"}


def test_an_open_slide_stays_until_it_is_closed(memory, tmp_path, monkeypatch):
    write_pyramid(tmp_path / "a.tiff", np.full((600, 600, 3), 200, np.uint8), mpp=0.25)
    data = (tmp_path / "a.tiff").read_bytes()
    monkeypatch.setenv(room.LIMIT_VARIABLE, str(2.5 * len(data) / 2**30))
    cache = tmp_path / "cache"
    memory.pipe_file("/in/a.tiff", data)
    slide = open_guarded(storage.localize("memory://in/a.tiff", cache))
    fill(memory, cache, ["b", "c", "d"], len(data))
    assert "a.tiff" in slides_in(cache)
    assert slide.read_tile(0, 0, 512).shape == (512, 512, 3)
    slide.close()
    fill(memory, cache, ["e", "f"], len(data))
    assert "a.tiff" not in slides_in(cache)


def test_what_another_process_reads_stays(slow, memory, tmp_path, small, monkeypatch):
    url, _, _ = slow
    (tmp_path / "a.svs").write_bytes(os.urandom(1000))
    cache, answers, hold = tmp_path / "cache", PROCESSES.Queue(), PROCESSES.Event()
    process = PROCESSES.Process(target=fetch, args=(url, cache, answers, hold))
    process.start()
    answers.get(timeout=PATIENCE_S)
    fill(memory, cache, ["b", "c", "d", "e"])
    assert "a.svs" in slides_in(cache)
    hold.set()
    process.join(PATIENCE_S)
    fill(memory, cache, ["f", "g"])
    assert "a.svs" not in slides_in(cache)


def test_room_that_does_not_come_is_told(memory, tmp_path, small):
    pins = []
    for name in "abc":
        fill(memory, tmp_path, [name])
        pins.append(storage.pin(next(tmp_path.glob(f"*/{name}"))))
    with pytest.raises(StorageError, match=r"memory://in/d.*no room.*slides in use.*DEEPLIIF_RAY_CACHE_GIB"):
        fill(memory, tmp_path, ["d"])
    threading.Timer(0.1, pins[0].release).start()
    fill(memory, tmp_path, ["d"])
    assert slides_in(tmp_path) == {"b", "c", "d"}


def test_a_slide_larger_than_the_cache_fails_at_once(memory, tmp_path, small, monkeypatch):
    monkeypatch.setattr(room, "ROOM_WAIT_S", 1e6)
    with pytest.raises(StorageError, match="no room"):
        fill(memory, tmp_path, ["big"], size=4000)


def test_a_disk_without_room_is_told(memory, tmp_path, small, monkeypatch):
    usage = room.shutil.disk_usage(tmp_path)._replace(free=500)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"the disk has 0\.000 GiB left"):
        fill(memory, tmp_path, ["a"])


def test_a_disk_that_fills_up_is_told_and_left_clean(memory, tmp_path, monkeypatch):
    def full(url, file, target):
        target.write_bytes(b"the beginning")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(cache_module, "download", full)
    with pytest.raises(StorageError, match=r"memory://in/a.*No space left on device.*free space"):
        fill(memory, tmp_path, ["a"])
    assert not list(tmp_path.glob("*.part"))
    monkeypatch.undo()
    fill(memory, tmp_path, ["a"])


def test_a_cache_that_cannot_be_written_is_told(memory, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"memory://in/a.*cannot be kept.*DEEPLIIF_RAY_CACHE "):
        fill(memory, tmp_path / "file" / "cache", ["a"])


@pytest.mark.parametrize("text", ["0", "-1", "much", "nan", "inf"])
def test_a_bad_bound_is_told(memory, tmp_path, monkeypatch, text):
    monkeypatch.setenv(room.LIMIT_VARIABLE, text)
    with pytest.raises(ConfigError, match="DEEPLIIF_RAY_CACHE_GIB"):
        fill(memory, tmp_path, ["a"])


def test_abandoned_parts_are_removed(memory, tmp_path, small):
    fill(memory, tmp_path, ["a"])
    part = tmp_path / ("0" * 24 + ".part")
    part.mkdir()
    (part / "b").write_bytes(b"1" * 100)
    lock = tmp_path / ("0" * 24 + ".lock")
    lock.write_text("1000")
    (tmp_path / "room").unlink()
    fill(memory, tmp_path, ["c"])
    assert part.exists()
    os.utime(lock, (1, 1))
    (tmp_path / "room").unlink()
    fill(memory, tmp_path, ["d"])
    assert not part.exists() and not lock.exists()
    assert slides_in(tmp_path) == {"a", "c", "d"}


def test_a_copy_that_lost_a_file_is_downloaded_anew(memory, tmp_path):
    fill(memory, tmp_path, ["a"])
    path = next(tmp_path.glob("*/a"))
    path.write_bytes(b"")
    assert storage.localize("memory://in/a", tmp_path).stat().st_size == 1000


@pytest.mark.parametrize("shorter", [False, True])
def test_a_slide_that_changes_while_it_is_downloaded(memory, tmp_path, monkeypatch, shorter):
    memory.pipe_file("/in/a.svs", b"1" * 1000)
    original = type(memory).cat_ranges

    def overwritten(self, paths, starts, ends, **options):
        memory.pipe_file("/in/a.svs", b"2" * (500 if shorter else 1000))
        return original(self, paths, starts, ends, **options)

    monkeypatch.setattr(type(memory), "cat_ranges", overwritten)
    with pytest.raises(SlideChangedError, match=r"memory://in/a\.svs"):
        storage.localize("memory://in/a.svs", tmp_path)
    assert not slides_in(tmp_path)
    monkeypatch.undo()
    assert set(storage.localize("memory://in/a.svs", tmp_path).read_bytes()) == {ord("2")}


def test_a_slide_that_is_no_longer_the_one_expected(memory, tmp_path):
    memory.pipe_file("/in/a.svs", b"1")
    known = storage.version("memory://in/a.svs")
    storage.localize("memory://in/a.svs", tmp_path, known)
    memory.pipe_file("/in/a.svs", b"2")
    with pytest.raises(SlideChangedError):
        storage.localize("memory://in/a.svs", tmp_path, known)


def test_a_holder_that_does_not_get_on_is_not_waited_for(memory, tmp_path, monkeypatch):
    fill(memory, tmp_path, ["a"])
    cache_module._latest.pin = None
    lock = next(tmp_path.glob("*/a")).parent.with_suffix(".lock")
    held = try_lock(lock, EXCLUSIVE)
    monkeypatch.setattr(cache_module, "STALL_S", 0.2)
    with pytest.raises(StorageError, match=r"nothing has arrived.*remove"):
        storage.localize("memory://in/a", tmp_path)
    held.release()
    storage.localize("memory://in/a", tmp_path)


def test_forked_processes_do_not_keep_locks(tmp_path):
    path = tmp_path / "lock"
    lock = try_lock(path, EXCLUSIVE)
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_write)
        lock.release()
        os.read(go_read, 1)
        os._exit(0)
    try:
        assert try_lock(path, SHARED) is None
        deadline = time.monotonic() + 10
        lock.release()
        while (again := try_lock(path, EXCLUSIVE)) is None and time.monotonic() < deadline:
            time.sleep(0.01)  # until the child has run its first lines
        assert again is not None
    finally:
        os.close(go_write)
        os.waitpid(child, 0)


@pytest.mark.parametrize("name", ["é" * 150 + ".mrxs", "x" * 900 + ".mrxs", "a#b %41?.mrxs"])
def test_mirax_of_any_name(memory, tmp_path, name):
    stem = name.removesuffix(".mrxs")
    memory.pipe_file(f"/in/{name}", b"1")
    memory.pipe_file(f"/in/{stem}/Slidedat.ini", b"2")
    memory.pipe_file(f"/in/{stem}/deep/Data.dat", b"3")
    path = storage.localize(f"memory://in/{name}", tmp_path)
    assert path.suffix == ".mrxs"
    assert (path.with_suffix("") / "Slidedat.ini").read_bytes() == b"2"
    assert (path.with_suffix("") / "deep" / "Data.dat").read_bytes() == b"3"


def test_names_do_not_lead_out_of_the_cache(memory, tmp_path, monkeypatch):
    memory.pipe_file("/in/s.mrxs", b"1")
    found = {"/in/s/../../../evil": {"name": "/in/s/../../../evil", "size": 1, "type": "file", "created": 1}}
    monkeypatch.setattr(type(memory), "find", lambda *_, **__: found)
    with pytest.raises(StorageError, match="rename it"):
        storage.localize("memory://in/s.mrxs", tmp_path / "deep" / "cache")
    assert not list(tmp_path.rglob("evil"))


def test_a_part_that_becomes_whole_while_it_is_measured(tmp_path):
    part, whole, stop = tmp_path / "a.part", tmp_path / "a", threading.Event()
    for name in ("x/y", "z"):
        (part / name).mkdir(parents=True)
        (part / name / "file").write_bytes(bytes(10))

    def rename() -> None:
        while not stop.is_set():
            part.rename(whole)
            whole.rename(part)

    thread = threading.Thread(target=rename)
    thread.start()
    try:
        assert {room.bytes_below(part) for _ in range(3000)} <= {0, 10, 20}
    finally:
        stop.set()
        thread.join()
