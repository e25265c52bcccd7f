"""A results location as a file system of its own, in which the results are the root.

DuckDB reads through it where it cannot be given the objects' own paths: remote stores, and folders whose
names would be taken for a pattern (``*?[``) or a partition (``=``).
"""

from datetime import UTC, datetime
from typing import Any

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from deepliif_ray import storage

_PATTERN = frozenset("*?[=")


def needs_root(results: str) -> bool:
    """Tell whether DuckDB cannot be given the paths of the objects below ``results`` as they are."""
    return not storage.is_local(results) or not _PATTERN.isdisjoint(storage.absolute(results))


class RootedFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Read-only view of the objects below one URL, named relative to it.

    Objects are never changed once written, so their sizes are looked up once. Ranges are read as they are
    asked for, without read-ahead: a reader of columns jumps, and s3fs's own cache reads a hundredfold.

    Parameters
    ----------
    url : str
        The location that becomes the root.
    """

    protocol = "results"
    cachable = False

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._known: dict[str, dict[str, Any]] = {}

    def _place(self, path: str) -> str:
        return storage.join(self._url, self._strip_protocol(path))

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Return name, size and type of an object."""
        if path not in self._known:
            self._known[path] = {"name": path, "size": storage.size(self._place(path)), "type": "file"}
        return self._known[path]

    def glob(self, path: str, **kwargs: Any) -> list[str]:
        """Return ``path`` itself: names are taken literally."""
        return [self._strip_protocol(path)]

    def modified(self, path: str) -> datetime:
        """Return one time for all objects: they never change, and not every store tells."""
        return datetime.fromtimestamp(0, UTC)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return the bytes from ``start`` to ``end`` of an object."""
        return storage.read_range(self._place(path), start, end)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> "_Object":
        if mode != "rb":
            raise PermissionError(f"{path}: results are read-only here")
        return _Object(self, path, mode, cache_type="none")


class _Object(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """An object opened for reading; every read is one ranged request, so handles share no position."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))
