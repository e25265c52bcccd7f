"""A whole run: refuse what cannot work, do what is not done, record what happened."""

import logging
import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from deepliif_ray import logs, storage
from deepliif_ray.config import DEFAULT_MODEL, score_config
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

ENGINES = ("ray", "local")
_JOIN_AT = 256
"""A run that leaves so many records of a table joins them, so that whoever opens results opens few."""
_ADDRESS = re.compile(r"auto|local|(ray://)?(\[[0-9A-Fa-f:]+\]|[^\s/:]+):\d{1,5}(/.*)?")
_log = logging.getLogger(__name__)


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
    prune: bool = False,
    markers: str | None = None,
    slides: Sequence[str] = (),
    limit: int | None = None,
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
    _check(results, engine, address, actors=actors, batch_size=batch_size, limit=limit)
    model = check_model(model, device, precision)
    storage.check_writable(results)
    registry = markers_of(results, markers)
    cohort = read_manifest(manifest, registry)
    chosen = cohort.chosen(slides)
    for warning in cohort.warnings:
        _log.warning("manifest.doubtful", extra={"manifest": cohort.url, "why": warning})
    with _cluster(address) if engine == "ray" else nullcontext():
        loaded, device = _load(model, device, precision, batch_size, on_cluster=engine == "ray")
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
            batch_size=batch_size,
            log=logs.current(),
            native_mpp=loaded.native_mpp,
            native_tile=loaded.native_tile,
            native_od=loaded.native_od,
        )
        logs.name_run(context.run_id)
        progress = Progress(slides=len(chosen))
        with ExitStack() as held:
            lease = held.enter_context(Lease(results, context.run_id, progress.snapshot, take_over=take_over))
            context = replace(context, epoch=lease.epoch)
            run = held.enter_context(RunRecord(context, cohort, engine, progress))
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
            if engine == "ray":
                del loaded  # every actor loads its own
                from deepliif_ray.engine.ray import graph
                from deepliif_ray.engine.run.metrics import RayMeter

                progress.meter = RayMeter(on_gpus=device is not None and device.startswith("cuda"))
                outcomes = graph.run(context, todo, progress, actors=actors)
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


def _check(results: str, engine: str, address: str | None, **counts: int | None) -> None:
    if engine not in ENGINES:
        raise ConfigError(f"engine is {engine!r}; use {' or '.join(ENGINES)}")
    if engine == "local" and address is not None:
        raise ConfigError("the local engine has no cluster; leave out address, or use the ray engine")
    if engine == "ray" and results.startswith("memory://"):
        raise ConfigError(f"{results}: other processes cannot see memory://; use the local engine")
    if address is not None and not _ADDRESS.fullmatch(address):
        raise ConfigError(f"address is {address!r}; use HOST:PORT, ray://HOST:PORT, auto or local")
    for name, value in counts.items():
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
