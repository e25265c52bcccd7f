"""The file system behind a URL, and patience with it: the one place where trouble is tried again."""

import logging
import os
import random
import time
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

import fsspec

from deepliif_ray.errors import AddressRefusedError, ConfigError, StorageError
from deepliif_ray.extras import missing_extra
from deepliif_ray.storage.addresses import check_url, web_client
from deepliif_ray.storage.answers import answer_of
from deepliif_ray.storage.credentials import names_protocol, refuse_credentials, scrub, storage_options
from deepliif_ray.storage.documents import shown
from deepliif_ray.storage.failures import failures, is_passing, lacks_credentials
from deepliif_ray.storage.urls import is_local, local_path

PROTOCOLS = {
    "abfs", "abfss", "az", "file", "gcs", "gs", "http", "https", "memory", "s3", "s3a",
}  # fmt: skip
"""Kinds of URLs that are used; others only where the storage-options file names them. fsspec knows many more:
some read local files by another name, run programs, or lead to other URLs."""
RETRY_VARIABLE = "DEEPLIIF_RAY_RETRY_S"
RETRY_S = 90.0
"""Trouble that passes is tried again for so long, seconds: a store may be restarted meanwhile."""
_WEB = ("http", "https")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
_TELL_AFTER_S = 3.0


T = TypeVar("T")
_log = logging.getLogger(__name__)


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of ``url`` and the path in it.

    ``http://`` and ``https://`` lead to no machine inside a network that is not allowed, see
    `deepliif_ray.storage.addresses`. The filesystem does not repeat what fails; the functions of this package
    do (see `retried`). It belongs to this process: one that is forked must ask for its own.

    Raises
    ------
    StorageError
        The protocol is not one that is used here, or its package is not installed; or the address is refused.
    ConfigError
        The URL holds credentials, or the storage-options file cannot be used.
    """
    fs, path = _connect(url)
    if hasattr(fs, "retries"):  # s3fs: how often it sends each request
        fs.retries = 1
    return fs, path


def patient_filesystem(url: str) -> tuple[Any, str]:
    """Return the same as `filesystem`, for libraries that use it directly: repeating requests by itself."""
    return _connect(url, skip_instance_cache=True)


def _connect(url: str, **more: Any) -> tuple[Any, str]:
    if is_local(url):
        return fsspec.filesystem("file"), str(local_path(url).absolute())
    refuse_credentials(url)
    protocol = url.partition("://")[0]
    if protocol not in PROTOCOLS and not names_protocol(protocol):
        raise StorageError(
            f"{scrub(url)}: {shown(protocol, quoted=False)}:// is not among the kinds of URLs that are used "
            f"here ({', '.join(sorted(PROTOCOLS))}); if it is meant to be, name it in the storage-options "
            "file, see docs/storage.md"
        )
    if protocol in _WEB:
        check_url(url)
        more = {"get_client": web_client, **more}
    try:
        # Not fsspec's url_to_fs: it takes apart paths that hold "::".
        kind = fsspec.get_filesystem_class(protocol)
        names = (kind.protocol,) if isinstance(kind.protocol, str) else kind.protocol
        options = storage_options((protocol, *names))
        if "s3" in names:
            from deepliif_ray.storage.s3 import with_limits

            options = with_limits(options)
        # Other processes write to the same folders: a listing remembered is a listing out of date.
        options = {"use_listings_cache": False} | kind._get_kwargs_from_urls(url) | options | more
        return kind(**options), str(kind._strip_protocol(url))
    except ConfigError:
        raise
    except failures(TypeError) as error:
        missing = missing_extra(error, f"{protocol}://")
        if missing is not None:
            raise StorageError(f"{scrub(url)}: {missing}") from error
        raise StorageError(f"{url}: cannot use this kind of URL ({scrub(str(error))})") from None


def retry_seconds() -> float:
    """Return for how long trouble is tried again: $DEEPLIIF_RAY_RETRY_S, or 90 s.

    Raises
    ------
    ConfigError
        It is not a number of seconds.
    """
    text = os.environ.get(RETRY_VARIABLE, "")
    try:
        seconds = float(text) if text else RETRY_S
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"${RETRY_VARIABLE} is {text!r}; give seconds")
    return seconds


def retried(url: str, call: Callable[[], T]) -> T:
    """Return what ``call`` returns, repeating it while the store of ``url`` has trouble that may pass.

    Pauses grow from a quarter of a second to eight, each drawn from its upper half so that many processes do
    not come back at once. The last error is raised once `retry_seconds` have gone by since the first.
    """
    randomness = random.SystemRandom()  # the state of the common one is the same in all forked processes
    began: float | None = None
    told = False
    for attempt in count():
        try:
            return call()
        except failures() as error:
            if (refused := _refusal(error)) is not None:
                raise AddressRefusedError(f"{scrub(url)}: {refused}") from None
            if is_local(url) or not is_passing(error):
                raise
            now = time.monotonic()
            began = now if began is None else began
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempt, 16)) * randomness.uniform(
                0.5, 1
            )
            left = began + retry_seconds() - now
            if left <= 0:
                raise
            if not told and now - began >= _TELL_AFTER_S:
                told = True
                _log.warning("%s: %s; trying again for %.0f s", scrub(url), scrub(str(error)), left)
            time.sleep(min(pause, left))
    raise AssertionError  # the count has no end


def _refusal(error: BaseException | None) -> AddressRefusedError | None:
    """Return the refusal that fsspec took for a file that is missing, if there is one."""
    while error is not None and not isinstance(error, AddressRefusedError):
        error = error.__cause__
    return error


class _RenewedError(ConnectionError):
    """Credentials were renewed between two requests."""

    status = 503


def ask(url: str, call: Callable[[Any, str], T]) -> T:
    """Return what ``call`` returns for the filesystem of ``url`` and the path in it, `retried`.

    Where credentials have expired, the next try looks for new ones. Where a HEAD is refused without a reason,
    a byte is asked for, because that answer has one.
    """

    def once() -> T:
        fs, path = filesystem(url)
        try:
            return call(fs, path)
        except failures() as error:
            reason = _reason(fs, path, error)
            answer = answer_of(reason)
            if answer is not None and answer.is_expired:
                type(fs).clear_instance_cache()
            if reason is error:
                raise
        raise reason  # here, since it may have a cause of its own that says more

    return retried(url, once)


def _reason(fs: Any, path: str, error: BaseException) -> BaseException:
    """Return the error that says why, if ``error`` does not: that of asking for the object's first byte."""
    answer = answer_of(error)
    if answer is None or not answer.is_bare:
        return error
    try:
        fs.cat_file(path, start=0, end=1)
    except failures() as told:
        known = answer_of(told)
        return error if known is None or known.is_bare else told
    return _RenewedError("refused, and then no more")


def trouble(url: str, problem: str, error: BaseException) -> StorageError:
    """Return the error to raise for ``url``: what went wrong, without any credentials."""
    said = scrub(" ".join(str(error).split())) or type(error).__name__
    advice = ""
    answer = answer_of(error)
    if answer is not None and answer.is_expired:
        advice = "; the credentials were not renewed in time, or a clock is wrong, see docs/storage.md"
    elif lacks_credentials(error) and not is_local(url):
        advice = "; check the credentials, see docs/storage.md"
    return StorageError(f"{scrub(url)}: {problem} ({said}){advice}")
