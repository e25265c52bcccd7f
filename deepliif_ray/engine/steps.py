"""The steps from tiles to staged fragments; both engines run these same functions.

A step takes and gives lists of tiles of any slides. A tile that fails becomes a `TileFailure`, which later
steps pass on.
"""

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.cells.densities import WHITE, stain_tables
from deepliif_ray.cells.fragments import measure_core
from deepliif_ray.cells.rims import RimReach
from deepliif_ray.engine.staging import StagedTile, write_block
from deepliif_ray.engine.work import Failure, RunContext, StepError, Work, load_work, size_rules, step
from deepliif_ray.errors import SlideCorruptError
from deepliif_ray.slides import Slide, SlidePlan, Tile, is_empty, open_guarded
from deepliif_ray.slides.unscanned import fill_unscanned

if TYPE_CHECKING:  # PyTorch is slow to import, and only the models' own workers need it
    from deepliif_ray.models import Model

BLOCK_TILES = 16
"""Tiles that travel together and are staged together, if they are of one slide."""
_OPEN_SLIDES = 4
_log = logging.getLogger(__name__)

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class TileTask:
    """A tile to be read: the staging folder of its slide's work, and its ordinal there."""

    staging: str
    ordinal: int


@dataclass(frozen=True)
class TileFailure:
    """A tile that could not be processed."""

    task: TileTask
    failure: Failure


@dataclass(frozen=True)
class TilePixels:
    """A tile as read, uint8 (tile, tile, 3); ``empty`` by the published rule.

    ``bad`` says why it could not be decoded; its pixels are white then, and it is not inferred.
    """

    task: TileTask
    pixels: Image
    empty: bool
    read_s: float
    bad: str | None = None


@dataclass(frozen=True)
class TileMaps:
    """A tile's core: IHC, segmentation map and marker map; the maps are None if it was not inferred.

    ``bad`` says why it could not be decoded.
    """

    task: TileTask
    rgb: Image
    seg: Image | None
    marker: Image | None
    read_s: float
    infer_s: float
    wait_s: float = 0.0
    bad: str | None = None


@dataclass(frozen=True)
class Staged:
    """How many tiles of a slide were staged, or that one of them failed.

    ``seconds`` tells how long each step took, ``outcomes`` how many tiles were inferred, found
    empty or bad.
    """

    staging: str
    tiles: int
    failure: Failure | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)


class SlideReader:
    """Reads tiles, keeping the last few slides open."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self._open: OrderedDict[str, Slide] = OrderedDict()
        self._failed: dict[str, TileFailure] = {}

    def read(self, tasks: Iterable[TileTask]) -> Iterator[TilePixels | TileFailure]:
        """Read tiles.

        A tile that cannot be decoded is passed on as a bad one; whether there are too many is decided when
        all are known. Anything else that goes wrong is the slide's failure: once a tile has failed so, the
        later ones of that slide are not tried but fail with it. The first one in the order of the grid is
        always found, whichever worker has it.
        """
        for task in tasks:
            known = self._failed.get(task.staging)
            if known is not None and task.ordinal > known.task.ordinal:
                yield TileFailure(task, known.failure)
                continue
            try:
                yield self._read_one(task)
            except StepError as error:
                self._failed[task.staging] = TileFailure(task, error.failure)
                yield self._failed[task.staging]

    def _read_one(self, task: TileTask) -> TilePixels:
        start = time.perf_counter()
        with step("read"):
            work = load_work(task.staging, self.context.run_id)
            tile = work.plan.grid[work.todo[task.ordinal]]
        with step("read", tile.index):
            pixels, bad = read_pixels(self._slide(work), work.plan, tile)
        return TilePixels(task, pixels, is_empty(pixels), time.perf_counter() - start, bad)

    def _slide(self, work: Work) -> Slide:
        slide = self._open.pop(work.staging, None)
        if slide is None:
            entry = work.entry
            slide = open_guarded(work.place(), series=entry.series, plane=entry.plane)
        self._open[work.staging] = slide
        if len(self._open) > _OPEN_SLIDES:
            self._open.popitem(last=False)[1].close()
        return slide

    def close(self) -> None:
        """Close all slides."""
        while self._open:
            self._open.popitem()[1].close()


def read_pixels(slide: Slide, plan: SlidePlan, tile: Tile) -> tuple[Image, str | None]:
    """Return a tile's pixels, uint8 (tile, tile, 3), and None; or white, and why it cannot be decoded."""
    try:
        pixels = slide.read_tile(tile.x, tile.y, plan.tile)
    except SlideCorruptError as error:
        return np.full((plan.tile, plan.tile, 3), 255, np.uint8), str(error)
    if plan.native_mpp is not None:
        pixels = fill_unscanned(pixels, plan.mpp, plan.glass)
    return pixels, None


def shown(plan: SlidePlan, pixels: Image) -> Image:
    """Return a tile as the model is to see it; cells are measured on the tile as it is."""
    return pixels if plan.contrast is None else plan.contrast.apply(pixels)


def core_of(image: Image, tile: Tile) -> Image:
    """Return the part of a tile's image that the tile owns."""
    x0, y0, x1, y1 = tile.core
    return np.ascontiguousarray(image[y0 - tile.y : y1 - tile.y, x0 - tile.x : x1 - tile.x])


def infer_tiles(
    context: RunContext, model: "Model", tiles: Iterable[TilePixels | TileFailure]
) -> Iterator[TileMaps | TileFailure]:
    """Run the model on tiles, whatever slides they are of.

    If that fails, they are tried one by one, so that only the bad one's slide fails.
    """
    by_size: dict[int, list[TilePixels]] = {}
    for item in tiles:
        if isinstance(item, TileFailure):
            yield item
        elif item.empty:
            yield _maps(context, item, None, None, 0.0)
        else:
            by_size.setdefault(len(item.pixels), []).append(item)
    for batch in by_size.values():
        try:
            yield from _infer_batch(context, model, batch)
        except StepError as problem:
            _log.warning("infer.retried", extra={"tiles": len(batch), "why": problem.failure.message})
            for item in batch:
                try:
                    yield from _infer_batch(context, model, [item])
                except StepError as error:
                    yield TileFailure(item.task, error.failure)


def _infer_batch(context: RunContext, model: "Model", batch: list[TilePixels]) -> list[TileMaps]:
    start = time.perf_counter()
    with step("infer"):
        result = model.infer(np.stack([shown(_plan(context, item), item.pixels) for item in batch]))
        seconds = (time.perf_counter() - start) / len(batch)
        return [
            _maps(context, item, result.seg[i], None if result.marker is None else result.marker[i], seconds)
            for i, item in enumerate(batch)
        ]


def _plan(context: RunContext, item: TilePixels) -> SlidePlan:
    return load_work(item.task.staging, context.run_id).plan


def _maps(
    context: RunContext, item: TilePixels, seg: Image | None, marker: Image | None, seconds: float
) -> TileMaps:
    work = load_work(item.task.staging, context.run_id)
    tile = work.plan.grid[work.todo[item.task.ordinal]]
    return TileMaps(
        item.task,
        core_of(item.pixels, tile),
        None if seg is None else core_of(seg, tile),
        None if marker is None else core_of(marker, tile),
        item.read_s,
        seconds,
        bad=item.bad,
    )


def measure_tile(context: RunContext, maps: TileMaps) -> StagedTile:
    """Measure the fragments in the core of one tile.

    A tile that was not inferred counts as published software counts it: black segmentation, and the model's
    background as marker value; a bad one without a say in the slide's marker threshold.
    """
    start = time.perf_counter()
    work = load_work(maps.task.staging, context.run_id)
    plan = work.plan
    seg, marker = maps.seg, maps.marker
    if seg is None:
        seg = np.zeros_like(maps.rgb)
        if context.background_marker is not None:
            marker = np.full(maps.rgb.shape[:2], context.background_marker, dtype=np.uint8)
    fragments = measure_core(
        seg,
        marker,
        maps.rgb,
        core=plan.grid[work.todo[maps.task.ordinal]].core,
        slide=(plan.width, plan.height),
        seg_thresh=context.config.seg_thresh,
        large_noise_thresh=size_rules(plan).large_noise(context.config.large_noise_thresh),
        own=stain_tables(plan.stains.hematoxylin, plan.stains.dab, plan.white or WHITE),
        reach=RimReach.at(plan.mpp),
    )
    if maps.bad is not None:
        fragments = replace(fragments, marker_histogram=np.zeros_like(fragments.marker_histogram))
    seconds = time.perf_counter() - start
    empty = maps.seg is None and maps.bad is None
    return StagedTile(maps.task.ordinal, empty, fragments, maps.read_s, maps.infer_s, seconds, maps.bad)


def stage_tiles(context: RunContext, tiles: Iterable[TileMaps | TileFailure]) -> Iterator[Staged]:
    """Measure tiles and write them to the staging folders of their slides."""
    measured: dict[str, list[StagedTile]] = {}
    waited = 0.0
    for item in tiles:
        folder = item.task.staging
        if isinstance(item, TileFailure):
            yield Staged(folder, 1, item.failure)
            continue
        waited += item.wait_s
        try:
            with step("measure"):
                measured.setdefault(folder, []).append(measure_tile(context, item))
        except StepError as error:
            yield Staged(folder, 1, error.failure)
    for folder, done in measured.items():
        done.sort(key=lambda tile: tile.ordinal)
        for _, run in groupby(enumerate(done), key=lambda pair: pair[1].ordinal - pair[0]):
            block = [tile for _, tile in run]
            start = time.perf_counter()
            try:
                with step("measure"):
                    write_block(folder, block)
                seconds = {"wait": waited, "write": time.perf_counter() - start}
                yield Staged(folder, len(block), None, seconds | _seconds(block), _outcomes(block))
                waited = 0.0
            except StepError as error:
                yield Staged(folder, len(block), error.failure)


def _seconds(block: list[StagedTile]) -> dict[str, float]:
    return {name: sum(getattr(tile, f"{name}_s") for tile in block) for name in ("read", "infer", "measure")}


def _outcomes(block: list[StagedTile]) -> dict[str, int]:
    kinds = ("bad" if tile.bad is not None else "empty" if tile.empty else "inferred" for tile in block)
    return dict(Counter(kinds))


class WaitClock:
    """Tells how long a worker waited for its tiles; one a worker, a context for each call."""

    def __init__(self) -> None:
        self._ended = time.perf_counter()
        self._waited = 0.0

    def __enter__(self) -> Self:
        self._waited = time.perf_counter() - self._ended
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = time.perf_counter()

    def charge(self, tiles: Iterable[TileMaps | TileFailure]) -> Iterator[TileMaps | TileFailure]:
        """Yield tiles; on the first one of a call that was inferred note the time since the last call."""
        for item in tiles:
            if isinstance(item, TileMaps) and self._waited:
                yield replace(item, wait_s=self._waited)
                self._waited = 0.0
            else:
                yield item


def first_failure(failures: Iterable[Failure]) -> Failure:
    """Return the failure that a slide is reported with: that of its first bad tile."""
    return min(failures, key=lambda failure: -1 if failure.tile is None else failure.tile)
