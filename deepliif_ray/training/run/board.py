"""Where a worker on the cluster writes how far it is, and the driver looks."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from deepliif_ray.training.run.outcome import TrainProgress

SECONDS_BETWEEN_LOOKS = 0.5


class _Board:
    def __init__(self) -> None:
        self._progress: TrainProgress | None = None

    def put(self, progress: TrainProgress) -> None:
        self._progress = progress

    def get(self) -> TrainProgress | None:
        return self._progress


def start_board() -> Any:
    """Return a new board on the cluster: an actor with ``put`` and ``get``."""
    return ray.remote(num_cpus=0)(_Board).remote()


@contextmanager
def watched(board: Any, watch: Callable[[TrainProgress], None]) -> Iterator[None]:
    """Tell ``watch`` now and then what stands on the board."""
    done = threading.Event()

    def look() -> None:
        seen = None
        while not done.wait(SECONDS_BETWEEN_LOOKS):
            try:
                progress = ray.get(board.get.remote(), timeout=10)
            except ray.exceptions.RayError:
                continue  # progress is shown when it can be
            if progress is not None and progress != seen:
                seen = progress
                watch(progress)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
