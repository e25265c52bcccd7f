"""What a run leaves to look at: metrics as JSON lines and for TensorBoard, and sample images."""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from deepliif_ray import storage

FLUSH_SECONDS = 5.0


def metrics_url(output: str) -> str:
    """Return where a run that writes to ``output`` logs its metrics."""
    return storage.join(output, "metrics.jsonl")


def read_metrics(output: str) -> list[dict[str, Any]]:
    """Return the records logged so far, in the order of steps."""
    url = metrics_url(output)
    if not storage.exists(url):
        return []
    return [json.loads(line) for line in storage.read_bytes(url).decode().splitlines()]


class Records:
    """Writes a run's records; one process of a run has one.

    ``metrics.jsonl`` is rewritten as a whole, so that it is complete at any moment on any storage. It holds
    nothing that differs between equal runs (no times), and on resumption loses what came after ``step``, so
    that an interrupted run's log ends equal to an undisturbed one's.

    Parameters
    ----------
    output : str
        URL of the run's folder.
    step : int
        The run goes on from here.
    """

    def __init__(self, output: str, step: int) -> None:
        self._output = output
        self._lines = [json.dumps(record) for record in read_metrics(output) if record["step"] <= step]
        self._board = storage.join(output, "tensorboard")
        self._scratch = None if storage.is_local(output) else Path(tempfile.mkdtemp(prefix="tensorboard-"))
        folder = storage.local_path(self._board) if self._scratch is None else self._scratch
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        self._flushed = time.monotonic()

    def log(self, step: int, kind: str, values: Mapping[str, float], **timing: float) -> None:
        """Record ``values`` of ``step``; ``timing`` goes to TensorBoard alone."""
        self._lines.append(json.dumps({"step": step, "kind": kind, **values}))
        for name, value in {**values, **timing}.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def picture(self, step: int, png: bytes) -> None:
        """Write a sample image of ``step``."""
        storage.write_bytes(storage.join(self._output, "samples", f"step-{step:06d}.png"), png)

    def flush(self) -> None:
        """Make everything recorded durable."""
        self._flushed = time.monotonic()
        storage.write_bytes(metrics_url(self._output), "".join(line + "\n" for line in self._lines).encode())
        self._writer.flush()
        if self._scratch is not None:
            for path in self._scratch.iterdir():
                storage.write_bytes(storage.join(self._board, path.name), path.read_bytes())

    def close(self) -> None:
        """Flush, and end the TensorBoard file."""
        self.flush()
        self._writer.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
