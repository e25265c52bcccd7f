"""A run seen from outside: what its lease says of it, beat by beat.

A run that is going on says who it is and how far, every few seconds
(`deepliif_ray.engine.run.lease.read_lease`, `deepliif_ray.engine.run.progress.Progress.snapshot`). Reading
that is a few small requests, whatever the size of the results.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deepliif_ray.console import time_left, where_time_went
from deepliif_ray.engine.run.lease import read_lease
from deepliif_ray.tables.ledger import Ledger

SILENT_S = 20.0
"""A run beats every 5 s; after so many without a beat, say so."""
GONE_S = 300.0
"""After so many seconds without a beat a run is not watched any longer."""
_BAR = 24


@dataclass(frozen=True)
class Sight:
    """A run as seen at one moment.

    Attributes
    ----------
    run_id, host : str
    pid : int, optional
    silent_s : float
        Seconds since its last beat.
    progress : dict
        See `deepliif_ray.engine.run.progress.Progress.snapshot`.
    """

    run_id: str
    host: str
    pid: int | None
    silent_s: float
    progress: dict[str, Any]

    def lines(self, *, steady: bool = False) -> list[str]:
        """Return what to show: progress, where the time goes, whether the run lives, its newest failures.

        With ``steady`` lines that change though nothing happens are left out.
        """
        shown = [_progress_line(self.progress)]
        timings: dict[str, float] = self.progress.get("timings", {})
        spent = where_time_went({name.removesuffix("_s"): value for name, value in timings.items()})
        if spent is not None and not steady:
            shown.append(spent)
        if self.silent_s > SILENT_S:
            life = f"no sign of life for {time_left(self.silent_s)}"
        else:
            life = f"last sign of life {self.silent_s:.0f} s ago"
        if not steady or self.silent_s > SILENT_S:
            shown.append(f"run {self.run_id} on {self.host}, process {self.pid}: {life}")
        for failure in self.progress.get("newest_failures", []):
            shown.append(f"failed: {failure['slide_id']!r}: {failure['reason']}: {failure['message']}")
        return shown


def _progress_line(progress: dict[str, Any]) -> str:
    slides, done = progress.get("slides", 0), progress.get("done", 0)
    full = _BAR * done // slides if slides else 0
    parts = [f"{'━' * full}{'╌' * (_BAR - full)} {done}/{slides} slides, {slides - done} left"]
    if progress.get("failed"):
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(progress.get("reasons", {}).items()))
        parts.append(f"{progress['failed']} failed ({reasons})")
    parts.append(f"{progress.get('tiles_done', 0):,}/{progress.get('tiles_planned', 0):,} tiles")
    parts.append(f"{progress.get('tiles_per_second', 0.0):.1f} tiles/s")
    parts.append(f"{progress.get('cells', 0):,} cells")
    if progress.get("is_joining"):
        parts.append("joining cells")
    left = progress.get("seconds_left")
    if left is not None and done < slides:
        parts.append(f"{time_left(left)} to go")
    return " · ".join(parts)


class Watcher:
    """Looks at the run that works on a results location.

    The age of a beat is measured by this machine's clock from when the beat was first seen; only the first
    look has to trust the other machine's clock.

    Parameters
    ----------
    results : str
        URL of the results.
    """

    def __init__(self, results: str) -> None:
        self._results = results
        self._epoch = 0
        self._beat: object = None
        self._since: float | None = None

    def look(self) -> Sight | None:
        """Return the run that is going on, None if there is none.

        Raises
        ------
        StorageError
            The store does not answer.
        """
        lease = read_lease(self._results, self._epoch)
        if lease is None:
            return None
        self._epoch = int(lease.get("epoch", 0))
        beat = lease.get("beat_at")
        now = time.monotonic()
        if self._since is None:
            self._since = now - _age(beat)
        elif beat != self._beat:
            self._since = now
        self._beat = beat
        progress = lease.get("progress")
        return Sight(
            run_id=str(lease.get("run_id", "?")),
            host=str(lease.get("host", "?")),
            pid=lease.get("pid"),
            silent_s=now - self._since,
            progress=progress if isinstance(progress, dict) else {},
        )

    def follow(self, interval_s: float) -> Iterator[Sight]:
        """Yield the run every ``interval_s`` seconds, until it ended or was silent for `GONE_S` seconds."""
        first: str | None = None
        while (sight := self.look()) is not None:
            first = first or sight.run_id
            if sight.run_id not in (first, "?"):
                return
            yield sight
            if sight.silent_s > GONE_S:
                return
            time.sleep(interval_s)

    def ended(self, run_id: str) -> dict[str, Any] | None:
        """Return the record of a run; None if there is none."""
        runs = Ledger(self._results).runs().to_pylist()
        return next((run for run in runs if run["run_id"] == run_id), None)


def _age(beat: object) -> float:
    """Return the seconds since a moment written as ISO text; 0 if it is not one, or in the future."""
    try:
        moment = datetime.fromisoformat(str(beat))
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())
