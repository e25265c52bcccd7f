"""A picture of a scored slide: called cells over their tissue, or a map of the index."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deepliif_ray import storage
from deepliif_ray.annotations.origin import Origin
from deepliif_ray.errors import (
    ConfigError,
    QueryError,
    SlideChangedError,
    SlideError,
    SlideMissingError,
    StorageError,
)
from deepliif_ray.exports.cells import Calls, slide_record, why_none
from deepliif_ray.exports.files import refuse_target, writing
from deepliif_ray.pictures import heat_map, legend
from deepliif_ray.pictures.backdrop import read_view
from deepliif_ray.pictures.frame import framed
from deepliif_ray.pictures.lettering import font
from deepliif_ray.pictures.marks import draw_hot_spots, draw_regions, regions_of
from deepliif_ray.pictures.overlay import draw_cells
from deepliif_ray.pictures.view import View, view_of
from deepliif_ray.query.streaming import Stream, streaming
from deepliif_ray.slide_access import scored_slide
from deepliif_ray.slides import Slide

if TYPE_CHECKING:
    from deepliif_ray.slides import TissueMask

SUFFIXES = (".png",)
LEAST_OUTLINE = 3.0
"""Px of the picture: of smaller cells a map is drawn and no outlines."""
HOT_SPOT_CELLS = 500
_USUAL_AREA_UM2 = 30.0
"""Of a nucleus, where the record does not tell."""
_DPI = 300
_COMPRESSION = 3
"""Of PNG: half the time of its default for a twentieth more."""
_ON_WHITE = "Without the slide, cells on white"
_WHY_NONE: dict[type[Exception], str] = {
    SlideMissingError: "its file is not where it was",
    SlideChangedError: "its file is not the one that was scored",
    StorageError: "its store does not answer",
}
_UNREADABLE = "its file cannot be read"


@dataclass(frozen=True)
class Picture:
    """What was drawn.

    Attributes
    ----------
    slide_id, file : str
    shows : str
        ``outlines``, ``index`` or ``density``.
    view : View
    n_called, n_positive : int
        Cells with their centre in the area; in a map, of the squares that it touches.
    texts : tuple of str
        All that is written in it, from top to bottom.
    warnings : tuple of str
        What a person should know: why there is no tissue, what was not found.
    """

    slide_id: str
    file: str
    shows: str
    view: View
    n_called: int
    n_positive: int
    texts: tuple[str, ...]
    warnings: tuple[str, ...]


def draw_picture(
    results: str | os.PathLike[str],
    slide: str,
    output: str | os.PathLike[str],
    *,
    at: tuple[int, int, int, int] | None = None,
    width: int = 1600,
    origin: Origin | None = None,
    calls: Calls | None = None,
    strength: bool = False,
    heat: heat_map.What | None = None,
    square_um: float | None = None,
    least_cells: int = heat_map.LEAST_CELLS,
    hot_spots: int = 0,
    hot_spot_cells: int = HOT_SPOT_CELLS,
    without_slide: bool = False,
    overwrite: bool = False,
) -> Picture:
    """Draw the counted cells of a slide over its tissue, or a map of their index.

    Where the slide cannot be read, or is not the one that was scored, cells are drawn on white, and the
    picture says so. The file appears whole or not at all.

    Parameters
    ----------
    results : str or path
        URL of the results.
    slide : str
        Its id.
    output : str or path
        The local file: ``.png``.
    at : tuple of int, optional
        x, y, width and height of the area, level-0 px, half-open; by default all that was scanned.
    width : int
        Of the picture, px. A level-0 pixel is never larger than `deepliif_ray.pictures.view.MOST_ZOOM` px.
    origin : Origin, optional
        Where x and y begin: at the slide's corner, unless the scanned area is asked for, as QuPath has it.
    calls : Calls, optional
        Which cells count and how they are called; by default as published, with corrections.
    strength : bool
        Outlines in the colours of 0, 1+, 2+ and 3+.
    heat : {'index', 'density'}, optional
        A map and no outlines; of the index, if none is asked for and cells are smaller than
        `LEAST_OUTLINE` px.
    square_um : float, optional
        Side of its squares; by default 100 µm, or more where these would be too small to be seen.
    least_cells : int
        Cells that a square has whose index is shown.
    hot_spots : int
        How many to draw: circles of ``hot_spot_cells`` cells, by their share, as of `deepliif_ray.hot_spots`.
    hot_spot_cells : int
    without_slide : bool
        Draw on white, and read no slide.
    overwrite : bool
        Replace the file if there is one.

    Returns
    -------
    Picture

    Raises
    ------
    ConfigError
        There is no such slide or area, an option cannot be used, or the file cannot be written or is there.
    QueryError
        No cell of the slide counts, or there are no such cut-offs or region.
    ResultsError, StorageError
        See `deepliif_ray.connect`; or the file cannot be written.
    """
    url, target, calls = os.fspath(results), Path(output).absolute(), calls or Calls()
    refuse_target(target, SUFFIXES, overwrite=overwrite)
    if strength and heat is not None:
        raise ConfigError("strengths are colours of outlines, and a map has none; leave one of them out")
    with streaming(url) as stream, writing(target) as files:
        row = slide_record(stream, url, slide)
        view = view_of(row, at, width, origin)
        index = legend.index_of(stream, row, calls)
        _refuse_uncountable(stream, row, calls, index)
        shows = heat or ("outlines" if _outline_px(row, view) >= LEAST_OUTLINE else "index")
        warnings: list[str] = []
        if shows != "outlines" and heat is None:
            warnings.append(
                "cells are too small for outlines here, so this is a map of the index; ask for a smaller "
                "area or a wider picture" + "; --strength has no effect on it" * strength
            )
        side_um = heat_map.side_of(view, row["mpp"], square_um, slide) if shows != "outlines" else 0.0
        spots, lacking = _spots(url, row, calls, hot_spots, hot_spot_cells)
        warnings += lacking
        pixels, tissue, alarms = _tissue(row, view, shows != "outlines", without_slide, warnings)
        lines = legend.lines_of(row, index, calls)
        if without_slide:
            lines.append("Drawn without the slide, as asked")
        if shows == "outlines":
            counts = draw_cells(pixels, stream, row, view, calls, strength=strength)
            lines.insert(1, legend.here_of(view, counts))
            keys, bar = legend.keys_of(counts), None
            n_called, n_positive = counts.n_called, counts.n_positive
        else:
            what: heat_map.What = "density" if shows == "density" else "index"
            squares = heat_map.count_squares(stream, row, view, calls, side_um)
            values = heat_map.values_of(squares, what, least_cells)
            end = heat_map.end_of(values, what)
            pixels = heat_map.pale(pixels)
            heat_map.draw_squares(pixels, view, row["mpp"], squares, values, end)
            if tissue is not None:
                heat_map.draw_tissue(pixels, view, tissue)
            keys, bar = [], legend.bar_of(what, end, side_um, least_cells)
            n_called, n_positive = int(squares.n_called.sum()), int(squares.n_positive.sum())
        picture = Image.fromarray(pixels)
        of = font(int(np.clip(view.columns / 70, 12, 40)))
        draw_regions(picture, view, regions_of(stream, row["slide_id"]), of)
        draw_hot_spots(picture, view, spots, of)
        lines += [_told(spot) for spot in spots]
        written = legend.Legend(
            tuple(alarms + legend.alarms_of(index)),
            legend.title_of(row),
            tuple(lines),
            tuple(keys),
            bar,
            tuple(legend.small_of(row, view)),
        )
        whole = framed(picture, written, row["mpp"] / view.scale)
        about = PngInfo()
        about.add_itxt("Title", written.title)
        whole.save(files.of(target), "PNG", dpi=(_DPI, _DPI), pnginfo=about, compress_level=_COMPRESSION)
    return Picture(
        row["slide_id"],
        str(target),
        shows,
        view,
        n_called,
        n_positive,
        written.texts(),
        tuple(warnings),
    )


def _refuse_uncountable(
    stream: Stream, row: Mapping[str, Any], calls: Calls, index: Mapping[str, Any]
) -> None:
    if index["n_called"] is None and calls.region is None:
        raise QueryError(
            f"slide {row['slide_id']!r}: nothing can be counted, as these cut-offs say nothing of its "
            "marker; choose others"
        )
    if not index["n_called"]:
        raise QueryError(f"slide {row['slide_id']!r}: no cell counts{why_none(stream, row, calls)}")


def _outline_px(row: Mapping[str, Any], view: View) -> float:
    """Return the usual diameter of the slide's cells in px of the picture."""
    area = float(row["nucleus_area_um2"] or _USUAL_AREA_UM2)
    return 2 * math.sqrt(area / math.pi) / float(row["mpp"]) * view.scale


def _tissue(
    row: Mapping[str, Any], view: View, mask: bool, without_slide: bool, warnings: list[str]
) -> tuple[NDArray[np.uint8], "TissueMask | None", list[str]]:
    """Return the slide's pixels, its tissue if that is wanted, and what the picture has to say of both.

    ``warnings`` gets the same with all details. A picture is shown around, so it names no place of a file.
    """
    white = np.full((view.rows, view.columns, 3), 255, np.uint8)
    if without_slide:
        return white, None, []
    try:
        with scored_slide(row) as slide:
            pixels, unread = read_view(slide, view)
            tissue = _mask(slide, row["mpp"]) if mask else None
    except (SlideError, StorageError) as error:
        warnings.append(f"{_ON_WHITE}: {storage.scrub(str(error))}")
        return white, None, [why_on_white(error)]
    said = []
    if unread:
        said.append(f"{unread:.1f} % of the picture cannot be decoded and is grey")
    if row["slide_version"] is None:
        said.append("The record is too old to tell whether this is the file that was scored")
    warnings += said
    return pixels, tissue, said


def why_on_white(error: SlideError | StorageError) -> str:
    """Return why cells are shown without tissue, in words that name no place of a file."""
    why = next((said for kind, said in _WHY_NONE.items() if isinstance(error, kind)), _UNREADABLE)
    return f"{_ON_WHITE}: {why}"


def _mask(slide: Slide, mpp: float) -> "TissueMask":
    from deepliif_ray.slides import tissue_mask  # brings SciPy, which is slow to import

    return tissue_mask(slide, mpp)


def _spots(
    url: str, row: Mapping[str, Any], calls: Calls, count: int, cells: int
) -> tuple[list[dict[str, Any]], list[str]]:
    if not count:
        return [], []
    from deepliif_ray.places import find_hot_spots  # brings Numba, which is slow to import

    found = find_hot_spots(
        url,
        marker=row["marker"],
        slides=[row["slide_id"]],
        count=count,
        source=calls.of("called_cells"),
        cells=cells,
    )
    return found.table.to_pylist(), found.lacking


def _told(spot: Mapping[str, Any]) -> str:
    return (
        f"Hot spot {spot['rank']}: {spot['share_percent']:.2f} % of {spot['n_cells']:,} cells, radius "
        f"{spot['radius_um']:.0f} µm, around x {spot['x']:,.0f}, y {spot['y']:,.0f} px"
    )
