"""What is to be done with a slide: its resolution, tile grid and tissue, decided before any inference."""

import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from deepliif_ray.errors import ResolutionError, SlideTooLargeError
from deepliif_ray.native import PUBLISHED, NativeView
from deepliif_ray.slides.brightfield import check_brightfield
from deepliif_ray.slides.contrast import Contrast, contrast_for
from deepliif_ray.slides.grid import TileGrid, check_tile, default_overlap
from deepliif_ray.slides.quality import SlideQuality, measure_quality
from deepliif_ray.slides.slide import Slide
from deepliif_ray.slides.stain_vectors import StainVectors
from deepliif_ray.slides.tissue import masked_tiles, tissue_mask

USUAL_MPP = (0.1, 2.0)
POSSIBLE_MPP = (0.05, 4.0)
"""Micrometres per pixel between which a nucleus can be told from noise."""
MAX_DISAGREEMENT = 0.2
MOST_OFF_NOMINAL = 0.15
MAX_SIDE = 4_000_000
"""Pixels; 40 cm at 0.1 µm per pixel. What is larger is a damaged header, not a slide."""
MAX_TILES = 4_000_000
"""A whole glass slide, 75 × 25 mm, has about a million at 0.1 µm per pixel."""

_NOMINAL = ((512, 0.25), (256, 0.5), (128, 1.0))


@dataclass(frozen=True)
class SlidePlan:
    """A slide's plan.

    Attributes
    ----------
    width, height : int
        Size in level-0 pixels.
    mpp : float
        Micrometres per level-0 pixel.
    mpp_source : str
        ``manifest``, ``file`` or ``assumed``.
    vendor : str
        Format of the file.
    resolution : str
        ``40x``, ``20x`` or ``10x``: which of the published thresholds apply; from the tile size.
    tile, overlap : int
        The grid, in level-0 pixels.
    native_mpp : float, optional
        µm per pixel at which the model sees tissue; None where the published tile sizes apply.
    tissue_mm2 : float
        Area of the tissue.
    masked : tuple of int
        Indexes of tiles known to be empty without reading them.
    warnings : tuple of str
        What a person should know about this slide.
    quality : SlideQuality, optional
        What quality control measured; None in a plan of an older version.
    reader, series, plane, n_planes, bounds
        How the file was read; see `Slide`.
    glass : tuple of int
        RGB of what was taken for glass.
    contrast : Contrast, optional
        What brings tiles to the glass and hematoxylin that the model knows; None if it sees them as they are.
    white : tuple of float, optional
        RGB of light that no tissue has dimmed; None where nothing tells it.
    stains : StainVectors
        The slide's own, or the usual ones and why.
    """

    width: int
    height: int
    mpp: float
    mpp_source: str
    vendor: str
    resolution: str
    tile: int
    overlap: int
    tissue_mm2: float
    masked: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    quality: SlideQuality | None = None
    reader: str = ""
    series: int | None = None
    plane: int | None = None
    n_planes: int = 1
    bounds: tuple[int, int, int, int] | None = None
    native_mpp: float | None = None
    glass: tuple[int, int, int] = (255, 255, 255)
    contrast: Contrast | None = None
    white: tuple[float, float, float] | None = None
    stains: StainVectors = field(default_factory=StainVectors)

    @cached_property
    def grid(self) -> TileGrid:
        """The slide's tiles."""
        return TileGrid(self.width, self.height, self.tile, self.overlap)

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "SlidePlan":
        """Return the plan that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["masked"] = tuple(values["masked"])
        values["warnings"] = tuple(values["warnings"])
        values["glass"] = tuple(values["glass"])
        values["bounds"] = None if values["bounds"] is None else tuple(values["bounds"])
        quality = values.get("quality")
        values["quality"] = None if quality is None else SlideQuality(**quality)
        if values["contrast"] is not None:
            values["contrast"] = Contrast(
                **values["contrast"] | {"white": tuple(values["contrast"]["white"])}
            )
        values["white"] = None if values["white"] is None else tuple(values["white"])
        stains = values["stains"]
        values["stains"] = StainVectors(
            **stains | {name: tuple(stains[name]) for name in ("hematoxylin", "dab")}
        )
        return cls(**values)


def tile_size_for(mpp: float) -> int:
    """Return the published tile size at ``mpp`` µm per pixel.

    512 at 40x (0.25), 256 at 20x (0.5), 128 at 10x (1.0): whichever is nearest as a ratio.
    """
    return min(_NOMINAL, key=lambda nominal: abs(math.log(mpp / nominal[1])))[0]


def resolution_name(tile: int) -> str:
    """Return the published name of the resolution of tiles of ``tile`` pixels."""
    if tile > 384:
        return "40x"
    return "20x" if tile > 192 else "10x"


def plan_slide(
    slide: Slide,
    *,
    mpp: float | None = None,
    assume_mpp: float | None = None,
    tile_size: int | None = None,
    overlap: int | None = None,
    native: NativeView = PUBLISHED,
) -> SlidePlan:
    """Plan a slide; reads a coarse level of it.

    Parameters
    ----------
    slide : Slide
        An open slide.
    mpp : float, optional
        Micrometres per level-0 pixel from the manifest; overrides the file's.
    assume_mpp : float, optional
        What to take when neither the manifest nor the file says.
    tile_size, overlap : int, optional
        Level-0 pixels; by default the published ones, `tile_size_for` and a sixteenth of the tile, or what
        shows the model tissue at its own scale.
    native : NativeView
        How the model wants to see tissue; by default as published models do.

    Raises
    ------
    ResolutionError
        The resolution is unknown, or such that nuclei cannot be told.
    SlideTooLargeError
        The slide claims a size that no slide has, or makes millions of tiles.
    SlideUnsuitableError
        Its pixels are not those of a stained section in transmitted light.
    SlideCorruptError
        More of the overview cannot be decoded than `deepliif_ray.slides.overview.MAX_UNREAD_PERCENT`.
    ConfigError
        ``tile_size`` and ``overlap`` make no grid.
    """
    warnings: list[str] = list(slide.notes)
    value, source = _resolution(slide, mpp, assume_mpp, warnings)
    fitting_tile = tile_size_for(value) if native.mpp is None else round(native.tile * native.mpp / value)
    tile = fitting_tile if tile_size is None else tile_size
    overlap = default_overlap(tile) if overlap is None else overlap
    check_tile(tile, overlap)
    name, fitting = resolution_name(tile), resolution_name(tile_size_for(value))
    if native.mpp is not None:
        name = fitting
        warnings += _off_scale(tile, fitting_tile, native.mpp)
    elif name != fitting:
        warnings.append(
            f"tile size {tile} is that of {name}, but {value:g} µm per pixel is nearer to {fitting}"
        )
    else:
        nominal = next(mpp for _, mpp in _NOMINAL if tile_size_for(mpp) == tile_size_for(value))
        warnings += _off_nominal(value, nominal, name)
    _check_size(slide, tile - 2 * overlap)
    grid = TileGrid(slide.width, slide.height, tile, overlap)
    masked = np.flatnonzero(masked_tiles(slide, grid))
    tissue = tissue_mask(slide, value)
    check_brightfield(slide.name, tissue)
    warnings += tissue.warnings
    if tissue.unread_percent:
        warnings.append(
            f"{tissue.unread_percent:.2g} % of the overview cannot be decoded and counts as no tissue"
        )
    quality, appearance = measure_quality(slide, tissue, value)
    if native.white is not None and appearance.white is None:
        warnings.append("nothing shows the colour of light, so tiles are seen as they are")
    red, green, blue = tissue.white
    return SlidePlan(
        width=slide.width,
        height=slide.height,
        mpp=value,
        mpp_source=source,
        vendor=slide.vendor,
        resolution=name,
        tile=tile,
        overlap=overlap,
        tissue_mm2=tissue.area_px * value**2 / 1e6,
        masked=tuple(int(index) for index in masked),
        warnings=tuple(warnings),
        quality=quality,
        reader=slide.reader,
        series=slide.series,
        plane=slide.plane,
        n_planes=slide.n_planes,
        bounds=slide.bounds,
        native_mpp=native.mpp,
        glass=(round(float(red)), round(float(green)), round(float(blue))),
        contrast=contrast_for(native, appearance.counterstain, appearance.white),
        white=appearance.white,
        stains=appearance.stains,
    )


def _off_scale(tile: int, fitting: int, native_mpp: float) -> list[str]:
    if abs(tile / fitting - 1) <= MOST_OFF_NOMINAL:
        return []
    return [f"tile size {tile} was asked for, but {fitting} gives the model its {native_mpp:g} µm per pixel"]


def _off_nominal(mpp: float, nominal: float, name: str) -> list[str]:
    """Warn of a slide between the published magnifications: its cells look larger or smaller than trained."""
    off = abs(mpp / nominal - 1)
    if off <= MOST_OFF_NOMINAL:
        return []
    return [
        f"{mpp:g} µm per pixel is {100 * off:.0f} % from the {nominal:g} of {name}; published models see "
        "cells at a scale they were not trained at, and counts may be off"
    ]


def _check_size(slide: Slide, step: int) -> None:
    """Refuse a slide whose grid of tiles, ``step`` pixels apart, could not be held in memory."""
    tiles = math.ceil(slide.width / step) * math.ceil(slide.height / step)
    if max(slide.width, slide.height) > MAX_SIDE or tiles > MAX_TILES:
        raise SlideTooLargeError(
            f"{slide.name}: {slide.width} × {slide.height} pixels make {tiles:,} tiles; up to {MAX_SIDE:,} "
            f"pixels a side and {MAX_TILES:,} tiles are scored; export the slide again if its header is "
            "wrong, choose a larger tile size, or cut the slide into pieces"
        )


def _resolution(
    slide: Slide, manifest: float | None, assumed: float | None, warnings: list[str]
) -> tuple[float, str]:
    try:
        stated = slide.mpp
    except ResolutionError as error:
        if manifest is None:
            raise
        stated = None
        warnings.append(f"the manifest's mpp is used although the file says otherwise: {error}")
    if manifest is not None:
        if stated is not None and abs(manifest / stated - 1) > MAX_DISAGREEMENT:
            warnings.append(f"mpp is {manifest:g} in the manifest but {stated:g} in the file")
        value, source = manifest, "manifest"
    elif stated is not None:
        value, source = stated, "file"
    elif assumed is not None:
        value, source = assumed, "assumed"
    else:
        raise ResolutionError(
            f"{slide.name}: micrometres per pixel unknown; give mpp in the manifest, or use --assume-mpp"
        )
    low, high = POSSIBLE_MPP
    if not low <= value <= high:
        raise ResolutionError(
            f"{slide.name}: {value:g} µm per pixel ({source}) is outside {low:g} to {high:g}, where nuclei "
            "can be told; if it is wrong, give the true mpp in the manifest"
        )
    if not USUAL_MPP[0] <= value <= USUAL_MPP[1]:
        warnings.append(f"{value:g} µm per pixel is unusual; the models were trained at 0.25 to 1")
    return value, source
