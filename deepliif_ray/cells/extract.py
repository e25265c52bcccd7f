"""From a segmentation map to a table of cells, in one call."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepliif_ray.cells.contours import encode_wkb
from deepliif_ray.cells.fragments import BORDER, CoreFragments, measure_core
from deepliif_ray.cells.measures import COLUMNS, MEASUREMENTS, M
from deepliif_ray.cells.nodes import SlideCells
from deepliif_ray.cells.rims import RimReach
from deepliif_ray.cells.seams import join_rows
from deepliif_ray.cells.thresholds import (
    SizeCounts,
    SizeRules,
    marker_threshold,
)
from deepliif_ray.errors import ConfigError
from deepliif_ray.published import NOISE_THRESH, SEG_THRESH


@dataclass(frozen=True)
class Thresholds:
    """The thresholds that cells were found with and the published defaults derived from them.

    Attributes
    ----------
    seg_thresh, noise_thresh : int
    large_noise_thresh : int, optional
        None: no limit.
    size_thresh : int
        Cells count when larger than this many pixels.
    marker_thresh : int, optional
        None without a marker image.
    """

    seg_thresh: int
    noise_thresh: int
    large_noise_thresh: int | None
    size_thresh: int
    marker_thresh: int | None


@dataclass(frozen=True)
class ExtractedCells:
    """Cells of one image: the measuring columns of the ``cells`` schema, and the thresholds."""

    table: pa.Table
    thresholds: Thresholds


def count_sizes(counts: SizeCounts, cells: SlideCells) -> None:
    """Add cells to the counts that thresholds are derived from."""
    m = cells.measures
    counts.add(m[:, M["area"]], m[:, M["positive"]] >= m[:, M["negative"]])


def derive_thresholds(
    counts: SizeCounts,
    marker_histogram: NDArray[np.int64],
    *,
    rules: SizeRules,
    seg_thresh: int,
    noise_thresh: int,
    large_noise_thresh: int | None,
    has_marker: bool,
) -> Thresholds:
    """Return the published default thresholds of a slide, from its cells' sizes and its marker image."""
    sizes, cells_of_size, _ = counts.arrays()
    return Thresholds(
        seg_thresh=seg_thresh,
        noise_thresh=noise_thresh,
        large_noise_thresh=large_noise_thresh,
        size_thresh=rules.size_threshold(sizes, cells_of_size),
        marker_thresh=marker_threshold(marker_histogram) if has_marker else None,
    )


def cells_table(
    cells: SlideCells, *, has_marker: bool, has_rgb: bool, has_rim: bool, first_id: int = 0
) -> pa.Table:
    """Return cells as the measuring columns of the ``cells`` schema.

    Parameters
    ----------
    cells : SlideCells
    has_marker, has_rgb, has_rim : bool
        Without a marker image ``marker_max`` is null; without the IHC the optical densities are; and rims are
        if they were not measured.
    first_id : int
        ``cell_id`` of the first one.
    """
    m = {name: cells.measures[:, column] for name, column in M.items()}
    has = {"marker": has_marker, "rgb": has_rgb, "rim": has_rim}
    columns = {row.column: row.values(cells.measures, has) for row in MEASUREMENTS} | {
        "cell_id": pa.array(np.arange(first_id, first_id + len(cells))),
        "majority_positive": pa.array(m["positive"] >= m["negative"]),
        "on_slide_edge": pa.array((m["touches"] & BORDER) > 0),
        "boundary": encode_wkb(cells.points, cells.point_ends),
    }
    return pa.table({name: columns[name] for name in COLUMNS if name in columns})


def _image(name: str, image: Any, shape: tuple[int, ...] | None, channels: bool) -> NDArray[np.uint8]:
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != (3 if channels else 2) or (channels and array.shape[2] != 3):
        wanted = "(H, W, 3)" if channels else "(H, W)"
        raise ConfigError(f"{name} has shape {array.shape} of {array.dtype}; give uint8 {wanted}")
    if 0 in array.shape or (shape is not None and array.shape[:2] != shape):
        raise ConfigError(f"{name} has shape {array.shape}; give it the size of seg, at least one pixel")
    return array


def extract_cells(
    seg: NDArray[np.uint8],
    marker: NDArray[np.uint8] | None = None,
    rgb: NDArray[np.uint8] | None = None,
    *,
    resolution: str = "40x",
    mpp: float | None = None,
    own_stains: NDArray[np.int64] | None = None,
    seg_thresh: int = SEG_THRESH,
    noise_thresh: int = NOISE_THRESH,
    large_noise_thresh: int | str | None = "default",
    core: int | None = None,
) -> ExtractedCells:
    """Find and measure the cells of a segmentation map by the published rules.

    Parameters
    ----------
    seg : ndarray of uint8, shape (H, W, 3)
        Segmentation map: red positive, blue negative, green boundary.
    marker : ndarray of uint8, shape (H, W) or (H, W, 3), optional
        Marker map; of three channels the maximum is taken.
    rgb : ndarray of uint8, shape (H, W, 3), optional
        The IHC image, for optical densities.
    resolution : {'40x', '20x', '10x'}
    mpp : float, optional
        µm per pixel, 0.01 to 100. Sizes are then areas, given in pixels of 40x whatever ``resolution`` says
        (see `SizeRules.physical`), as the engine takes them for models that have a scale of their own; with
        ``rgb`` the stain around nuclei is measured as well.
    own_stains : ndarray of int64, shape (3, 2, 256), optional
        `deepliif_ray.cells.densities.stain_tables` of the image's own stains; the usual ones without it.
    seg_thresh : int
        Red plus blue must exceed it in a cell's pixel.
    noise_thresh : int
        Cells must be larger than this many pixels.
    large_noise_thresh : int, 'default' or None
        Cells must be smaller than this many pixels (16000, 4000 or 1000 by resolution); None: no limit.
    core : int, optional
        Cut the map into cores of ``core`` × ``core`` pixels first and join the seams. The result is the
        same for every value.

    Returns
    -------
    ExtractedCells
        ``table`` has one row per cell, in the row order of their first pixels.

    Raises
    ------
    ConfigError
        An argument has the wrong shape, type or value.

    References
    ----------
    Ghahremani et al., Nat Mach Intell 2022; 4:401-412, and the published software 1.2.7.
    """
    seg = _image("seg", seg, None, channels=True)
    if marker is not None:
        marker = np.asarray(marker)
        marker = _image(
            "marker", marker.max(axis=2) if marker.ndim == 3 else marker, seg.shape[:2], channels=False
        )
    if rgb is not None:
        rgb = _image("rgb", rgb, seg.shape[:2], channels=True)
    if core is not None and core < 1:
        raise ConfigError(f"core is {core}; give a number of pixels of at least 1")
    if mpp is not None and not 0.01 <= mpp <= 100:
        raise ConfigError(f"mpp is {mpp}; give micrometres per pixel, 0.01 to 100")
    rules = SizeRules(resolution) if mpp is None else SizeRules.physical(mpp)
    reach = None if mpp is None or rgb is None else RimReach.at(mpp)
    limit, noise_thresh = rules.large_noise(large_noise_thresh), rules.pixels(noise_thresh)
    height, width = seg.shape[:2]
    column_edges, row_edges = (
        np.append(np.arange(0, length, core or length), length) for length in (width, height)
    )

    histogram = np.zeros(256, dtype=np.int64)

    def cores() -> Iterator[CoreFragments]:
        for y0, y1 in zip(row_edges[:-1].tolist(), row_edges[1:].tolist(), strict=True):
            for x0, x1 in zip(column_edges[:-1].tolist(), column_edges[1:].tolist(), strict=True):
                fragments = measure_core(
                    seg[y0:y1, x0:x1],
                    None if marker is None else marker[y0:y1, x0:x1],
                    None if rgb is None else rgb[y0:y1, x0:x1],
                    core=(x0, y0, x1, y1),
                    slide=(width, height),
                    seg_thresh=seg_thresh,
                    large_noise_thresh=limit,
                    own=own_stains,
                    reach=reach,
                )
                histogram[:] += fragments.marker_histogram
                yield fragments

    rows = join_rows(
        cores(),
        column_edges,
        row_edges,
        noise_thresh=noise_thresh,
        large_noise_thresh=limit,
        reach=reach,
    )
    cells = SlideCells.merge(list(rows))
    counts = SizeCounts()
    count_sizes(counts, cells)
    return ExtractedCells(
        table=cells_table(
            cells, has_marker=marker is not None, has_rgb=rgb is not None, has_rim=reach is not None
        ),
        thresholds=derive_thresholds(
            counts,
            histogram,
            rules=rules,
            seg_thresh=seg_thresh,
            noise_thresh=noise_thresh,
            large_noise_thresh=limit,
            has_marker=marker is not None,
        ),
    )
