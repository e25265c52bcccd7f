"""A disk that is watched: what is done below a folder, in order, and what a loss of power leaves of it.

Python's own file calls are replaced while a `Watch` is on. Each is written down after it was done, so the
list is the order in which the disk learned of it. `crashed` then says what the disk may hold if power is lost
after some of them: what was synced is there, anything else may be or may not.
"""

import builtins
import errno
import io
import os
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

KINDS = ("killed", "synced", "named", "ordered", "free")
"""What a crash may leave, see `crashed`."""


@dataclass(frozen=True)
class Op:
    """One thing done: ``path`` and ``to`` are relative to the watched folder, ``data`` is all of a file."""

    kind: str
    path: str
    to: str = ""
    data: bytes = b""


@dataclass
class Watch:
    """What was done below ``root``; a subclass may refuse it in `before`."""

    root: Path
    elsewhere: bool = False
    """Whether other folders count as another disk, from which files are copied, not moved."""
    ops: list[Op] = field(default_factory=list)
    _written: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def before(self, kind: str, path: str) -> None:
        """Called before anything is done that needs room on the disk."""

    def mark(self, what: str) -> None:
        """Note that something was reported to the user as done."""
        with self._lock:
            self.ops.append(Op("mark", what))

    @contextmanager
    def on(self) -> Iterator["Watch"]:
        """Replace Python's file calls as long as the context lasts."""
        with pytest.MonkeyPatch.context() as patch:
            for module, name, call in (
                (builtins, "open", self._open),
                (io, "open", self._open),
                (os, "open", self._os_open),
                (os, "fsync", self._fsync),
                (os, "mkdir", self._mkdir),
                (os, "rmdir", self._removal(os.rmdir, "rmdir")),
                (os, "unlink", self._removal(os.unlink, "unlink")),
                (os, "remove", self._removal(os.remove, "unlink")),
                (os, "rename", self._rename(os.rename)),
                (os, "replace", self._rename(os.replace)),
                (os, "link", self._link),
            ):
                patch.setattr(module, name, call)
            patch.setattr(shutil, "_USE_CP_SENDFILE", False)  # copies by writing, which is seen
            yield self
        for path in list(self._written):
            self._note_content(path)

    def _name(self, path: object, dir_fd: int | None = None) -> str | None:
        """Return where a path is below the root, None if it is elsewhere."""
        if isinstance(path, int):
            text = str(Path(f"/proc/self/fd/{path}").readlink())
        else:
            text = os.fsdecode(os.fspath(path))
            if dir_fd is not None:
                text = str(Path(f"/proc/self/fd/{dir_fd}").readlink() / text)
        text = str(Path(text).absolute())
        root = str(self.root)
        return text[len(root) + 1 :] if text == root or text.startswith(f"{root}/") else None

    def _note_content(self, path: str) -> None:
        """Note what a file that was opened for writing holds, if that is new."""
        file = self.root / path
        if path in self._written and file.exists():
            with _OPEN(file, "rb") as opened:
                data = opened.read()
            if data != self._written[path]:
                self._written[path] = data
                self.ops.append(Op("write", path, data=data))

    def _opened(self, name: str, was_there: bool) -> None:
        if not was_there:
            self.ops.append(Op("create", name))
        self._written.setdefault(name, b"")

    def _open(self, file, mode="r", *args, **kwargs):
        name = None if isinstance(file, int) else self._name(file)
        if name is None or not set(mode) & set("wxa+"):
            return _OPEN(file, mode, *args, **kwargs)
        self.before("create", name)
        with self._lock:
            was_there = (self.root / name).exists()
            opened = _OPEN(file, mode, *args, **kwargs)
            self._opened(name, was_there)
        return self.file(opened, name)

    def file(self, opened, name: str):
        """Return what a program gets that opened a file for writing."""
        return opened

    def _os_open(self, path, flags, mode=0o777, *, dir_fd=None):
        name = self._name(path, dir_fd) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else None
        if name is None:
            return _OS_OPEN(path, flags, mode, dir_fd=dir_fd)
        self.before("create", name)
        with self._lock:
            was_there = (self.root / name).exists()
            descriptor = _OS_OPEN(path, flags, mode, dir_fd=dir_fd)
            self._opened(name, was_there)
        return descriptor

    def _fsync(self, descriptor):
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        name = self._name(number)
        if name is not None:
            self.before("sync", name)
        with self._lock:
            _FSYNC(number)
            if name is not None:
                self._note_content(name)
                self.ops.append(Op("sync", name))

    def _mkdir(self, path, mode=0o777, *, dir_fd=None):
        name = self._name(path, dir_fd)
        if name is not None:
            self.before("mkdir", name)
        with self._lock:
            _MKDIR(path, mode, dir_fd=dir_fd)
            if name is not None:
                self.ops.append(Op("mkdir", name))

    def _removal(self, real, kind):
        def call(path, *, dir_fd=None):
            name = self._name(path, dir_fd)
            with self._lock:
                real(path, dir_fd=dir_fd)
                if name is not None:
                    self._written.pop(name, None)
                    self.ops.append(Op(kind, name))

        return call

    def _rename(self, real):
        def call(source, target, *, src_dir_fd=None, dst_dir_fd=None):
            old, new = self._name(source, src_dir_fd), self._name(target, dst_dir_fd)
            if self.elsewhere and old is None and new is not None:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
            if new is not None:
                self.before("rename", new)
            with self._lock:
                if old is not None:
                    self._note_content(old)
                real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
                if old is not None and new is not None:
                    self.ops.append(Op("rename", old, new))
                    self._written.pop(old, None)
                elif old is not None:
                    self.ops.append(Op("unlink", old))
                elif new is not None:  # from elsewhere on the same disk; it was not synced there
                    self.ops.append(Op("create", new))
                    self._written[new] = b""
                    self._note_content(new)

        return call

    def _link(self, source, target, **more):
        old, new = self._name(source), self._name(target)
        if new is not None:
            self.before("link", new)
        with self._lock:
            if old is not None:
                self._note_content(old)
            _LINK(source, target, **more)
            if new is not None:
                assert old is not None, "links to files elsewhere are not known here"
                self.ops.append(Op("link", old, new))


_OPEN, _OS_OPEN, _FSYNC, _MKDIR, _LINK = open, os.open, os.fsync, os.mkdir, os.link


@dataclass
class _File:
    now: bytes = b""
    synced: bytes | None = None


class _Folder(dict[str, "_File | _Folder"]):
    """Names and what they stand for, as the disk has them for certain."""


@dataclass
class _Change:
    """A change of names in one folder, all of it or nothing."""

    folder: _Folder
    names: dict[str, "_File | _Folder | None"]
    synced: bool = False


class _Replay:
    """The folder as programs see it, and which changes of it are synced."""

    def __init__(self, ops: list[Op]) -> None:
        self.root = _Folder()
        self.changes: list[_Change] = []
        self._seen: dict[str, _File | _Folder] = {"": self.root}
        for op in ops:
            self._apply(op)

    def _apply(self, op: Op) -> None:
        match op.kind:
            case "mkdir":
                self._change(op.path, _Folder())
            case "create":
                self._change(op.path, _File())
            case "write":
                self._file(op.path).now = op.data
            case "link":
                self._change(op.to, self._seen[op.path])
            case "unlink" | "rmdir":
                self._change(op.path, None)
            case "rename":
                moved = self._seen.pop(op.path)
                assert Path(op.path).parent == Path(op.to).parent and isinstance(moved, _File)
                self._change(op.to, moved)
                self.changes[-1].names[Path(op.path).name] = None
            case "sync":
                synced = self._seen[op.path]
                if isinstance(synced, _File):
                    synced.synced = synced.now
                else:
                    for change in self.changes:
                        change.synced |= change.folder is synced

    def _file(self, path: str) -> _File:
        file = self._seen[path]
        assert isinstance(file, _File)
        return file

    def _change(self, path: str, what: "_File | _Folder | None") -> None:
        folder, _, name = path.rpartition("/")
        inside = self._seen[folder]
        assert isinstance(inside, _Folder)
        self.changes.append(_Change(inside, {name: what}))
        if what is None:
            del self._seen[path]
        else:
            self._seen[path] = what


def crashed(ops: list[Op], kind: str, seed: int = 0) -> dict[str, bytes | None]:
    """Return what may be below the folder after a loss of power, as contents by path; None for a folder.

    Parameters
    ----------
    ops : list of Op
        What was done before.
    kind : str
        ``killed``: everything is there, as after the end of a process. ``synced``: only what was synced.
        ``named``: all names are there, but files that were not synced are empty, as ext4 and XFS may have it.
        ``ordered``: names as after some earlier moment, files that were not synced empty, cut, zeroed or
        whole.
        ``free``: the same, and each change of names that was not synced happened or did not.
    seed : int
        Chooses among the possible ones.
    """
    replay = _Replay(ops)
    rng = random.Random(f"{seed} {len(ops)} {kind}")
    waiting = [change for change in replay.changes if not change.synced]
    kept = rng.randrange(len(waiting) + 1)
    for change in replay.changes:
        if not change.synced:
            place = next(n for n, other in enumerate(waiting) if other is change)
            happened = {
                "killed": True,
                "synced": False,
                "named": True,
                "ordered": place < kept,
                "free": rng.random() < 0.5,
            }[kind]
            if not happened:
                continue
        for name, what in change.names.items():
            if what is None:
                change.folder.pop(name, None)
            else:
                change.folder[name] = what
    contents: dict[int, bytes] = {}

    def content(file: _File) -> bytes:
        if kind == "killed" or file.synced == file.now:
            return file.now
        sure = file.synced or b""
        if kind in ("synced", "named"):
            return sure
        cut = file.now[: rng.randrange(len(file.now) + 1)]
        return rng.choice([sure, b"", cut, bytes(len(file.now)), file.now])

    found: dict[str, bytes | None] = {}

    def walk(folder: _Folder, prefix: str) -> None:
        for name, what in folder.items():
            if isinstance(what, _Folder):
                found[prefix + name] = None
                walk(what, f"{prefix}{name}/")
            else:  # one content for all names of a file
                found[prefix + name] = contents.setdefault(id(what), content(what))

    walk(replay.root, "")
    return found


def on_disk(root: Path) -> dict[str, bytes | None]:
    """Return what is below a folder, as `crashed` does."""
    return {
        path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
    }


def put(state: dict[str, bytes | None], root: Path) -> Path:
    """Make a folder that holds a state."""
    root.mkdir(parents=True)
    for name, data in state.items():
        if data is None:
            (root / name).mkdir(parents=True, exist_ok=True)
    for name, data in state.items():
        if data is not None:
            (root / name).write_bytes(data)
    return root
