"""Where credentials come from, and how they are kept out of everything that is written or shown.

They come from the environment and profiles, which each store's own library reads, or from a storage-options
file: YAML that gives options of fsspec by protocol. They never come in URLs, because URLs are recorded.
"""

import configparser
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deepliif_ray.errors import ConfigError
from deepliif_ray.storage.documents import parse_yaml

OPTIONS_VARIABLE = "DEEPLIIF_RAY_STORAGE_OPTIONS"
HIDDEN = "***"

_PASSWORD = re.compile(r"(?<=://)[^/@\s:]*:[^/\s]*@")
_SIGNED = re.compile(
    r"([?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|googleaccessid|signature"
    r"|sig|token|access_token|api_key)=)[^&\s'\"<>)]+",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"key|secret|token|pass|credential|auth|sas|connection_string", re.IGNORECASE)
_SECRET_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
)
_SHORTEST_SECRET = 4


def storage_options(protocols: Sequence[str]) -> dict[str, Any]:
    """Return the options that the storage-options file gives for the first of ``protocols`` it names.

    Raises
    ------
    ConfigError
        The file that $DEEPLIIF_RAY_STORAGE_OPTIONS names cannot be used.
    """
    options = _options_file()
    return dict(next((options[name] for name in protocols if name in options), {}))


def names_protocol(protocol: str) -> bool:
    """Tell whether the storage-options file names a protocol, with options or with none.

    Raises
    ------
    ConfigError
        The file cannot be used.
    """
    return protocol in _options_file()


def use_options_file(path: str) -> None:
    """Take storage options from the file at ``path``, here and in processes started from now on.

    Raises
    ------
    ConfigError
        The file cannot be used.
    """
    os.environ[OPTIONS_VARIABLE] = str(Path(path).absolute())
    _options_file()


def _options_file() -> Mapping[str, Mapping[str, Any]]:
    name = os.environ.get(OPTIONS_VARIABLE)
    if not name:
        return {}
    path = Path(name)
    try:
        changed = path.stat().st_mtime_ns  # a secret that is mounted may be exchanged meanwhile
        return _parse(path, changed)
    except OSError as error:
        raise ConfigError(
            f"{path}: the storage-options file cannot be read ({error.strerror}); "
            f"${OPTIONS_VARIABLE} or --storage-options must name a file that is there on every machine"
        ) from error


@lru_cache(maxsize=8)
def _parse(path: Path, changed: int) -> Mapping[str, Mapping[str, Any]]:
    options = parse_yaml(path.read_bytes(), f"{path}, the storage-options file")
    if not (isinstance(options, dict) and all(isinstance(given, dict) for given in options.values())):
        raise ConfigError(
            f"{path}: the storage-options file is not a mapping from protocols such as s3 to options such as "
            "key, secret, endpoint_url; see docs/storage.md"
        )
    return {str(protocol): given for protocol, given in options.items()}


def refuse_credentials(url: str) -> None:
    """Refuse a URL that holds credentials: URLs are written to tables, and shown.

    Raises
    ------
    ConfigError
        It holds a password or is signed.
    """
    signed = url.startswith(("http://", "https://")) and _SIGNED.search(url)
    if signed or _PASSWORD.search(url):
        raise ConfigError(
            f"{scrub(url)}: URLs are written to tables, so they may hold no credentials; give those in the "
            "environment, a profile or a storage-options file"
        )


def scrub(text: str) -> str:
    """Return ``text`` without the credentials in it.

    Hidden are the secrets this process can know of (environment, storage-options file, AWS profiles),
    passwords in URLs and signatures in their queries.
    """
    for secret in sorted(set(_secrets()), key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN).replace(quote(secret, safe=""), HIDDEN)
    return _SIGNED.sub(rf"\1{HIDDEN}", _PASSWORD.sub(f"{HIDDEN}@", text))


def _secrets() -> Iterator[str]:
    yield from (os.environ[name] for name in _SECRET_VARIABLES if name in os.environ)
    with suppress(ConfigError):  # a file that cannot be read has given no secret
        yield from _named_secrets(_options_file())
    profiles = configparser.RawConfigParser()
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    try:
        profiles.read(Path(named).expanduser(), encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, RuntimeError):
        return
    for profile in profiles.sections():
        yield from _named_secrets(dict(profiles[profile]))


def _named_secrets(options: Mapping[Any, Any], secret: bool = False) -> Iterator[str]:
    """Yield the texts whose name, or the name of what they are in, is that of a secret."""
    for name, value in options.items():
        hidden = secret or bool(_SECRET_NAME.search(str(name)))
        if isinstance(value, Mapping):
            yield from _named_secrets(value, hidden)
        elif hidden and isinstance(value, str):
            yield value
