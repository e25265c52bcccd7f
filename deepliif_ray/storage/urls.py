"""What a URL says, without looking at what it leads to."""

import posixpath
from pathlib import Path

from deepliif_ray.storage.credentials import refuse_credentials


def is_local(url: str) -> bool:
    """Tell whether ``url`` is a path on this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    """Return the path that a local ``url`` names."""
    return Path(url.removeprefix("file://"))


def is_absolute(url: str) -> bool:
    """Tell whether ``url`` stands on its own, not relative to something."""
    return "://" in url or Path(url).is_absolute()


def absolute(url: str) -> str:
    """Return ``url`` so that it means the same in processes with other working folders.

    Raises
    ------
    ConfigError
        It holds credentials.
    """
    refuse_credentials(url)
    return str(local_path(url).absolute()) if is_local(url) else url


def join(base: str, *parts: str) -> str:
    """Append ``parts`` to the folder ``base`` with single slashes."""
    return "/".join([base.rstrip("/") or "/", *parts])


def parent(url: str) -> str:
    """Return the folder that ``url`` lies in."""
    if is_local(url):
        return str(local_path(url).absolute().parent)
    protocol, _, path = url.partition("://")
    return f"{protocol}://{posixpath.dirname(path.rstrip('/'))}"


def resolve(uri: str, folder: str) -> str:
    """Return ``uri`` as an absolute URL; a relative one is taken from ``folder``."""
    if is_absolute(uri):
        return uri
    if is_local(folder):
        return str((local_path(folder) / uri).absolute())
    protocol, _, base = folder.partition("://")
    return f"{protocol}://{posixpath.normpath(posixpath.join(base, uri))}"
