"""Quality control of a slide: focus, ink, stain strength, glass; measured, never judged.

Thresholds live in SQL (``query/sql/quality.sql``). Everything but focus comes from the averages that
`tissue_mask` made (squares of 8 to 16 µm), so that it costs no reading; focus and counterstain read at most
`PATCHES` small squares of level 0, chosen by the tissue alone, so every attempt at a slide finds the same
values.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepliif_ray.errors import SlideError
from deepliif_ray.slides.appearance import Appearance
from deepliif_ray.slides.slide import Slide
from deepliif_ray.slides.tissue import TISSUE_OD, TissueMask
from deepliif_ray.stains import DAB, HEMATOXYLIN

FOCUS_MPP = 0.5
PATCH_UM = 64.0
PATCHES = 12
MAX_SQUARES = 1_000_000
"""Squares that are looked at; of a larger overview every second, third, … row and column."""
LEAST_GLASS = 0.01
LEAST_DENSITY = 1e-6

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_INK_SQUARES, _BLACK_SQUARES = 3, 9


@dataclass(frozen=True)
class SlideQuality:
    """What quality control measured; None where there was nothing to measure it on.

    Attributes
    ----------
    focus : float, optional
        Median over patches of tissue of the variance of the Laplacian; see `laplacian_variance`.
    tissue_percent, pen_percent : float
        Share of the area that was scanned.
    hematoxylin_od, dab_od : float, optional
        Mean optical density of each stain on tissue without ink.
    stain_residual : float, optional
        How far the colour of that tissue is from any mixture of hematoxylin and DAB; see `stain_residual`.
    counterstain_od : float, optional
        How dark hematoxylin is where there is some; see
        `deepliif_ray.slides.contrast.Counterstain`.
    background_grey, background_cast : float, optional
        Grey level of glass, 0 to 255, and how far its channels are apart; see `glass_color`.
    """

    focus: float | None
    tissue_percent: float
    pen_percent: float
    hematoxylin_od: float | None
    dab_od: float | None
    stain_residual: float | None
    counterstain_od: float | None
    background_grey: float | None
    background_cast: float | None


def measure_quality(slide: Slide, tissue: TissueMask, mpp: float) -> tuple[SlideQuality, Appearance]:
    """Measure a slide whose tissue is known, and how it shows glass and stains.

    Parameters
    ----------
    slide : Slide
    tissue : TissueMask
        Of this slide.
    mpp : float
        Micrometres per level-0 pixel.
    """
    every = math.ceil(math.sqrt(tissue.mask.size / MAX_SQUARES))
    mean, mask = tissue.mean[::every, ::every], tissue.mask[::every, ::every]
    scanned = tissue.scanned[::every, ::every]
    density = np.log10(tissue.white.astype(np.float32) / np.maximum(mean, 1.0))
    pen = pen_mask(density)
    stained = mask & ~pen
    hematoxylin, dab = stain_strength(density, stained)
    glass = ~mask & ~pen & scanned & (density.mean(axis=2) < TISSUE_OD)
    grey, cast = glass_color(mean, glass, slide.background)
    patches = _read_patches(slide, stained, tissue.size * every, mpp)
    appearance = Appearance.measure(patches)
    counterstain = appearance.counterstain
    quality = SlideQuality(
        focus=float(np.median([laplacian_variance(patch) for patch in patches])) if patches else None,
        tissue_percent=100 * tissue.area_px / max(tissue.scanned_px, 1.0),
        pen_percent=100 * float(pen.sum()) / max(int(scanned.sum()), 1),
        hematoxylin_od=hematoxylin,
        dab_od=dab,
        stain_residual=stain_residual(density, stained),
        counterstain_od=None if counterstain is None else counterstain.od,
        background_grey=grey,
        background_cast=cast,
    )
    return quality, appearance


def pen_mask(density: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Find pen and ink: strong colours that hematoxylin and DAB, alone or mixed, do not make.

    Both stains absorb green more than red. *Blue and green* ink absorb red most; *red* ink absorbs green and
    blue but hardly red, which eosin does not (little blue) nor DAB (much red). *Black* ink has the colour of
    nuclei saturated with DAB: what tells it is that it is solid over many squares. The limits leave a margin
    to every real IHC field at hand (docs/monitoring.md).

    Parameters
    ----------
    density : ndarray of float32, shape (rows, columns, 3)
        Optical density of red, green and blue of squares of about 8 to 16 µm, relative to glass.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
    """
    red, green, blue = (density[..., channel] for channel in range(3))
    cold = ((red >= 0.25) & (green < 0.6 * red)) | ((red >= 0.4) & (green < 0.85 * red))
    warm = (green >= 0.3) & (red < 0.3 * green) & (blue > 0.65 * green)
    least, most = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    black = (least >= 0.8) & (least >= 0.6 * most)
    found: NDArray[np.bool_] = (
        _solid(cold, _INK_SQUARES) | _solid(warm, _INK_SQUARES) | _solid(black, _BLACK_SQUARES)
    )
    return found


def _solid(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return the parts of ``mask`` into which a square of ``side`` fits."""
    if not mask.any():
        return mask
    opened: NDArray[np.bool_] = ndimage.binary_opening(mask, np.ones((side, side), bool))
    return opened


def stain_strength(
    density: NDArray[np.float32], where: NDArray[np.bool_]
) -> tuple[float | None, float | None]:
    """Return the mean optical density of hematoxylin and of DAB, by colour deconvolution.

    Vectors of Ruifrok and Johnston (Anal Quant Cytol Histol 2001; 23:291-299), with their cross product as
    residual. Not clipped: a stain that is
    absent is about 0, and may be a little below.

    Parameters
    ----------
    density : ndarray of float32, shape (rows, columns, 3)
    where : ndarray of bool, shape (rows, columns)
        Squares to average; both are None if there is none.
    """
    if not where.any():
        return None, None
    vectors = np.array([HEMATOXYLIN, DAB, np.cross(HEMATOXYLIN, DAB)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hematoxylin, dab, _ = density[where].mean(axis=0, dtype=np.float64) @ np.linalg.inv(vectors)
    return float(hematoxylin), float(dab)


def stain_residual(density: NDArray[np.float32], where: NDArray[np.bool_]) -> float | None:
    """Return how far the colour of tissue is from any mixture of hematoxylin and DAB.

    Mixtures lie in the plane of the two vectors (Ruifrok and Johnston 2001). What is told is the sine of the
    angle between that plane and the density of all squares together: about 0 for hematoxylin, DAB and both;
    below 0 for what absorbs more green, as eosin does; above 0 for what absorbs less, as blue and green dyes.

    Parameters
    ----------
    density : ndarray of float32, shape (rows, columns, 3)
    where : ndarray of bool, shape (rows, columns)
        Squares to look at; None if there is none, or if they absorb next to nothing.
    """
    total = density[where].sum(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(total))
    if length < LEAST_DENSITY:
        return None
    normal = np.cross(HEMATOXYLIN, DAB)
    return float(total @ normal / np.linalg.norm(normal)) / length


def glass_color(
    mean: NDArray[np.float32], glass: NDArray[np.bool_], fill: tuple[int, int, int] = (255, 255, 255)
) -> tuple[float | None, float | None]:
    """Return the grey level of glass and its colour cast.

    Parameters
    ----------
    mean : ndarray of float32, shape (rows, columns, 3)
        Averages of red, green and blue, 0 to 255.
    glass : ndarray of bool, shape (rows, columns)
    fill : tuple of int
        Colour of what was not scanned; left out unless nothing else is glass.

    Returns
    -------
    grey : float, optional
        Luma (ITU-R 601) of the median colour; None, as the cast, if under 1 % is glass.
    cast : float, optional
        Greatest less least channel of the median colour, grey levels.
    """
    if glass.mean() < LEAST_GLASS:
        return None, None
    colors = mean[glass]
    scanned = colors[(colors != np.array(fill, np.float32)).any(axis=1)]
    median = np.median(scanned if scanned.size else colors, axis=0)
    return float(median @ _LUMA), float(median.max() - median.min())


def laplacian_variance(pixels: NDArray[np.float32]) -> float:
    """Return the variance of the Laplacian of a picture's grey levels: how sharp it is.

    Parameters
    ----------
    pixels : ndarray of float32, shape (height, width, 3)

    Returns
    -------
    float
        Grey is luma (ITU-R 601), the Laplacian that of four neighbours; 0 where no pixel has four.
    """
    grey = pixels @ _LUMA
    if min(grey.shape) < 3:
        return 0.0
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.var(neighbours - 4 * grey[1:-1, 1:-1], dtype=np.float64))


def choose_patches(tissue: NDArray[np.bool_], side: int) -> list[tuple[int, int]]:
    """Choose where to look at tissue closely.

    Parameters
    ----------
    tissue : ndarray of bool, shape (rows, columns)
    side : int
        Side of a patch, in squares.

    Returns
    -------
    list of (int, int)
        First row and column of at most `PATCHES` patches of a grid of them: those at least half tissue, or
        as much as any is, spread evenly in row order.
    """
    rows, columns = tissue.shape
    row_starts, column_starts = np.arange(0, rows, side), np.arange(0, columns, side)
    count = np.add.reduceat(np.add.reduceat(tissue.astype(np.int64), row_starts, 0), column_starts, 1)
    if not count.any():
        return []
    candidates = np.argwhere(count >= min(side * side / 2, count.max()))
    picks = np.unique(np.linspace(0, len(candidates) - 1, PATCHES).round().astype(int))
    return [(int(row) * side, int(column) * side) for row, column in candidates[picks]]


def _read_patches(
    slide: Slide, tissue: NDArray[np.bool_], square: float, mpp: float
) -> list[NDArray[np.float32]]:
    """Return the patches of tissue that can be read, averaged to about 0.5 µm a pixel."""
    factor = max(1, round(FOCUS_MPP / mpp))
    pixels = round(PATCH_UM / mpp)
    found = []
    for row, column in choose_patches(tissue, max(1, round(pixels / square))):
        x, y = int(column * square), int(row * square)
        width, height = min(pixels, slide.width - x), min(pixels, slide.height - y)
        if min(width, height) < 3 * factor:
            continue
        try:
            found.append(shrunk(slide.read_rgb(0, x, y, width, height), factor))
        except SlideError:
            continue  # a tile that cannot be decoded is told when the tiles are read
    return found


def shrunk(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.float32]:
    """Return the averages of squares of ``factor`` pixels, float32; what is over at the ends is left out."""
    height, width = (side // factor * factor for side in pixels.shape[:2])
    squares = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    averages: NDArray[np.float32] = squares.mean(axis=(1, 3), dtype=np.float32)
    return averages
