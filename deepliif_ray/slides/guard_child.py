"""The process that touches untrusted files, started by `deepliif_ray.slides.guard`.

It answers one request at a time: JSON in, JSON out, pixels through a file that both have open. Whatever a
file does to it happens here: it may crash, is ended by an alarm when a request takes too long, and is
refused memory beyond its limit. It imports what reading needs and nothing else, and gives up what it does
not need (`deepliif_ray.confine`).
"""

import os
import signal
import sys
import threading
import time
from dataclasses import astuple
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from deepliif_ray.confine import confine, limit_memory
from deepliif_ray.errors import ResolutionError, SlideError
from deepliif_ray.slides.link import Link
from deepliif_ray.slides.reader import open_slide
from deepliif_ray.slides.slide import Slide

ORPHAN_CHECK_S = 1.0


class Server:
    """Open slides by the number that the other side gave them.

    Parameters
    ----------
    pixels : int
        Descriptor of the file that pixels are written to.
    link : Link
        What slides in a store are read through.
    """

    def __init__(self, pixels: int, link: Link) -> None:
        self._pixels, self._link = pixels, link
        self._slides: dict[int, Slide] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request: what was asked for, or what went wrong."""
        try:
            return {"result": getattr(self, f"_{request['do']}")(request)}
        except SlideError as error:
            return {"error": type(error).__name__, "message": str(error)}
        except MemoryError:
            return {"error": "MemoryError", "message": ""}
        except Exception as error:  # noqa: BLE001  # libraries raise anything over a damaged file
            return {"error": "Exception", "message": f"{type(error).__name__}: {error}"}

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        slide = self._slide(request)
        mpp, problem = None, None
        try:
            mpp = slide.mpp
        except ResolutionError as error:
            problem = str(error)
        return {
            "vendor": slide.vendor,
            "levels": [astuple(level) for level in slide.levels],
            "background": slide.background,
            "reader": slide.reader,
            "series": slide.series,
            "plane": slide.plane,
            "n_planes": slide.n_planes,
            "bounds": slide.bounds,
            "notes": slide.notes,
            "mpp": mpp,
            "problem": problem,
        }

    def _read(self, request: dict[str, Any]) -> None:
        slide = self._slide(request)
        read = slide.read_level if request["alpha"] else slide.read_rgb
        rest, place = np.ascontiguousarray(read(*request["region"])).data.cast("B"), 0
        while rest:
            written = os.pwrite(self._pixels, rest, place)
            place, rest = place + written, rest[written:]

    def _header(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the header of a DICOM slide: it is parsed here, and what comes out is plain JSON."""
        if self._slide(request).vendor != "dicom":
            return {"header": None}
        from deepliif_ray.slides.dicom import header_of  # pydicom takes a while to import

        return {"header": header_of(Path(request["path"]), request["series"])}

    def _close(self, request: dict[str, Any]) -> None:
        slide = self._slides.pop(request["slide"], None)
        if slide is not None:
            slide.close()

    def _slide(self, request: dict[str, Any]) -> Slide:
        """Return the slide a request is about, opened if this process has not done so yet."""
        number = request["slide"]
        if number not in self._slides:
            self._slides[number] = self._opened(request)
        return self._slides[number]

    def _opened(self, request: dict[str, Any]) -> Slide:
        path, series, plane = Path(request["path"]), request["series"], request["plane"]
        if not request["stored"]:
            return open_slide(path, series=series, plane=plane)
        from deepliif_ray.slides.ome_zarr import open_stored  # zarr takes a second to import

        return open_stored(path, self._link.fetch, series=series, plane=plane)


def _follow(parent: int) -> None:
    """End this process when its parent has gone, even in the middle of a request."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)


def main(arguments: list[str]) -> None:
    """Serve until the other side hangs up.

    Parameters
    ----------
    arguments : list of str
        Descriptors of the connection and of the pixels' file, the parent's process id, the seconds a request
        may take, and the bytes of memory beyond those at the start.
    """
    connection, pixels, parent, seconds, memory = (int(value) for value in arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_memory(memory)
    gave_up = confine()
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    link = Link(Connection(connection), seconds)
    server = Server(pixels, link)
    link.send(gave_up)
    while True:
        try:
            request = link.receive()
        except EOFError:
            return
        answer = server.answer(request)
        os.ftruncate(2, 0)  # what libraries said of a request that went well
        link.send(answer)


if __name__ == "__main__":
    main(sys.argv[1:])
