"""Small objects: documents that are read whole, but no more of them than they may have."""

from typing import Any

from deepliif_ray.errors import ConfigError
from deepliif_ray.storage.credentials import scrub
from deepliif_ray.storage.documents import MAX_BYTES, parse_yaml
from deepliif_ray.storage.objects import read_bytes, read_range, size


def read_yaml(url: str) -> tuple[Any, bytes]:
    """Return what the YAML document at ``url`` says, and its bytes.

    Raises
    ------
    ConfigError
        As for `parse_yaml`.
    StorageError
        It cannot be read.
    """
    content = read_small(url)
    return parse_yaml(content, scrub(url)), content


def read_small(url: str, most: int = MAX_BYTES) -> bytes:
    """Return the content of ``url``; of one with more than ``most`` bytes no more is read than tells so.

    Raises
    ------
    ConfigError
        It has more than ``most`` bytes.
    StorageError
        It cannot be read.
    """
    known = size(url)
    content = b""
    if known is None:
        content = read_range(url, 0, most + 1)
    elif known <= most:
        content = read_bytes(url)
    if len(content) > most or (known or 0) > most:
        raise ConfigError(f"{scrub(url)}: has more than the {most:,} bytes that such a file may have")
    return content
