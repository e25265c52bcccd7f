"""A job, and the work on one slide of it: what workers need to know, and where they stage what they did."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

from deepliif_ray import storage
from deepliif_ray.cells.thresholds import large_noise_threshold
from deepliif_ray.config import ScoreConfig
from deepliif_ray.engine import staging
from deepliif_ray.engine.logs import LogConfig
from deepliif_ray.errors import DeepliifRayError, SlideMissingError
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.slides import SlidePlan, open_guarded, plan_slide
from deepliif_ray.slides.dicom import check_one_series
from deepliif_ray.slides.tissue import MASK_MIN_CORE
from deepliif_ray.tables.ledger import slide_key

PLAN = "plan.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is the same for every slide of a run; sent to every worker.

    Attributes
    ----------
    results : str
        URL of the results.
    run_id : str
    model_uri, model_name, model_digest : str
    device : str, optional
        Where workers run the model; chosen there when None.
    precision : str
    background_marker : int, optional
        Marker value of a skipped tile; None when the model has no marker image.
    config : ScoreConfig
    batch_size : int, optional
        Tiles that networks run at once on a GPU.
    log : LogConfig, optional
        How workers log; not at all when None.
    """

    results: str
    run_id: str
    model_uri: str
    model_name: str
    model_digest: str
    device: str | None
    precision: str
    background_marker: int | None
    config: ScoreConfig
    batch_size: int | None
    log: LogConfig | None = None

    @property
    def config_fingerprint(self) -> str:
        """The configuration part of every result's origin."""
        return self.config.fingerprint(precision=self.precision)


@dataclass(frozen=True)
class Failure:
    """Why a slide could not be scored: a step, a stable word, a sentence, and the tile if there is one."""

    stage: str
    reason: str
    message: str
    tile: int | None = None

    def to_json(self) -> str:
        """Return the failure as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the failure that `to_json` wrote."""
        return cls(**json.loads(text))


class StepError(Exception):
    """A step failed on one slide; carries the `Failure`."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


@contextmanager
def step(stage: str, tile: int | None = None) -> Iterator[None]:
    """Turn whatever goes wrong inside into a `StepError`: one slide's trouble is not the cohort's.

    An error that this package does not know is reported with its type under the reason ``internal``.
    """
    try:
        yield
    except StepError:
        raise
    except DeepliifRayError as error:
        raise StepError(Failure(stage, error.reason, storage.scrub(str(error)), tile)) from error
    except Exception as error:
        message = storage.scrub(f"{type(error).__name__}: {error}")
        raise StepError(Failure(stage, "internal", message, tile)) from error


@dataclass(frozen=True)
class Work:
    """The work on one slide.

    Attributes
    ----------
    entry : SlideEntry
    plan : SlidePlan
    slide_fingerprint : str
    staging : str
        URL of the folder for staged blocks; the same for equal slide, model and configuration.
    """

    entry: SlideEntry
    plan: SlidePlan
    slide_fingerprint: str
    staging: str

    @cached_property
    def todo(self) -> tuple[int, ...]:
        """Indexes of the tiles to be read; a tile's place in it is its *ordinal*."""
        masked = set(self.plan.masked)
        return tuple(index for index in range(len(self.plan.grid)) if index not in masked)

    def local_path(self) -> Path:
        """Return the slide's local path, downloading it if need be; raises as `fetch`."""
        return fetch(self.entry, self.slide_fingerprint)


def fetch(entry: SlideEntry, expected: str | None = None) -> Path:
    """Return a local path of a manifest row's slide, downloading it if need be.

    Parameters
    ----------
    entry : SlideEntry
    expected : str, optional
        The fingerprint that the slide must have.

    Raises
    ------
    SlideMissingError
        The slide is not there, or may not be read.
    SlideChangedError
        Its fingerprint is another, or it changed during the download.
    StorageError
        The store failed, or there is no room for the slide.
    """
    try:
        return storage.localize(entry.uri, storage.default_cache(), expected)
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(entry, error) from error


def fingerprint(entry: SlideEntry) -> str:
    """Return the fingerprint of a manifest row's slide; raises as `fetch`."""
    try:
        return storage.fingerprint(entry.uri)
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(entry, error) from error


def _missing(entry: SlideEntry, error: OSError) -> SlideMissingError:
    problem = "may not be read" if isinstance(error, PermissionError) else "no such file"
    return SlideMissingError(f"{entry.uri}: {problem}; correct the manifest's uri or provide the file")


def staging_folder(job: Job, entry: SlideEntry, slide_fingerprint: str) -> str:
    """Return where the work on a slide is staged."""
    origin = (
        f"{staging.FORMAT}\0{job.model_digest}\0{job.config_fingerprint}\0{slide_fingerprint}\0{entry.mpp}"
        f"\0{entry.image_asked}"
    )
    key = hashlib.sha256(origin.encode()).hexdigest()[:16]
    return storage.join(job.results, "_staging", slide_key(entry.slide_id), key)


def plan_entry(entry: SlideEntry, config: ScoreConfig) -> SlidePlan:
    """Open a slide and plan it.

    Raises
    ------
    SlideError
        The slide cannot be scored; the message says why.
    StorageError
        Its file could not be fetched.
    """
    with step("fetch"):
        path = fetch(entry)
    with step("open"):
        if not entry.uri.lower().endswith(".dcm"):
            check_one_series(path)  # a folder was given, and its first file taken
        slide = open_guarded(path, series=entry.series, plane=entry.plane)
    with slide, step("plan"):
        plan = plan_slide(
            slide,
            mpp=entry.mpp,
            assume_mpp=config.assume_mpp,
            tile_size=config.tile_size,
            overlap=config.overlap,
        )
        limit = large_noise_threshold(config.large_noise_thresh, plan.resolution)
        if limit is None or limit > MASK_MIN_CORE:  # a tile not looked at could be part of a cell
            plan = replace(plan, masked=())
        return plan


def prepare(job: Job, entry: SlideEntry, number: int = 0) -> tuple[Work, list[int]]:
    """Plan a slide and write the plan down; return its work and the ordinals not staged yet.

    Asked again in the same run and round ``number``, it returns the same ordinals, whatever was staged since:
    Ray repeats a task whose output was lost, and expects the same output.

    Raises
    ------
    StepError
        The slide cannot be scored.
    """
    with step("fetch"):
        slide_fingerprint = fingerprint(entry)
        folder = staging_folder(job, entry, slide_fingerprint)
        url = storage.join(folder, PLAN)
        known = _read(url) if storage.exists(url) else {}
        plan = SlidePlan.from_json(known["plan"]) if known else None
    if plan is None:
        plan = plan_entry(entry, job.config)
    work = Work(entry, plan, slide_fingerprint, folder)
    asked = f"{job.run_id}/{number}"
    if known.get("asked") == asked:
        return work, known["ordinals"]
    with step("fetch"):
        staged = staging.staged_ordinals(folder)
    ordinals = [ordinal for ordinal in range(len(work.todo)) if ordinal not in staged]
    document = {
        "entry": asdict(entry),
        "plan": plan.to_json(),
        "slide_fingerprint": slide_fingerprint,
        "asked": asked,
        "ordinals": ordinals,
    }
    with step("plan"):
        storage.write_bytes(url, json.dumps(document).encode())
    counts = {"tiles": len(plan.grid), "masked": len(plan.masked), "todo": len(ordinals)}
    _log.info("slide.planned", extra={"slide_id": entry.slide_id, **counts})
    return work, ordinals


def _read(url: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(storage.read_bytes(url))
    return document


@lru_cache(maxsize=32)  # a plan of a big slide takes megabytes
def load_work(folder: str, run_id: str) -> Work:
    """Return the work that was written to the staging ``folder`` in run ``run_id``."""
    document = _read(storage.join(folder, PLAN))
    return Work(
        entry=SlideEntry(**document["entry"]),
        plan=SlidePlan.from_json(document["plan"]),
        slide_fingerprint=document["slide_fingerprint"],
        staging=folder,
    )
