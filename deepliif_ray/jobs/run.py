"""Run a job file here, or as the process that a cluster was asked to start."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from numbers import Real
from typing import Any

from deepliif_ray import __version__, storage
from deepliif_ray.config import Execution, Workers
from deepliif_ray.errors import ConfigError, DeepliifRayError
from deepliif_ray.jobs.config import (
    Evaluate,
    Job,
    Optimize,
    Reprocess,
    Retrain,
    ScoreCohort,
    ScoreResources,
    TrainResources,
    job_name,
    read_job,
    resolved,
)
from deepliif_ray.jobs.hooks import notify, webhook_url
from deepliif_ray.jobs.limits import breaches

SUCCEEDED, SOME_FAILED, LIMIT_BROKEN = 0, 3, 4
_MOST_FAILURES = 100

Watch = Callable[[Any], None]
Say = Callable[[str], None]
Room = AbstractContextManager[None]


@dataclass(frozen=True)
class Done:
    """What a job came to.

    Attributes
    ----------
    figures : dict of str to float
        What ``fail_if`` may name.
    details : dict
        Whatever else the summary tells, as JSON can hold it.
    some_failed : bool
        Whether slides failed.
    """

    figures: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    some_failed: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes
    ----------
    summary : dict
        What the hooks were told.
    exit_code : int
        0; 3 when slides failed and the job file sets no limit; 4 when a limit is broken.
    broken : tuple of str
        A sentence for each limit that is broken.
    """

    summary: dict[str, Any]
    exit_code: int
    broken: tuple[str, ...]


def run_job(
    url: str,
    *,
    address: str | None = None,
    watch: Watch = lambda _: None,
    say: Say = lambda _: None,
) -> Outcome:
    """Run the job file at ``url`` and tell its hooks how it ended.

    Parameters
    ----------
    url : str
        URL of the file; relative URLs in it are taken from its folder.
    address : str, optional
        Address of a Ray cluster; by default $RAY_ADDRESS, or a cluster of this machine alone.
    watch : callable
        Called with the progress of scoring (`Progress`) or training (`TrainProgress`).
    say : callable
        Called with a sentence about what is waited for, and about each hook that failed.

    Raises
    ------
    ConfigError
        The job file cannot be used.
    DeepliifRayError
        What the work raises; hooks are told of it.
    """
    job, digest = read_job(url)
    name = job_name(job, url)
    job = resolved(job, storage.parent(storage.absolute(url)))
    webhook_url(job.notifications)  # a variable that is not set is better known now than in the end
    summary: dict[str, Any] = {
        "job": name,
        "kind": job.kind,
        "digest": digest,
        "metadata": job.metadata,
        "software_version": __version__,
        "started_at": datetime.now(UTC).isoformat(),
    }
    start = time.monotonic()
    try:
        done = _work(job, address, watch, say)
    except BaseException as error:
        status = "failed" if isinstance(error, Exception) else "interrupted"
        reason = error.reason if isinstance(error, DeepliifRayError) else "internal"
        summary |= _ended(start) | {"status": status, "reason": reason, "error": _sentence(error)}
        for problem in notify(job.notifications, summary, patient=status == "failed"):
            say(f"warning: {problem}")
        raise
    broken = breaches(job.fail_if, done.figures)
    exit_code = LIMIT_BROKEN if broken else SUCCEEDED
    if done.some_failed and not job.fail_if:
        exit_code = SOME_FAILED
    summary |= _ended(start) | {"status": "failed" if broken else "succeeded", "exit_code": exit_code}
    # JSON has no word for a figure that could not be computed.
    figures = {name: value if math.isfinite(value) else None for name, value in done.figures.items()}
    summary |= {"broken_limits": broken, "figures": figures, **done.details}
    for problem in notify(job.notifications, summary):
        say(f"warning: {problem}")
    return Outcome(summary, exit_code, tuple(broken))


def _ended(start: float) -> dict[str, Any]:
    return {
        "finished_at": datetime.now(UTC).isoformat(),
        "duration_s": round(time.monotonic() - start, 3),
    }


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, DeepliifRayError) else f"{type(error).__name__}: {error}"


def _work(job: Job, address: str | None, watch: Watch, say: Say) -> Done:
    if isinstance(job, ScoreCohort):
        return _score(job, _room(address, job.resources, say), watch)
    if isinstance(job, Retrain):
        return _retrain(job, _room(address, job.resources, say), watch)
    return _evaluate(job) if isinstance(job, Evaluate) else _optimize(job)


def _room(address: str | None, resources: ScoreResources | TrainResources, say: Say) -> Room:
    if resources.engine == "local":
        if address is not None:
            raise ConfigError("resources.engine is local, which has no cluster; leave out the address")
        return nullcontext()
    from deepliif_ray.jobs.capacity import cluster_with_room  # Ray is slow to import, and local does without

    return cluster_with_room(address, resources, say)


def _score(job: ScoreCohort, room: Room, watch: Watch) -> Done:
    from deepliif_ray.engine.score import score

    resources = job.resources
    with room:
        summary = score(
            job.manifest,
            job.results,
            model=job.model,
            config=job.thresholds,
            execution=Execution(**resources.model_dump(include=set(Workers.model_fields))),
            watch=watch,
            retry_lasting=not isinstance(job, Reprocess),
            prune=job.prune,
            markers=job.markers,
        )
    attempted = summary.scored + summary.failed
    figures = {
        name: getattr(summary, name)
        for name in ("slides", "scored", "skipped", "set_aside", "failed", "cells", "tiles", "seconds")
    }
    figures |= {
        "attempted": attempted,
        "refreshed": summary.refreshed,
        "retired": len(summary.retired),
        "leftovers": len(summary.leftovers),
        "failed_percent": _percent(summary.failed + summary.set_aside, summary.slides),
        "failed_percent_of_attempted": _percent(summary.failed, attempted),
    }
    failures = [{"slide_id": name, "message": text} for name, text in summary.failures[:_MOST_FAILURES]]
    details = {"results": job.results, "run_id": summary.run_id, "failures": failures}
    details |= {
        "warnings": list(summary.warnings[:_MOST_FAILURES]),
        "leftovers": [slide_id for slide_id, _ in summary.leftovers],
        "retired": list(summary.retired),
    }
    return Done(figures, details, some_failed=summary.failed > 0)


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _retrain(job: Retrain, room: Room, watch: Watch) -> Done:
    from deepliif_ray.training.run.train import train

    resources = job.resources
    with room:
        summary = train(
            job.config,
            job.output,
            workers=resources.workers,
            engine=resources.engine,
            device=resources.device,
            max_failures=resources.max_failures,
            watch=watch,
        )
    figures = {"step": summary.step, "exported_step": summary.exported_step, **summary.metrics}
    return Done(figures, {"model": summary.model, "stopped_early": summary.stopped_early})


def _evaluate(job: Evaluate) -> Done:
    from deepliif_ray.evaluation.evaluate import evaluate

    evaluation = evaluate(
        [job.model] if job.other is None else [job.model, job.other],
        job.truth,
        job.output,
        kind=job.truth_kind,
        resolution=job.resolution,
        mpp=job.mpp,
        reach_um=job.reach_um,
        protocol=job.protocol,
        device=job.resources.device,
    )
    first, *second = evaluation.models
    figures = {**first.means} | {f"pooled.{name}": value for name, value in first.pooled.items()}
    for model in second:
        figures |= {f"other.{name}": value for name, value in model.means.items()}
    return Done(figures, {"models": [model.name for model in evaluation.models], "output": job.output})


def _optimize(job: Optimize) -> Done:
    from deepliif_ray.tables.optimize import optimize

    report = optimize(job.results)
    figures = {name: float(value) for name, value in vars(report).items() if isinstance(value, Real)}
    return Done(figures, {"results": job.results})
