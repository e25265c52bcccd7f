"""Downloads in ranges, which go on where an earlier attempt stopped."""

from pathlib import Path
from typing import Any

from deepliif_ray.storage.client import ask
from deepliif_ray.storage.slide_files import SlideFile

RANGE_BYTES = 8 * 2**20
AT_ONCE = 4
"""Ranges asked for together; they are in memory until written."""


def download(url: str, file: SlideFile, target: Path) -> None:
    """Bring ``file``, of the slide at ``url``, to ``target``; what is there already is its beginning.

    Raises
    ------
    OSError and others of `deepliif_ray.storage.failures.failures`
        The store failed for longer than is tried again, or the disk did.
    """
    if file.size is None:
        ask(url, lambda fs, _: fs.get_file(file.path, str(target)))
        return
    with target.open("ab") as part:
        done = part.tell()
        if done > file.size:
            part.truncate(0)
            done = 0
        while done < file.size:
            for piece in _pieces(url, file, done):
                part.write(piece)
                done += len(piece)
            part.flush()  # what a killed process had in its buffer would be asked for again


def _pieces(url: str, file: SlideFile, begin: int) -> list[bytes]:
    """Return the next ranges of a file from ``begin`` on."""
    size = file.size or 0
    starts = list(range(begin, min(begin + RANGE_BYTES * AT_ONCE, size), RANGE_BYTES))
    ends = [min(start + RANGE_BYTES, size) for start in starts]

    def ranges(fs: Any, _: str) -> list[bytes]:
        pieces = fs.cat_ranges([file.path] * len(starts), starts, ends, on_error="raise")
        arrived = sum(map(len, pieces))
        if arrived != ends[-1] - begin:
            raise OSError(f"{arrived} of {ends[-1] - begin} bytes arrived")  # the object is shorter now
        return list(pieces)

    return ask(url, ranges)
