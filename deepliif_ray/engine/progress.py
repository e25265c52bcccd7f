"""How far a run is: counted by the engine, shown by whoever asks."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


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
    started: float = field(default_factory=time.monotonic, repr=False)

    def add(self, **counts: int) -> None:
        """Add to the named counters and tell the watcher."""
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)
        self.watch(self)

    @property
    def done(self) -> int:
        """Slides that need nothing more."""
        return self.skipped + self.set_aside + self.scored + self.failed

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
        """Estimate from the tiles of planned slides; slides not planned yet count as their average."""
        if not self.tiles_done or not self.planned:
            return None
        unplanned = max(self.slides - self.skipped - self.planned, 0)
        tiles = self.tiles_planned * (1 + unplanned / self.planned) - self.tiles_done
        return max(tiles, 0) / self.tiles_per_second
