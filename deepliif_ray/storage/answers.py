"""What a store answered, from the error that its library made of it.

Libraries translate answers into errors of Python, and lose on the way what tells them apart: s3fs makes a
`PermissionError` of an expired token and ``OSError(EINVAL)`` of a failed condition. The store's own code is
still there, in an error further down the chain.
"""

import sys
from typing import Any, NamedTuple

EXPIRED_CODES = frozenset(
    (
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "TokenRefreshRequired",
    )
)
"""Credentials that were good and will be again, once whoever renews them (or sets the clock) has done it."""
_BUSY_CODES = frozenset(
    (
        "ConditionalRequestConflict",  # another wrote at the same moment; asked again, one has won
        "InternalError",
        "InternalFailure",
        "NoSuchUpload",  # of many parts, when clearing up hides why it ended; the next try begins another
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    )
)
_TAKEN_CODES = frozenset(("PreconditionFailed", "412"))


class Answer(NamedTuple):
    """A store's answer: its code ("" if there is none), the HTTP status (0 if unknown), and the operation."""

    code: str
    status: int
    operation: str = ""

    @property
    def is_expired(self) -> bool:
        """Whether the credentials have to be renewed."""
        return self.code in EXPIRED_CODES

    @property
    def is_busy(self) -> bool:
        """Whether the same request may succeed soon."""
        return self.code in _BUSY_CODES or self.status >= 500 or self.status in (408, 429)

    @property
    def is_taken(self) -> bool:
        """Whether there is an object where one was to be created."""
        return self.code in _TAKEN_CODES or self.status == 412

    @property
    def is_bare(self) -> bool:
        """Whether it refuses without a reason: answers to HEAD have no body, and so no code."""
        return self.status in (400, 403) and self.operation.startswith("Head")


def loaded(module: str, *names: str) -> tuple[Any, ...]:
    """Return classes of errors of a library, none where nobody imported it: then it has raised none.

    So none is imported to ask: that of S3 takes half a second, and is not there where only local results are
    read.
    """
    found = (getattr(sys.modules.get(module), name, None) for name in names)
    return tuple(kind for kind in found if kind is not None)


def answer_of(error: Any) -> Answer | None:
    """Return the answer that ``error``, or an error behind it, stands for; None if there is none."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, loaded("botocore.exceptions", "ClientError")):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return Answer(str(error.response["Error"].get("Code", "")), int(status), error.operation_name)
        for name in ("status", "status_code", "code"):
            status = getattr(error, name, None)
            if isinstance(status, int):
                return Answer("", status)
        error = error.__cause__ or error.__context__
    return None
