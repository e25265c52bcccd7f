"""Who works on a results location: one run at a time holds its lease, and beats it to show that it lives.

The lease is the folder ``<results>/_lease``. A run takes it by creating ``<epoch>.json``, where the epoch is
one more than the greatest there is; only one of several that try gets a number. The greatest epoch holds the
lease until ``<epoch>.released`` is there. Its beats go to ``<epoch>.beat``. So every object has one writer,
and no request that arrives late, or twice, can undo that another took over. No run removes any of them.

A run has lost the lease once the next epoch exists, or its own does not. What it wrote carries its epoch, and
records are ordered by that first: a run that stood still for hours cannot replace what a later one did.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self

from deepliif_ray import storage
from deepliif_ray.engine.run.holder import is_gone, name_of, this_process
from deepliif_ray.errors import LeaseLostError, ResultsInUseError, StorageError, StorageMissingError
from deepliif_ray.tables.ledger import Ledger

BEAT_S = 5.0
"""Seconds between two beats."""
STALE_S = 60.0
"""A lease that does not change for so many seconds belongs to a run that is gone."""
_LOOK_S = 1.0
_FOLDER = "_lease"

_log = logging.getLogger(__name__)


def lease_url(results: str, epoch: int, kind: str = "json") -> str:
    """Return where an object of the lease is: ``json`` (it is taken), ``beat`` or ``released``."""
    return storage.join(results, _FOLDER, f"{epoch:010d}.{kind}")


def older_lease_url(results: str) -> str:
    """Return where version 0.1 keeps its lease: one object, written over at every beat."""
    return storage.join(results, "_lease.json")


def newest_epoch(results: str, known: int = 0) -> int:
    """Return the greatest epoch there is, at least ``known``; 0 if there is none.

    Epochs follow one another without a gap, so that a store whose listings come late is asked for the next.

    Raises
    ------
    StorageError
        The store does not answer.
    """
    if not known:
        names = storage.list_stored(storage.join(results, _FOLDER), ".json")
        known = max((int(name[:-5]) for name in names if name[:-5].isdecimal()), default=0)
    while storage.exists(lease_url(results, known + 1)):
        known += 1
    return known


def read_lease(results: str, known: int = 0) -> dict[str, Any] | None:
    """Return who holds the lease of a results location and what its last beat said; None if nobody does.

    Parameters
    ----------
    results : str
        URL of the results.
    known : int
        An epoch that is known to exist.

    Returns
    -------
    dict or None
        ``run_id``, ``epoch``, ``host``, ``pid``, ``started_at``, ``beat_at`` and ``progress`` among others;
        without some of them if the lease cannot be understood.

    Raises
    ------
    StorageError
        The store does not answer.
    """
    epoch = newest_epoch(results, known)
    holder = _read(lease_url(results, epoch)) if epoch else None
    if holder is not None and not storage.exists(lease_url(results, epoch, "released")):
        beat = _read(lease_url(results, epoch, "beat")) or {}
        return (beat if beat.get("run_id") == holder.get("run_id") else holder) | {"epoch": epoch}
    older = _read(older_lease_url(results))
    return None if older is None or "epoch" in older else older


def fence(results: str, epoch: int, run_id: str) -> None:
    """Refuse to go on if run ``run_id`` does not hold the lease any more, which it took as ``epoch``.

    Raises
    ------
    LeaseLostError
        Another run took the results over, or somebody removed the lease.
    StorageError
        The store does not answer.
    """
    other = _other_holder(results, epoch, run_id)
    if other is not None:
        raise _lost(results, run_id, other)


def _other_holder(results: str, epoch: int, run_id: str) -> dict[str, Any] | None:
    """Return who has what ``run_id`` took as ``epoch``; {} if nobody can tell, None if it still has it."""
    later = _read(lease_url(results, epoch + 1))
    if later is not None:
        return later
    own = _read(lease_url(results, epoch))
    return None if own is not None and own.get("run_id") == run_id else own or {}


def _read(url: str) -> dict[str, Any] | None:
    try:
        found = json.loads(storage.read_bytes(url))
    except StorageMissingError:
        return None
    except ValueError:  # read while it was being written
        return {}
    return found if isinstance(found, dict) else {}


def _lost(results: str, run_id: str, holder: dict[str, Any]) -> LeaseLostError:
    why = f"{name_of(holder)} took these results over" if holder else "its lease was removed"
    return LeaseLostError(f"{results}: run {run_id} ended because {why}; what it had finished is kept")


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

    Attributes
    ----------
    epoch : int
        The number under which it is held; 0 before.

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
        self.epoch = 0
        self._results, self._run_id = results, run_id
        self._snapshot, self._take_over = snapshot, take_over
        self._started = datetime.now(UTC).isoformat()
        self._beats = 0
        self._holder: dict[str, Any] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self.take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=BEAT_S)
        try:
            self.release()
        except StorageError as error:
            _log.warning("lease.not_released", extra={"why": f"{error}; the next run will wait for it"})

    def check(self) -> None:
        """Raise `LeaseLostError` if another run was seen to hold the lease."""
        if self._holder is not None:
            raise _lost(self._results, self._run_id, self._holder)

    def take(self) -> None:
        """Take the lease, waiting to see whether its holder is alive; raises as entering the context does."""
        known = newest_epoch(self._results) or self._epoch_of_records()
        asked_for = known
        seen: dict[str, Any] | None = None
        same = 0
        while True:
            known = newest_epoch(self._results, known)
            holder = read_lease(self._results, known)
            # Looks are counted, not seconds: this process, or all of the machine, may have stood still.
            same += holder == seen
            stale = same * _LOOK_S >= STALE_S
            if holder is None or is_gone(holder) or stale or (self._take_over and known == asked_for):
                if self._create(known + 1):
                    if holder is not None:
                        told = {"results": self._results, "from": name_of(holder)}
                        _log.warning("lease.taken_over", extra=told)
                    return
            elif seen is None:
                seen = holder
                why = f"in use by {name_of(holder)}; waiting up to {STALE_S:.0f} s to see if it is alive"
                _log.warning("lease.watched", extra={"results": self._results, "why": why})
            elif holder != seen:
                raise self._in_use(holder)
            time.sleep(_LOOK_S)

    def beat(self) -> None:
        """Show that the run lives, unless another has the lease: then `check` tells so from now on."""
        self._holder = self._holder or _other_holder(self._results, self.epoch, self._run_id)
        if self._holder is None:
            self._beats += 1
            storage.write_bytes(lease_url(self._results, self.epoch, "beat"), self._document(self.epoch))

    def release(self) -> None:
        """Let the next run have the lease at once."""
        if self._holder is None:
            storage.write_bytes(lease_url(self._results, self.epoch, "released"), self._document(self.epoch))

    def _create(self, epoch: int) -> bool:
        """Take the lease as ``epoch``, unless another did; tell whether it is held now."""
        url = lease_url(self._results, epoch)
        document = self._document(epoch)
        created = storage.create_bytes(url, document)
        # Not created: the answer may have been lost. Created: a store may not know conditions, or be slow.
        if (_read(url) or {}).get("run_id") != self._run_id:
            return False
        if not created:
            _log.warning("lease.answer_lost", extra={"results": self._results})
        older = _read(older_lease_url(self._results))
        if older is not None and "epoch" not in older:  # its holder ends when it finds another's name there
            storage.write_bytes(older_lease_url(self._results), document)
        if newest_epoch(self._results) != epoch:
            return False
        self.epoch = epoch
        return True

    def _epoch_of_records(self) -> int:
        """Return the greatest epoch of the records: results may have been copied without their lease."""
        ledger = Ledger(self._results, must_exist=False)
        tables = ledger.slides(), ledger.failures(), ledger.runs()
        return max((e for table in tables for e in table.column("epoch").to_pylist() if e), default=0)

    def _document(self, epoch: int) -> bytes:
        return json.dumps(
            this_process()
            | {
                "run_id": self._run_id,
                "epoch": epoch,
                "started_at": self._started,
                "beat": self._beats,
                "beat_at": datetime.now(UTC).isoformat(),
                "progress": self._snapshot(),
            }
        ).encode()

    def _in_use(self, holder: dict[str, Any]) -> ResultsInUseError:
        return ResultsInUseError(
            f"{self._results}: in use by {name_of(holder)} since {holder.get('started_at')}, last sign of "
            f"life {holder.get('beat_at')}; wait for it to end, or end it and take over with --take-over"
        )

    def _beat_on(self) -> None:
        while self._holder is None and not self._ended.wait(BEAT_S):
            try:
                self.beat()
            except StorageError as error:
                _log.warning("lease.not_beaten", extra={"why": str(error)})
