"""S3: how long its client waits, and uploads that end when they stand still.

Imported when an address leads there and not before, as its libraries take half a second.

Answers have a time limit and uploads have none. aiohttp begins to count the seconds without an answer when a
request has been sent. Until then, a store that
never says "100 Continue", or does not take the rest of an object, would be waited for without end.
"""

import asyncio
from typing import Any

from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import ReadTimeoutError

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 30
_LARGE = 2**20
_MOST_LARGE = 16
"""Large uploads at once: half of the connections, so that they do not wait for one while time is counted."""


class BoundedSession(AIOHTTPSession):  # type: ignore[misc]  # it has no types
    """A session that gives an upload up once nothing of it was taken for as long as an answer may take.

    The limit is the client's ``read_timeout``; what stood still for between one and two of them ends with
    botocore's `ReadTimeoutError`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._line = asyncio.Semaphore(_MOST_LARGE)

    async def send(self, request: Any) -> Any:
        """Send a request; see `AIOHTTPSession.send`."""
        if _length(request) < _LARGE:
            return await self._watched(request)
        async with self._line:
            return await self._watched(request)

    async def _watched(self, request: Any) -> Any:
        if _position(request.body) is None:
            return await super().send(request)
        sending = asyncio.ensure_future(super().send(request))
        try:
            while True:
                before = _position(request.body)
                await asyncio.wait({sending}, timeout=self._timeout.sock_read)
                if sending.done():
                    return sending.result()
                if _position(request.body) == before:
                    raise ReadTimeoutError(endpoint_url=request.url, error="the upload stands still")
        finally:
            sending.cancel()


LIMITS: dict[str, Any] = {
    "retries": {"mode": "standard", "total_max_attempts": 1},  # retried by `client`, not once more below
    "connect_timeout": CONNECT_TIMEOUT_S,
    "read_timeout": READ_TIMEOUT_S,
    "max_pool_connections": 32,
    "http_session_cls": BoundedSession,
}


def with_limits(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of s3fs with `LIMITS`, where they say nothing else."""
    return options | {"config_kwargs": LIMITS | options.get("config_kwargs", {})}


def _length(request: Any) -> int:
    """Return how many bytes an object, or a part, has that a request uploads."""
    headers = request.headers
    return int(headers.get("X-Amz-Decoded-Content-Length") or headers.get("Content-Length") or 0)


def _position(body: Any) -> int | None:
    """Return how much of an upload was taken from its buffer; None of what is not an upload."""
    source = getattr(body, "_raw", body)  # for https it is wrapped, to have its checksum at the end
    return int(source.tell()) if hasattr(source, "tell") else None
