"""Whole objects written: complete or not at all, on the disk where it matters, once where it is asked for."""

import errno
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from deepliif_ray.storage.answers import answer_of
from deepliif_ray.storage.client import ask, trouble
from deepliif_ray.storage.failures import failures
from deepliif_ray.storage.urls import is_local, local_path

_NO_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP))
"""What a file system says that cannot do this; then it is up to the system."""
_memory = threading.Lock()  # memory:// looks first and writes then


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
    try:
        if is_local(url):
            with _complete(local_path(url).absolute(), durable=durable) as temporary:
                temporary.write_bytes(data)
        else:
            ask(url, lambda fs, path: fs.pipe_file(path, data))
    except failures() as error:
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
    try:
        if is_local(url):
            _create_local(local_path(url).absolute(), data)
        else:
            with _memory if url.startswith("memory://") else nullcontext():
                ask(url, lambda fs, path: fs.pipe_file(path, data, mode="create"))
    except FileExistsError:
        return False
    except failures() as error:
        answer = answer_of(error)  # s3fs makes OSError(EINVAL) of it
        if answer is not None and answer.is_taken:
            return False
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
    try:
        if is_local(url):
            with _complete(local_path(url).absolute()) as temporary:
                shutil.move(source, temporary)
        else:
            ask(url, lambda fs, path: fs.put_file(str(source), path))
            source.unlink()
    except failures() as error:
        raise trouble(url, "cannot be written", error) from None
