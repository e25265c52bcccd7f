"""Who works on a results location: one run at a time holds its lease, and beats it to show that it lives.

The lease is the object ``<results>/_lease.json``; `status` reads how far a run is from it. It keeps a second
run from doing the same work again. It is not what keeps the tables right: records are whole objects with
names of their own, so two runs that both write neither damage nor duplicate anything.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from deepliif_ray import storage
from deepliif_ray.errors import LeaseLostError, ResultsInUseError, StorageError

BEAT_S = 5.0
"""Seconds between two beats."""
STALE_S = 60.0
"""A lease that does not change for so many seconds belongs to a run that is gone."""
_LOOK_S = 1.0

_log = logging.getLogger(__name__)


def lease_url(results: str) -> str:
    """Return where the lease of a results location is."""
    return storage.join(results, "_lease.json")


def read_lease(results: str) -> dict[str, Any] | None:
    """Return the lease of a results location, or None if no run holds it.

    Raises
    ------
    StorageError
        The store does not answer.
    """
    try:
        found = json.loads(storage.read_bytes(lease_url(results)))
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    except ValueError:  # read while it was being created
        return {}
    return found if isinstance(found, dict) else {}


def fence(results: str, run_id: str) -> None:
    """Refuse to go on if another run than ``run_id`` holds the lease.

    Raises
    ------
    LeaseLostError
        Another run took the results over.
    StorageError
        The store does not answer.
    """
    holder = read_lease(results)
    if holder is not None and holder.get("run_id") != run_id:
        raise _lost(results, run_id, holder)


def _lost(results: str, run_id: str, holder: dict[str, Any]) -> LeaseLostError:
    return LeaseLostError(
        f"{results}: run {run_id} ended because {_who(holder)} took these results over; what it had finished "
        "is kept"
    )


def _who(holder: dict[str, Any]) -> str:
    return f"run {holder.get('run_id', '?')} on {holder.get('host', '?')} (process {holder.get('pid', '?')})"


def _processes() -> str:
    """Name the set of processes that this one's number belongs to: containers may share a host's name."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _is_gone(holder: dict[str, Any]) -> bool:
    """Tell whether the holder was a process of this machine that is no more."""
    pid = holder.get("pid")
    if (holder.get("host"), holder.get("processes")) != (socket.gethostname(), _processes()):
        return False
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's
        return False
    return False


class Lease:
    """The lease of a results location, held as long as the context lasts.

    Whether another holder lives is seen by its beats alone, never by comparing clocks: one that changes is
    alive, one that does not for `STALE_S` seconds, or whose process on this machine has ended, is gone.

    Parameters
    ----------
    results : str
        URL of the results.
    run_id : str
    snapshot : callable
        Returns how far the run is, as something JSON can hold; called at every beat, in a thread.
    take_over : bool
        Take the lease even if its holder is alive; that one ends at its next beat or commit.

    Raises
    ------
    ResultsInUseError
        On entering: another run works on these results.
    StorageError
        On entering: the store does not answer.
    """

    def __init__(
        self, results: str, run_id: str, snapshot: Callable[[], dict[str, Any]], *, take_over: bool = False
    ) -> None:
        self._results, self._run_id = results, run_id
        self._snapshot, self._take_over = snapshot, take_over
        self._url = lease_url(results)
        self._started = datetime.now(UTC).isoformat()
        self._holder: dict[str, Any] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=BEAT_S)
        try:
            holder = read_lease(self._results)
            if holder is not None and holder.get("run_id") == self._run_id:
                storage.remove(self._url)
        except StorageError as error:
            _log.warning("lease.not_removed", extra={"why": f"{error}; the next run will wait for it"})

    def check(self) -> None:
        """Raise `LeaseLostError` if another run was seen to hold the lease."""
        if self._holder is not None:
            raise _lost(self._results, self._run_id, self._holder)

    def _document(self) -> bytes:
        return json.dumps(
            {
                "run_id": self._run_id,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "processes": _processes(),
                "started_at": self._started,
                "beat_at": datetime.now(UTC).isoformat(),
                "progress": self._snapshot(),
            }
        ).encode()

    def _take(self) -> None:
        seen: dict[str, Any] | None = None
        same = 0
        while not storage.create_bytes(self._url, self._document()):
            holder = read_lease(self._results)
            if holder is None:
                continue
            if holder.get("run_id") == self._run_id:  # written, but the answer was lost
                break
            # Looks are counted, not seconds: this process, or all of the machine, may have stood still.
            same += holder == seen
            stale = same * _LOOK_S >= STALE_S
            if self._take_over or _is_gone(holder) or stale:
                _log.warning("lease.taken_over", extra={"results": self._results, "from": _who(holder)})
                storage.write_bytes(self._url, self._document())
                break
            if seen is None:
                seen = holder
                why = f"in use by {_who(holder)}; waiting up to {STALE_S:.0f} s to see if it is alive"
                _log.warning("lease.watched", extra={"results": self._results, "why": why})
            elif holder != seen:
                raise self._in_use(holder)
            time.sleep(_LOOK_S)
        # Where a store does not keep "create if absent", or two took over at once, the last one has it.
        holder = read_lease(self._results)
        if holder is not None and holder.get("run_id") != self._run_id:
            raise self._in_use(holder)

    def _in_use(self, holder: dict[str, Any]) -> ResultsInUseError:
        return ResultsInUseError(
            f"{self._results}: in use by {_who(holder)} since {holder.get('started_at')}, last sign of life "
            f"{holder.get('beat_at')}; wait for it to end, or end it and take over with --take-over"
        )

    def _beat_on(self) -> None:
        while self._holder is None and not self._ended.wait(BEAT_S):
            try:
                holder = read_lease(self._results)
                if holder is None:  # somebody removed it
                    storage.create_bytes(self._url, self._document())
                elif holder.get("run_id") != self._run_id:
                    self._holder = holder
                else:
                    storage.write_bytes(self._url, self._document())
            except StorageError as error:
                _log.warning("lease.not_beaten", extra={"why": str(error)})
