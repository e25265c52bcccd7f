"""What a URL says, without looking at what it leads to."""

import os
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

from deepliif_ray.storage.credentials import refuse_credentials

_FILE = re.compile(r"file:(?://(?:localhost(?=/))?)?(?=/)|file://", re.IGNORECASE)


def is_local(url: str) -> bool:
    """Tell whether ``url`` is a path on this machine."""
    return "://" not in url or _FILE.match(url) is not None


def local_path(url: str) -> Path:
    """Return the path that a local ``url`` names; in a ``file://`` URL, ``%20`` and the like are characters.

    Where there is no such file, but one of the name as it is written, percent signs included, that is meant.
    """
    scheme = _FILE.match(url)
    if scheme is None:
        return Path(url)
    written = url[scheme.end() :]
    meant = unquote(written, errors="surrogateescape")
    return Path(
        written if meant != written and not Path(meant).exists() and Path(written).exists() else meant
    )


def is_absolute(url: str) -> bool:
    """Tell whether ``url`` stands on its own, not relative to something."""
    return "://" in url or _FILE.match(url) is not None or Path(url).is_absolute()


def place(url: str) -> str:
    """Return the same text for all URLs that lead to one slide, however they are written.

    Links, ``./``, slashes at the end, percent signs of web addresses and ``file://`` make no difference.
    """
    if is_local(url):
        found = os.path.realpath(local_path(url))
    else:
        protocol, _, path = url.partition("://")
        protocol = protocol.lower()
        protocol = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "https": "http"}.get(protocol, protocol)
        if protocol == "http":
            host, slash, rest = path.partition("/")
            path = host.lower() + slash + unquote(rest)
        found = f"{protocol}://{posixpath.normpath(path)}"
    return found


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
    """Return ``uri`` as an absolute URL, a path if it is local; a relative one is taken from ``folder``."""
    if _FILE.match(uri):
        return str(local_path(uri).absolute())
    if is_absolute(uri):
        return uri
    if is_local(folder):
        return str((local_path(folder) / uri).absolute())
    protocol, _, base = folder.partition("://")
    return f"{protocol}://{posixpath.normpath(posixpath.join(base, uri))}"
