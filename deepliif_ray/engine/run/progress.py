"""How far a run is, and where its time goes: counted by the engine, shown by whoever asks."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

STEPS = ("plan", "read", "wait", "infer", "measure", "write", "finalize")
"""Where workers' time goes: fetching and planning slides, reading tiles, models waiting for tiles, inference,
measuring, writing staged tiles, finalizing slides."""
_NEWEST = 5
_LONGEST = 500


class Meter(Protocol):
    """What passes counts on to a system that watches; see `deepliif_ray.engine.run.metrics`."""

    def spent(self, step: str, seconds: float) -> None:
        """Count the time that a block of tiles or a slide took in one of `STEPS`."""

    def tiles(self, outcome: str, count: int) -> None:
        """Count tiles that came out the same way."""

    def failed(self, reason: str) -> None:
        """Count a slide that failed."""

    def slides(self, done: int, left: int) -> None:
        """Tell how many slides are in the results, and how many are still to be tried."""


@dataclass
class Progress:
    """Counters of a run.

    Attributes
    ----------
    slides : int
        Slides of the manifest.
    skipped, scored, failed : int
        Slides that were done before, are done now, or failed.
    set_aside : int
        Slides not tried again, because they failed before for a lasting reason.
    tiles_planned, tiles_done : int
        Tiles of the slides planned so far, and those staged; without what earlier runs had staged.
    cells : int
        Cells of the slides scored in this run.
    watch : callable
        Called with this object after every change.
    meter : Meter, optional
        Told of every change.
    spent : dict of str to float
        Seconds by step, summed over workers.
    reasons : Counter
        Failures by reason.
    """

    slides: int = 0
    skipped: int = 0
    set_aside: int = 0
    scored: int = 0
    failed: int = 0
    planned: int = 0
    tiles_planned: int = 0
    tiles_done: int = 0
    cells: int = 0
    watch: Callable[["Progress"], None] = field(default=lambda _: None, repr=False)
    meter: Meter | None = field(default=None, repr=False)
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0), repr=False)
    reasons: Counter[str] = field(default_factory=Counter, repr=False)
    newest: list[dict[str, str]] = field(default_factory=list, repr=False)
    started: float = field(default_factory=time.monotonic, repr=False)

    def add(self, **counts: int) -> None:
        """Add to the named counters and tell the watcher."""
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)
        if self.meter is not None:
            self.meter.slides(self.skipped + self.scored, self.slides - self.done)
        self.watch(self)

    def spend(self, seconds: Mapping[str, float], outcomes: Mapping[str, int] | None = None) -> None:
        """Add the time that a block of tiles or a slide took by step, and what became of the tiles."""
        for step, value in seconds.items():
            self.spent[step] += value
            if self.meter is not None:
                self.meter.spent(step, value)
        if self.meter is not None:
            for outcome, count in (outcomes or {}).items():
                self.meter.tiles(outcome, count)

    def fail(self, slide_id: str, reason: str, message: str) -> None:
        """Count a slide that failed, and remember the newest ones."""
        self.reasons[reason] += 1
        failure = {"slide_id": slide_id[:_LONGEST], "reason": reason, "message": message[:_LONGEST]}
        self.newest = [*self.newest, failure][-_NEWEST:]
        if self.meter is not None:
            self.meter.failed(reason)
        self.add(failed=1)

    def snapshot(self) -> dict[str, object]:
        """Return how far the run is, as JSON can hold it; may be called from another thread."""
        names = (
            "slides",
            "skipped",
            "set_aside",
            "scored",
            "failed",
            "planned",
            "tiles_planned",
            "tiles_done",
            "cells",
        )
        return {name: getattr(self, name) for name in names} | {
            "done": self.done,
            "seconds": self.seconds,
            "tiles_per_second": self.tiles_per_second,
            "seconds_left": self.seconds_left,
            "is_joining": self.is_joining,
            "timings": {f"{step}_s": seconds for step, seconds in self.spent.items()},
            "reasons": dict(self.reasons.copy()),
            "newest_failures": self.newest,
        }

    @property
    def done(self) -> int:
        """Slides that need nothing more."""
        return self.skipped + self.set_aside + self.scored + self.failed

    @property
    def share(self) -> float | None:
        """How many of the slides are done, 0 to 1; None without a slide."""
        return self.done / self.slides if self.slides else None

    @property
    def is_joining(self) -> bool:
        """Whether every tile is staged, and slides are left whose cells are being joined."""
        everything = self.planned + self.skipped + self.set_aside + self.failed >= self.slides
        return everything and 0 < self.tiles_planned <= self.tiles_done and self.done < self.slides

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    @property
    def tiles_per_second(self) -> float:
        """Tiles staged per second since the run began."""
        return self.tiles_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the tiles of planned slides; slides not planned yet count as their average.

        None before there is a tile, and after the last one: how long cells take to be joined is not known.
        """
        if not self.tiles_done or not self.planned or self.is_joining:
            return None
        unplanned = max(self.slides - self.skipped - self.planned, 0)
        tiles = self.tiles_planned * (1 + unplanned / self.planned) - self.tiles_done
        return max(tiles, 0) / self.tiles_per_second
