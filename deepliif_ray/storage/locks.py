"""Locks on files, between the processes of one machine; the system releases those of a process that dies."""

import fcntl
import os
from pathlib import Path

SHARED, EXCLUSIVE = fcntl.LOCK_SH, fcntl.LOCK_EX

_open: set[int] = set()


def _forget_inherited() -> None:
    """Close the locks that a forked process inherited: held there too, they would outlive their owner."""
    for descriptor in _open:
        os.close(descriptor)
    _open.clear()


os.register_at_fork(after_in_child=_forget_inherited)


class Lock:
    """A lock that is held from the moment it exists until `release`, or until nobody refers to it.

    Two locks are two even within one process or thread.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._pid = os.getpid()
        _open.add(descriptor)

    def release(self) -> None:
        """Let go."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and self._pid == os.getpid():
            _open.discard(descriptor)
            os.close(descriptor)

    def share(self) -> bool:
        """Make an exclusive lock a shared one; false, and nothing is held, if another took it in between."""
        try:
            fcntl.flock(self._held, SHARED | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        return True

    def read(self) -> str:
        """Return the content of the file."""
        return os.pread(self._held, 4096, 0).decode()

    def write(self, text: str) -> None:
        """Make ``text`` the content of the file."""
        os.ftruncate(self._held, 0)
        os.pwrite(self._held, text.encode(), 0)

    @property
    def _held(self) -> int:
        if self._descriptor is None:
            raise ValueError("the lock was released")
        return self._descriptor

    def __del__(self) -> None:
        self.release()


def try_lock(path: Path, kind: int) -> Lock | None:
    """Return a lock on the file at ``path``, made if need be; None if another lock stands against it.

    Parameters
    ----------
    path : Path
    kind : {SHARED, EXCLUSIVE}
    """
    while True:
        lock = Lock(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            fcntl.flock(lock._held, kind | fcntl.LOCK_NB)
            # Whoever had it may have removed the file; then there is another, or will be.
            if os.fstat(lock._held).st_ino == path.stat().st_ino:
                return lock
        except BlockingIOError:
            lock.release()
            return None
        except FileNotFoundError:
            pass
        lock.release()
