"""Zarr's store over files that are only read: of a folder, a ZIP archive, or a store through the guard."""

import asyncio
import zipfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Self

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from deepliif_ray.slides.folders import ZARR_MARKERS
from deepliif_ray.slides.link import Wanted, is_inside

KEPT = 128 << 20
"""Bytes of fetched files that are kept: neighbouring tiles share chunks."""

Read = Callable[[list[Wanted]], list[bytes | None]]
"""Returns parts of files, None for those that are not there."""


def folder_reader(folder: Path) -> Read:
    """Return what reads files below a local folder."""

    def read_one(name: str, start: int | None, end: int | None) -> bytes | None:
        try:
            with (folder / name).open("rb") as file:
                place = file.seek(start, 2) if start is not None and start < 0 else file.seek(start or 0)
                return file.read(-1 if end is None else max(end - place, 0))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    return lambda wanted: [read_one(*item) for item in wanted]


def archive_reader(path: Path) -> Read:
    """Return what reads the members of a ZIP archive, below the folder of its first Zarr group.

    Raises
    ------
    zipfile.BadZipFile
        It is no such archive.
    """
    archive = zipfile.ZipFile(path)
    names = set(archive.namelist())
    groups = sorted(
        (name for name in names if name.rpartition("/")[2] in ZARR_MARKERS), key=lambda n: n.count("/")
    )
    root = groups[0].rpartition("/")[0] if groups else ""

    def read_one(name: str, start: int | None, end: int | None) -> bytes | None:
        member = f"{root}/{name}" if root else name
        if member not in names:
            return None
        size = archive.getinfo(member).file_size
        first, stop, _ = slice(start, end).indices(size)
        with archive.open(member) as file:
            file.seek(first)
            return file.read(max(stop - first, 0))

    return lambda wanted: [read_one(*item) for item in wanted]


def kept(read: Read) -> Read:
    """Return ``read`` with a memory of `KEPT` bytes, the longest unused of which go first."""
    memory: OrderedDict[Wanted, bytes] = OrderedDict()
    held = 0

    def remembering(wanted: list[Wanted]) -> list[bytes | None]:
        nonlocal held
        missing = [item for item in dict.fromkeys(wanted) if item not in memory]
        found = dict(zip(missing, read(missing), strict=True)) if missing else {}
        answers = [memory[item] if item in memory else found[item] for item in wanted]
        for item in dict.fromkeys(wanted):
            if item in memory:
                memory.move_to_end(item)
            elif (piece := found[item]) is not None:
                memory[item] = piece
                held += len(piece)
        while held > KEPT:
            held -= len(memory.popitem(last=False)[1])
        return answers

    return remembering


class ReadStore(Store):
    """Files as a Zarr store. What one call of Zarr asks for at once is read together.

    Parameters
    ----------
    read : Read
    """

    def __init__(self, read: Read) -> None:
        super().__init__(read_only=True)
        self._read = read
        self._waiting: list[tuple[Wanted, asyncio.Future[bytes | None]]] = []

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a file or a part of it, None where it is not there."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_later(0, self._together)  # once the others that are ready to run have asked
        answer: asyncio.Future[bytes | None] = loop.create_future()
        self._waiting.append(((key, *_limits(byte_range)), answer))
        data = await answer
        return None if data is None else prototype.buffer.from_bytes(data)

    def _together(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            allowed = [(item, answer) for item, answer in waiting if is_inside(item[0])]
            found = dict(
                zip((id(answer) for _, answer in allowed), self._read([i for i, _ in allowed]), strict=True)
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, it is for those who wait
            for _, answer in waiting:
                answer.set_exception(error)
            return
        for _, answer in waiting:
            answer.set_result(found.get(id(answer)))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return several parts."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Tell whether a file is there."""
        return is_inside(key) and self._read([(key, 0, 1)])[0] is not None

    @property
    def supports_writes(self) -> bool:  # noqa: D102
        return False

    @property
    def supports_deletes(self) -> bool:  # noqa: D102
        return False

    @property
    def supports_listing(self) -> bool:  # noqa: D102
        return False

    async def set(self, key: str, value: Buffer) -> None:  # noqa: D102
        raise PermissionError(key)

    async def delete(self, key: str) -> None:  # noqa: D102
        raise PermissionError(key)

    def list(self) -> AsyncIterator[str]:  # noqa: D102
        raise NotImplementedError

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:  # noqa: D102
        raise NotImplementedError

    def list_dir(self, prefix: str) -> AsyncIterator[str]:  # noqa: D102
        raise NotImplementedError

    def with_read_only(self, read_only: bool = False) -> Self:  # noqa: D102
        assert read_only
        return self

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__: Any = Store.__hash__


def _limits(part: ByteRequest | None) -> tuple[int | None, int | None]:
    if isinstance(part, RangeByteRequest):
        return part.start, part.end
    if isinstance(part, OffsetByteRequest):
        return part.offset, None
    if isinstance(part, SuffixByteRequest):
        return -part.suffix, None
    return None, None
