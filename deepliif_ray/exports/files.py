"""Files that are there whole or not at all."""

import gzip
import io
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from deepliif_ray.errors import ConfigError, DeepliifRayError, StorageError

_LEVEL = 5
"""Of gzip: a third of the time of its default for a twentieth more."""


def refuse_target(target: Path, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """Refuse a file that cannot be written or must not be; call it before the work.

    Raises
    ------
    ConfigError
        Its suffix is another, its folder is missing, or it is there and not to be replaced.
    """
    if not target.name.lower().endswith(tuple(suffixes)):
        raise ConfigError(f"{target}: the name of such a file ends in {' or '.join(suffixes)}")
    if not target.absolute().parent.is_dir() or target.is_dir():
        raise ConfigError(f"{target}: there is no such folder to write this file to; make it first")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; --overwrite replaces it")


def shards_of(target: Path) -> list[Path]:
    """Return the files beside ``target`` that are named as its shards are, in order."""
    stem, ending = _split(target)
    pattern = re.compile(re.escape(stem) + r"_x-?\d+_y-?\d+" + re.escape(ending))
    return sorted(path for path in target.absolute().parent.iterdir() if pattern.fullmatch(path.name))


def shard(target: Path, x: int, y: int) -> Path:
    """Return the file for the tile whose upper left corner is at ``x``, ``y``."""
    stem, ending = _split(target)
    return target.with_name(f"{stem}_x{x}_y{y}{ending}")


def _split(target: Path) -> tuple[str, str]:
    packed = target.name.lower().endswith(".gz")
    plain = target.name[:-3] if packed else target.name
    suffix = Path(plain).suffix
    return plain[: len(plain) - len(suffix)], suffix + target.name[len(plain) :]


class Files:
    """Files that are written side by side, and appear together."""

    def __init__(self) -> None:
        self._open: dict[Path, tuple[Path, ExitStack, BinaryIO]] = {}

    def of(self, target: Path) -> BinaryIO:
        """Return what to write ``target`` to; packed with gzip if its name ends in ``.gz``."""
        if target not in self._open:
            temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
            stack = ExitStack()
            file: BinaryIO = stack.enter_context(temporary.open("wb"))
            self._open[target] = temporary, stack, file
            if target.name.lower().endswith(".gz"):
                # Without a name and a time in it: the same cells give the same file.
                packed = gzip.GzipFile("", "wb", _LEVEL, file, mtime=0)
                file = stack.enter_context(io.BufferedWriter(packed, 2**17))
                self._open[target] = temporary, stack, file
        return self._open[target][2]

    def targets(self) -> list[Path]:
        """Return what is being written."""
        return list(self._open)

    def finish(self) -> None:
        """Close all files, and give them their names."""
        for _, stack, _ in self._open.values():
            stack.close()
        for target, (temporary, _, _) in self._open.items():
            temporary.replace(target)

    def leave(self) -> None:
        """Remove what did not get its name."""
        for temporary, stack, _ in self._open.values():
            with suppress(OSError, ValueError):
                stack.close()
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def writing(place: Path) -> Iterator[Files]:
    """Give files to write; they appear at the end, and if anything fails nothing of them is left.

    Parameters
    ----------
    place : Path
        What messages name.

    Raises
    ------
    StorageError
        One of them cannot be written.
    """
    files = Files()
    try:
        yield files
        files.finish()
    except OSError as error:
        raise StorageError(f"{place}: cannot be written ({error.strerror or error})") from error
    finally:
        files.leave()


@contextmanager
def placing(target: Path) -> Iterator[Path]:
    """Give a path to write a file or folder to; it becomes ``target``, and is gone if anything fails.

    Parameters
    ----------
    target : Path
        What it is to be; replaced if it is there.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    # With the suffix, for some libraries choose the format by it.
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp{target.suffix}")
    try:
        yield temporary
        if target.is_dir():
            _swap(temporary, target)
        else:
            temporary.replace(target)
    except DeepliifRayError:  # some of them are OSErrors, and say themselves what is wrong
        raise
    except OSError as error:
        raise StorageError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _swap(new: Path, target: Path) -> None:
    """Put a folder in the place of another: none can be renamed to one that has something in it."""
    old = target.with_name(f".{uuid.uuid4().hex}.old")
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def refuse_zarr_target(target: Path, *, overwrite: bool) -> None:
    """Refuse a Zarr folder that cannot be written or must not be; call it before the work.

    Raises
    ------
    ConfigError
        Its name does not end in ``.zarr``, the folder above is missing, or it is there: then it is replaced
        only if that is asked for and it is Zarr.
    """
    if not target.name.lower().endswith(".zarr"):
        raise ConfigError(f"{target}: the name of such a folder ends in .zarr")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"{target}: there is no such folder to write to; make it first")
    if not target.exists():
        return
    if not overwrite:
        raise ConfigError(f"{target}: exists already; --overwrite replaces it")
    if not any((target / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
        raise ConfigError(f"{target}: exists already and is no Zarr folder; give another name")
