"""Score one large synthetic slide and watch the memory of every process.

    python benchmarks/large_slide.py [--side 30000] [--engine ray] [--folder DIR] [--keep]

Prints a Markdown table: peak resident memory by process, and the time it took.
"""

import argparse
import os
import re
import shutil
import tempfile
import threading
import time
from pathlib import Path

import deepliif_ray
from deepliif_ray.slides import write_pyramid
from deepliif_ray.synthetic import SyntheticTissue

_MIB = 2**20


def _processes() -> dict[int, tuple[int, str]]:
    """Return parent and name of every process."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
            name = (status.parent / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:
            continue
        parent = re.search(r"PPid:\s+(\d+)", text)
        found[int(status.parent.name)] = (int(parent[1]) if parent else 0, name[:60])
    return found


def _peak(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(peak[1]) * 1024 if peak else 0


class MemoryWatch(threading.Thread):
    """Samples the peak resident memory of this process and all below it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[tuple[int, str], int] = {}
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._stop_asked.wait(0.5):
            processes = _processes()
            family = {os.getpid()}
            for _ in range(6):
                family |= {pid for pid, (parent, _) in processes.items() if parent in family}
            for pid in family & processes.keys():
                try:
                    key = (pid, processes[pid][1])
                    self.peaks[key] = max(self.peaks.get(key, 0), _peak(pid))
                except OSError:
                    continue

    def stop(self) -> None:
        """End the thread."""
        self._stop_asked.set()
        self.join()


def main() -> None:
    """Write the slide, score it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=30_000)
    parser.add_argument("--engine", default="ray")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="large-slide-"))
    folder.mkdir(parents=True, exist_ok=True)
    slide = folder / f"slide-{arguments.side}.tiff"
    if not slide.exists():
        start = time.perf_counter()
        write_pyramid(slide, SyntheticTissue(arguments.side, arguments.side, seed=1), mpp=0.25)
        print(
            f"written in {time.perf_counter() - start:.0f} s, {slide.stat().st_size / _MIB:.0f} MiB",
            flush=True,
        )
    manifest = folder / "manifest.csv"
    manifest.write_text(f"slide_id,patient_id,marker,uri\nlarge,p,Ki67,{slide.name}\n")
    results = folder / f"results-{arguments.engine}"
    shutil.rmtree(results, ignore_errors=True)
    watch = MemoryWatch()
    watch.start()
    execution = deepliif_ray.Execution(engine=arguments.engine)
    summary = deepliif_ray.score(str(manifest), str(results), execution=execution)
    watch.stop()
    with deepliif_ray.connect(str(results)) as connection:
        timings = connection.execute("SELECT timings, n_tiles_inferred FROM slides").fetchone()
    print(f"{summary.cells:,} cells, {summary.tiles:,} tiles in {summary.seconds:.0f} s; {timings}\n")
    print("| process | peak MiB |\n|---|---|")
    for (_, name), peak in sorted(watch.peaks.items(), key=lambda item: -item[1])[:8]:
        print(f"| {name} | {peak / _MIB:.0f} |")
    if not arguments.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
