"""What the viewer costs, in headless Chromium with software GL.

    python -m benchmarks.viewer cells3m --cells 3000000
    python -m benchmarks.viewer demo/results --slide P02-Ki67

Makes results of one slide with that many cells, without a slide file, if there are none. Needs Playwright and
Chromium (CHROMIUM, or /usr/bin/chromium).
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.drawn import write_results
from tests.viewer.browser import ARGUMENTS, CHROMIUM, until

_STEPS = 12
_TILES = 200


def main() -> None:
    """Print times in milliseconds, and the server's memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--cells", type=int, default=3_000_000)
    parser.add_argument("--slide", default="S0000")
    given = parser.parse_args()
    if not given.results.exists():
        write_results(given.results, 1, given.cells)
    command = [sys.executable, "-m", "deepliif_ray.cli", "view", str(given.results), "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            found = re.search(r"http\S+", server.stderr.readline())
            assert found is not None
            cold = measure(found[0], given.slide)
            told = measure(found[0], given.slide)
            told |= {f"first visit: {what}": value for what, value in cold.items() if "until" in what}
            told |= tiles(found[0], given.slide)
            told["memory of the server, most, MB"] = peak_mb(server.pid)
        finally:
            server.terminate()
    for what, value in told.items():
        sys.stdout.write(f"{what:<60} {value:>10.1f}\n")


def measure(address: str, slide: str) -> dict[str, float]:
    """Return how long a slide's page takes to show, and a step of a slider to redraw."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        page.wait_for_selector("tbody tr")
        began = time.perf_counter()
        page.goto(f"{address.partition('/?')[0]}/#/slide/{slide}")
        until(page, "window.deepliif?.viewer?.world.getItemCount() > 0")
        told = {"slide's page until the slide is open": 1000 * (time.perf_counter() - began)}
        until(page, "['squares', 'points', 'outlines'].includes(deepliif.cells?.how) && deepliif.totals")
        told["slide's page until cells are on the screen"] = 1000 * (time.perf_counter() - began)
        until(page, "deepliif.sql")
        told["slide's page until SQL has confirmed the index"] = 1000 * (time.perf_counter() - began)
        told |= steps(page, "from afar")
        # As near as shows cells one by one.
        page.evaluate(
            "() => { const v = deepliif.viewer.viewport; for (let n = 0; n < 40 && "
            "deepliif.cells.isFar(deepliif.cells.view()); n++) { v.zoomBy(1.25, null, true); } }"
        )
        until(page, "deepliif.cells.how !== 'squares'")
        told["cells that are drawn one by one"] = page.evaluate(
            "deepliif.cells.tilesIn(deepliif.cells.view().bounds).count"
        )
        told |= steps(page, "one by one")
        browser.close()
    return told


def steps(page: Page, where: str) -> dict[str, float]:
    """Return the time from a step of the slider of size until it is drawn, and how many requests it makes."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    times = page.evaluate(
        """async (steps) => {
          const times = [];
          const layer = deepliif.cells;
          for (let n = 0; n < steps; n += 1) {
            const began = performance.now();
            deepliif.cutoffs.set("size_thresh", 60 + 5 * n, false);
            while (layer.counting || layer.drawing) await new Promise((done) => setTimeout(done, 1));
            const gl = layer.points.gl;
            if (gl) gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits for it
            times.push(performance.now() - began);
          }
          return times;
        }""",
        _STEPS,
    )
    return {
        f"step of a slider, {where}, median": statistics.median(times),
        f"step of a slider, {where}, most": max(times),
        f"requests of {_STEPS} steps, {where}": float(len(asked)),
    }


def tiles(address: str, slide: str) -> dict[str, float]:
    """Return the time of tiles of 256 px at all levels, one after another."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    opener.open(address).read()
    base = address.partition("/?")[0]
    if b'"is_there": true' not in opener.open(f"{base}/api/tissue?slide={slide}").read():
        return {}
    times = []
    for level in range(20, 7, -1):
        for at in range(64):
            began = time.perf_counter()
            try:
                query = f"slide={slide}&level={level}&column={at % 8}&line={at // 8}"
                opener.open(f"{base}/api/tile?{query}").read()
            except urllib.error.HTTPError:
                continue
            times.append(1000 * (time.perf_counter() - began))
            if len(times) >= _TILES:
                break
    return {
        "tile of 256 px, median": statistics.median(times),
        "tile of 256 px, 95th percentile": sorted(times)[int(0.95 * len(times))],
        "tiles": float(len(times)),
    }


def peak_mb(pid: int) -> float:
    """Return the most memory that a process and its children have held."""
    kilobytes = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except OSError:
            continue
        said = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if int(folder.name) == pid or int(said["PPid"]) == pid:
            kilobytes += int(said.get("VmHWM", "0 kB").split()[0])
    return kilobytes / 1000


if __name__ == "__main__":
    main()
