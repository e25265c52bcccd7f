"""URLs and bytes: the one place that talks to fsspec.

A URL is anything fsspec understands (``s3://…``, ``gs://…``, ``memory://…``, ``file://…``) or a plain local
path. Local files are written to a temporary name and renamed; object stores write whole objects. Either way
a reader sees an object complete or not at all.
"""

import hashlib
import os
import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from botocore.exceptions import BotoCoreError
from pyarrow.fs import FSSpecHandler, PyFileSystem

from deepliif_ray.errors import StorageError

READ_THREADS = 16
_FAILURES = (OSError, BotoCoreError, ValueError, ImportError)
_VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "content_md5", "generation", "LastModified", "last_modified", "created",
)  # fmt: skip


def is_local(url: str) -> bool:
    """Tell whether ``url`` is a path on this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    """Return the path that a local ``url`` names."""
    return Path(url.removeprefix("file://"))


def is_absolute(url: str) -> bool:
    """Tell whether ``url`` stands on its own, not relative to something."""
    return "://" in url or Path(url).is_absolute()


def absolute(url: str) -> str:
    """Return ``url`` so that it means the same in processes with other working folders."""
    return str(local_path(url).absolute()) if is_local(url) else url


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of ``url`` and the path in it.

    Raises
    ------
    StorageError
        The protocol is unknown or its package is not installed.
    """
    if is_local(url):
        return fsspec.filesystem("file"), str(local_path(url).absolute())
    try:
        # Other processes write to the same folders: a listing remembered is a listing out of date.
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except _FAILURES as error:
        raise StorageError(f"{url}: cannot use this kind of URL ({error})") from error
    return fs, str(path)


def join(base: str, *parts: str) -> str:
    """Append ``parts`` to the folder ``base`` with single slashes."""
    return "/".join([base.rstrip("/") or "/", *parts])


def parent(url: str) -> str:
    """Return the folder that ``url`` lies in."""
    if is_local(url):
        return str(local_path(url).absolute().parent)
    protocol, _, path = url.partition("://")
    return f"{protocol}://{posixpath.dirname(path.rstrip('/'))}"


def resolve(uri: str, folder: str) -> str:
    """Return ``uri`` as an absolute URL; a relative one is taken from ``folder``."""
    if is_absolute(uri):
        return uri
    if is_local(folder):
        return str((local_path(folder) / uri).absolute())
    protocol, _, base = folder.partition("://")
    return f"{protocol}://{posixpath.normpath(posixpath.join(base, uri))}"


def read_bytes(url: str) -> bytes:
    """Return the content of ``url``.

    Raises
    ------
    StorageError
        It does not exist or cannot be read.
    """
    fs, path = filesystem(url)
    try:
        return bytes(fs.cat_file(path))
    except FileNotFoundError as error:
        raise StorageError(f"{url}: no such file") from error
    except _FAILURES as error:
        raise StorageError(f"{url}: cannot be read ({error})") from error


@contextmanager
def _complete(target: Path) -> Iterator[Path]:
    """Give a temporary name beside ``target``; what is there at the end becomes ``target`` at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


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
            fs.pipe_file(path, data)
    except _FAILURES as error:
        raise StorageError(f"{url}: cannot be written ({error})") from error


def create_bytes(url: str, data: bytes) -> bool:
    """Write ``data`` to ``url`` if nothing is there; tell whether that was so.

    Of several that try at once, one is told so, on local disks and stores that know conditional writes.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    fs, path = filesystem(url)
    try:
        if is_local(url):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    except _FAILURES as error:
        raise StorageError(f"{url}: cannot be written ({error})") from error
    return True


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
            fs.put_file(str(source), path)
            source.unlink()
    except _FAILURES as error:
        raise StorageError(f"{url}: cannot be written ({error})") from error


def exists(url: str) -> bool:
    """Tell whether there is a file or folder at ``url``."""
    fs, path = filesystem(url)
    try:
        return bool(fs.exists(path))
    except _FAILURES as error:
        raise StorageError(f"{url}: cannot be looked at ({error})") from error


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Return the URLs of all files under ``folder`` whose names end in ``suffix``, sorted.

    A folder that does not exist has no files.
    """
    fs, path = filesystem(folder)
    try:
        found = fs.find(path)
    except FileNotFoundError:
        return []
    except _FAILURES as error:
        raise StorageError(f"{folder}: cannot be listed ({error})") from error
    base = path.rstrip("/")
    inside = (str(name)[len(base) :].lstrip("/") for name in found)
    return sorted(
        join(folder, name) for name in inside if name.endswith(suffix) and not name.endswith(".tmp")
    )


def remove(url: str) -> None:
    """Delete the file or folder at ``url``; nothing happens if there is none."""
    fs, path = filesystem(url)
    try:
        fs.rm(path, recursive=True)
    except FileNotFoundError:
        return
    except _FAILURES as error:
        raise StorageError(f"{url}: cannot be removed ({error})") from error


def companions(path: str, siblings: Callable[[str], list[str]]) -> list[str]:
    """Return the files that make up the slide at ``path``, itself included.

    A DICOM slide is every ``.dcm`` file of its folder, a MIRAX slide its ``.mrxs`` file and the folder of
    the same name.

    Parameters
    ----------
    path : str
        Path of the file that is opened.
    siblings : callable
        Returns the paths of all files below a folder.
    """
    pure = PurePosixPath(path)
    if pure.suffix.lower() == ".mrxs":
        return [path, *siblings(str(pure.with_suffix("")))]
    if pure.suffix.lower() == ".dcm":
        return [p for p in siblings(str(pure.parent)) if p.lower().endswith(".dcm")]
    return [path]


def _find(fs: Any, folder: str) -> list[str]:
    try:
        return [str(p) for p in fs.find(folder)]
    except FileNotFoundError:
        return []


def slide_files(url: str) -> list[str]:
    """Return the paths (in the filesystem of ``url``) of all files of a slide, the one to open first.

    Raises
    ------
    FileNotFoundError
        There is nothing at ``url``.
    """
    fs, path = filesystem(url)
    if fs.isdir(path):
        members = sorted(_find(fs, path))
        first = [p for p in members if p.lower().endswith(".dcm")] or members
        if not first:
            raise FileNotFoundError(path)
        return [first[0], *(p for p in members if p != first[0])]
    members = sorted(companions(path, lambda folder: _find(fs, folder)))
    return [path, *(p for p in members if p != path)]


def fingerprint(url: str) -> str:
    """Return a short text that changes when the slide at ``url`` changes.

    It covers every file of the slide: name, size, and the store's version of the content (ETag, generation,
    or time of modification in nanoseconds on local disks).

    Raises
    ------
    FileNotFoundError, PermissionError
        The slide is not there or may not be read.
    StorageError
        The store did not answer.
    """
    fs, _ = filesystem(url)
    digest = hashlib.sha256()
    try:
        for path in slide_files(url):
            info = fs.info(path)
            if is_local(url):
                version = str(Path(path).stat().st_mtime_ns)
            else:
                version = str(next((info[key] for key in _VERSION_KEYS if info.get(key)), None))
            digest.update(f"{PurePosixPath(path).name}\0{info['size']}\0{version}\n".encode())
    except (FileNotFoundError, PermissionError):
        raise
    except _FAILURES as error:
        raise StorageError(f"{url}: cannot be looked at ({error})") from error
    return digest.hexdigest()[:16]


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def localize(url: str, cache: Path) -> Path:
    """Return a local path for the slide at ``url``, downloading it into ``cache`` if it is remote.

    A download appears under its final name only when complete, so processes of one machine may ask for the
    same slide at once. A name carries the content's fingerprint: a changed slide is downloaded anew.

    Raises
    ------
    FileNotFoundError, PermissionError
        The slide is not there or may not be read.
    StorageError
        The download failed.
    """
    first, *others = slide_files(url)
    if is_local(url):
        return Path(first)
    key = hashlib.sha256(f"{url}\0{fingerprint(url)}".encode()).hexdigest()[:24]
    target = cache / key
    root = posixpath.dirname(first)
    opened = target / posixpath.basename(first)
    if opened.exists():
        os.utime(target)
        return opened
    fs, _ = filesystem(url)
    with _scratch(cache) as part:
        try:
            for path in [first, *others]:
                destination = part / posixpath.relpath(path, root)
                destination.parent.mkdir(parents=True, exist_ok=True)
                fs.get_file(path, str(destination))
                arrived, whole = destination.stat().st_size, fs.info(path)["size"]
                if whole is not None and arrived != whole:
                    raise StorageError(f"{url}: {arrived} of {whole} bytes of {path} arrived; run again")
        except (FileNotFoundError, PermissionError):
            raise
        except _FAILURES as error:
            raise StorageError(f"{url}: download failed ({error})") from error
        try:
            part.rename(target)
        except OSError as error:  # another process of this machine was faster
            if not opened.exists():
                raise StorageError(f"{url}: cannot be stored under {cache} ({error})") from error
    return opened


def arrow_filesystem(url: str) -> tuple[Any, str]:
    """Return the filesystem of ``url`` as Arrow's, for libraries that want one, and the path in it."""
    fs, path = filesystem(url)
    return PyFileSystem(FSSpecHandler(fs)), path
