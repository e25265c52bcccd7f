"""What the driver does: follow the graph, have slides finalized, and give up nothing without a reason.

One pass of the graph over the slides is a round. Blocks that the cluster lost for good, and a graph that came
to a stop, end in another round with what is left; staged tiles are not done again. Rounds that bring nothing
new are few, so every run ends.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.data.exceptions import ExecutionTimeoutError

from deepliif_ray import logs
from deepliif_ray.engine.finalize import Scored, finalize
from deepliif_ray.engine.run.progress import Progress
from deepliif_ray.engine.steps import Staged, first_failure
from deepliif_ray.engine.work import Failure, RunContext, StepError
from deepliif_ray.errors import SlideCrashedError
from deepliif_ray.manifest import SlideEntry

MAX_FINALIZING = 4
FINALIZE_ATTEMPTS = 3
"""Processes that may die of one slide's last step before it is given up."""
FINALIZE_TIMEOUT_S = 3600.0
FRUITLESS_ROUNDS = 3
"""Rounds without a tile staged or a slide ended after which the slides left are given up."""
_PAUSE_S = 5.0
_LONGEST_REASON = 600

STALLED = "stalled"

_log = logging.getLogger(__name__)

Outcome = tuple[SlideEntry, Scored | Failure]


@dataclass(frozen=True)
class Planned:
    """A slide of the cohort was planned: ``tiles`` of it are on their way, or it failed."""

    slide: int
    staging: str
    tiles: int
    failure: Failure | None = None
    seconds: float = 0.0


Batches = Generator[tuple[list[Planned], list[Staged]], None, None]


@dataclass
class _Pending:
    """What the driver knows of a slide that is under way."""

    slide: int | None = None
    expected: int | None = None
    done: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class _Finalizing:
    slide: int
    staging: str
    attempt: int = 1
    began: float = field(default_factory=time.monotonic)


def run(
    context: RunContext,
    entries: list[SlideEntry],
    progress: Progress,
    graph: Callable[[list[SlideEntry], int], Batches],
) -> Generator[Outcome, None, None]:
    """Yield what became of each slide as soon as it is known.

    Parameters
    ----------
    context : RunContext
    entries : list of SlideEntry
    progress : Progress
    graph : callable
        Starts a round with slides, given its number; what it yields names them by their place among them.
    """
    left, number, fruitless = entries, 0, 0
    while left:
        before = progress.tiles_done
        this = _Round(context, left, progress)
        yield from this.follow(graph(left, number))
        fruitful = len(this.left) < len(left) or progress.tiles_done > before
        fruitless = 0 if fruitful else fruitless + 1
        left, number = this.left, number + 1
        if fruitless == FRUITLESS_ROUNDS:
            failure = _given_up(this.error)
            yield from ((entry, failure) for entry in left)
            return
        if left:
            time.sleep(_PAUSE_S * fruitless)


def _given_up(error: Exception | None) -> Failure:
    """Say why slides were left when rounds brought nothing more."""
    if error is None:
        return Failure(
            "infer",
            SlideCrashedError.reason,
            f"in {FRUITLESS_ROUNDS} attempts every process working on it died; see that workers have enough "
            "memory, then run again",
        )
    brought = f"{FRUITLESS_ROUNDS} attempts brought nothing more ({_told(error)})"
    reason = STALLED if isinstance(error, ExecutionTimeoutError) else SlideCrashedError.reason
    return Failure(
        "infer",
        reason,
        f"{brought}; see that the cluster has the CPUs or GPUs that the run asks for, then run again",
    )


def _told(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    if len(text) > _LONGEST_REASON:  # the first words say what it is, the last what caused it
        text = f"{text[: _LONGEST_REASON // 3]} … {text[-2 * _LONGEST_REASON // 3 :]}"
    return text


class _Round:
    """One pass of the graph; then ``left`` are the slides without an outcome, ``error`` why if known."""

    def __init__(self, context: RunContext, entries: list[SlideEntry], progress: Progress) -> None:
        self._context, self._entries, self._progress = context, entries, progress
        self._pending: dict[str, _Pending] = {}
        self._complete: deque[_Finalizing] = deque()
        self._finalizing: dict[Any, _Finalizing] = {}
        self._ended: set[int] = set()
        # What to do about a task that died is decided here, where deaths are counted.
        self._task = ray.remote(num_cpus=0, max_retries=0)(_finalize)
        self.error: Exception | None = None

    @property
    def left(self) -> list[SlideEntry]:
        return [entry for slide, entry in enumerate(self._entries) if slide not in self._ended]

    def follow(self, batches: Batches) -> Iterator[Outcome]:
        """Yield outcomes until the graph has ended, and all that can be finalized is."""
        with closing(self._safely(batches)) as given:
            for planned, reports in given:
                for note in planned:
                    yield from self._plan(note)
                for report in reports:
                    yield from self._count(report)
                yield from self._finalize_some(0)
        while self._finalizing or self._complete:
            yield from self._finalize_some(1.0)
        for state in self._pending.values():
            if state.slide is None or state.expected is None:
                continue
            self._progress.add(planned=-1, tiles_planned=state.done - state.expected)
            if state.failures:
                yield self._end(state.slide, first_failure(state.failures))

    def _safely(self, batches: Batches) -> Batches:
        """Yield batches; whatever breaks the graph ends this round, not the run."""
        try:
            yield from batches
        except Exception as error:  # noqa: BLE001
            self.error = error
            _log.warning("round.broken", extra={"why": _told(error)})

    def _end(self, slide: int, outcome: Scored | Failure) -> Outcome:
        self._ended.add(slide)
        return self._entries[slide], outcome

    def _plan(self, note: Planned) -> Iterator[Outcome]:
        self._progress.spend({"plan": note.seconds})
        self._progress.add(planned=1, tiles_planned=note.tiles)
        if note.failure is not None:
            yield self._end(note.slide, note.failure)
            return
        state = self._pending.setdefault(note.staging, _Pending())
        state.slide, state.expected = note.slide, note.tiles
        yield from self._check(note.staging)

    def _count(self, report: Staged) -> Iterator[Outcome]:
        self._progress.spend(report.seconds, report.outcomes)
        self._progress.add(tiles_done=report.tiles)
        state = self._pending.setdefault(report.staging, _Pending())
        state.done += report.tiles
        if report.failure is not None:
            state.failures.append(report.failure)
        yield from self._check(report.staging)

    def _check(self, staging: str) -> Iterator[Outcome]:
        """End the slide, or have it finalized, if its last tile is in."""
        state = self._pending[staging]
        if state.slide is None or state.expected is None or state.done < state.expected:
            return
        del self._pending[staging]
        if state.failures:
            yield self._end(state.slide, first_failure(state.failures))
        else:
            self._complete.append(_Finalizing(state.slide, staging))

    def _finalize_some(self, wait_s: float) -> Iterator[Outcome]:
        """Start what may be started, yield what is ready; never wait longer than ``wait_s``."""
        while self._complete and len(self._finalizing) < MAX_FINALIZING:
            work = self._complete.popleft()
            work = _Finalizing(work.slide, work.staging, work.attempt)
            self._finalizing[self._task.remote(self._context, work.staging)] = work
        if not self._finalizing:
            return
        ready, waiting = ray.wait(
            list(self._finalizing), num_returns=len(self._finalizing) if not wait_s else 1, timeout=wait_s
        )
        for reference in ready:
            work = self._finalizing.pop(reference)
            try:
                yield self._end(work.slide, ray.get(reference))
            except ray.exceptions.RayError as error:
                told = {"slide_id": self._entries[work.slide].slide_id, "why": _told(error)}
                _log.warning("finalize.died", extra=told)
                if work.attempt < FINALIZE_ATTEMPTS:
                    self._complete.append(_Finalizing(work.slide, work.staging, work.attempt + 1))
                    continue
                yield self._end(work.slide, self._crashed(work, error))
        for reference in waiting:
            work = self._finalizing[reference]
            if time.monotonic() - work.began > FINALIZE_TIMEOUT_S:
                del self._finalizing[reference]
                ray.cancel(reference, force=True)
                message = (
                    f"{self._entries[work.slide].uri}: joining its tiles took over {FINALIZE_TIMEOUT_S:.0f} "
                    "s; see that the results can be written, then run again"
                )
                yield self._end(work.slide, Failure("finalize", STALLED, message))

    def _crashed(self, work: _Finalizing, error: Exception) -> Failure:
        message = (
            f"{self._entries[work.slide].uri}: the process joining its tiles died {work.attempt} times "
            f"({type(error).__name__}); give workers more memory, then run again"
        )
        return Failure("finalize", SlideCrashedError.reason, message)


def _finalize(context: RunContext, staging: str) -> Scored | Failure:
    logs.name_run(context.run_id, context.log)
    try:
        return finalize(context, staging)
    except StepError as error:
        return error.failure
