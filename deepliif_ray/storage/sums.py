"""What a slide in the cache was when its download completed, and whether it still is.

A note beside each slide holds of every file its digest and what the file system said of it. While that says
the same, nobody has written to the file since, because the system itself keeps the time of the last change.
Otherwise (a restored or copied cache, a disk that lost what it had not written) the content is read again.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path


def write_sums(folder: Path, names: Sequence[str], note: Path) -> None:
    """Write down what the files ``names`` below ``folder`` hold, once they are safely on the disk.

    Raises
    ------
    OSError
        A file or the note cannot be read or written.
    """
    found: dict[str, list[int | str]] = {}
    for name in names:
        _flush(folder / name)
        found[name] = [*_said(folder / name), _digest(folder / name)]
    _write(note, found)


def intact(folder: Path, names: Sequence[str], note: Path) -> bool:
    """Tell whether the files below ``folder`` are as their note says."""
    try:
        noted = json.loads(note.read_bytes())
        renewed = {}
        for name in names:
            *said, digest = noted[name]
            now = _said(folder / name)
            if now != said:
                if now[0] != said[0] or _digest(folder / name) != digest:
                    return False
                renewed[name] = [*now, digest]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    if renewed:
        _write(note, noted | renewed)
    return True


def _said(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(note: Path, content: dict[str, list[int | str]]) -> None:
    temporary = note.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(json.dumps(content), encoding="utf-8")
        _flush(temporary)
        temporary.replace(note)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the system write a file to the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
