"""Results that are shown, and a server of their pages in a thread."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.cookiejar import CookieJar

import numpy as np

from deepliif_ray.viewer.guarding import HEADER
from deepliif_ray.viewer.server import Viewer
from tests.pictures import scored
from tests.query import fake_results as fake

HOSTILE = "<img src=x onerror=alert(1)>'\"</script>"
WIDTH, HEIGHT = 1200, 800


def cells(seed=0):
    """Return square cells on a grid, with measurements of all sizes."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, (y, x) in enumerate(
        (y, x) for y in range(20, HEIGHT - 20, 25) for x in range(20, WIDTH - 20, 25)
    ):
        said = {
            "marker_max": int(rng.integers(0, 256)) if number % 5 else None,
            "od_mean": float(rng.uniform(5, 150)),
        }
        said |= {
            "dab_od_mean": float(round(rng.uniform(-0.05, 1.2), 2))
            if number % 2
            else float(rng.uniform(0, 1))
        }
        half = int(rng.integers(2, 9))
        rows.append(scored.cell(number, x, y, half, positive=bool(rng.random() < 0.3), **said))
    return rows


def tissue(height=HEIGHT, width=WIDTH):
    """Return pixels of a slide."""
    return scored.gradient(height, width)


def make(root, folder):
    """Write results of a slide that can be read, one whose file is gone, and one with a hostile name."""
    path = scored.slide(folder, tissue())
    size = {"width_px": WIDTH, "height_px": HEIGHT}
    scored.commit(root, cells(), "S-1", path, **size)
    scored.commit(root, cells(1), "S-2", patient_id="P2", uri=str(folder / "gone.tiff"), **size)
    scored.commit(
        root, cells(2), HOSTILE, patient_id=HOSTILE, marker="CD3", uri=str(folder / "no.tiff"), **size
    )
    fake.fail(str(root), "S-3")
    return str(root)


class Client:
    """Asks a server, as its pages do."""

    def __init__(self, address):
        self.address = address
        self.base = address.partition("/?")[0]
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._opener.open(address).read()

    def raw(self, path, body=None, headers=None, method=None):
        """Return status, headers and content."""
        request = urllib.request.Request(self.base + path, body, headers or {}, method=method)
        try:
            with self._opener.open(request) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def get(self, path):
        """Return status and value."""
        status, _, content = self.raw(path)
        return status, json.loads(content)

    def post(self, path, value):
        """Return status and value of a question with a body."""
        headers = {"Content-Type": "application/json", HEADER: "1", "Origin": self.base}
        status, _, content = self.raw(path, json.dumps(value).encode(), headers)
        return status, json.loads(content)


@contextmanager
def serving(results, **options):
    """Yield the address of a server of some results."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start():
        return await Viewer(results, author="A. Reader", **options).start(0)

    runner, address = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    try:
        yield address
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
