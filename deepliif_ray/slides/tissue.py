"""Where there is tissue: the published rule for empty tiles, a mask that agrees with it, and an area.

Three different questions. `is_empty` decides, from a tile's own pixels, whether published software would run
it. `masked_tiles` spares reading tiles that are certain to be empty. `tissue_mask` measures tissue for
densities; nothing is skipped because of it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from deepliif_ray.errors import SlideCorruptError
from deepliif_ray.slides.contrast import LEAST_WHITE
from deepliif_ray.slides.grid import TileGrid
from deepliif_ray.slides.levels import has_shape, usable_level
from deepliif_ray.slides.overview import Overview, drop_small
from deepliif_ray.slides.slide import Slide

EMPTY_VARIANCE = 9.0
"""Published: a tile whose grey levels vary less than this is empty."""

MASK_DOWNSAMPLES = (4.0, 32.0)
MASK_MARGIN = 2
MASK_MIN_CORE = 16_000
"""A core of fewer pixels could lie within one cell (the published upper limit of a cell at 40x)."""

PROVEN_TILES = 2048
MASK_MPP = 8.0
WHITE_FLOOR = 230
WHITE_PERCENTILE = 99
GLASS_SPREAD = 0.003
"""Optical density: glass varies less among neighbouring squares. Of squares of eleven real fields without
glass, none did; of those with glass, 1.5 to 30 %."""
LEAST_GLASS = 0.01
SAME_OD = 0.02
PALE_OD, PALE_SPREAD = 0.015, 0.004
PALE_RATIO, PALE_SHARE = 3.0, 0.05
"""Of real fields of usual tissue up to 1.6 times the area that is as dark as `TISSUE_OD` is uneven; of two
pale ones over 50 times."""
PALE = "its tissue is pale, and was told from glass by being uneven and not by being dark; check its area"
GLASS_NOISE = 6.0
"""Grey levels: standard deviation of the pixels of a square of glass."""
TISSUE_OD = 0.05
SPECK_UM2 = 2500.0


def grey_variance(tile: NDArray[np.uint8]) -> float:
    """Return the variance of a tile's grey levels, those of 0 and 255 left out (0 if none is left).

    Published rule (DeepLIIF 1.2.7): grey is Pillow's ``L``, the variance that of the population.

    Parameters
    ----------
    tile : ndarray of uint8, shape (height, width, 3)
    """
    grey = np.asarray(Image.fromarray(tile).convert("L"))
    values = grey[(grey != 0) & (grey != 255)]
    return float(np.var(values)) if values.size else 0.0


def is_empty(tile: NDArray[np.uint8]) -> bool:
    """Tell whether published software would not run this tile, uint8 of shape (height, width, 3)."""
    return grey_variance(tile) < EMPTY_VARIANCE


def masked_tiles(slide: Slide, grid: TileGrid) -> NDArray[np.bool_]:
    """Return which tiles are certain to be empty, from a coarse level of the slide.

    A level is a summary, and may lack what level 0 has, so it only hints: where everything under a tile and
    `MASK_MARGIN` pixels around it is exactly one colour (whose grey is not 0 or 255: those are left out of
    the rule's variance, which the few other pixels then decide), or fully transparent, the tile is read at
    level 0 and the rule asked. At most `PROVEN_TILES` are, spread evenly, which bounds the time that a plan
    takes; the others are left to the workers, who look at every tile that is not masked. Tiles are masked
    only if they own `MASK_MIN_CORE` pixels.

    Parameters
    ----------
    slide : Slide
        Needs a level between 4 and 32 times coarser than level 0; else nothing is masked.
    grid : TileGrid
        The slide's tiles.

    Returns
    -------
    ndarray of bool, shape (len(grid),)
        None if what has to be read for it cannot be decoded.
    """
    try:
        return _masked_tiles(slide, grid)
    except SlideCorruptError:
        return np.zeros(len(grid), bool)


def _masked_tiles(slide: Slide, grid: TileGrid) -> NDArray[np.bool_]:
    masked = np.zeros(len(grid), bool)
    low, high = MASK_DOWNSAMPLES
    usable = [
        n for n, level in enumerate(slide.levels) if low <= level.downsample <= high and has_shape(slide, n)
    ]
    if not usable:
        return masked
    number = max(usable, key=lambda n: slide.levels[n].downsample)
    level = slide.levels[number]
    columns = [_footprint(x, grid.tile, level.downsample, level.width) for x in grid.column_starts]
    uniform = np.zeros((grid.n_rows, grid.n_columns), bool)
    for row, y in enumerate(grid.row_starts):
        y0, y1 = _footprint(y, grid.tile, level.downsample, level.height)
        strip = slide.read_level(number, 0, y0, level.width, y1 - y0)
        low_rgba, high_rgba = strip.min(axis=0), strip.max(axis=0)
        for column, (x0, x1) in enumerate(columns):
            uniform[row, column] = _is_uniform(low_rgba[x0:x1].min(axis=0), high_rgba[x0:x1].max(axis=0))
    widths, heights = np.diff(grid.column_edges), np.diff(grid.row_edges)
    masked[:] = (uniform & (np.outer(heights, widths) >= MASK_MIN_CORE)).ravel()
    hinted = np.flatnonzero(masked)
    masked[:] = False
    if hinted.size:
        picks = np.unique(np.linspace(0, hinted.size - 1, PROVEN_TILES).round().astype(int))
        for index in hinted[picks].tolist():
            tile = grid[index]
            masked[index] = is_empty(slide.read_tile(tile.x, tile.y, grid.tile))
    return masked


def _footprint(start: int, size: int, downsample: float, length: int) -> tuple[int, int]:
    first = math.floor(start / downsample) - MASK_MARGIN
    last = math.ceil((start + size) / downsample) + MASK_MARGIN
    return max(0, first), min(length, last)


def _is_uniform(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> bool:
    if high[3] == 0:
        return True
    if low[3] != 255 or (low != high).any():
        return False
    grey = Image.new("RGB", (1, 1), (int(low[0]), int(low[1]), int(low[2]))).convert("L").getpixel((0, 0))
    return grey not in (0, 255)


@dataclass(frozen=True)
class TissueMask:
    """Tissue of a slide, coarsely.

    Attributes
    ----------
    mask : ndarray of bool, shape (rows, columns)
        Whether each square holds tissue.
    size : float
        Side of a square in level-0 pixels; those at the right and bottom may be cut by the slide's edge.
    square : tuple of float
        Exact width and height of a square that is not cut, in level-0 pixels: sides of levels are rounded.
    area_px : float
        Area of the tissue in level-0 pixels.
    mean : ndarray of float32, shape (rows, columns, 3)
        Average red, green and blue of each square.
    white : ndarray of float, shape (3,)
        What was taken for glass.
    scanned : ndarray of bool, shape (rows, columns)
        False where there is nothing but black in quantity: area that was not scanned. It counts as glass.
    scanned_px : float
        Area that was scanned, in level-0 pixels.
    unread_percent : float
        Share of the slide that could not be decoded and counts as glass.
    warnings : tuple of str
        Levels that could not be used.
    """

    mask: NDArray[np.bool_]
    size: float
    square: tuple[float, float]
    area_px: float
    mean: NDArray[np.float32]
    white: NDArray[np.floating]
    scanned: NDArray[np.bool_]
    scanned_px: float
    unread_percent: float = 0.0
    warnings: tuple[str, ...] = ()


def tissue_mask(slide: Slide, mpp: float) -> TissueMask:
    """Find the tissue of a slide at 8 to 16 µm per square.

    The finest-fitting level that shows what level 0 shows is read block by block (level 0 if the slide has
    no other, in bounded memory) and averaged. Squares that are black, 0 to 4 in every channel, in pieces of
    at least 2,500 µm² were not scanned; squares beside them are averaged without their black pixels. White
    is, per channel, the 99th percentile of the averages but at least 230, so a field that is tissue all over
    does not take its own tissue for glass. Where the brightest squares are too even to be tissue, they are
    glass, and white is theirs however dim or tinted: see `even_glass`. Tissue is where the optical density
    ``log10(white / value)``, averaged over the channels, is at least 0.05; pieces and holes under 2,500 µm²
    (and a hundredth of the slide) are dropped. A slide of pale tissue has little of that: if three times as
    much is at least 0.015 and varies from square to square as tissue does, that is its tissue, and a warning
    says so. Ink and folds count as tissue, undecodable pixels do not.

    Parameters
    ----------
    slide : Slide
        The slide.
    mpp : float
        Micrometres per level-0 pixel.

    Raises
    ------
    SlideCorruptError
        Over `deepliif_ray.slides.overview.MAX_UNREAD_PERCENT` cannot be decoded.
    """
    target = max(MASK_MPP / mpp, 1.0)
    number, warnings = usable_level(slide, target)
    level = slide.levels[number]
    factor = max(1, math.ceil(target / level.downsample - 1e-6))
    overview = Overview(slide, number, factor)
    size = factor * level.downsample
    speck = max(1, round(SPECK_UM2 / (size * mpp) ** 2))
    mean, scanned = overview.without_black(speck)
    seen = mean[scanned] if scanned.any() else mean.reshape(-1, 3)
    percentile = np.nanpercentile if overview.unread else np.percentile
    white = percentile(seen, WHITE_PERCENTILE, axis=0)
    white = np.clip(white, even_glass(mean, overview.noise, scanned, white), 255)
    mean[~scanned] = white
    density = np.log10(white / np.maximum(mean, 1.0)).mean(axis=2)
    squares = min(speck, density.size // 100)
    dark = density >= TISSUE_OD
    mask = _pieces(dark, squares) & scanned
    stained, much = density >= PALE_OD, max(PALE_RATIO * mask.sum(), PALE_SHARE * scanned.sum())
    if (stained & scanned).sum() > much:  # of most slides it is not, and unevenness takes time to tell
        pale = _pieces(dark | (stained & (_spread(density) >= PALE_SPREAD)), squares) & scanned
        if pale.sum() > much:
            mask, warnings = pale, (*warnings, PALE)
    heights = np.minimum(factor, level.height - factor * np.arange(mask.shape[0]))
    widths = np.minimum(factor, level.width - factor * np.arange(mask.shape[1]))
    whole = slide.width * slide.height / (level.width * level.height)
    unread_percent = 100 * overview.unread / (level.width * level.height)
    if overview.unread:
        mean = np.where(np.isnan(mean), white.astype(np.float32), mean)
    return TissueMask(
        mask=mask,
        size=size,
        square=(factor * slide.width / level.width, factor * slide.height / level.height),
        area_px=float(heights @ mask @ widths) * whole,
        mean=mean,
        white=white,
        scanned=scanned,
        scanned_px=float(heights @ scanned @ widths) * whole,
        unread_percent=unread_percent,
        warnings=warnings,
    )


def even_glass(
    mean: NDArray[np.float32],
    noise: NDArray[np.float32],
    scanned: NDArray[np.bool_],
    white: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Return the least that white may be: the colour of squares that are certainly glass, or `WHITE_FLOOR`.

    A lamp or a camera may show glass cream or grey. Then brightness alone does not tell glass from pale
    tissue, but evenness does: tissue has nuclei and fibres, and varies from one square to the next. Squares
    are taken for glass if they are as bright as the brightest, if density hardly varies among them and the
    eight around them and among the pixels of each, and if a hundredth of the slide is so.

    Parameters
    ----------
    mean : ndarray of float32, shape (rows, columns, 3)
        Averages of squares of 8 to 16 µm; NaN where nothing could be read.
    noise : ndarray of float32, shape (rows, columns)
        Standard deviation of green of pixels of each square.
    scanned : ndarray of bool, shape (rows, columns)
    white : ndarray of float, shape (3,)
        Colour of the brightest squares.

    Returns
    -------
    ndarray of float64, shape (3,)
    """
    floor = np.full(3, float(WHITE_FLOOR))
    if white.min() >= WHITE_FLOOR or white.min() < LEAST_WHITE:
        return floor
    density = np.log10(255 / np.maximum(np.nan_to_num(mean, nan=1.0), 1.0)).mean(axis=2)
    bright = density <= np.log10(255 / white).mean() + SAME_OD
    inside = ndimage.binary_erosion(scanned, np.ones((3, 3), bool))
    glass = bright & (_spread(density) <= GLASS_SPREAD) & (noise <= GLASS_NOISE) & inside
    if glass.sum() < LEAST_GLASS * scanned.sum():
        return floor
    color: NDArray[np.float64] = np.minimum(np.median(mean[glass], axis=0), floor).astype(np.float64)
    return color


def _spread(density: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the standard deviation of density among each square and the eight around it."""
    known = np.nan_to_num(density).astype(np.float64)
    variance = ndimage.uniform_filter(known**2, 3) - ndimage.uniform_filter(known, 3) ** 2
    spread: NDArray[np.float64] = np.sqrt(np.maximum(variance, 0))
    return spread


def _pieces(mask: NDArray[np.bool_], squares: int) -> NDArray[np.bool_]:
    """Return ``mask`` without its pieces and its holes of fewer than ``squares`` squares."""
    return ~drop_small(~drop_small(mask, squares), squares)
