"""Nobody else decides what is read as a slide: whose the cache is, and whether a copy is as it came."""

import os
import stat
from pathlib import Path

import pytest

from deepliif_ray import storage
from deepliif_ray.errors import StorageError
from deepliif_ray.storage import cache_folder, sums

URL = "memory://owned/a.svs"
CONTENT = b"as it came" * 1000


@pytest.fixture(autouse=True)
def slide(memory):
    memory.pipe_file("/owned/a.svs", CONTENT)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(
        StorageError, match=r"cache: .*written to by other users.*chmod go-w.*DEEPLIIF_RAY_CACHE"
    ):
        storage.localize(URL, cache)
    assert list(cache.iterdir()) == []


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    me = os.geteuid()
    if me == 0:
        os.chown(cache, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(StorageError, match="belongs to another user"):
        storage.localize(URL, cache)
    assert list(cache.iterdir()) == []


def test_a_link_of_somebody_else_is_refused(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a link away")
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "mine")
    os.chown(tmp_path / "cache", 12345, 12345, follow_symlinks=False)
    with pytest.raises(StorageError, match="belongs to another user"):
        storage.localize(URL, tmp_path / "cache")


def test_a_folder_that_is_made_is_private(tmp_path):
    path = storage.localize(URL, tmp_path / "new" / "cache")
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE((tmp_path / "new" / "cache").stat().st_mode) == 0o700


def test_where_the_cache_is(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("DEEPLIIF_RAY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    assert storage.default_cache() == home / ".cache" / "deepliif-ray"
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    monkeypatch.setattr(cache_folder.tempfile, "gettempdir", lambda: str(tmp_path))
    assert storage.default_cache() == tmp_path / f"deepliif-ray-{os.getuid()}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert storage.default_cache() == tmp_path / "xdg" / "deepliif-ray"
    monkeypatch.setenv("DEEPLIIF_RAY_CACHE", "here")
    assert storage.default_cache() == Path("here").absolute()


def other(path: Path) -> None:
    """Put other content of the same size and time there."""
    times = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_content_that_was_exchanged_is_not_read(tmp_path):
    path = storage.localize(URL, tmp_path)
    other(path)
    assert storage.localize(URL, tmp_path).read_bytes() == CONTENT


def test_a_file_that_was_replaced_is_not_read(tmp_path):
    path = storage.localize(URL, tmp_path)
    other(path)
    path.rename(tmp_path / "x")
    (tmp_path / "x").rename(path)
    assert storage.localize(URL, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "note", [None, b"", b"{}", b"[", b"[" * 100_000, b'{"a.svs": 3}', b'{"a.svs": [1, 2]}']
)
def test_a_copy_without_a_sound_note_is_downloaded_anew(tmp_path, note):
    path = storage.localize(URL, tmp_path)
    other(path)
    (place,) = tmp_path.glob("*.sums")
    if note is None:
        place.unlink()
    else:
        place.write_bytes(note)
    assert storage.localize(URL, tmp_path).read_bytes() == CONTENT


def test_a_copy_that_was_only_touched_is_kept(tmp_path, monkeypatch):
    path = storage.localize(URL, tmp_path)
    path.touch()
    read, kept = [], sums._digest
    monkeypatch.setattr(sums, "_digest", lambda file: read.append(file) or kept(file))
    inode = path.stat().st_ino
    for _ in range(2):
        assert storage.localize(URL, tmp_path) == path
    assert read == [path]  # once, and then its note is renewed
    assert path.stat().st_ino == inode


def test_another_version_is_another_copy(tmp_path, memory):
    first = storage.localize(URL, tmp_path)
    memory.pipe_file("/owned/a.svs", CONTENT[::-1])
    second = storage.localize(URL, tmp_path)
    assert first != second
    assert second.read_bytes() == CONTENT[::-1]
