"""Slides read by another process, so that a hostile file can take down nothing but that.

Image libraries are written in C and are given files from anywhere. Here a process has one helper
(`deepliif_ray.slides.guard_child`) that opens and reads files for it, for as long as it lives. Each request
has a time limit, the helper a memory limit. A helper that crashed, hung or ran out of memory is replaced, and
the slide it was reading gets an error of its own: after a second try in a fresh helper if the first had read
other slides, so that the verdict depends on the file alone.
"""

import atexit
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepliif_ray import errors, storage
from deepliif_ray.errors import (
    DeepliifRayError,
    ResolutionError,
    SlideCorruptError,
    SlideCrashedError,
    SlideError,
    SlideMemoryError,
    SlideTimeoutError,
    SlideUnreadableError,
)
from deepliif_ray.slides.slide import Level, Slide

TIME_LIMIT_S = 60
"""Seconds that opening a slide, or reading one rectangle of it, may take."""
MEMORY_LIMIT = 4 << 30
"""Bytes that the reading process may take beyond what it needs to start."""
COMMAND = ("-P", "-m", "deepliif_ray.slides.guard_child")

_START_LIMIT_S = 300
_END_WAIT_S = 5.0
_GRACE_S = 5
_SAID = 65_536
_MAX_ANSWER = 16 << 20
_OUT_OF_MEMORY = ("failed to allocate", "out of memory", "cannot allocate", "bad_alloc", "memoryerror")
_numbers = itertools.count()


class _Ended(Exception):  # noqa: N818  # never leaves this module
    """The helper ended in the middle of a request.

    Carries the kind of the slide's error, the cause, whether the helper was killed from outside, and whether
    it had read this slide alone.
    """

    def __init__(self, kind: type[SlideError], cause: str, *, killed: bool = False) -> None:
        self.kind, self.cause, self.killed, self.alone = kind, cause, killed, False
        super().__init__(cause)


class _Helper:
    """A running helper; used by one thread at a time.

    Attributes
    ----------
    slides : set of int
        All slides that it was asked about; any of them may have left damage.
    """

    def __init__(self) -> None:
        self.slides: set[int] = set()
        self._pixels = _anonymous_file()
        self._said = _anonymous_file()
        fcntl.fcntl(self._said, fcntl.F_SETFL, os.O_APPEND)  # so that it can be emptied under the writer
        self._link, theirs = Pipe()
        paths = [str(Path(__file__).parents[2]), *(path for path in sys.path if path)]
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        numbers = (theirs.fileno(), self._pixels, os.getpid(), TIME_LIMIT_S + _GRACE_S, MEMORY_LIMIT)
        try:
            # A new program, not a fork: this process has threads, and may have CUDA.
            self._process = subprocess.Popen(
                [sys.executable, *COMMAND, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(theirs.fileno(), self._pixels),
                env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
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
            return bool(self._link.recv_bytes(_MAX_ANSWER))
        except (EOFError, OSError):
            return False

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to ``request``.

        Raises
        ------
        _Ended
            There was none; the helper is gone.
        """
        self.slides.add(request["slide"])
        try:
            self._link.send_bytes(json.dumps(request).encode())
            if not self._link.poll(TIME_LIMIT_S):
                raise _Ended(SlideTimeoutError, f"took more than {TIME_LIMIT_S} s")
            answer: dict[str, Any] = json.loads(self._link.recv_bytes(_MAX_ANSWER))
        except (EOFError, OSError) as error:
            raise self._post_mortem() from error
        if answer.get("error") == "MemoryError":
            raise _Ended(SlideMemoryError, f"needs more than {MEMORY_LIMIT / 2**30:g} GiB of memory")
        return answer

    def pixels(self, height: int, width: int, channels: int) -> NDArray[np.uint8]:
        """Return the pixels that the last answer left, shape (height, width, channels)."""
        array = np.empty((height, width, channels), np.uint8)
        rest, place = array.data.cast("B"), 0
        while rest:
            count = os.preadv(self._pixels, [rest], place)
            if count == 0:
                raise _Ended(SlideCrashedError, "gave fewer pixels than it was asked for")
            place, rest = place + count, rest[count:]
        return array

    def _post_mortem(self) -> _Ended:
        """Return how the helper died."""
        status = self._wait()
        said = self._last_words().lower()
        if status == -signal.SIGALRM:
            return _Ended(SlideTimeoutError, f"took more than {TIME_LIMIT_S} s")
        if status == -signal.SIGKILL:
            return _Ended(SlideMemoryError, "needs more memory than the machine has left", killed=True)
        if any(words in said for words in _OUT_OF_MEMORY):
            return _Ended(SlideMemoryError, f"needs more than {MEMORY_LIMIT / 2**30:g} GiB of memory")
        cause = f"exit status {status}"
        if status is not None and status < 0:
            cause = signal.Signals(-status).name
        return _Ended(SlideCrashedError, f"crashed the image library ({cause})")

    def _last_words(self) -> str:
        start = max(0, os.fstat(self._said).st_size - _SAID)
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


def _anonymous_file() -> int:
    """Return the descriptor of an empty file without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("deepliif-ray")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    return descriptor


class _Guard:
    """The helper of this process, started when first needed, shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helper: _Helper | None = None

    def ask(
        self, request: dict[str, Any], shape: tuple[int, int, int] | None = None
    ) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        """Return the answer to a request and the pixels that came with it, if any were to.

        Raises
        ------
        _Ended
            The slide ended a helper that had read nothing else.
        """
        with self._lock:
            try:
                return self._try(request, shape)
            except _Ended as ended:
                if ended.alone and not ended.killed:
                    raise
            return self._try(request, shape)

    def _try(
        self, request: dict[str, Any], shape: tuple[int, int, int] | None
    ) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        if self._helper is None:
            self._helper = _Helper()
        try:
            answer = self._helper.ask(request)
            if shape is None or "error" in answer:
                return answer, None
            return answer, self._helper.pixels(*shape)
        except _Ended as ended:
            ended.alone = self._helper.slides == {request["slide"]}
            self._end()
            raise
        except BaseException:  # Ctrl-C: the answer that is still to come must not be the next request's
            self._end()
            raise

    def forget(self, meant: dict[str, Any]) -> None:
        """Close a slide, if the helper lives and has it open."""
        with self._lock:
            if self._helper is None or meant["slide"] not in self._helper.slides:
                return
            try:
                self._helper.ask({"do": "close", **meant})
            except _Ended:
                self._end()

    def end(self) -> None:
        """End the helper."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._helper is not None:
            self._helper.end()
            self._helper = None


_guard = _Guard()


def _forget_parent() -> None:
    """Let a forked process have its own helper; a thread that is not here may hold the lock of this one."""
    global _guard  # noqa: PLW0603
    _inherited.append(_guard)
    _guard = _Guard()


_inherited: list[_Guard] = []
os.register_at_fork(after_in_child=_forget_parent)
atexit.register(lambda: _guard.end())  # noqa: PLW0108  # the guard there is then


class GuardedSlide(Slide):
    """A slide that another process reads; see `open_guarded`."""

    def __init__(self, path: Path, series: int | None, plane: int | None) -> None:
        self.path = path
        self._number = next(_numbers)
        # A helper that replaces another opens the slide anew, so every request says what is meant.
        self._meant = {"slide": self._number, "path": str(path), "series": series, "plane": plane}
        self._closed = False
        # The helper may be replaced; what it reads must stay.
        self._pin = storage.pin(path)
        opened, _ = self._ask("open", SlideUnreadableError)
        self.vendor = opened["vendor"]
        self.levels = tuple(Level(*level) for level in opened["levels"])
        red, green, blue = opened["background"]
        self.background = (red, green, blue)
        self.reader, self.series, self.plane = opened["reader"], opened["series"], opened["plane"]
        self.n_planes, self.notes = opened["n_planes"], tuple(opened["notes"])
        self.bounds = None if opened["bounds"] is None else tuple(opened["bounds"])
        self._mpp, self._problem = opened["mpp"], opened["problem"]

    @property
    def mpp(self) -> float | None:  # noqa: D102  # as in Slide
        if self._problem is not None:
            raise ResolutionError(self._problem)
        return None if self._mpp is None else float(self._mpp)

    def read_level(  # noqa: D102  # as in Slide
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        return self._read(level, x, y, width, height, alpha=True)

    def read_rgb(  # noqa: D102  # as in Slide
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        return self._read(level, x, y, width, height, alpha=False)

    def _read(self, *region: int, alpha: bool) -> NDArray[np.uint8]:
        if self._closed:
            raise ValueError(f"{self.name}: the slide is closed")
        shape = (region[4], region[3], 4 if alpha else 3)
        _, pixels = self._ask(
            "read", SlideCorruptError, shape, alpha=alpha, region=[int(value) for value in region]
        )
        assert pixels is not None
        return pixels

    def _ask(
        self, do: str, otherwise: type[SlideError], shape: tuple[int, int, int] | None = None, **more: object
    ) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        """Have the helper do something; its errors are raised here, unknown ones as ``otherwise``."""
        request = {"do": do, **self._meant, **more}
        try:
            answer, pixels = _guard.ask(request, shape)
        except _Ended as ended:
            raise ended.kind(
                f"{self.name}: {'opening' if do == 'open' else 'reading'} it {ended.cause}; "
                "export the slide again, or leave it out"
            ) from None
        if "error" not in answer:
            return answer["result"] or {}, pixels
        kind = getattr(errors, answer["error"], None)
        if isinstance(kind, type) and issubclass(kind, SlideError):
            raise kind(answer["message"])
        raise otherwise(
            f"{self.name}: cannot be {'opened' if do == 'open' else 'decoded'} ({answer['message']}); "
            "export or copy the file again"
        )

    def close(self) -> None:  # noqa: D102  # as in Slide
        if not self._closed:
            self._closed = True
            if self._pin is not None:
                self._pin.release()
            _guard.forget(self._meant)


def open_guarded(path: Path, *, series: int | None = None, plane: int | None = None) -> Slide:
    """Open a slide or a plain image in a process of its own.

    Parameters
    ----------
    path, series, plane
        As for `deepliif_ray.slides.reader.open_slide`.

    Returns
    -------
    Slide
        Every method may also raise `SlideCrashedError`, `SlideTimeoutError` or `SlideMemoryError`.

    Raises
    ------
    SlideError
        As `deepliif_ray.slides.reader.open_slide`, and those three.
    """
    return GuardedSlide(path, series, plane)
