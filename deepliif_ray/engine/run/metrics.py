"""What a run counts, as Prometheus metrics that Ray exports.

The driver counts all of it, from what workers report once a block or a slide: nothing is paid per tile, and a
worker that dies takes no counts along. Names get Ray's prefix: ``ray_deepliif_tiles_total``.
"""

from ray.util.metrics import Counter, Gauge, Histogram

SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]
_ACTOR_STEPS = ("read", "infer", "measure", "write")


class RayMeter:
    """A `deepliif_ray.engine.run.progress.Meter` that tells Ray.

    Parameters
    ----------
    on_gpus : bool
        Whether the actors only infer; where there are no GPUs they read, measure and write too.
    """

    def __init__(self, *, on_gpus: bool) -> None:
        self._busy_steps = ("infer",) if on_gpus else _ACTOR_STEPS
        self._tiles = Counter("deepliif_tiles_total", "Tiles staged, by what became of them.", ("outcome",))
        self._seconds = Histogram(
            "deepliif_stage_seconds",
            "Seconds that a block of up to 16 tiles (read, wait, infer, measure, write) or a slide (plan, "
            "finalize) took.",
            SECONDS,
            ("stage",),
        )
        self._busy = Counter("deepliif_actor_busy_seconds_total", "Seconds that actors worked.")
        self._waited = Counter("deepliif_read_wait_seconds_total", "Seconds that actors waited for tiles.")
        self._failures = Counter("deepliif_failures_total", "Slides that failed, by reason.", ("reason",))
        self._done = Gauge("deepliif_slides_done", "Slides of the manifest that are in the results.")
        self._left = Gauge("deepliif_slides_left", "Slides of the manifest still to be tried.")

    def spent(self, step: str, seconds: float) -> None:
        """Count the time that a block of tiles or a slide took in one step."""
        self._seconds.observe(seconds, {"stage": step})
        if seconds > 0 and step == "wait":
            self._waited.inc(seconds)
        elif seconds > 0 and step in self._busy_steps:
            self._busy.inc(seconds)

    def tiles(self, outcome: str, count: int) -> None:
        """Count tiles that came out the same way."""
        self._tiles.inc(count, {"outcome": outcome})

    def failed(self, reason: str) -> None:
        """Count a slide that failed."""
        self._failures.inc(1, {"reason": reason})

    def slides(self, done: int, left: int) -> None:
        """Tell how many slides are in the results, and how many are still to be tried."""
        self._done.set(done)
        self._left.set(left)
