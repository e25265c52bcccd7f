"""Job files: what may be written in them, read and validated."""

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from deepliif_ray import storage
from deepliif_ray.config import DEFAULT_MODEL, ScoreConfig, Workers
from deepliif_ray.errors import ConfigError, StorageError
from deepliif_ray.jobs import limits
from deepliif_ray.jobs.schedule import Schedule
from deepliif_ray.validation import Options, problems

NAME = r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"
_WEBHOOK = r"^(https?://\S+|env:[A-Za-z_]\w*)$"
SCORE_FIGURES = (
    "slides", "scored", "skipped", "set_aside", "failed", "failed_percent", "attempted",
    "failed_percent_of_attempted", "cells", "tiles", "seconds", "refreshed", "retired", "leftovers",
)  # fmt: skip
"""What ``fail_if`` of a job that scores may name."""

Url = Annotated[str, Field(min_length=1)]
Limit = Annotated[str, Field(pattern=limits.PATTERN)]


class Resources(Options):
    """What a job asks of the cluster."""

    cpus: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """CPUs the cluster must have before the job begins; an autoscaler is asked for them."""
    gpus: int | None = Field(default=None, ge=1)
    """GPUs the cluster must have before the job begins; an autoscaler is asked for them."""
    wait_minutes: float = Field(default=15.0, ge=0, allow_inf_nan=False)
    """How long to wait for cpus and gpus before giving up."""


class ScoreResources(Resources, Workers):
    """Where slides are scored and with what."""


class TrainResources(Resources):
    """Where a model is trained and with what."""

    engine: Literal["ray", "local"] = "ray"
    """A Ray cluster, or one process alone."""
    device: Literal["cpu", "cuda"] | None = None
    """By default GPUs where there are any."""
    workers: int = Field(default=1, ge=1)
    """Processes that share every batch."""
    max_failures: int = Field(default=3, ge=0)
    """How often a worker may die."""


class DriverResources(Options):
    """What the one process of this job needs; the cluster starts it where there is as much."""

    device: Literal["cpu", "cuda"] | None = None
    """By default a GPU if there is one."""
    cpus: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """CPUs of the process."""
    gpus: int | None = Field(default=None, ge=1)
    """GPUs of the process."""


class Notifications(Options):
    """Who gets the summary of a run, as JSON."""

    webhook: str | None = Field(default=None, pattern=_WEBHOOK)
    """URL that the summary is posted to, or env:NAME of the environment variable that holds it."""
    file: Url | None = None
    """URL of a file that the summary is written to."""


class _Job(Options):
    """What all jobs have."""

    INPUTS: ClassVar[tuple[str, ...]] = ()
    """Keys whose files are read; small ones go along when the job is submitted."""
    OUTPUTS: ClassVar[tuple[str, ...]] = ()
    """Keys whose URLs are written."""
    FIGURES: ClassVar[tuple[str, ...] | None] = None
    """What ``fail_if`` may name; None when that depends on the data."""

    name: str | None = Field(default=None, pattern=f"^{NAME}$")
    """Name of the job; by default that of its file."""
    schedule: Schedule | None = None
    """When it is started by itself."""
    notifications: Notifications = Notifications()
    """Who gets the summary."""
    fail_if: list[Limit] = Field(default_factory=list, examples=[["failed_percent > 2"]])
    """Limits such as failed_percent > 2; the exit code is 4 when one is broken, else 0."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Anything: passed on to Ray's list of jobs and to the summary. Not the place for secrets."""

    @field_validator("fail_if")
    @classmethod
    def _known_figures(cls, found: list[str]) -> list[str]:
        for limit in found:
            figure = limits.parse(limit)[0]
            if cls.FIGURES is not None and figure not in cls.FIGURES:
                raise ValueError(f"{figure!r} is not a figure of this job; use {', '.join(cls.FIGURES)}")
        return found


class ScoreCohort(_Job):
    """Score every slide of a manifest that is not yet scored the same way."""

    INPUTS: ClassVar = ("manifest", "markers")
    OUTPUTS: ClassVar = ("results",)
    FIGURES: ClassVar = SCORE_FIGURES

    kind: Literal["score_cohort"]
    manifest: Url
    """URL of the manifest: CSV, Parquet or JSON Lines."""
    results: Url
    """URL of the results."""
    model: str = Field(default=DEFAULT_MODEL, min_length=1)
    """Name of a registered model, or URL of a model bundle or published folder."""
    resources: ScoreResources = ScoreResources()
    """Where it runs and with what."""
    thresholds: ScoreConfig = ScoreConfig()
    """Options that change what is measured: seg_thresh, noise_thresh, tile_size, assume_mpp, …"""
    markers: Url | None = None
    """URL of a YAML file of the cohort's own markers, in the form of schemas/markers.yaml."""
    prune: bool = False
    """Whether slides of the results that the manifest lists no more are retired."""


class Reprocess(ScoreCohort):
    """Score what is new, changed, failed for a passing reason, or made by another model or configuration."""

    kind: Literal["reprocess"]  # type: ignore[assignment]


class Retrain(_Job):
    """Train a model and export it."""

    INPUTS: ClassVar = ("config",)
    OUTPUTS: ClassVar = ("output",)

    kind: Literal["retrain"]
    config: Url
    """URL of the training configuration; relative URLs in it are taken from its folder."""
    output: Url
    """URL of the folder for checkpoints, records and the model."""
    resources: TrainResources = TrainResources()
    """Where it runs and with what."""


class Evaluate(_Job):
    """Evaluate a model, or compare two, on images with known truth."""

    OUTPUTS: ClassVar = ("output",)

    kind: Literal["evaluate"]
    model: str = Field(default=DEFAULT_MODEL, min_length=1)
    """Name of a registered model, or URL of a model."""
    other: str | None = Field(default=None, min_length=1)
    """A second model, to compare with the first."""
    truth: Url
    """URL of the folder of images with truth."""
    output: Url | None = None
    """URL of a folder for evaluation.json and a picture per image."""
    truth_kind: Literal["auto", "points", "truth", "seg"] = "auto"
    """Which truth: centroids, the panel truth, the panel seg, or what there is."""
    resolution: Literal["40x", "20x", "10x"] = "40x"
    """Of images whose pixel size is not known."""
    mpp: float | None = Field(default=None, gt=0)
    """µm per pixel of the images that no mpp.csv in the folder lists."""
    reach_um: float | None = Field(default=None, gt=0)
    """How far a hit may lie from a true centroid, µm; 2.5 when not given."""
    protocol: Literal["formulas", "published"] = "formulas"
    """How masks and modality images are compared: by the usual formulas, or as published with DeepLIIF."""
    resources: DriverResources = DriverResources()
    """What the process needs."""


class Optimize(_Job):
    """Join many small objects of results into few."""

    OUTPUTS: ClassVar = ("results",)

    kind: Literal["optimize"]
    results: Url
    """URL of the results."""
    resources: DriverResources = DriverResources()
    """What the process needs."""


Job = ScoreCohort | Reprocess | Retrain | Evaluate | Optimize
_JOB: TypeAdapter[Job] = TypeAdapter(Annotated[Job, Field(discriminator="kind")])
KINDS: dict[str, type[_Job]] = {
    "score_cohort": ScoreCohort, "reprocess": Reprocess, "retrain": Retrain,
    "evaluate": Evaluate, "optimize": Optimize,
}  # fmt: skip


def json_schema() -> str:
    """Return the JSON schema of job files, for editors; ``schemas/job.json`` is this text."""
    schema = _JOB.json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "deepliif_ray job"}
    return json.dumps(head | schema, indent=1, ensure_ascii=False) + "\n"


def parse_job(options: Any, source: str = "job") -> Job:
    """Return the validated job; ``source`` names it in messages.

    Raises
    ------
    ConfigError
        A key is missing, unknown, or its value cannot be used; the message lists every one.
    """
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise ConfigError(f"{source}: expected keys and values, beginning with kind: score_cohort")
    kind = options.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{source}: kind is {storage.shown(kind)}; use one of {', '.join(KINDS)}")
    try:
        return _JOB.validate_python(options)
    except ValidationError as error:
        # The first part of every place is the kind.
        found = problems(error, KINDS[kind], between="\n", mark="  - ", skip=1)
        raise ConfigError(f"{source}: this {kind} job cannot be used:\n{found}") from error


def read_job(url: str) -> tuple[Job, str]:
    """Read a job file.

    Parameters
    ----------
    url : str
        URL of the YAML file.

    Returns
    -------
    Job
        As written: its relative URLs are still relative; see `resolved`.
    str
        Digest of the file's content, 12 hexadecimal digits.

    Raises
    ------
    ConfigError
        The file cannot be read or used.
    """
    try:
        options, content = storage.read_yaml(url)
    except StorageError as error:
        raise ConfigError(f"{url}: the job file cannot be read ({error})") from error
    job = parse_job(options, url)
    return job, hashlib.sha256(content).hexdigest()[:12]


def job_name(job: Job, url: str) -> str:
    """Return the name of a job: its own, or one made of its file's."""
    made = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(url).stem.lower())[:40].strip("-")
    return job.name or made or job.kind.replace("_", "-")


def resolved(job: Job, folder: str) -> Job:
    """Return ``job`` with its relative URLs taken from ``folder``, the one its file lies in.

    A model is left alone where it is the name of a registered one.
    """
    changed: dict[str, Any] = {}
    for key in (*job.INPUTS, *job.OUTPUTS, *(("truth",) if isinstance(job, Evaluate) else ())):
        if (value := getattr(job, key)) is not None:
            changed[key] = storage.resolve(value, folder)
    for key in ("model", "other"):
        if (value := getattr(job, key, None)) is not None and not _is_registered(value):
            changed[key] = storage.resolve(value, folder)
    if job.notifications.file is not None:
        file = storage.resolve(job.notifications.file, folder)
        changed["notifications"] = job.notifications.model_copy(update={"file": file})
    return job.model_copy(update=changed)


def _is_registered(model: str) -> bool:
    if "/" in model:
        return False
    from deepliif_ray.models import registered_models  # slow to import

    return model in registered_models()
