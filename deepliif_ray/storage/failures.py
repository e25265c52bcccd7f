"""What the libraries of stores raise, and whether it may pass."""

import errno
from http.client import HTTPException

from deepliif_ray.storage.answers import answer_of, loaded

_ALWAYS = (OSError, HTTPException, ValueError, ImportError)
_LASTING = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_PASSING_ERRNOS = frozenset(
    (errno.EBUSY, errno.EREMOTEIO, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EAGAIN)
)


def failures(*more: type[BaseException]) -> tuple[type[BaseException], ...]:
    """Return what fsspec and the libraries below it raise, and ``more``; for ``except``."""
    return (
        *more,
        *_ALWAYS,
        *loaded("botocore.exceptions", "BotoCoreError", "ClientError"),
        *loaded("botocore.parsers", "ResponseParserError"),
        *loaded("aiohttp", "ClientError"),
    )


def lacks_credentials(error: BaseException) -> bool:
    """Tell whether a store was not asked, or refused, for want of credentials."""
    return isinstance(error, (PermissionError, *loaded("botocore.exceptions", "NoCredentialsError")))


def is_passing(error: BaseException | None) -> bool:
    """Tell whether trouble may be over soon: no connection, no answer in time, a token about to be renewed.

    A missing object or permission stays missing.
    """
    answer = answer_of(error)
    if answer is not None:
        return answer.is_busy or answer.is_expired
    lasting: tuple[type[BaseException], ...] = (*_LASTING, *loaded("botocore.exceptions", "SSLError"))
    passing: tuple[type[BaseException], ...] = (
        ConnectionError,
        TimeoutError,
        HTTPException,
        *loaded("botocore.exceptions", "ConnectionError", "HTTPClientError", "IncompleteReadError"),
        *loaded("botocore.parsers", "ResponseParserError"),  # a rate limit's answer need not be XML
        *loaded("aiohttp", "ClientError"),
    )
    while error is not None:
        if isinstance(error, lasting):
            return False
        if isinstance(error, passing) or getattr(error, "errno", None) in _PASSING_ERRNOS:
            return True
        error = error.__cause__
    return False
