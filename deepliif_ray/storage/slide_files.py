"""The files that make up a slide, and which version of them a store has."""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deepliif_ray.storage.client import ask, filesystem, trouble
from deepliif_ray.storage.failures import failures, is_passing
from deepliif_ray.storage.urls import is_local

_VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "content_md5", "generation", "LastModified", "last_modified", "created",
)  # fmt: skip


_ZARR = ("zarr.json", ".zattrs", ".zgroup")


@dataclass(frozen=True)
class SlideFile:
    """A file of a slide.

    Attributes
    ----------
    path : str
        In the filesystem of the slide's URL.
    size : int or None
        Bytes; None where the store does not tell.
    version : str
        Changes when the content does: ETag, generation, or on local disks the times of modification and of
        change (which a program cannot set) in nanoseconds; empty where the store says nothing of the kind.
    """

    path: str
    size: int | None
    version: str


def slide_files(url: str) -> list[SlideFile]:
    """Return all files of the slide at ``url``, the one to open first.

    A DICOM slide is every ``.dcm`` file of its folder, named by the folder or by one of them; a MIRAX slide
    its ``.mrxs`` file and the folder of the same name; an OME-Zarr slide all of its folder, its metadata
    first.

    Raises
    ------
    FileNotFoundError, PermissionError
        The slide is not there or may not be read.
    StorageError
        The store did not answer.
    """
    try:
        return ask(url, lambda fs, path: _slide_files(fs, path, is_local(url)))
    except (FileNotFoundError, PermissionError) as error:
        if is_passing(error.__cause__):  # fsspec's HTTP says so of a server that does not answer
            raise trouble(url, "cannot be looked at", error.__cause__ or error) from None
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(url) from error
    except failures() as error:
        raise trouble(url, "cannot be looked at", error) from None


def _slide_files(fs: Any, path: str, local: bool) -> list[SlideFile]:
    if PurePosixPath(path).name in _ZARR:
        path = str(PurePosixPath(path).parent)
    opened = fs.info(path)
    pure = PurePosixPath(path)
    others: list[dict[str, Any]] = []
    if opened["type"] == "directory":
        members = _below(fs, path)
        groups = {f"{path.rstrip('/')}/{name}" for name in _ZARR}
        first = (
            [info for info in members if str(info["name"]) in groups]
            or [info for info in members if str(info["name"]).lower().endswith(".dcm")]
            or members
        )
        if not first:
            raise FileNotFoundError(path)
        opened = first[0]
        others = [info for info in members if info is not opened]
    elif pure.suffix.lower() == ".mrxs":
        others = _below(fs, str(pure.with_suffix("")))
    elif pure.suffix.lower() == ".dcm":
        others = [i for i in _below(fs, str(pure.parent), 1) if str(i["name"]).lower().endswith(".dcm")]
        others = [info for info in others if str(info["name"]) != str(opened["name"])]
    return [_slide_file(info, local) for info in (opened, *others)]


def _below(fs: Any, folder: str, depth: int | None = None) -> list[dict[str, Any]]:
    """Return what the store says of the files below a folder, in the order of their names."""
    try:
        found: dict[str, dict[str, Any]] = fs.find(folder, maxdepth=depth, detail=True)
    except FileNotFoundError:
        return []
    # Some stores and tools keep an empty object for a folder.
    return [found[name] for name in sorted(found) if name != folder and not name.endswith("/")]


def _slide_file(info: dict[str, Any], local: bool) -> SlideFile:
    path = str(info["name"])
    if local:
        found = Path(path).stat()
        version = f"{found.st_mtime_ns}-{found.st_ctime_ns}"
    else:
        version = str(next((info[key] for key in _VERSION_KEYS if info.get(key)), ""))
    return SlideFile(path, info["size"], version)


def is_zarr(files: list[SlideFile]) -> bool:
    """Tell whether ``files`` are those of an OME-Zarr folder."""
    return PurePosixPath(files[0].path).name in _ZARR


def slide_folder(url: str, files: list[SlideFile]) -> str | None:
    """Return the path of the folder that ``url`` names, if it names one; ``files`` are those of the slide."""
    _, path = filesystem(url)
    if is_zarr(files):
        return str(PurePosixPath(files[0].path).parent)
    return None if files[0].path.rstrip("/") == path.rstrip("/") else path


def digest(files: list[SlideFile]) -> str:
    """Return a short text that changes when one of the files does."""
    lines = (f"{PurePosixPath(file.path).name}\0{file.size}\0{file.version}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def version(url: str) -> str:
    """Return a short text that changes when a file of the slide at ``url`` is written, without reading it.

    It covers every file of the slide: name, size, and what the store says of the content. It also changes
    when only the times of a file do. If it begins with ``?``, the store says too little, and equal texts
    prove nothing.

    Raises
    ------
    FileNotFoundError, PermissionError
        The slide is not there or may not be read.
    StorageError
        The store did not answer.
    """
    files = slide_files(url)
    return digest(files) if all(file.version for file in files) else f"?{digest(files)}"
