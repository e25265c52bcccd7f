"""The process that reads slides, seen from the one it serves: started, asked, buried.

It is given nothing that a slide could give away: no part of the environment that reading does not need, no
network and no files to write (`deepliif_ray.confine`). What it reads of a slide in a store it asks
for here.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Pipe
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepliif_ray import confine
from deepliif_ray.errors import (
    DeepliifRayError,
    SlideCrashedError,
    SlideError,
    SlideMemoryError,
    SlideTimeoutError,
    SlideTooLargeError,
)
from deepliif_ray.slides.link import MISSING, PRESENT, Wanted, is_inside

TIME_LIMIT_S = 60
"""Seconds that opening a slide, or reading one rectangle of it, may take; waiting for a store aside."""
MEMORY_LIMIT = 4 << 30
"""Bytes that the reading process may take beyond what it needs to start."""
MAX_PIECE = 64 << 20
"""Bytes that may be fetched from a store as one chunk, or part of one."""
MAX_FETCHED = 2 << 30
"""Bytes that may be fetched for one request."""
COMMAND = ("-P", "-m", "deepliif_ray.slides.guard_child")

_START_LIMIT_S = 300
_END_WAIT_S = 5.0
_GRACE_S = 5
_SAID = 65_536
_MAX_ANSWER = 16 << 20
_AT_ONCE = 32
_OUT_OF_MEMORY = ("failed to allocate", "out of memory", "cannot allocate", "bad_alloc", "memoryerror")

Fetch = Callable[[list[Wanted]], list[bytes | None]]
"""Returns parts of the files below a slide's folder, None for those that are not there."""


class Ended(Exception):  # noqa: N818  # never leaves `guard`
    """The helper ended in the middle of a request.

    Carries the kind of the slide's error, the cause, whether the helper was killed from outside, and whether
    it had read this slide alone.
    """

    def __init__(self, kind: type[SlideError], cause: str, *, killed: bool = False) -> None:
        self.kind, self.cause, self.killed, self.alone = kind, cause, killed, False
        super().__init__(cause)


class Helper:
    """A running helper; used by one thread at a time.

    Attributes
    ----------
    slides : set of int
        All slides that it was asked about; any of them may have left damage.
    pid : int
        Its process id.
    gave_up : tuple of str
        See `deepliif_ray.confine.confine`.
    """

    gave_up: tuple[str, ...]

    def __init__(self) -> None:
        self.slides: set[int] = set()
        self._pixels = _anonymous_file()
        self._said = _anonymous_file()
        fcntl.fcntl(self._said, fcntl.F_SETFL, os.O_APPEND)  # so that it can be emptied under the writer
        self._link, theirs = Pipe()
        numbers = (theirs.fileno(), self._pixels, os.getpid(), TIME_LIMIT_S + _GRACE_S, MEMORY_LIMIT)
        try:
            # A new program, not a fork: this process has threads, and may have CUDA.
            self._process = subprocess.Popen(
                [sys.executable, *COMMAND, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(theirs.fileno(), self._pixels),
                env=confine.environment(),
                start_new_session=True,  # Ctrl-C is for this process to handle
            )
        except OSError:
            os.close(self._said)
            os.close(self._pixels)
            raise
        finally:
            theirs.close()
        if not self._link.poll(_START_LIMIT_S) or not self._starts():
            words = self._last_words().strip()[-500:]
            self.end()
            raise DeepliifRayError(f"the process that reads slides does not start here: {words}")

    def _starts(self) -> bool:
        try:
            self.gave_up = tuple(json.loads(self._link.recv_bytes(_MAX_ANSWER)))
        except (EOFError, OSError):
            return False
        return True

    @property
    def pid(self) -> int:  # noqa: D102  # see above
        return self._process.pid

    def ask(self, request: dict[str, Any], fetch: Fetch | None = None) -> dict[str, Any]:
        """Return the answer to ``request``; ``fetch`` is asked for what it needs from a store.

        Raises
        ------
        Ended
            There was none; the helper is gone, or to be ended.
        StorageError
            From ``fetch``; the helper is to be ended.
        """
        self.slides.add(request["slide"])
        left, budget = float(TIME_LIMIT_S), MAX_FETCHED
        try:
            self._link.send_bytes(json.dumps(request).encode())
            while True:
                began = time.monotonic()
                if not self._link.poll(max(left, 0.0)):
                    raise Ended(SlideTimeoutError, f"took more than {TIME_LIMIT_S} s")
                answer: dict[str, Any] = json.loads(self._link.recv_bytes(_MAX_ANSWER))
                left -= time.monotonic() - began
                if fetch is None or "wanted" not in answer:
                    break
                budget -= self._serve(_checked(answer["wanted"]), fetch)
                if budget < 0:
                    raise Ended(SlideTooLargeError, f"needs more than {MAX_FETCHED >> 30} GiB of its store")
        except (EOFError, OSError) as error:
            if isinstance(error, DeepliifRayError):  # an absent object is an OSError too
                raise
            raise self._post_mortem() from error
        if answer.get("error") == "MemoryError":
            raise Ended(SlideMemoryError, f"needs more than {MEMORY_LIMIT / 2**30:g} GiB of memory")
        return answer

    def _serve(self, wanted: list[Wanted], fetch: Fetch) -> int:
        """Send the helper what it wants from the store, file by file; return how many bytes that was."""
        sent = 0
        for begin in range(0, len(wanted), _AT_ONCE):
            for piece in fetch(wanted[begin : begin + _AT_ONCE]):
                if piece is not None and len(piece) > MAX_PIECE:
                    raise Ended(SlideTooLargeError, f"needs a chunk of more than {MAX_PIECE >> 20} MiB")
                self._link.send_bytes(MISSING if piece is None else PRESENT + piece)
                sent += len(piece or b"")
            if sent > MAX_FETCHED:
                break
        return sent

    def pixels(self, height: int, width: int, channels: int) -> NDArray[np.uint8]:
        """Return the pixels that the last answer left, shape (height, width, channels)."""
        array = np.empty((height, width, channels), np.uint8)
        rest, place = array.data.cast("B"), 0
        while rest:
            count = os.preadv(self._pixels, [rest], place)
            if count == 0:
                raise Ended(SlideCrashedError, "gave fewer pixels than it was asked for")
            place, rest = place + count, rest[count:]
        return array

    def _post_mortem(self) -> Ended:
        """Return how the helper died."""
        status = self._wait()
        said = self._last_words().lower()
        if status == -signal.SIGALRM:
            return Ended(SlideTimeoutError, f"took more than {TIME_LIMIT_S} s")
        if status == -signal.SIGKILL:
            return Ended(SlideMemoryError, "needs more memory than the machine has left", killed=True)
        if any(words in said for words in _OUT_OF_MEMORY):
            return Ended(SlideMemoryError, f"needs more than {MEMORY_LIMIT / 2**30:g} GiB of memory")
        cause = f"exit status {status}"
        if status is not None and status < 0:
            cause = signal.Signals(-status).name
        return Ended(SlideCrashedError, f"crashed the image library ({cause})")

    @property
    def said_bytes(self) -> int:
        """How much of what libraries printed is kept."""
        return os.fstat(self._said).st_size

    def _last_words(self) -> str:
        start = max(0, self.said_bytes - _SAID)
        return os.pread(self._said, _SAID, start).decode("utf-8", "replace")

    def _wait(self) -> int | None:
        try:
            return self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:  # stuck in the kernel, as on a file server that is gone
            return None

    def end(self) -> None:
        """End the helper, whatever it is doing."""
        self._link.close()
        self._process.kill()
        self._wait()
        os.close(self._pixels)
        os.close(self._said)


def _checked(wanted: object) -> list[Wanted]:
    """Return what is wanted, refused unless below the slide's folder: the helper may have been taken over."""
    checked: list[Wanted] = []
    for name, start, end in wanted if isinstance(wanted, list) else []:
        if not is_inside(str(name)):
            raise Ended(SlideCrashedError, "asked for a file that is not the slide's")
        if start is not None and int(start) < 0:
            checked.append((name, max(int(start), -MAX_PIECE), None))
        else:
            first = int(start or 0)
            most = first + MAX_PIECE + 1  # one more tells that there is too much
            checked.append((name, first, most if end is None else min(int(end), most)))
    return checked


def _anonymous_file() -> int:
    """Return the descriptor of an empty file without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("deepliif-ray")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    return descriptor
