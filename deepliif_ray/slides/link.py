"""How the process that reads slides and the one it serves talk, as the first sees it.

Requests and answers are JSON. While it answers, the helper may ask back for parts of files of the slide's
folder in a store: ``{"wanted": [[name, start, end], …]}``. It gets one message for each, in that order.
"""

import json
import signal
from multiprocessing.connection import Connection
from typing import Any

MISSING, PRESENT = b"0", b"1"
"""What a message with a part of a file begins with; the part follows."""

Wanted = tuple[str, int | None, int | None]
"""A file's name below the slide's folder; the first byte, negative from the end; the byte to stop before."""

_MAX_NAME = 1024


def is_inside(name: str) -> bool:
    """Tell whether ``name`` can only be a file below the folder that it is taken from."""
    parts = name.split("/")
    return len(name) <= _MAX_NAME and all(parts) and not {".", ".."} & set(parts) and "\0" not in name


class Link:
    """The helper's end.

    Parameters
    ----------
    connection : Connection
    seconds : int
        A request that takes longer ends the process, whatever a library is busy with. Waiting for a store
        does not count.
    """

    def __init__(self, connection: Connection, seconds: int) -> None:
        self._connection, self._seconds = connection, seconds

    def receive(self) -> dict[str, Any]:
        """Return the next request; its time begins.

        Raises
        ------
        EOFError
            The other side hung up.
        """
        request: dict[str, Any] = json.loads(self._connection.recv_bytes())
        signal.alarm(self._seconds)
        return request

    def send(self, answer: object) -> None:
        """Send an answer; the time of its request ends."""
        message = json.dumps(answer).encode()
        signal.alarm(0)
        self._connection.send_bytes(message)

    def fetch(self, wanted: list[Wanted]) -> list[bytes | None]:
        """Return parts of files of the slide that is being read, None for those that are not there."""
        left = signal.alarm(0)
        self._connection.send_bytes(json.dumps({"wanted": wanted}).encode())
        messages = [self._connection.recv_bytes() for _ in wanted]
        signal.alarm(max(left, 1))
        return [message[1:] if message[:1] == PRESENT else None for message in messages]
