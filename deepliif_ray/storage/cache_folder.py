"""The folder of the cache: which it is, and that nobody else can put anything there."""

import os
import stat
import tempfile
from pathlib import Path

from deepliif_ray.errors import StorageError

CACHE_VARIABLE = "DEEPLIIF_RAY_CACHE"
_NAME = "deepliif-ray"


def default_cache() -> Path:
    """Return the folder that remote slides are downloaded to; all processes of a user on a machine share it.

    It is $DEEPLIIF_RAY_CACHE, else ``deepliif-ray`` in $XDG_CACHE_HOME or ``~/.cache``, else, where there is
    no home to write to, ``deepliif-ray-<uid>`` in the temporary folder. See `deepliif_ray.storage.quota` for
    its bound and `own_folder` for whose it must be.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).absolute()
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named).absolute() / _NAME
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("/nonexistent")
    if home.is_dir() and home != Path("/") and os.access(home, os.W_OK | os.X_OK):
        return home / ".cache" / _NAME
    return Path(tempfile.gettempdir()).absolute() / f"{_NAME}-{os.getuid()}"


def own_folder(folder: Path) -> None:
    """Make a folder that only this user can write to, or make sure that it is one.

    Whoever else could write there decides what is read as a slide: in a temporary folder, whoever came first.

    Raises
    ------
    StorageError
        It belongs to somebody else, or others may write to it.
    OSError
        It cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    link, found = folder.lstat(), folder.stat()
    if {link.st_uid, found.st_uid} != {os.geteuid()}:
        problem = "belongs to another user"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = "can be written to by other users"
    else:
        return
    raise StorageError(
        f"{folder}: the cache of remote slides {problem}, who could put other slides there; remove it, make "
        f"it yours (chown, chmod go-w), or set ${CACHE_VARIABLE} to a folder of your own that is not shared"
    )
