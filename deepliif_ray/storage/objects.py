"""Whole objects: read, written, listed, removed."""

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from fsspec.core import has_magic
from pyarrow.fs import FSSpecHandler, PyFileSystem

from deepliif_ray.errors import StorageMissingError
from deepliif_ray.storage.client import FAILURES, filesystem, patient_filesystem, retried, trouble
from deepliif_ray.storage.credentials import scrub
from deepliif_ray.storage.urls import is_local, join

READ_THREADS = 16
_memory = threading.Lock()  # memory:// looks first and writes then

T = TypeVar("T")


def read_bytes(url: str) -> bytes:
    """Return the content of ``url``.

    Raises
    ------
    StorageError
        It does not exist or cannot be read.
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


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a temporary name in the folder of ``target``, which is made; nothing of that name is left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _complete(target: Path) -> Iterator[Path]:
    """Give a temporary name beside ``target``; what is there at the end becomes ``target`` at once."""
    with _beside(target) as temporary:
        yield temporary
        temporary.replace(target)


def write_bytes(url: str, data: bytes) -> None:
    """Write ``data`` to ``url`` so that readers see all of it or nothing.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    fs, path = filesystem(url)
    try:
        if is_local(url):
            with _complete(Path(path)) as temporary:
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
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links; readers may then find half of it
            with target.open("xb") as file:
                file.write(data)


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
