"""What workers of a run need to know, and the work on one slide of it: its plan, and where it is staged."""

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
from deepliif_ray.cells.thresholds import SizeRules
from deepliif_ray.config import ScoreConfig
from deepliif_ray.engine import staging
from deepliif_ray.errors import DeepliifRayError, StorageMissingError
from deepliif_ray.logs import LogConfig
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.native import PUBLISHED, NativeView
from deepliif_ray.slide_access import content_of, fetch, open_entry
from deepliif_ray.slides import SlidePlan, plan_slide
from deepliif_ray.tables.ledger import slide_key

PLAN = "plan.json"
MANIFEST_NOTE = "manifest: "
"""Begins the warnings of a slide that are about its row in the manifest."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContext:
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
    native : NativeView
        How the model wants to see tissue.
    epoch : int
        Number of the lease under which the run works (`deepliif_ray.engine.run.lease`).
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
    native: NativeView = PUBLISHED
    epoch: int = 0

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
        Of the content.
    slide_version : str
        The store's word for it.
    staging : str
        URL of the folder for staged blocks; the same for equal slide, model and configuration.
    """

    entry: SlideEntry
    plan: SlidePlan
    slide_fingerprint: str
    slide_version: str
    staging: str

    @cached_property
    def todo(self) -> tuple[int, ...]:
        """Indexes of the tiles to be read; a tile's place in it is its *ordinal*."""
        masked = set(self.plan.masked)
        return tuple(index for index in range(len(self.plan.grid)) if index not in masked)

    def place(self) -> Path | str:
        """Return where the slide is read from, after downloading it if need be; raises as `fetch`."""
        return fetch(self.entry, self.slide_version)


def staging_folder(context: RunContext, entry: SlideEntry, slide_fingerprint: str) -> str:
    """Return where the work on a slide is staged."""
    origin = (
        f"{staging.FORMAT}\0{context.model_digest}\0{context.config_fingerprint}\0{slide_fingerprint}\0{entry.mpp}"
        f"\0{entry.image_asked}"
    )
    key = hashlib.sha256(origin.encode()).hexdigest()[:16]
    return storage.join(context.results, "_staging", slide_key(entry.slide_id), key)


def size_rules(plan: SlidePlan) -> SizeRules:
    """Return the size rules of a slide: areas, or the published ones of its resolution."""
    return SizeRules(plan.resolution) if plan.native_mpp is None else SizeRules.physical(plan.mpp)


def plan_entry(entry: SlideEntry, config: ScoreConfig, native: NativeView = PUBLISHED) -> SlidePlan:
    """Open a slide and plan it.

    Parameters
    ----------
    entry : SlideEntry
    config : ScoreConfig
    native : NativeView
        Of the model.

    Raises
    ------
    SlideError
        The slide cannot be scored; the message says why.
    StorageError
        Its file could not be fetched.
    """
    with step("fetch"):
        place = fetch(entry)
    with step("open"):
        slide = open_entry(entry, place)
    with slide, step("plan"):
        plan = plan_slide(
            slide,
            mpp=entry.mpp,
            assume_mpp=config.assume_mpp,
            tile_size=config.tile_size,
            overlap=config.overlap,
            native=native,
        )
        limit = size_rules(plan).large_noise(config.large_noise_thresh)
        # A core that is not looked at must be too large to lie within a cell.
        masked = () if limit is None else tuple(i for i in plan.masked if plan.grid[i].core_px >= limit)
        return replace(plan, masked=masked)


def prepare(context: RunContext, entry: SlideEntry, number: int = 0) -> tuple[Work, list[int]]:
    """Plan a slide and write the plan down; return its work and the ordinals not staged yet.

    Asked again in the same run and round ``number``, it returns the same ordinals, whatever was staged since:
    Ray repeats a task whose output was lost, and expects the same output.

    Raises
    ------
    StepError
        The slide cannot be scored.
    """
    with step("fetch"):
        slide_fingerprint, version = content_of(entry)
        folder = staging_folder(context, entry, slide_fingerprint)
        url = storage.join(folder, PLAN)
        known = _read_known(url)
        plan = SlidePlan.from_json(known["plan"]) if known else None
    if plan is None:
        plan = plan_entry(entry, context.config, context.native)
    work = Work(entry, plan, slide_fingerprint, version, folder)
    asked = f"{context.run_id}/{number}"
    if known.get("asked") == asked:
        return work, known["ordinals"]
    with step("fetch"):
        staged = staging.staged_ordinals(folder)
    ordinals = [ordinal for ordinal in range(len(work.todo)) if ordinal not in staged]
    document = {
        "entry": asdict(entry),
        "plan": plan.to_json(),
        "slide_fingerprint": slide_fingerprint,
        "slide_version": version,
        "asked": asked,
        "ordinals": ordinals,
    }
    with step("plan"):
        storage.write_bytes(url, json.dumps(document).encode(), durable=False)
    counts = {"tiles": len(plan.grid), "masked": len(plan.masked), "todo": len(ordinals)}
    _log.info("slide.planned", extra={"slide_id": entry.slide_id, **counts})
    return work, ordinals


def _read_known(url: str) -> dict[str, Any]:
    """Return the plan noted at ``url``; nothing if there is none, or a loss of power damaged it."""
    try:
        return _read(url)
    except (StorageMissingError, ValueError):
        return {}


def _read(url: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(storage.read_bytes(url))
    return document


@lru_cache(maxsize=32)  # a plan of a big slide takes megabytes
def load_work(folder: str, run_id: str) -> Work:
    """Return the work that was written to the staging ``folder`` in run ``run_id``."""
    document = _read(storage.join(folder, PLAN))
    return Work(
        entry=SlideEntry(**document["entry"] | {"warnings": tuple(document["entry"]["warnings"])}),
        plan=SlidePlan.from_json(document["plan"]),
        slide_fingerprint=document["slide_fingerprint"],
        slide_version=document["slide_version"],
        staging=folder,
    )
