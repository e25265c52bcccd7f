"""Memory and processor time of processes, as the kernel counts them (Linux)."""

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


def family_cpu() -> dict[str, float]:
    """Return the processor seconds of this process (``driver``) and of all below it that still live."""
    tick = os.sysconf("SC_CLK_TCK")
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        # With the children that it has waited for, so that workers that ended count too.
        parents[pid], seconds[pid] = int(fields[1]), sum(map(int, fields[11:15])) / tick
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    own = seconds[os.getpid()]
    return {"driver": own, "all": sum(seconds[pid] for pid in below)}


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
