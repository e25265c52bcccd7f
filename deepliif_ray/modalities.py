"""What a model infers of a slide, as images: the modalities of the paper, and the segmentation.

Tiles are cut, read and shown to the model as scoring does it, so the segmentation has the pixels that scoring
measured cells in.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from deepliif_ray import __version__, storage
from deepliif_ray.config import DEFAULT_MODEL
from deepliif_ray.engine.maps import SEGMENTATION, CoreMaps, Image, infer_cores, tiles_within
from deepliif_ray.errors import ConfigError, ResolutionError, SlideCorruptError
from deepliif_ray.exports.files import placing, refuse_target
from deepliif_ray.exports.levels import Area, Levels, Picture, area_within, halved_colours, write_ome_tiff
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.models import Model, check_model, load_model, modalities_of
from deepliif_ray.slide_access import fetch, open_entry, refuse_change, version_of
from deepliif_ray.slides import Slide, SlidePlan, Tile, plan_slide

SUFFIXES = (".ome.tiff", ".ome.tif")
MARKER, HEMATOXYLIN = "marker", "hematoxylin"
_OTHER_NAMES = {"hema": HEMATOXYLIN, "seg": SEGMENTATION}


@dataclass(frozen=True)
class Inferred:
    """What was written, or how far it is.

    Attributes
    ----------
    file : str
    names : tuple of str
        The images in it, in order.
    area : tuple of int
        x, y, width and height, level-0 px.
    n_tiles, n_done : int
        Tiles that lie in the area, and how many of these are done.
    n_inferred, n_bad : int
        Tiles that the model was run on, and that cannot be decoded; the others are empty.
    warnings : tuple of str
    is_writing : bool
        All tiles are done, and the file is being written.
    """

    file: str
    names: tuple[str, ...]
    area: Area
    n_tiles: int
    n_done: int = 0
    n_inferred: int = 0
    n_bad: int = 0
    warnings: tuple[str, ...] = ()
    is_writing: bool = False

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1."""
        return self.n_done / max(self.n_tiles, 1)


def infer_modalities(
    slide: str,
    output: str | os.PathLike[str],
    *,
    region: Area | None = None,
    modalities: Sequence[str] = (),
    model: str = DEFAULT_MODEL,
    mpp: float | None = None,
    tile_size: int | None = None,
    overlap: int | None = None,
    series: int | None = None,
    plane: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    watch: Callable[[Inferred], None] = lambda _: None,
) -> Inferred:
    """Run a model on a slide or a region of it, and write what it infers as a pyramidal OME-TIFF.

    The file has an image for each modality, RGB without loss, with its name, the pixel size and its place on
    the slide. Where scoring does not run the model either, because there is nothing on the tile, the
    segmentation is black, the marker has the model's value of background, hematoxylin the colour of glass,
    and the rest is black. Memory does not grow with the region; packed pixels wait on disk beside the output.

    Parameters
    ----------
    slide : str
        URL or path of the slide.
    output : str or path
        The local file: ``.ome.tiff`` or ``.ome.tif``.
    region : tuple of int, optional
        x, y, width and height in level-0 px from the slide's corner; by default all of the slide.
    modalities : sequence of str
        Which images, in this order: ``segmentation``, and those of the model such as ``hematoxylin``,
        ``dapi``, ``lap2`` and ``marker``, in any case. By default all that it makes.
    model : str
        Name of a registered model, or URL of a bundle or published folder.
    mpp : float, optional
        Micrometres per level-0 pixel; overrides the file's.
    tile_size, overlap : int, optional
        Level-0 px, as of scoring.
    series, plane : int, optional
        Which image of the file and which focal plane, from 0.
    device, precision, batch_size
        As of `deepliif_ray.load_model`.
    overwrite : bool
        Replace the file if there is one.
    watch : callable
        Told how far it is.

    Returns
    -------
    Inferred

    Raises
    ------
    ConfigError
        The region is not on the slide, the model makes no such modality, an option cannot be used, or the
        file cannot be written or is there.
    ModelError
        The model cannot be loaded or run.
    SlideError
        The slide cannot be read, its resolution is not known, or none of the region can be decoded.
    StorageError
        A store failed, or the file cannot be written.
    """
    target = Path(output).absolute()
    refuse_target(target, SUFFIXES, overwrite=overwrite)
    uri = check_model(model, device, precision)
    wanted = _names(uri, modalities)
    entry = SlideEntry(slide, "", "", storage.absolute(slide), mpp, {}, series, plane)
    version = version_of(entry)
    with open_entry(entry, fetch(entry, version)) as opened:
        area = area_within(opened.name, region, (opened.width, opened.height), "--region")
        if mpp is None and opened.mpp is None:
            raise ResolutionError(f"{opened.name}: micrometres per pixel unknown; give them with --mpp")
        asked = [name for name in wanted.values() if name != SEGMENTATION]
        loaded = load_model(uri, device, precision, asked, batch_size)
        plan = plan_slide(opened, mpp=mpp, tile_size=tile_size, overlap=overlap, native=loaded.native)
        with placing(target) as path, TemporaryDirectory(dir=target.parent, prefix=".infer-") as folder:
            images = {name: Levels(Path(folder) / name, (area[3], area[2], 3), np.uint8) for name in wanted}
            tiles = tiles_within(plan, area)
            done = Inferred(str(target), tuple(wanted), area, len(tiles), warnings=plan.warnings)
            cores = infer_cores(opened, plan, loaded, tiles, asked)
            for step in _fill(images, cores, wanted, _blank(plan, loaded), done):
                done = step
                watch(done)
            refuse_change(entry, version)

            def tick() -> None:
                watch(replace(done, is_writing=True))

            for levels in images.values():
                levels.make_overviews(halved_colours, tick)
            said = _said(opened, plan, loaded, area)
            pictures = [Picture(name, levels, said) for name, levels in images.items()]
            write_ome_tiff(path, pictures, plan.mpp, area[:2], tick)
    return done


def _names(uri: str, asked: Sequence[str]) -> dict[str, str]:
    """Return the images to write by their names here, and what the model calls each.

    Raises
    ------
    ConfigError
        The model does not make one, or it is named twice.
    """
    known = modalities_of(uri)
    if known is None:  # the model of another package says itself what it does not make
        made = {_plain(name): name for name in asked if _plain(name) != SEGMENTATION}
    else:
        made = {_plain(name): name for name in known}
    made[SEGMENTATION] = SEGMENTATION
    chosen = [_plain(name) for name in asked] or list(made)
    unknown = [name for name in chosen if name not in made]
    if unknown:
        raise ConfigError(f"model {uri}: makes no {', '.join(unknown)}; it makes {', '.join(made)}")
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"modalities {', '.join(asked)}: name each once")
    return {name: made[name] for name in chosen}


def _plain(name: str) -> str:
    lower = name.strip().lower()
    return _OTHER_NAMES.get(lower, lower)


def _fill(
    images: dict[str, Levels],
    cores: Iterable[CoreMaps],
    called: dict[str, str],
    blank: dict[str, int | tuple[int, int, int]],
    begun: Inferred,
) -> Iterator[Inferred]:
    """Write what is inferred of each tile; yield how far it is.

    ``called`` has the model's names of the images, ``blank`` their colours where it is not run.

    Raises
    ------
    SlideCorruptError
        None of the tiles can be decoded.
    """
    done, why = begun, ""
    for core in cores:
        if core.bad is not None:
            done, why = replace(done, n_bad=done.n_bad + 1), why or core.bad
        for name, levels in images.items():
            pixels = (
                _even(core.tile, blank.get(name, 0)) if core.images is None else core.images[called[name]]
            )
            _write(levels, pixels, core.tile, begun.area)
        done = replace(done, n_done=done.n_done + 1, n_inferred=done.n_inferred + (core.images is not None))
        yield done
    if done.n_bad == done.n_tiles:
        raise SlideCorruptError(f"nothing of the region can be decoded; {why}")
    if done.n_bad:
        said = f"{done.n_bad:,} tiles cannot be decoded and are blank; the first: {why}"
        yield replace(done, warnings=(*done.warnings, said))


def _even(tile: Tile, colour: int | tuple[int, int, int]) -> Image:
    """Return the core of a tile in one colour."""
    x0, y0, x1, y1 = tile.core
    core = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    core[:] = colour
    return core


def _blank(plan: SlidePlan, model: Model) -> dict[str, int | tuple[int, int, int]]:
    """Return the colours of images where the model is not run; black where none is named."""
    marker = {MARKER: model.background_marker} if model.has_marker else {}
    return {HEMATOXYLIN: plan.glass, **marker}


def _write(levels: Levels, core: Image, tile: Tile, area: Area) -> None:
    """Write what of a tile's core lies in the area."""
    x, y, width, height = area
    left, top = max(x, tile.core[0]), max(y, tile.core[1])
    right, bottom = min(x + width, tile.core[2]), min(y + height, tile.core[3])
    part = core[top - tile.core[1] : bottom - tile.core[1], left - tile.core[0] : right - tile.core[0]]
    levels.write(left - x, top - y, part)


def _said(slide: Slide, plan: SlidePlan, model: Model, area: Area) -> str:
    """Return where the images are from, as JSON."""
    told = {
        "slide": slide.name,
        "area": ",".join(map(str, area)),
        "model_name": model.name,
        "model_digest": model.digest,
        "precision": model.precision,
        "mpp": plan.mpp,
        "mpp_source": plan.mpp_source,
        "tile_px": plan.tile,
        "overlap_px": plan.overlap,
        "contrast": None if plan.contrast is None else plan.contrast.factor,
        "series": slide.series,
        "plane": slide.plane,
        "software_version": __version__,
    }
    return json.dumps({name: value for name, value in told.items() if value is not None})
