"""Distillation: training panels from what a model makes of unlabelled slides."""

import math
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, SlideError, SlideMissingError
from deepliif_ray.manifest import read_manifest
from deepliif_ray.models import Model, load_model
from deepliif_ray.native import NativeView
from deepliif_ray.slides import Slide, TissueMask, open_guarded, plan_slide, tissue_mask
from deepliif_ray.slides.contrast import Contrast
from deepliif_ray.slides.grid import Tile, TileGrid
from deepliif_ray.training.panels.files import (
    MODALITIES,
    SEG,
    Panels,
    UInt8Array,
    check_modalities,
    refuse,
    write_panels,
)
from deepliif_ray.training.panels.listing import IMAGES, MANIFESTS

BATCH = 8
PUBLISHED_NAMES = {"hematoxylin": "Hema", "dapi": "DAPI", "lap2": "Lap2", "marker": "Marker"}
"""What published models call their modalities, by the names of our panels."""


@dataclass(frozen=True)
class _Source:
    """A slide, where tiles of it lie, and how the model is shown them; sides are level-0 pixels."""

    uri: str
    prefix: str
    side: int
    tiles: list[Tile]
    contrast: Contrast | None


def distill(
    model_uri: str,
    sources: Sequence[str],
    output: str,
    *,
    modalities: Sequence[str] = MODALITIES,
    tile_size: int = 512,
    max_tiles: int | None = None,
    assume_mpp: float | None = None,
    target_mpp: float = 0.25,
    seed: int = 0,
    device: str | None = None,
    precision: str | None = None,
    min_tissue_percent: float = 50.0,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write strips of tiles of unlabelled slides and of what a model makes of them.

    The slides are opened, and their tissue found, before anything is inferred. Of every slide, the tiles of a
    grid without overlap that hold enough tissue are shuffled; slides take turns until there are enough tiles.
    The model sees tiles with the glass and hematoxylin that it knows; the IHC panel is the tile as it is.
    The same arguments write the same files, ``NUMBER-SLIDE_X_Y.png`` by the slide's place among the sources
    and the tile's level-0 pixel.

    Parameters
    ----------
    model_uri : str
        See `deepliif_ray.load_model`.
    sources : sequence of str
        URLs of slides, images, folders of images, or cohort manifests (see `deepliif_ray.manifest`).
    output : str
        URL of the folder that gets the strips.
    modalities : sequence of str
        Panels between IHC and segmentation. The model is asked for modalities of these names, and if it does
        not have them, for those that published models mean by them (`PUBLISHED_NAMES`).
    tile_size : int
        Side of a panel, px.
    max_tiles : int, optional
        Most strips to write; by default all that hold tissue.
    assume_mpp : float, optional
        µm per pixel of slides and images that do not say.
    target_mpp : float
        µm per pixel of the panels, which tiles are resampled to (Lanczos); 0.25 is 40x.
    seed : int
    device, precision : str, optional
        See `deepliif_ray.load_model`.
    min_tissue_percent : float
        Tiles with less tissue (see `deepliif_ray.slides.tissue_mask`) are left out.
    watch : callable
        Called with the number of strips written and to be written.

    Returns
    -------
    int
        Number of strips written.

    Raises
    ------
    ConfigError
        An option is out of range, slides cannot be used (names the first ten), none holds tissue, or the
        model lacks a modality.
    ManifestError, ModelError, StorageError
        A manifest or the model cannot be used, or a store fails.
    SlideCorruptError
        Pixels of a slide cannot be decoded.
    """
    names = check_modalities(modalities)
    if tile_size < 16 or not 0.01 < target_mpp < 10 or not 0 <= min_tissue_percent <= 100:
        raise ConfigError(
            f"tile size {tile_size}, target mpp {target_mpp}, least tissue {min_tissue_percent} %: at least "
            "16, 0.01 to 10, and 0 to 100 were expected"
        )
    if max_tiles is not None and max_tiles < 1:
        raise ConfigError(f"at most {max_tiles} tiles: use at least 1, or none for all")
    model, asked = _load(model_uri, names, device, precision)
    colours = NativeView(od=model.native.od, white=model.native.white)
    with tempfile.TemporaryDirectory(prefix="deepliif-ray-") as folder:
        cache = Path(folder)
        planned: list[_Source] = []
        problems: list[str] = []
        for number, (uri, mpp) in enumerate(_listed(sources)):
            try:
                with _opened(uri, cache) as slide:
                    plan = plan_slide(slide, mpp=mpp, assume_mpp=assume_mpp, native=colours)
                    resolution = plan.mpp
                    side = max(1, round(tile_size * target_mpp / resolution))
                    tiles = _with_tissue(slide, side, resolution, min_tissue_percent)
            except SlideError as error:
                problems.append(f"{uri}: {error}")
            else:
                np.random.default_rng([seed, number]).shuffle(tiles)
                stem = re.sub(r"[^\w-]+", "-", PurePosixPath(uri).stem).strip("-")
                planned.append(_Source(uri, f"{number:04d}-{stem}", side, tiles, plan.contrast))
        refuse(problems)
        turns = zip_longest(*([(source, tile) for tile in source.tiles] for source in planned))
        chosen = list(islice((pair for turn in turns for pair in turn if pair), max_tiles))
        if not chosen:
            raise ConfigError(
                f"no tile of {', '.join(sources)} holds {min_tissue_percent:g} % tissue; give a lower share"
            )
        done = 0
        for source in planned:
            tiles = [tile for owner, tile in chosen if owner is source]
            if not tiles:
                continue
            with _opened(source.uri, cache) as slide:
                for start in range(0, len(tiles), BATCH):
                    for panels in _inferred(
                        model, asked, slide, source, tiles[start : start + BATCH], tile_size
                    ):
                        write_panels(output, panels)
                        done += 1
                        watch(done, len(chosen))
        return done


def _load(
    uri: str, names: tuple[str, ...], device: str | None, precision: str | None
) -> tuple[Model, dict[str, str]]:
    """Return the model, and its names of our modalities by ours."""
    try:
        return load_model(uri, device, precision, names), dict(zip(names, names, strict=True))
    except ConfigError as error:
        published = {name: PUBLISHED_NAMES.get(name, name) for name in names}
        try:
            return load_model(uri, device, precision, tuple(published.values())), published
        except ConfigError:
            raise error from None  # it speaks of the names that were given


def _listed(sources: Sequence[str]) -> Iterator[tuple[str, float | None]]:
    """Yield the URLs of slides and their resolutions, where a manifest tells."""
    for uri in sources:
        if PurePosixPath(uri).suffix.lower() in MANIFESTS:
            yield from ((entry.uri, entry.mpp) for entry in read_manifest(uri).slides)
            continue
        below = storage.list_files(uri)
        if uri in below or any(url.lower().endswith(".dcm") for url in below):
            yield uri, None
            continue
        images = [url for url in below if PurePosixPath(url).suffix.lower() in IMAGES]
        yield from ((url, None) for url in images or [uri])


@contextmanager
def _opened(uri: str, cache: Path) -> Iterator[Slide]:
    try:
        path = storage.localize(uri, cache)
    except OSError as error:
        raise SlideMissingError(f"{uri}: no such file, or it may not be read") from error
    with open_guarded(path) as slide:
        yield slide


def _with_tissue(slide: Slide, side: int, mpp: float, least_percent: float) -> list[Tile]:
    """Return the tiles of ``side`` level-0 pixels of which tissue covers enough."""
    tissue = tissue_mask(slide, mpp)
    return [
        tile
        for tile in TileGrid(slide.width, slide.height, side, 0)
        if 100 * _part(tissue, tile.x, tile.y, side).mean() >= least_percent
    ]


def _part(tissue: TissueMask, x: int, y: int, side: int) -> NDArray[np.bool_]:
    """Return the squares of the mask that a tile touches."""
    rows, columns = (
        slice(math.floor(start / tissue.size), math.ceil((start + side) / tissue.size)) for start in (y, x)
    )
    return tissue.mask[rows, columns]


def _inferred(
    model: Model, asked: dict[str, str], slide: Slide, source: _Source, tiles: list[Tile], size: int
) -> Iterator[Panels]:
    pixels = np.stack([_resampled(slide.read_tile(tile.x, tile.y, source.side), size) for tile in tiles])
    shown = pixels if source.contrast is None else np.stack([source.contrast.apply(tile) for tile in pixels])
    result = model.infer(shown, tuple(asked.values()))
    for number, tile in enumerate(tiles):
        targets = {ours: result.modalities[theirs][number] for ours, theirs in asked.items()}
        targets[SEG] = result.seg[number]
        yield Panels(f"{source.prefix}_{tile.x}_{tile.y}", pixels[number], targets)


def _resampled(tile: UInt8Array, size: int) -> UInt8Array:
    if len(tile) == size:
        return tile
    return np.asarray(Image.fromarray(tile).resize((size, size), Image.Resampling.LANCZOS))
