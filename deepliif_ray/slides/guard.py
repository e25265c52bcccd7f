"""Slides read by another process, so that a hostile file can take down nothing but that.

Image libraries are written in C and are given files from anywhere. Here a process has one helper
(`deepliif_ray.slides.guard_child`) that opens and reads files for it, for as long as it lives. Each request
has a time limit, the helper a memory limit. A helper that crashed, hung or ran out of memory is replaced, and
the slide it was reading gets an error of its own: after a second try in a fresh helper if the first had read
other slides, so that the verdict depends on the file alone.
"""

import atexit
import itertools
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepliif_ray import confine, errors, storage
from deepliif_ray.errors import ResolutionError, SlideCorruptError, SlideError, SlideUnreadableError
from deepliif_ray.slides.helper import Ended, Fetch, Helper
from deepliif_ray.slides.slide import Level, Slide

_numbers = itertools.count()


class _Guard:
    """The helper of this process, started when first needed, shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.helper: Helper | None = None

    def ask(
        self, request: dict[str, Any], shape: tuple[int, int, int] | None, fetch: Fetch | None
    ) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        """Return the answer to a request and the pixels that came with it, if any were to.

        Raises
        ------
        Ended
            The slide ended a helper that had read nothing else.
        StorageError
            From ``fetch``.
        """
        with self._lock:
            try:
                return self._try(request, shape, fetch)
            except Ended as ended:
                if ended.alone and not ended.killed:
                    raise
            return self._try(request, shape, fetch)

    def gave_up(self) -> tuple[str, ...]:
        """Return what the helper gave up; it is started for that if there is none."""
        with self._lock:
            return self._started().gave_up

    def _started(self) -> Helper:
        if self.helper is None:
            self.helper = Helper()
        return self.helper

    def _try(
        self, request: dict[str, Any], shape: tuple[int, int, int] | None, fetch: Fetch | None
    ) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        helper = self._started()
        try:
            answer = helper.ask(request, fetch)
            if shape is None or "error" in answer:
                return answer, None
            return answer, helper.pixels(*shape)
        except Ended as ended:
            ended.alone = helper.slides == {request["slide"]}
            self._end()
            raise
        except BaseException:  # the answer that is still to come must not be the next request's
            self._end()
            raise

    def forget(self, meant: dict[str, Any]) -> None:
        """Close a slide, if the helper lives and has it open."""
        with self._lock:
            if self.helper is None or meant["slide"] not in self.helper.slides:
                return
            try:
                self.helper.ask({"do": "close", **meant})
            except Ended:
                self._end()

    def end(self) -> None:
        """End the helper."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self.helper is not None:
            self.helper.end()
            self.helper = None


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

    def __init__(self, place: Path | str, series: int | None, plane: int | None) -> None:
        self.path = place if isinstance(place, Path) else Path(place.rstrip("/").rpartition("/")[2])
        # A helper that replaces another opens the slide anew, so every request says what is meant.
        self._meant = {
            "slide": next(_numbers),
            "path": str(self.path),
            "stored": isinstance(place, str),
            "series": series,
            "plane": plane,
        }
        self._fetch: Fetch | None = None
        if isinstance(place, str):
            self._fetch = lambda wanted: storage.read_ranges(place, wanted)
        self._closed = False
        # The helper may be replaced; what it reads must stay.
        self._pin = storage.pin(place) if isinstance(place, Path) else None
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

    def dicom_header(self) -> dict[str, Any] | None:  # noqa: D102  # as in Slide
        answer, _ = self._ask("header", SlideUnreadableError)
        header: dict[str, Any] | None = answer["header"]
        return header

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
            answer, pixels = _guard.ask(request, shape, self._fetch)
        except Ended as ended:
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


def open_guarded(place: Path | str, *, series: int | None = None, plane: int | None = None) -> Slide:
    """Open a slide or a plain image in a process of its own.

    Parameters
    ----------
    place : Path or str
        A local path, as for `deepliif_ray.slides.reader.open_slide`; or the URL of an OME-Zarr folder in a
        store, of which only what is asked for is fetched.
    series, plane : int, optional
        As for `deepliif_ray.slides.reader.open_slide`.

    Returns
    -------
    Slide
        Every method may also raise `SlideCrashedError`, `SlideTimeoutError` or `SlideMemoryError`, and of a
        slide in a store `SlideTooLargeError` and `StorageError`.

    Raises
    ------
    SlideError
        As `deepliif_ray.slides.reader.open_slide`, and those.
    StorageError
        The store did not answer.
    """
    return GuardedSlide(place, series, plane)


def gave_up() -> tuple[str, ...]:
    """Return what the process that reads slides gave up; see `deepliif_ray.confine`."""
    return _guard.gave_up()


def protection() -> str:
    """Return in words what the process that reads slides on this machine cannot do."""
    return confine.described(gave_up())


def current_helper() -> Helper | None:
    """Return the process that reads slides for this one, for who watches it; None if there is none."""
    return _guard.helper


def end_helper() -> None:
    """End the process that reads slides for this one; the next request starts another."""
    _guard.end()
