"""A store in memory that is slow, loses answers, writes late or twice, and lists late; and those who use it.

Actors are threads of which one runs at a time. Each stops before every request, and goes on when it is told
to: so the order of all requests, and what becomes of each, is chosen outside and can be repeated.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
from fsspec.spec import AbstractFileSystem

from deepliif_ray.storage import client

START = datetime(2026, 1, 1, tzinfo=UTC)
LIST_LAG_S = 30.0
"""New objects may be missing from listings for so long."""
FAULTS = ("none", "lost", "late", "twice", "lag")


class Killed(BaseException):
    """The end of a process."""


@dataclass
class World:
    """What the store holds, what is on its way to it, and what time it is."""

    objects: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    late: list[Callable[[], None]] = field(default_factory=list)
    clock: float = 0.0
    looks: int = 0
    """How often somebody asked for the size of cells."""

    def now(self) -> datetime:
        return START + timedelta(seconds=self.clock)

    def write(self, path: str, data: bytes, create: bool) -> None:
        if create and path in self.objects:
            raise FileExistsError(path)
        self.objects[path] = (data, self.clock)

    def write_late(self, path: str, data: bytes, create: bool) -> None:
        """Keep a write for later; what a condition says of it is asked when it arrives."""

        def land() -> None:
            if not (create and path in self.objects):
                self.objects[path] = (data, self.clock)

        self.late.append(land)


WORLD = World()


class Actor:
    """A process: what it does runs in a thread of its own, one request at a time."""

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.name, self.fault, self.error = name, "none", None
        self.waits_for = ""
        self.ended = self._killed = False
        self._body = body
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        CURRENT.actor = self
        self._turn.acquire()
        try:
            if not self._killed:
                self._body()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  # told by the test, in its own thread
            self.error = error
        self.ended = True
        self._back.release()

    def go(self, fault: str = "none") -> None:
        """Let it send the request that it waits to send, and come to the next."""
        if not self.ended:
            self.fault = fault
            self._turn.release()
            if not self._back.acquire(timeout=60):
                raise TimeoutError(f"{self.name} hangs")  # no assertion: a fault that is looked for is one

    def kill(self) -> None:
        self._killed = True
        while not self.ended:
            self.go()
        self._thread.join(10)

    def pause(self, what: str) -> str:
        """Wait for the next turn; return what is to become of the request."""
        self.waits_for = what
        self._back.release()
        self._turn.acquire()
        if self._killed:
            raise Killed
        return self.fault


CURRENT = threading.local()


def pause(what: object = "") -> str:
    """Have the process that runs stand still before it does something with ``what``."""
    actor = getattr(CURRENT, "actor", None)
    return "none" if actor is None else actor.pause(str(what))


class LateStore(AbstractFileSystem):
    """``late://``: the store of `WORLD`."""

    protocol = "late"
    cachable = False

    def cat_file(self, path, start=None, end=None, **_):
        pause(path)
        if path not in WORLD.objects:
            raise FileNotFoundError(path)
        return WORLD.objects[path][0][start:end]

    def info(self, path, **_):
        pause(path)
        WORLD.looks += "/cells/" in path
        if path in WORLD.objects:
            return {"name": path, "size": len(WORLD.objects[path][0]), "type": "file"}
        if any(name.startswith(f"{path.rstrip('/')}/") for name in WORLD.objects):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **_):
        since = WORLD.clock - LIST_LAG_S if pause(path) == "lag" else WORLD.clock
        found = {
            name: {"name": name, "size": len(data), "type": "file", "mtime": START + timedelta(seconds=at)}
            for name, (data, at) in WORLD.objects.items()
            if name.startswith(f"{path.rstrip('/')}/") and (at <= since)
        }
        return found if detail else sorted(found)

    def pipe_file(self, path, value, mode="overwrite", **_):
        fault, create = pause(path), mode == "create"
        if fault == "late":
            WORLD.write_late(path, value, create)
            raise TimeoutError("no answer")
        WORLD.write(path, value, create)
        if fault == "twice":
            WORLD.write_late(path, value, create)
        elif fault == "lost":
            raise ConnectionResetError("no answer")

    def put_file(self, lpath, rpath, **_):
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def rm(self, path, recursive=False, maxdepth=None):
        fault = pause(path)
        if path not in WORLD.objects:
            raise FileNotFoundError(path)
        del WORLD.objects[path]
        if fault == "lost":
            raise ConnectionResetError("no answer")


fsspec.register_implementation("late", LateStore, clobber=True)
client.PROTOCOLS.add("late")
