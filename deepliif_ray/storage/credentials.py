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
_SECRET_VARIABLE = re.compile(
    r"(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|(API|ACCESS|ACCOUNT|PRIVATE|SECRET)_?KEY(_ID)?"
    r"|CONNECTION_STRING)$",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 4
_VALUE = r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[^\s&,;'"}\])<>]+)"""
# What looks like a secret, and what is left of it. No pattern looks at a character more than a few times.
_LOOKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"),
        HIDDEN,
    ),
    # The user in a URL, and a password even if it holds a slash or an @.
    (re.compile(r"""(?<=://)[^/\s'"<>]{1,1024}@"""), f"{HIDDEN}@"),
    (re.compile(r"""(?<=://)[^/\s:@'"<>\[]{0,256}:(?!\d{1,5}/)[^\s@'"<>]{0,1024}@"""), f"{HIDDEN}@"),
    (_SIGNED, rf"\1{HIDDEN}"),
    # Headers, to the end of the line or of the text they are quoted in.
    (
        re.compile(
            r"""((?<![\w-])(?:proxy-)?(?:authorization|(?:set-)?cookie)["']?\s{0,8}[:=]\s{0,8}["']?)[^\r\n'"]+""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # Words of prose are not hidden: a token has a digit or a capital.
    (re.compile(r"\b((?i:bearer|basic))\s{1,8}(?=[\w.~+/=%-]*[A-Z0-9=])[\w.~+/=%-]{8,}"), rf"\1 {HIDDEN}"),
    # Values of names, as in environments, options, JSON and queries.
    (
        re.compile(
            r"""((?<![\w.-])[\w.-]{0,64}(?:secret|passwd|password|passphrase|token|signature|credential"""
            r"""|(?:access|account|api|private)[_-]?key|connection[_-]?string|\bpwd|\bsas)[\w.-]{0,64}"""
            r"""["']?\s{0,8}(?:=|:(?!//))\s{0,8})""" + _VALUE,
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # Keys and tokens that say what they are.
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_\w{20,}|\beyJ[\w-]+\.[\w-]+\.[\w-]*"), HIDDEN),
)


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
    """Return ``text`` without the credentials in it: the one place that hides them, for all that is told.

    Hidden are the secrets this process can know of (environment, storage-options file, AWS profiles), and
    what looks like one: users and passwords in URLs, signatures in their queries, values of names such as
    ``token`` or ``AWS_SECRET_ACCESS_KEY``, headers that authorize, tokens and private keys.
    """
    for secret in sorted(set(_secrets()), key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN).replace(quote(secret, safe=""), HIDDEN)
    for pattern, left in _LOOKS:
        text = pattern.sub(left, text)
    return text


def scrubbed(value: object) -> object:
    """Return a value that is told as JSON without the credentials in it, however deep."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {scrub(str(name)): scrubbed(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [scrubbed(inside) for inside in value]
    return value if value is None or isinstance(value, bool | int | float) else scrub(str(value))


def _secrets() -> Iterator[str]:
    yield from (value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name))
    with suppress(ConfigError):  # a file that cannot be read has given no secret
        yield from _named_secrets(_options_file())
    named = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"))
    with suppress(OSError, RuntimeError):
        path = named.expanduser()
        yield from _profile_secrets(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _profile_secrets(path: Path, changed: int) -> tuple[str, ...]:
    profiles = configparser.RawConfigParser()
    try:
        profiles.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return ()
    return tuple(secret for name in profiles.sections() for secret in _named_secrets(dict(profiles[name])))


def _named_secrets(options: Mapping[Any, Any], secret: bool = False) -> Iterator[str]:
    """Yield the texts whose name, or the name of what they are in, is that of a secret."""
    for name, value in options.items():
        hidden = secret or bool(_SECRET_NAME.search(str(name)))
        if isinstance(value, Mapping):
            yield from _named_secrets(value, hidden)
        elif hidden and isinstance(value, str):
            yield value
