"""A whole run: refuse what cannot work, do what is not done, record what happened."""

import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime

from deepliif_ray import logs, storage
from deepliif_ray.config import DEFAULT_MODEL, Execution, ScoreConfig
from deepliif_ray.engine import local
from deepliif_ray.engine.run.cohort import markers_of, prune_slides, refresh
from deepliif_ray.engine.run.lease import Lease, fence
from deepliif_ray.engine.run.progress import Progress
from deepliif_ray.engine.run.record import RunRecord, RunSummary
from deepliif_ray.engine.run.todo import sort_out, versions, worth_trying
from deepliif_ray.engine.work import RunContext
from deepliif_ray.errors import ConfigError
from deepliif_ray.manifest import read_manifest
from deepliif_ray.models import Model, check_model, load_model
from deepliif_ray.tables.cohort import write_markers
from deepliif_ray.tables.joining import join_records

_JOIN_AT = 256
"""A run that leaves so many records of a table joins them, so that whoever opens results opens few."""
_log = logging.getLogger(__name__)


def score(
    manifest: str,
    results: str,
    *,
    model: str = DEFAULT_MODEL,
    config: ScoreConfig = ScoreConfig(),
    execution: Execution = Execution(),
    watch: Callable[[Progress], None] | None = None,
    retry_lasting: bool = True,
    prune: bool = False,
    markers: str | None = None,
    slides: Sequence[str] = (),
    limit: int | None = None,
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
    config : ScoreConfig
        What is computed: thresholds, tiles, the pixel size of slides that give none.
    execution : Execution
        How it runs: engine, cluster, device, precision, actors.
    watch : callable, optional
        Called with a `Progress` after every change.
    retry_lasting : bool
        Whether to try slides again that failed for a lasting reason (a corrupt file, say) and of which
        nothing has changed since.
    prune : bool
        Retire slides of the results that the manifest lists no more: they count in no index from then on.
    markers : str, optional
        URL of a YAML file of the cohort's own markers, in the form of ``schemas/markers.yaml``. They are kept
        with the results; without it those kept there count.
    slides : sequence of str
        slide_id of the slides to look at; all of the manifest when empty. The others count as listed: they
        are no leftovers, and `prune` does not retire them.
    limit : int, optional
        Most slides to score now, in the order of the manifest; the others are left for later runs.

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

    Examples
    --------
    >>> from deepliif_ray import Execution, ScoreConfig, score
    >>> score(
    ...     "manifest.csv",
    ...     "results",
    ...     config=ScoreConfig(seg_thresh=110),
    ...     execution=Execution(engine="local"),
    ... )  # doctest: +SKIP
    """
    results = storage.absolute(results)
    on_cluster = execution.engine == "ray"
    if on_cluster and results.startswith("memory://"):
        raise ConfigError(f"{results}: other processes cannot see memory://; use the local engine")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; use at least 1")
    model = check_model(model, execution.device, execution.precision)
    storage.check_writable(results)
    registry = markers_of(results, markers)
    cohort = read_manifest(manifest, registry)
    chosen = cohort.chosen(slides)
    for warning in cohort.warnings:
        _log.warning("manifest.doubtful", extra={"manifest": cohort.url, "why": warning})
    with _cluster(execution.address) if on_cluster else nullcontext():
        loaded, device = _load(model, execution)
        context = RunContext(
            results=results,
            run_id=f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
            model_uri=model,
            model_name=loaded.name,
            model_digest=loaded.digest,
            device=device,
            precision=loaded.precision,
            background_marker=loaded.background_marker if loaded.has_marker else None,
            config=config,
            batch_size=execution.batch_size,
            log=logs.current(),
            native=loaded.native,
        )
        logs.name_run(context.run_id)
        progress = Progress(slides=len(chosen))
        with ExitStack() as held:
            lease = held.enter_context(
                Lease(results, context.run_id, progress.snapshot, take_over=execution.take_over)
            )
            context = replace(context, epoch=lease.epoch)
            run = held.enter_context(RunRecord(context, cohort, execution.engine, progress))
            progress.watch = _watcher(lease, watch)
            if markers is not None:
                write_markers(results, registry.document())
            found = sort_out(context, chosen)
            lost = refresh(context, found.refresh)
            run.refreshed = len(found.refresh) - len(lost)
            todo = found.score + lost
            progress.add(skipped=len(chosen) - len(todo))
            if prune:
                run.retired = prune_slides(context, cohort.slides)
            run.versions = versions(todo)
            if not retry_lasting:
                left = len(todo)
                todo = worth_trying(context, todo, run.versions)
                progress.add(set_aside=left - len(todo))
            if limit is not None and len(todo) > limit:
                run.later = len(todo) - limit
                todo = todo[:limit]
                progress.slides -= run.later
            if on_cluster:
                del loaded  # every actor loads its own
                from deepliif_ray.engine.ray import graph
                from deepliif_ray.engine.run.metrics import RayMeter

                progress.meter = RayMeter(on_gpus=device is not None and device.startswith("cuda"))
                outcomes = graph.run(context, todo, progress, actors=execution.actors)
            else:
                outcomes = local.run(context, loaded, todo, progress)
            summary = run.record(outcomes)
            join_records(results, least=_JOIN_AT)
            fence(
                results, context.epoch, context.run_id
            )  # who lost it at the very end must not say that all is well
            return summary


def _watcher(lease: Lease, watch: Callable[[Progress], None] | None) -> Callable[[Progress], None]:
    """Return what is called after every change: a run ends as soon as it knows that its lease is lost."""

    def tell(progress: Progress) -> None:
        lease.check()
        if watch is not None:
            watch(progress)

    return tell


def _cluster(address: str | None) -> AbstractContextManager[None]:
    from deepliif_ray.cluster import cluster  # Ray is slow to import, and the local engine does without

    return cluster(address)


def _load(uri: str, execution: Execution) -> tuple[Model, str | None]:
    """Return the model, loaded here, and the device it is to run on.

    On a cluster the driver may have no GPU though the workers do: it loads the model on its CPU, only to know
    what it is.
    """
    device, precision = execution.device, execution.precision
    if execution.engine == "local":
        return load_model(uri, device, precision, batch_size=execution.batch_size), device
    from deepliif_ray.cluster import has_gpus

    device = device or ("cuda" if has_gpus() else "cpu")
    if device.startswith("cuda"):
        if not has_gpus():
            raise ConfigError(f"device is {device}, but the cluster has no GPU; use cpu")
        return load_model(uri, "cpu", precision or "bfloat16"), device
    return load_model(uri, device, precision), device
