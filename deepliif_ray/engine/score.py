"""A whole run: refuse what cannot work, do what is not done, record what happened."""

import logging
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from deepliif_ray import __version__, storage
from deepliif_ray.config import DEFAULT_MODEL, score_config
from deepliif_ray.engine import local, logs
from deepliif_ray.engine.finalize import Scored, origin
from deepliif_ray.engine.lease import Lease
from deepliif_ray.engine.progress import Progress
from deepliif_ray.engine.retry import fingerprints, worth_trying
from deepliif_ray.engine.work import PLAN, Failure, Job, fingerprint, staging_folder
from deepliif_ray.errors import ConfigError, DeepliifRayError, LeaseLostError, SlideChangedError, StorageError
from deepliif_ray.manifest import SlideEntry, read_manifest
from deepliif_ray.models import Model, load_model, registered_models
from deepliif_ray.tables.commit import write_failure, write_run
from deepliif_ray.tables.ledger import Ledger

ENGINES = ("ray", "local")
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
        Seconds by step (`deepliif_ray.engine.progress.STEPS`), summed over workers.
    set_aside : int
        Slides not tried again, because they failed before for a lasting reason.
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


def score(
    manifest: str,
    results: str,
    *,
    model: str = DEFAULT_MODEL,
    engine: str = "ray",
    address: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    actors: int | None = None,
    take_over: bool = False,
    watch: Callable[[Progress], None] | None = None,
    retry_lasting: bool = True,
    **options: Any,
) -> RunSummary:
    """Score every slide of a manifest that is not yet scored the same way.

    Parameters
    ----------
    manifest : str
        URL of the manifest (CSV, Parquet or JSON Lines).
    results : str
        URL of the results; created if need be, extended if it exists.
    model : str
        Name of a registered model, or URL of a published model folder.
    engine : {'ray', 'local'}
        A Ray cluster, or this process alone. Both give the same tables.
    address : str, optional
        Address of a Ray cluster; by default $RAY_ADDRESS, or a cluster of this machine alone.
    device : str, optional
        ``cpu`` or ``cuda``; by default GPUs where there are any.
    precision : {'float32', 'bfloat16'}, optional
        By default bfloat16 on GPUs and float32 on CPUs.
    batch_size : int, optional
        Tiles that networks run at once on a GPU.
    actors : int, optional
        Models that run side by side under Ray; by default one per GPU, or per CPU without GPUs.
    take_over : bool
        Take the results over from a run that works on them; that one ends.
    watch : callable, optional
        Called with a `Progress` after every change.
    retry_lasting : bool
        Whether to try slides again that failed for a lasting reason (a corrupt file, say) and of which
        nothing has changed since.
    **options
        Fields of `deepliif_ray.config.ScoreConfig`.

    Returns
    -------
    RunSummary

    Raises
    ------
    ConfigError, ManifestError, ModelError
        Before any work: options, manifest or model cannot be used.
    ResultsInUseError
        Another run works on these results.
    LeaseLostError
        Another run took these results over.
    ResultsError, StorageError
        The results cannot be read or written.
    """
    config = score_config(**options)
    results = storage.absolute(results)
    model = model if model in registered_models() else storage.absolute(model)
    _check(results, engine, address, actors, batch_size)
    cohort = read_manifest(manifest)
    with _cluster(address) if engine == "ray" else nullcontext():
        loaded, device = _load(model, device, precision, batch_size, on_cluster=engine == "ray")
        job = Job(
            results=results,
            run_id=f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
            model_uri=model,
            model_name=loaded.name,
            model_digest=loaded.digest,
            device=device,
            precision=loaded.precision,
            background_marker=loaded.background_marker if loaded.has_marker else None,
            config=config,
            batch_size=batch_size,
            log=logs.current(),
        )
        logs.name_run(job.run_id)
        progress = Progress(slides=len(cohort.slides))
        with (
            Lease(results, job.run_id, progress.snapshot, take_over=take_over) as lease,
            _Run(job, cohort.url, engine, progress) as run,
        ):
            progress.watch = _watcher(lease, watch)
            todo = _todo(job, cohort.slides)
            progress.add(skipped=len(cohort.slides) - len(todo))
            run.fingerprints = fingerprints(todo)
            if not retry_lasting:
                left = len(todo)
                todo = worth_trying(job, todo, run.fingerprints)
                progress.add(set_aside=left - len(todo))
            if engine == "ray":
                del loaded  # every actor loads its own
                from deepliif_ray.engine import ray_engine
                from deepliif_ray.engine.metrics import RayMeter

                progress.meter = RayMeter(on_gpus=device is not None and device.startswith("cuda"))
                outcomes = ray_engine.run(job, todo, progress, actors=actors)
            else:
                outcomes = local.run(job, loaded, todo, progress)
            return run.record(outcomes)


def _watcher(lease: Lease, watch: Callable[[Progress], None] | None) -> Callable[[Progress], None]:
    """Return what is called after every change: a run ends as soon as it knows that its lease is lost."""

    def tell(progress: Progress) -> None:
        lease.check()
        if watch is not None:
            watch(progress)

    return tell


def _check(
    results: str, engine: str, address: str | None, actors: int | None, batch_size: int | None
) -> None:
    if engine not in ENGINES:
        raise ConfigError(f"engine is {engine!r}; use {' or '.join(ENGINES)}")
    if engine == "local" and address is not None:
        raise ConfigError("the local engine has no cluster; leave out address, or use the ray engine")
    if engine == "ray" and results.startswith("memory://"):
        raise ConfigError(f"{results}: other processes cannot see memory://; use the local engine")
    for name, value in (("actors", actors), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; use at least 1")


def _cluster(address: str | None) -> AbstractContextManager[None]:
    from deepliif_ray.cluster import cluster  # Ray is slow to import, and the local engine does without

    return cluster(address)


def _load(
    uri: str, device: str | None, precision: str | None, batch_size: int | None, *, on_cluster: bool
) -> tuple[Model, str | None]:
    """Return the model, loaded here, and the device it is to run on.

    On a cluster the driver may have no GPU though the workers do: it loads the model on its CPU, only to know
    what it is.
    """
    if not on_cluster:
        return load_model(uri, device, precision, batch_size=batch_size), device
    from deepliif_ray.cluster import has_gpus

    device = device or ("cuda" if has_gpus() else "cpu")
    if device.startswith("cuda"):
        if not has_gpus():
            raise ConfigError(f"device is {device}, but the cluster has no GPU; use cpu")
        return load_model(uri, "cpu", precision or "bfloat16"), device
    return load_model(uri, device, precision), device


def _todo(job: Job, entries: list[SlideEntry]) -> list[SlideEntry]:
    """Return the slides not yet committed from the same model, configuration, file and manifest row."""
    slides = Ledger(job.results, must_exist=False).slides()
    committed = {row["slide_id"]: row for row in slides.to_pylist()}

    def is_done(entry: SlideEntry) -> bool:
        row = committed.get(entry.slide_id)
        if row is None:
            return False
        stated = row["mpp"] if row["mpp_source"] == "manifest" else None
        if (
            (row["model_digest"], row["config_fingerprint"]) != (job.model_digest, job.config_fingerprint)
            or (row["patient_id"], row["marker"]) != (entry.patient_id, entry.marker)
            or dict(row["attributes"]) != entry.attributes
            or stated != entry.mpp
        ):
            return False
        try:
            return bool(fingerprint(entry) == row["slide_fingerprint"])
        except DeepliifRayError:
            return False  # scoring it will tell what is wrong

    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        done = list(pool.map(is_done, entries))
    # A run killed between a slide's commit and the end of its tidying left its blocks behind.
    staged = {storage.parent(url) for url in storage.list_files(storage.join(job.results, "_staging"))}
    for entry in (entry for entry, known in zip(entries, done, strict=True) if known):
        folder = staging_folder(job, entry, committed[entry.slide_id]["slide_fingerprint"])
        if folder in staged:
            storage.remove(folder)
    return [entry for entry, known in zip(entries, done, strict=True) if not known]


class _Run:
    """Keeps the record of one run."""

    def __init__(self, job: Job, manifest: str, engine: str, progress: Progress) -> None:
        self._job, self._progress = job, progress
        self._failures: list[tuple[str, str]] = []
        self.fingerprints: dict[str, str | None] = {}
        self._tiles = 0
        self._row: dict[str, Any] = {
            "run_id": job.run_id,
            "manifest_uri": manifest,
            "results_uri": job.results,
            "model_uri": job.model_uri,
            "model_digest": job.model_digest,
            "config": job.config.model_dump_json(),
            "config_fingerprint": job.config_fingerprint,
            "software_version": __version__,
            "engine": engine,
            "started_at": datetime.now(UTC),
            "n_slides": progress.slides,
        }

    def __enter__(self) -> Self:
        self._write("running", {})
        told = ("manifest_uri", "results_uri", "model_uri", "engine", "software_version", "n_slides")
        _log.info("run.started", extra={name: self._row[name] for name in told})
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
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
        return RunSummary(
            run_id=self._job.run_id,
            results=self._job.results,
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
        )

    def _was_done_by_another(self, entry: SlideEntry, failure: Failure) -> bool:
        """Tell whether a slide failed because another run committed it, and removed what was staged."""
        if failure.stage in ("fetch", "open", "plan") or failure.reason == SlideChangedError.reason:
            return False
        try:
            folder = staging_folder(self._job, entry, fingerprint(entry))
            return not storage.exists(storage.join(folder, PLAN)) and not _todo(self._job, [entry])
        except DeepliifRayError:
            return False

    def _fail(self, entry: SlideEntry, failure: Failure) -> None:
        row = origin(self._job, entry) | asdict(failure)
        row |= {"attempt": uuid.uuid4().hex[:16], "failed_at": datetime.now(UTC)}
        row |= {"slide_fingerprint": self.fingerprints.get(entry.slide_id), "mpp": entry.mpp}
        write_failure(self._job.results, row)
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
        write_run(self._job.results, self._row | {"status": status} | ended)
