"""What a slide's files hold, as a short text: the same for all copies, whenever they were made."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from deepliif_ray.storage.cache import copy_folder
from deepliif_ray.storage.slide_files import slide_files
from deepliif_ray.storage.urls import is_local

_LENGTH = 32


def content_fingerprint(url: str, place: Path | str) -> str:
    """Return a short text that changes when the content of the slide at ``url`` does, and only then.

    Files are read to their end (SHA-256). Of a slide that is read in its store, tile by tile, the store's
    word is taken: names, sizes and versions of its objects.

    Parameters
    ----------
    url : str
        URL of the slide.
    place : Path or str
        Where `deepliif_ray.storage.localize` says that it is read.

    Raises
    ------
    OSError
        A file cannot be read.
    StorageError
        The store did not answer.
    """
    if isinstance(place, str):
        files = slide_files(url)
        start = len(files[0].path.rpartition("/")[0])
        return _joined(f"{file.path[start:]}\0{file.size}\0{file.version}" for file in files)
    folder = None if is_local(url) else copy_folder(place)
    if folder is None:
        paths = [Path(file.path) for file in slide_files(url)]
    else:
        paths = [path for path in folder.rglob("*") if path.is_file()]
    return _joined(f"{_name(path, place)}\0{_digest(path)}" for path in paths)


def _joined(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()[:_LENGTH]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(path: Path, opened: Path) -> str:
    """Return what a file is called in its slide, without what is otherwise in a copy of another name."""
    if path == opened or path.suffix.lower() == ".dcm":
        return ""
    folder = opened if opened.is_dir() else opened.parent
    below = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
    return "/".join(below.parts[1:] if below.parts[0] == opened.stem else below.parts)
