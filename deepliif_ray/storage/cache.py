"""Remote slides on the local disk, in a folder that all processes of a machine share.

A slide's name there, its key, follows from its URL and version. Beside the finished folder ``<key>`` lies
``<key>.lock``, which holds the size that is promised to it, and ``<key>.sums``, what its files are;
``<key>.part`` is what arrived of a download so far. The lock is held exclusively by who downloads or evicts,
and shared by everyone who reads.
"""

import hashlib
import os
import posixpath
import random
import re
import shutil
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from deepliif_ray.errors import SlideChangedError, StorageError
from deepliif_ray.storage import quota
from deepliif_ray.storage.cache_folder import CACHE_VARIABLE, own_folder
from deepliif_ray.storage.client import trouble
from deepliif_ray.storage.credentials import scrub
from deepliif_ray.storage.download import download
from deepliif_ray.storage.failures import failures, is_passing
from deepliif_ray.storage.locks import EXCLUSIVE, SHARED, Lock, try_lock
from deepliif_ray.storage.slide_files import SlideFile, digest, is_zarr, slide_files, slide_folder
from deepliif_ray.storage.sums import intact, write_sums
from deepliif_ray.storage.urls import is_local, parent

STALL_S = 600.0
"""Another process's download is waited for as long as it gets on at least this often."""
_LONGEST_NAME = 200
_KEY = re.compile(r"[0-9a-f]{24}")
_latest = threading.local()


def localize(url: str, cache: Path, expected: str | None = None) -> Path | str:
    """Return a local path for the slide at ``url``, downloading it into ``cache`` if it is remote.

    An OME-Zarr folder in a store is not downloaded: its URL is returned, for reading what is needed of it.
    One process of a machine downloads, the others wait for it. The slide is not evicted before this thread
    asks for another; `pin` it to read on.

    Parameters
    ----------
    url : str
    cache : Path
        See `deepliif_ray.storage.quota.cache_limit` for its bound.
    expected : str, optional
        The version that the slide must have, see `deepliif_ray.storage.version`.

    Raises
    ------
    FileNotFoundError, PermissionError
        The slide is not there or may not be read.
    SlideChangedError
        Its version is another, or changed during the download.
    StorageError
        The download failed, or there is no room for it.
    """
    files = slide_files(url)
    if expected is not None and digest(files) != expected.lstrip("?"):
        raise _changed(url)
    folder = slide_folder(url, files)
    if is_local(url):
        return Path(folder or files[0].path)
    if folder is not None and is_zarr(files):
        return parent(url) if PurePosixPath(url).name == PurePosixPath(files[0].path).name else url
    copy = _Copy(url, cache, files, folder)
    _latest.pin = None  # it may be in the way of the room, or of a repair
    try:
        own_folder(cache)
        _latest.pin = _ready(copy)
    except (FileNotFoundError, PermissionError) as error:
        if error.filename is None or not str(error.filename).startswith(str(cache)):
            raise
        raise _disk_trouble(copy, error) from error
    except OSError as error:
        raise _disk_trouble(copy, error) from error
    return copy.opened


def pin(path: Path) -> Lock | None:
    """Keep a slide that lies in a cache from being evicted until the lock is released.

    Returns
    -------
    Lock or None
        None if the path is in no cache.
    """
    folder = copy_folder(path)
    return None if folder is None else try_lock(_lock_of(folder), SHARED)


def copy_folder(path: Path) -> Path | None:
    """Return the folder that all files of a slide in a cache lie in; None if the path is in no cache."""
    folders = (folder for folder in (path, *path.parents) if _KEY.fullmatch(folder.name))
    return next((folder for folder in folders if _lock_of(folder).exists()), None)


def find_copies(
    cache: Path, slides: Collection[tuple[str, str]], others: Collection[tuple[str, str]] = ()
) -> list[str]:
    """Return the keys of what a cache holds of slides, whole or in part.

    These are their copies of the versions told, and those of versions that nobody told whose file is called
    the same: a download may have broken off before anything was recorded.

    Parameters
    ----------
    cache : Path
    slides, others : collection of (str, str)
        URL and version, see `deepliif_ray.storage.version`; empty if unknown. Copies of ``others`` stay.
    """
    remote = {(url, version.lstrip("?")) for url, version in slides if not is_local(url)}
    there = {path.name.removesuffix(".lock") for path in cache.glob("*.lock")} if remote else set()
    there = {key for key in there if _KEY.fullmatch(key)}
    if not there:
        return []
    keys = {_key(url, version) for url, version in remote}
    spared = {_key(url, version.lstrip("?")) for url, version in others} - keys
    names = {PurePosixPath(url.rstrip("/")).name for url, _ in remote}
    return sorted(key for key in there if key in keys or (key not in spared and _holds(cache, key, names)))


def _holds(cache: Path, key: str, names: set[str]) -> bool:
    folders = (cache / key, cache / f"{key}.part")
    return any(path.name in names for folder in folders if folder.is_dir() for path in folder.iterdir())


def drop_copies(cache: Path, keys: Iterable[str]) -> list[str]:
    """Remove what a cache holds under these keys; return those that somebody reads or downloads now."""
    _latest.pin = None  # what this thread asked for last
    return [key for key in keys if not quota.evict(cache, key)]


def _key(url: str, version: str) -> str:
    return hashlib.sha256(f"{url}\0{version}".encode()).hexdigest()[:24]


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@dataclass(frozen=True)
class _Copy:
    """A remote slide, and where it lies in the cache."""

    url: str
    cache: Path
    files: list[SlideFile]
    asked: str | None
    """The path of the folder that the URL names, if it names one."""

    @cached_property
    def key(self) -> str:
        return _key(self.url, digest(self.files))

    @property
    def folder(self) -> Path:
        return self.cache / self.key

    @property
    def part(self) -> Path:
        return self.cache / f"{self.key}.part"

    @property
    def lock(self) -> Path:
        return self.cache / f"{self.key}.lock"

    @property
    def sums(self) -> Path:
        return self.cache / f"{self.key}.sums"

    @property
    def size(self) -> int:
        return sum(file.size or 0 for file in self.files)

    @property
    def opened(self) -> Path:
        return self.folder / self.names[0].split("/")[0]

    @cached_property
    def names(self) -> list[str]:
        """The files' paths below the folder: those at the store, as far as a local disk allows them."""
        root, old = posixpath.split((self.asked or self.files[0].path).rstrip("/"))
        new = old if len(old.encode()) <= _LONGEST_NAME else f"slide{PurePosixPath(old).suffix[:20]}"
        renamed = {
            PurePosixPath(old).stem: PurePosixPath(new).stem,
            old: new,
        }  # MIRAX: a folder named as the file
        names = []
        for file in self.files:
            below = posixpath.relpath(file.path, root).split("/")
            names.append("/".join([renamed.get(below[0], below[0]), *below[1:]]))
        for name in names:
            if {"..", "."} & set(name.split("/")) or "\0" in name or name.startswith("/"):
                raise StorageError(f"{scrub(self.url)}: a file of the slide is named {name!r}; rename it")
        return names

    def use(self) -> None:
        """Write down that the copy was asked for now; the system's own clock for files ticks too coarsely."""
        now = time.time_ns()
        os.utime(self.lock, ns=(now, now))

    def is_complete(self) -> bool:
        return (
            self.folder.is_dir()
            and all(
                path.is_file() and (file.size is None or path.stat().st_size == file.size)
                for file, path in zip(self.files, (self.folder / name for name in self.names), strict=True)
            )
            and intact(self.folder, self.names, self.sums)
        )


def _ready(copy: _Copy) -> Lock:
    """Return a shared lock on the copy, complete."""
    arrived, since = -1, time.monotonic()
    while True:
        lock = try_lock(copy.lock, SHARED)
        if lock is not None and copy.is_complete():
            copy.use()
            return lock
        if lock is not None:
            lock.release()
            lock = try_lock(copy.lock, EXCLUSIVE)
        if lock is not None:
            try:
                if not copy.is_complete():
                    _download(copy, lock)
                copy.use()
                if lock.share() and copy.is_complete():
                    return lock
            except BaseException:
                lock.release()  # now, not when the traceback that refers to it goes
                raise
            lock.release()
            continue
        if (now := quota.bytes_below(copy.part)) != arrived:
            arrived, since = now, time.monotonic()
        elif time.monotonic() > since + STALL_S:
            raise StorageError(
                f"{scrub(copy.url)}: another process of this machine is downloading it, but nothing has "
                f"arrived for {STALL_S:.0f} s; stop that process, or remove {copy.lock}"
            )
        time.sleep(random.SystemRandom().uniform(0.05, 0.5))


def _download(copy: _Copy, lock: Lock) -> None:
    """Fill the copy's folder; its lock is held exclusively."""
    with _told_as_change(copy):
        quota.make_room(copy.cache, copy.url, copy.key, lock, copy.size)
        shutil.rmtree(copy.folder, ignore_errors=True)  # incomplete: the machine went down meanwhile
        for file, name in zip(copy.files, copy.names, strict=True):
            target = copy.part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            download(copy.url, file, target)
        if digest(slide_files(copy.url)) != digest(copy.files):
            raise _changed(copy.url)
        write_sums(copy.part, copy.names, copy.sums)
        copy.part.rename(copy.folder)


@contextmanager
def _told_as_change(copy: _Copy) -> Iterator[None]:
    """Tell trouble with the store from a slide that changed, and from a disk that is full."""
    try:
        yield
    except (FileNotFoundError, PermissionError, StorageError):
        raise
    except SlideChangedError:
        shutil.rmtree(copy.part, ignore_errors=True)
        raise
    except failures() as error:
        if getattr(error, "errno", None) in quota.FULL:
            shutil.rmtree(copy.part, ignore_errors=True)
            raise
        if not is_passing(error) and digest(slide_files(copy.url)) != digest(copy.files):
            shutil.rmtree(copy.part, ignore_errors=True)
            raise _changed(copy.url) from None
        raise trouble(copy.url, "download failed", error) from None


def _disk_trouble(copy: _Copy, error: OSError) -> StorageError:
    advice = f"set ${CACHE_VARIABLE} to a folder that can be written"
    if error.errno in quota.FULL:
        advice = f"free space there, or set ${CACHE_VARIABLE} to a folder on a larger disk"
    why = error.strerror or type(error).__name__
    return StorageError(f"{scrub(copy.url)}: cannot be kept under {copy.cache} ({why}); {advice}")


def _changed(url: str) -> SlideChangedError:
    return SlideChangedError(
        f"{scrub(url)}: the file changed while it was being read; run again when it is complete"
    )
