"""Whole objects: read, listed, removed. How they are written is in `deepliif_ray.storage.writing`."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fsspec.core import has_magic
from pyarrow.fs import FSSpecHandler, PyFileSystem

from deepliif_ray.errors import StorageError, StorageMissingError
from deepliif_ray.storage.answers import answer_of
from deepliif_ray.storage.client import ask, filesystem, patient_filesystem, retried, trouble
from deepliif_ray.storage.credentials import scrub
from deepliif_ray.storage.failures import failures
from deepliif_ray.storage.urls import is_local, join, local_path

READ_THREADS, _LOCAL_READ_THREADS = 16, 4
_BEYOND = (
    "InvalidRange",
    "416",
)  # S3, of an object that ends before the range begins; of an empty one always
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
    if not is_local(url):
        return _read(url, lambda fs, path: bytes(fs.cat_file(path)))
    try:
        return _local_bytes(local_path(url))
    except failures() as error:
        raise _unread(url, error) from error


def read_range(url: str, start: int | None, end: int | None) -> bytes:
    """Return the bytes from ``start`` to before ``end`` of ``url``; raises as `read_bytes`."""
    # By name: s3fs has a parameter of its own before these two.
    return _read(url, lambda fs, path: bytes(fs.cat_file(path, start=start, end=end)))


def read_ranges(folder: str, wanted: list[tuple[str, int | None, int | None]]) -> list[bytes | None]:
    """Return parts of files below ``folder``, asked for together; None for files that are not there.

    Parameters
    ----------
    folder : str
    wanted : list of (name, start, end)
        A file's path below the folder; its first byte, negative from the end; the byte to stop before. What
        lies beyond the file's end is left out.

    Raises
    ------
    StorageError
        One of them cannot be read.
    """
    starts, ends = [start for _, start, _ in wanted], [end for _, _, end in wanted]

    def ranges(fs: Any, path: str) -> list[bytes | None]:
        paths = [f"{path.rstrip('/')}/{name}" for name, _, _ in wanted]
        found = fs.cat_ranges(paths, starts, ends, on_error="return")
        return [_piece(answer) for answer in found]

    try:
        return ask(folder, ranges)
    except failures() as error:
        raise trouble(folder, "cannot be read", error) from None


def _piece(answer: bytes | BaseException) -> bytes | None:
    if isinstance(answer, FileNotFoundError):
        return None
    if isinstance(answer, BaseException):
        said = answer_of(answer.__cause__)
        if said is not None and said.code in _BEYOND:
            return b""
        raise answer
    return bytes(answer)


def size(url: str) -> int | None:
    """Return the size of ``url`` in bytes, None where the store does not tell; raises as `read_bytes`."""
    info: dict[str, Any] = _read(url, lambda fs, path: fs.info(path))
    return None if info["size"] is None else int(info["size"])


def read_threads(folder: str) -> int:
    """Return how many threads are to read small objects of ``folder``: more only wait for one another."""
    return _LOCAL_READ_THREADS if is_local(folder) else READ_THREADS


def _read(url: str, call: Callable[[Any, str], T]) -> T:
    try:
        return ask(url, call)
    except failures() as error:
        raise _unread(url, error) from error


def _local_bytes(path: Path) -> bytes:
    """Return the content of a file, in as few calls as can be: threads that read thousands wait for each."""
    handle = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        content = os.read(handle, size + 1)
        while len(content) != size:  # a pipe, or more than one call gives
            more = os.read(handle, 2**20)
            if not more:
                break
            content += more
        return content
    finally:
        os.close(handle)


def _unread(url: str, error: BaseException) -> StorageError:
    if isinstance(error, FileNotFoundError):
        return StorageMissingError(f"{scrub(url)}: no such file")
    return trouble(url, "cannot be read", error)


def exists(url: str) -> bool:
    """Tell whether there is a file or folder at ``url``.

    Raises
    ------
    StorageError
        The store does not tell.
    """
    try:
        ask(url, lambda fs, path: fs.info(path))  # s3fs's exists() takes a bucket it cannot reach for missing
    except (FileNotFoundError, NotADirectoryError):
        return False
    except failures() as error:
        raise trouble(url, "cannot be looked at", error) from None
    return True


class Stored(NamedTuple):
    """What a store says of an object: its size in bytes, and when it was written."""

    size: int
    written: datetime


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
    path = local_path(folder).absolute()
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise StorageError(f"{folder}: cannot be written, as {path} is no folder")
    if not os.access(path, os.W_OK | os.X_OK):
        raise StorageError(f"{folder}: cannot be written, as {path} may not be changed by this user")


def remove_empty(folder: str) -> None:
    """Remove a folder of this machine if nothing but empty folders is in it; elsewhere there are none."""
    if is_local(folder):
        for path, _, _ in os.walk(local_path(folder).absolute(), topdown=False):
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
    return [join(folder, name) for name in sorted(_below(folder, suffix))]


def list_stored(folder: str, suffix: str = "") -> dict[str, Stored]:
    """Return what the store says of the files of `list_files`, by their paths below ``folder``."""
    found = _below(folder, suffix, told=True)
    return {name: Stored(int(found[name]["size"] or 0), _written(found[name])) for name in sorted(found)}


def _below(folder: str, suffix: str, *, told: bool = False) -> dict[str, dict[str, Any]]:
    """Return the files under ``folder`` by their paths below it; with sizes and times if ``told``."""

    def find(fs: Any, path: str) -> dict[str, dict[str, Any]]:
        base = path.rstrip("/")
        found = fs.find(path, detail=True)
        return {str(name)[len(base) :].lstrip("/"): info for name, info in found.items()}

    try:
        # fsspec asks a local disk five questions of each file, which takes most of a second for 10,000.
        inside = dict(_local_files(local_path(folder), "", told)) if is_local(folder) else ask(folder, find)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except failures() as error:
        raise trouble(folder, "cannot be listed", error) from None
    # Stores keep empty folders, and markers that end in a slash, as if they were files.
    return {
        name: info
        for name, info in inside.items()
        if name.endswith(suffix) and not name.endswith((".tmp", "/")) and name
    }


def _local_files(folder: Path, above: str, told: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the files in a folder and in those below it; a link to a folder counts as a file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):  # it went meanwhile
                    yield from _local_files(Path(entry.path), f"{above}{entry.name}/", told)
                continue
            info = {}
            if told:
                try:
                    found = entry.stat()
                except FileNotFoundError:  # it went meanwhile, or is a link to nothing
                    continue
                info = {"size": found.st_size, "mtime": found.st_mtime}
            yield above + entry.name, info


def _written(info: dict[str, Any]) -> datetime:
    """Return when an object was written; a store that does not tell makes it new, so that it stays."""
    moment = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("created")
    if isinstance(moment, (int, float)):
        return datetime.fromtimestamp(moment, UTC)
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if not isinstance(moment, datetime):
        return datetime.now(UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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
                found = ask(url, lambda fs, path: list(fs.find(path)))
                list(pool.map(lambda name: retried(url, lambda: fs.rm_file(name)), found))
        else:
            ask(url, lambda fs, path: fs.rm(path, recursive=True))
    except FileNotFoundError:
        return
    except failures() as error:
        raise trouble(url, "cannot be removed", error) from None


def arrow_filesystem(url: str) -> tuple[Any, str]:
    """Return the filesystem of ``url`` as Arrow's, for libraries that want one, and the path in it."""
    fs, path = patient_filesystem(url)
    return PyFileSystem(FSSpecHandler(fs)), path
