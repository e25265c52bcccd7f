"""The record of one run: what it scored, what failed and why, where its time went."""

import logging
import uuid
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from deepliif_ray import __version__, storage
from deepliif_ray.engine.finalize import Scored, origin
from deepliif_ray.engine.run.lease import fence
from deepliif_ray.engine.run.progress import Progress
from deepliif_ray.engine.run.todo import sort_out
from deepliif_ray.engine.work import PLAN, Failure, RunContext
from deepliif_ray.errors import DeepliifRayError, LeaseLostError, SlideChangedError, StorageError
from deepliif_ray.manifest import Manifest, SlideEntry
from deepliif_ray.tables.cohort import leftovers, write_manifest
from deepliif_ray.tables.commit import write_failure, write_run
from deepliif_ray.tables.ledger import Ledger, slide_key

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Attributes
    ----------
    run_id : str
    results : str
        URL of the results.
    slides, scored, skipped, failed : int
        Slides of the manifest; scored now; done before; failed.
    cells, tiles : int
        Of the slides scored now.
    seconds : float
    failures : tuple of (str, str)
        slide_id and message of each failure.
    spent : dict of str to float
        Seconds by step (`deepliif_ray.engine.run.progress.STEPS`), summed over workers.
    set_aside : int
        Slides not tried again, because they failed before for a lasting reason.
    refreshed : int
        Of the slides done before those whose record was brought up to date with the manifest.
    retired : tuple of str
        Slides that the manifest lists no more and that were taken out of the results.
    leftovers : tuple of (str, str or None)
        Slides that the manifest lists no more and that still count; and which one of it has the same content.
    warnings : tuple of str
        What is doubtful about the manifest.
    later : int
        Slides that there is something to do for, but not in this run: it had a limit.
    """

    run_id: str
    results: str
    slides: int
    scored: int
    skipped: int
    failed: int
    cells: int
    tiles: int
    seconds: float
    failures: tuple[tuple[str, str], ...]
    spent: dict[str, float] = field(default_factory=dict)
    set_aside: int = 0
    refreshed: int = 0
    retired: tuple[str, ...] = ()
    leftovers: tuple[tuple[str, str | None], ...] = ()
    warnings: tuple[str, ...] = ()
    later: int = 0


class RunRecord:
    """Keeps the record of one run."""

    def __init__(self, context: RunContext, manifest: Manifest, engine: str, progress: Progress) -> None:
        self._context, self._progress, self._manifest = context, progress, manifest
        self._failures: list[tuple[str, str]] = []
        self.versions: dict[str, str | None] = {}
        self.refreshed = 0
        self.retired: list[str] = []
        self.later = 0
        self._tiles = 0
        self._row: dict[str, Any] = {
            "run_id": context.run_id,
            "epoch": context.epoch,
            "manifest_uri": manifest.url,
            "manifest_digest": manifest.digest,
            "results_uri": context.results,
            "model_uri": context.model_uri,
            "model_digest": context.model_digest,
            "config": context.config.model_dump_json(),
            "config_fingerprint": context.config_fingerprint,
            "software_version": __version__,
            "engine": engine,
            "started_at": datetime.now(UTC),
            "n_slides": len(manifest.slides),
        }

    def __enter__(self) -> Self:
        slide_ids = [entry.slide_id for entry in self._manifest.slides]
        write_manifest(self._context.results, self._row["manifest_digest"], slide_ids)
        self._write("running", {})
        told = ("manifest_uri", "results_uri", "model_uri", "engine", "software_version", "n_slides")
        _log.info("run.started", extra={name: self._row[name] for name in told})
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        storage.remove_empty(storage.join(self._context.results, "_staging"))
        if error is None:
            self._finish("finished")
            return
        with suppress(StorageError):  # it would hide what happened
            self._finish("interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed")

    def record(self, outcomes: Generator[tuple[SlideEntry, Scored | Failure], None, None]) -> RunSummary:
        """Follow a run to its end, writing down failures as they come."""
        with closing(outcomes):
            for entry, outcome in outcomes:
                if not isinstance(outcome, Failure):
                    self._tiles += outcome.tiles
                    self._progress.spend({"finalize": outcome.seconds})
                    self._progress.add(scored=1, cells=outcome.cells)
                    _log.info("slide.scored", extra={"slide_id": entry.slide_id, "cells": outcome.cells})
                elif outcome.reason == LeaseLostError.reason:
                    raise LeaseLostError(outcome.message)
                elif self._was_done_by_another(entry, outcome):
                    self._progress.add(skipped=1)
                else:
                    self._fail(entry, outcome)
        progress = self._progress
        left = leftovers(Ledger(self._context.results))
        return RunSummary(
            run_id=self._context.run_id,
            results=self._context.results,
            slides=progress.slides,
            scored=progress.scored,
            skipped=progress.skipped,
            failed=progress.failed,
            cells=progress.cells,
            tiles=self._tiles,
            seconds=progress.seconds,
            failures=tuple(self._failures),
            spent=progress.spent,
            set_aside=progress.set_aside,
            refreshed=self.refreshed,
            retired=tuple(self.retired),
            leftovers=tuple((row["slide_id"], row["renamed_to"]) for row in left.to_pylist()),
            warnings=tuple(self._manifest.warnings),
            later=self.later,
        )

    def _was_done_by_another(self, entry: SlideEntry, failure: Failure) -> bool:
        """Tell whether a slide failed because another run committed it, and removed what was staged."""
        if failure.stage in ("fetch", "open", "plan") or failure.reason == SlideChangedError.reason:
            return False
        try:
            folder = storage.join(self._context.results, "_staging", slide_key(entry.slide_id))
            return not storage.list_files(folder, PLAN) and not sort_out(self._context, [entry]).score
        except DeepliifRayError:
            return False

    def _fail(self, entry: SlideEntry, failure: Failure) -> None:
        fence(self._context.results, self._context.epoch, self._context.run_id)
        row = origin(self._context, entry) | asdict(failure)
        row |= {"attempt": uuid.uuid4().hex[:16], "failed_at": datetime.now(UTC)}
        row |= {"slide_version": self.versions.get(entry.slide_id), "mpp": entry.mpp}
        write_failure(self._context.results, row)
        told = {name: getattr(failure, name) for name in ("stage", "reason", "tile")}
        _log.info("slide.failed", extra={"slide_id": entry.slide_id, "why": failure.message, **told})
        self._failures.append((entry.slide_id, failure.message))
        self._progress.fail(entry.slide_id, failure.reason, failure.message)

    def _finish(self, status: str) -> None:
        progress = self._progress
        counts = {name: getattr(progress, name) for name in ("scored", "skipped", "failed", "cells")}
        seconds = {"seconds": round(progress.seconds, 1), "spent": progress.spent}
        _log.info(f"run.{status}", extra=counts | seconds)
        self._write(
            status,
            {
                "finished_at": datetime.now(UTC),
                "n_scored": progress.scored,
                "n_skipped": progress.skipped,
                "n_failed": progress.failed,
                "n_tiles": self._tiles,
                "n_cells": progress.cells,
                "timings": {f"{name}_s": seconds for name, seconds in progress.spent.items()},
            },
        )

    def _write(self, status: str, ended: dict[str, Any]) -> None:
        write_run(self._context.results, self._row | {"status": status} | ended)
