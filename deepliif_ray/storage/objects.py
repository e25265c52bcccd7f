"""Whole objects: read, written, listed, removed."""

import errno
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from fsspec.core import has_magic
from pyarrow.fs import FSSpecHandler, PyFileSystem

from deepliif_ray.errors import StorageError, StorageMissingError
from deepliif_ray.storage.client import FAILURES, filesystem, patient_filesystem, retried, trouble
from deepliif_ray.storage.credentials import scrub
from deepliif_ray.storage.urls import is_local, join

READ_THREADS = 16
_NO_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP))
"""What a file system says that cannot do this; then it is up to the system."""
_memory = threading.Lock()  # memory:// looks first and writes then

T = TypeVar("T")


def read_bytes(url: str) -> bytes:
    """Return the content of ``url``.

    Raises
    ------
    StorageMissingError
        It does not exist.
    StorageError
        It cannot be read.
    """
    fs, path = filesystem(url)
    return _read(url, lambda: bytes(fs.cat_file(path)))


def read_range(url: str, start: int | None, end: int | None) -> bytes:
    """Return the bytes from ``start`` to before ``end`` of ``url``; raises as `read_bytes`."""
    fs, path = filesystem(url)
    return _read(url, lambda: bytes(fs.cat_file(path, start=start, end=end)))


def size(url: str) -> int | None:
    """Return the size of ``url`` in bytes, None where the store does not tell; raises as `read_bytes`."""
    fs, path = filesystem(url)
    info: dict[str, Any] = _read(url, lambda: fs.info(path))
    return None if info["size"] is None else int(info["size"])


def _read(url: str, call: Callable[[], T]) -> T:
    try:
        return retried(url, call)
    except FileNotFoundError as error:
        raise StorageMissingError(f"{scrub(url)}: no such file") from error
    except FAILURES as error:
        raise trouble(url, "cannot be read", error) from None


def _sync(path: Path) -> None:
    """Have a file or folder of this machine on its disk, where it outlasts a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each noted on disk in the one above it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


@contextmanager
def _beside(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name in the folder of ``target``, which is made; nothing of that name is left."""
    if durable:
        _make_folder(target.parent)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _complete(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name beside ``target``; what is there at the end becomes ``target`` at once."""
    with _beside(target, durable=durable) as temporary:
        yield temporary
        if durable:
            _sync(temporary)
        temporary.replace(target)
        if durable:
            _sync(target.parent)


def write_bytes(url: str, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` to ``url`` so that readers see all of it or nothing.

    With ``durable`` it is on a local disk before this returns, so that a loss of power takes nothing that was
    reported as written. Without, such a loss may leave an empty or damaged file: for work that is found and
    done again.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    fs, path = filesystem(url)
    try:
        if is_local(url):
            with _complete(Path(path), durable=durable) as temporary:
                temporary.write_bytes(data)
        else:
            retried(url, lambda: fs.pipe_file(path, data))
    except FAILURES as error:
        raise trouble(url, "cannot be written", error) from None


def create_bytes(url: str, data: bytes) -> bool:
    """Write ``data`` to ``url`` if nothing is there; tell whether that was so.

    Of several that try at once, one is told so, on local disks and stores that know conditional writes. Where
    an answer was lost and the request repeated, what is there may be the writer's own.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    fs, path = filesystem(url)
    try:
        if is_local(url):
            _create_local(Path(path), data)
        else:
            with _memory if url.startswith("memory://") else nullcontext():
                retried(url, lambda: fs.pipe_file(path, data, mode="create"))
    except FileExistsError:
        return False
    except FAILURES as error:
        raise trouble(url, "cannot be written", error) from None
    return True


def _create_local(target: Path, data: bytes) -> None:
    """Write a file that must not be there yet. fsspec looks first and writes then: two may both get it."""
    with _beside(target) as temporary:
        temporary.write_bytes(data)
        _sync(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links; readers may then find half of it
            with target.open("xb") as file:
                file.write(data)
            _sync(target)
        _sync(target.parent)


def write_file(url: str, source: Path) -> None:
    """Move the local file ``source`` to ``url`` so that readers see all of it or nothing.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    fs, path = filesystem(url)
    try:
        if is_local(url):
            with _complete(Path(path)) as temporary:
                shutil.move(source, temporary)
        else:
            retried(url, lambda: fs.put_file(str(source), path))
            source.unlink()
    except FAILURES as error:
        raise trouble(url, "cannot be written", error) from None


def exists(url: str) -> bool:
    """Tell whether there is a file or folder at ``url``.

    Raises
    ------
    StorageError
        The store does not tell.
    """
    fs, path = filesystem(url)
    try:
        retried(url, lambda: fs.info(path))  # s3fs's own exists() takes a bucket it cannot reach for missing
    except (FileNotFoundError, NotADirectoryError):
        return False
    except FAILURES as error:
        raise trouble(url, "cannot be looked at", error) from None
    return True


def check_writable(folder: str) -> None:
    """Refuse, at little cost and writing nothing, a folder that cannot be written to: at its store, or here.

    Raises
    ------
    StorageError
        Its store does not answer; or here a file is in its way, or it belongs to somebody else.
    """
    if not is_local(folder):
        exists(folder)
        return
    path = Path(filesystem(folder)[1])
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise StorageError(f"{folder}: cannot be written, as {path} is no folder")
    if not os.access(path, os.W_OK | os.X_OK):
        raise StorageError(f"{folder}: cannot be written, as {path} may not be changed by this user")


def remove_empty(folder: str) -> None:
    """Remove a folder of this machine if nothing but empty folders is in it; elsewhere there are none."""
    if is_local(folder):
        for path, _, _ in os.walk(filesystem(folder)[1], topdown=False):
            with suppress(OSError):  # it holds something
                Path(path).rmdir()


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Return the URLs of all files under ``folder`` whose names end in ``suffix``, sorted.

    A folder that does not exist has no files.

    Raises
    ------
    StorageError
        The store does not tell.
    """
    fs, path = filesystem(folder)
    try:
        found = retried(folder, lambda: fs.find(path))
    except FileNotFoundError:
        return []
    except FAILURES as error:
        raise trouble(folder, "cannot be listed", error) from None
    base = path.rstrip("/")
    inside = (str(name)[len(base) :].lstrip("/") for name in found)
    # Stores keep empty folders, and markers that end in a slash, as if they were files.
    return sorted(
        join(folder, name)
        for name in inside
        if name.endswith(suffix) and not name.endswith((".tmp", "/")) and name
    )


def remove(url: str) -> None:
    """Delete the file or folder at ``url``; nothing happens if there is none.

    Raises
    ------
    StorageError
        It cannot be removed.
    """
    fs, path = filesystem(url)
    try:
        if not is_local(url) and has_magic(path):  # fsspec would remove all that the name matches
            with ThreadPoolExecutor(READ_THREADS) as pool:
                found = retried(url, lambda: fs.find(path))
                list(pool.map(lambda name: retried(url, lambda: fs.rm_file(name)), found))
        else:
            retried(url, lambda: fs.rm(path, recursive=True))
    except FileNotFoundError:
        return
    except FAILURES as error:
        raise trouble(url, "cannot be removed", error) from None


def arrow_filesystem(url: str) -> tuple[Any, str]:
    """Return the filesystem of ``url`` as Arrow's, for libraries that want one, and the path in it."""
    fs, path = patient_filesystem(url)
    return PyFileSystem(FSSpecHandler(fs)), path
