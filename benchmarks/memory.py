"""Resident memory of processes, as the kernel counts it (Linux)."""

import os
import re
import threading
from pathlib import Path

MIB = 2**20


def resident(pid: int | None = None, peak: bool = False) -> int:
    """Return the resident bytes of a process, or the most it ever had; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid or os.getpid()}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB" if peak else r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def reset_peak() -> None:
    """Begin anew to note this process's peak."""
    Path("/proc/self/clear_refs").write_text("5")


class Sampler(threading.Thread):
    """Calls a function every ``seconds`` until stopped, keeping what it returns."""

    def __init__(self, sample: object, seconds: float = 0.5) -> None:
        super().__init__(daemon=True)
        self._sample, self._seconds, self._end = sample, seconds, threading.Event()
        self.values: list = []

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._end.wait(self._seconds):
            self.values.append(self._sample())

    def stop(self) -> list:
        """End the thread; return the samples."""
        self._end.set()
        self.join()
        return self.values
