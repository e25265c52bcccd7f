"""A file system of objects that never change, read range by range with functions it is given.

It imports nothing that talks to a store: the sandbox's process has it too.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

Size = Callable[[str], int | None]
Read = Callable[[str, int | None, int | None], bytes]


class RangesFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Read-only objects by name.

    Objects are never changed once written, so their sizes are looked up once. Ranges are read as they are
    asked for, without read-ahead: a reader of columns jumps, and s3fs's own cache reads a hundredfold.

    Parameters
    ----------
    size : function of (path)
        The bytes an object has, None if not known.
    read : function of (path, start, end)
        The bytes from ``start`` to before ``end``.
    """

    protocol = "results"
    cachable = False

    def __init__(self, size: Size, read: Read) -> None:
        super().__init__()
        self._size, self._read = size, read
        self._known: dict[str, dict[str, Any]] = {}

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Return name, size and type of an object."""
        if path not in self._known:
            size = self._size(self._strip_protocol(path))
            self._known[path] = {"name": path, "size": size, "type": "file"}
        return self._known[path]

    def glob(self, path: str, **kwargs: Any) -> list[str]:
        """Return ``path`` itself: names are taken literally."""
        return [self._strip_protocol(path)]

    def modified(self, path: str) -> datetime:
        """Return one time for all objects: they never change, and not every store tells."""
        return datetime.fromtimestamp(0, UTC)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return the bytes from ``start`` to ``end`` of an object."""
        return self._read(self._strip_protocol(path), start, end)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> "_Object":
        if mode != "rb":
            raise PermissionError(f"{path}: results are read-only here")
        return _Object(self, path, mode, cache_type="none")


class _Object(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """An object opened for reading; every read is one ranged request, so handles share no position."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))
