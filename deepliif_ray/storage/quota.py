"""The bound on the space that the cache of remote slides takes, and the eviction that keeps it."""

import errno
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deepliif_ray.errors import ConfigError, StorageError
from deepliif_ray.storage.cache_folder import CACHE_VARIABLE
from deepliif_ray.storage.credentials import scrub
from deepliif_ray.storage.locks import EXCLUSIVE, Lock, try_lock

LIMIT_VARIABLE = "DEEPLIIF_RAY_CACHE_GIB"
SHARE_OF_FREE = 0.5
ROOM_WAIT_S = 300.0
"""Slides that others read are waited for so long before a download is given up."""
ABANDONED_S = 24 * 3600.0
"""A part that nobody has downloaded for so long is removed even where there is room."""
FULL = (errno.ENOSPC, errno.EDQUOT)
LOOK_S = 3600.0
"""Every slide is looked at anew at least this often, and whenever room seems short."""
_PAUSE_S = 1.0


def cache_limit(cache: Path, used: int) -> int:
    """Return how many bytes slides may take: $DEEPLIIF_RAY_CACHE_GIB, or half of what is free.

    Parameters
    ----------
    cache : Path
    used : int
        Bytes that they take now, which count as free.

    Raises
    ------
    ConfigError
        The variable is not a positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return int(SHARE_OF_FREE * (shutil.disk_usage(cache).free + used))
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise ConfigError(f"${LIMIT_VARIABLE} is {text!r}; give the cache's bound in GiB, more than 0")
    return int(limit * 2**30)


def bytes_below(folder: Path) -> int:
    """Return the size of all files below a folder, 0 if there is none; it may go meanwhile."""
    total = 0
    for below, _, names in os.walk(folder):  # unlike rglob, it passes over folders that are gone
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(below, name).stat().st_size
    return total


@dataclass(frozen=True)
class _Entry:
    """A slide in the cache: when it was last asked for, the bytes promised to it, those still to arrive."""

    last_used: float
    key: str
    promised: int
    missing: int


def make_room(cache: Path, url: str, key: str, lock: Lock, size: int) -> None:
    """Promise ``size`` bytes to the slide ``key``, whose ``lock`` is held, evicting others if need be.

    Least recently used slides go first; those that anyone reads or downloads never do.

    Raises
    ------
    StorageError
        There is not enough room, and none came free in time.
    """
    deadline = time.monotonic() + ROOM_WAIT_S
    while True:
        room = try_lock(cache / "room", EXCLUSIVE)
        problem: str | None = "another process is making room"
        hopeless = False
        if room is not None:
            try:
                problem = None if _promise_at_once(cache, room, size) else _promise(cache, key, room, size)
                if problem is None:
                    lock.write(str(size))
                    return
                hopeless = size > cache_limit(cache, _used(_entries(cache, key)))
            finally:
                room.release()
        if hopeless or time.monotonic() > deadline:
            raise StorageError(
                f"{scrub(url)}: no room for its {size / 2**30:.3f} GiB under {cache}: {problem}; free space "
                f"there, raise ${LIMIT_VARIABLE}, or set ${CACHE_VARIABLE} to a folder on a larger disk"
            )
        time.sleep(_PAUSE_S if room is not None else 0.05)


def _promise_at_once(cache: Path, room: Lock, size: int) -> bool:
    """Promise bytes by the sum kept in the file ``room``, without looking at every slide.

    The sum is that of the last look plus what was promised since, so it is never too small.
    """
    kept = room.read().split()
    if len(kept) != 2 or not kept[0].isdigit() or not kept[1].isdigit():
        return False
    promised, looked = int(kept[0]) + size, int(kept[1])
    if promised > min(cache_limit(cache, int(kept[0])), shutil.disk_usage(cache).free):
        return False
    if not 0 <= time.time() - looked < LOOK_S:
        return False
    room.write(f"{promised} {looked}")
    return True


def _promise(cache: Path, key: str, room: Lock, size: int) -> str | None:
    """Evict until the promise can be kept; return why it cannot."""
    others = sorted(_entries(cache, key), key=lambda entry: entry.last_used)
    for entry in list(others):
        if entry.missing and entry.last_used < time.time() - ABANDONED_S and evict(cache, entry.key):
            others.remove(entry)
    left = list(others)
    arrived = bytes_below(cache / f"{key}.part")
    while (problem := _problem(cache, left, size, arrived)) is not None:
        if not others:
            return problem
        entry = others.pop(0)
        if evict(cache, entry.key):
            left.remove(entry)
    room.write(f"{_used(left) + size} {int(time.time())}")
    return None


def _problem(cache: Path, others: list[_Entry], size: int, arrived: int) -> str | None:
    used = _used(others)
    limit = cache_limit(cache, used + arrived)
    if used + size > limit:
        return f"the cache may take {limit / 2**30:.3f} GiB, and slides in use take {used / 2**30:.3f}"
    free = shutil.disk_usage(cache).free - sum(entry.missing for entry in others)
    if size - arrived > free:
        return f"the disk has {max(free, 0) / 2**30:.3f} GiB left"
    return None


def _used(entries: list[_Entry]) -> int:
    return sum(entry.promised for entry in entries)


def _entries(cache: Path, own: str) -> list[_Entry]:
    """Return what is in the cache beside the slide ``own``."""
    found = []
    for path in cache.glob("*.lock"):
        key = path.name.removesuffix(".lock")
        if key == own:
            continue
        try:
            text, last_used = path.read_text(), path.stat().st_mtime
        except FileNotFoundError:  # evicted by another process
            continue
        promised = int(text) if text.isdigit() else 0
        is_whole = (cache / key).is_dir()
        missing = 0 if is_whole else max(promised - bytes_below(cache / f"{key}.part"), 0)
        found.append(_Entry(last_used, key, promised, missing))
    return found


def evict(cache: Path, key: str) -> bool:
    """Remove a slide, whole or in part, unless anyone reads or downloads it."""
    path = cache / f"{key}.lock"
    lock = try_lock(path, EXCLUSIVE)
    if lock is None:
        return False
    shutil.rmtree(cache / key, ignore_errors=True)
    shutil.rmtree(cache / f"{key}.part", ignore_errors=True)
    (cache / f"{key}.sums").unlink(missing_ok=True)
    path.unlink()
    lock.release()
    return True
