"""A map of the index, or of the density of positive cells, in squares over a pale picture of the tissue."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.errors import ConfigError
from deepliif_ray.exports.cells import Calls, source_of
from deepliif_ray.pictures.colours import heat
from deepliif_ray.pictures.view import View
from deepliif_ray.query.streaming import Stream

if TYPE_CHECKING:
    from deepliif_ray.slides import TissueMask

LEAST_CELLS = 20
"""Cells of a square whose index is shown."""
SQUARES_UM = (100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0)
LEAST_SIDE = 6.0
"""Px of the picture: the usual squares are as large at least."""
SMALLEST_SIDE = 2.0
OPACITY = 0.8
_INDEX_ENDS = (10.0, 25.0, 50.0, 100.0)
_PALE = 205
HATCH = 6

What = Literal["index", "density"]


@dataclass(frozen=True)
class Squares:
    """Squares of a grid from the slide's corner, and the cells whose centre lies in each.

    Attributes
    ----------
    side_um : float
    first_row, first_column : int
        Of the grid, of the squares below.
    n_called, n_positive : ndarray of int64, shape (rows, columns)
    area_mm2 : ndarray of float64, shape (rows, columns)
        Of each within the slide.
    """

    side_um: float
    first_row: int
    first_column: int
    n_called: NDArray[np.int64]
    n_positive: NDArray[np.int64]
    area_mm2: NDArray[np.float64]


def side_of(view: View, mpp: float, wanted: float | None, slide_id: str) -> float:
    """Return the side of squares, µm: as wanted, else 100, or so many more that they are to be seen.

    Raises
    ------
    ConfigError
        Squares as wanted are under `SMALLEST_SIDE` px of the picture.
    """
    px_per_um = view.scale / mpp
    if wanted is None:
        return next((side for side in SQUARES_UM if side * px_per_um >= LEAST_SIDE), SQUARES_UM[-1])
    if not (math.isfinite(wanted) and wanted * px_per_um >= SMALLEST_SIDE):
        raise ConfigError(
            f"slide {slide_id!r}: squares of {wanted:g} µm are too small to be seen here; give --square-um "
            f"{math.ceil(SMALLEST_SIDE / px_per_um):,} or more, or a larger --width"
        )
    return wanted


def count_squares(
    stream: Stream, row: Mapping[str, Any], view: View, calls: Calls, side_um: float
) -> Squares:
    """Count the cells of all squares that the area touches, in SQL.

    A cell belongs to the square that its centre lies in: ``floor((x + 0.5) * mpp / side)``, likewise for y.

    Raises
    ------
    QueryError
        DuckDB cannot answer.
    """
    side = side_um / row["mpp"]
    x0, y0, x1, y1 = view.edges
    left, top = int(x0 // side), int(y0 // side)
    columns, rows = math.ceil(x1 / side) - left, math.ceil(y1 / side) - top
    within = "x + 0.5 >= ? AND x + 0.5 < ? AND y + 0.5 >= ? AND y + 0.5 < ?"
    edges = [left * side, (left + columns) * side, top * side, (top + rows) * side]
    found = stream.table(
        f"SELECT floor((y + 0.5) / {side!r})::BIGINT AS square_row, "
        f"floor((x + 0.5) / {side!r})::BIGINT AS square_column, count(*) AS n_called, "
        f"count_if(positive)::BIGINT AS n_positive FROM {source_of(calls, within)} GROUP BY ALL",
        [row["slide_id"], row["marker"], *edges],
    )
    at = [found[name].to_numpy() for name in ("square_row", "square_column")]
    at = [np.clip(at[0] - top, 0, rows - 1), np.clip(at[1] - left, 0, columns - 1)]
    counts = np.zeros((2, rows, columns), np.int64)
    for n, name in enumerate(("n_called", "n_positive")):
        np.add.at(counts[n], tuple(at), found[name].to_numpy())
    wide, high = (
        np.diff(np.clip(np.arange(begin, begin + count + 1) * side, 0, most)) * row["mpp"] / 1000
        for begin, count, most in ((left, columns, row["width_px"]), (top, rows, row["height_px"]))
    )
    return Squares(side_um, top, left, counts[0], counts[1], np.outer(high, wide))


def values_of(squares: Squares, what: What, least_cells: int = LEAST_CELLS) -> NDArray[np.float64]:
    """Return what a square's colour says: percent, or positive cells per mm²; NaN where nothing is said.

    An index needs ``least_cells`` cells, a density one.
    """
    if what == "index":
        shown, part, whole = (
            squares.n_called >= max(1, least_cells),
            100 * squares.n_positive,
            squares.n_called,
        )
        return np.where(shown, part / np.maximum(whole, 1), np.nan)
    return np.where(squares.n_called > 0, squares.n_positive / np.maximum(squares.area_mm2, 1e-12), np.nan)


def end_of(values: NDArray[np.float64], what: What) -> float:
    """Return the value of the last colour: a round one that no square exceeds."""
    most = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    if what == "index":
        return next(end for end in _INDEX_ENDS if end >= most)
    power = 10.0 ** math.floor(math.log10(most)) if most > 0 else 100.0
    return next(step * power for step in (1, 2, 5, 10) if step * power >= most)


def draw_squares(
    pixels: NDArray[np.uint8],
    view: View,
    mpp: float,
    squares: Squares,
    values: NDArray[np.float64],
    end: float,
) -> None:
    """Colour the squares of a picture that was made pale; those with too few cells are hatched.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (rows, columns, 3)
        Is drawn on.
    view : View
    mpp : float
        µm per level-0 pixel.
    squares : Squares
    values : ndarray of float64
        As `values_of` returns them.
    end : float
        Value of the last colour.
    """
    x, y = view.centres()
    column = np.floor(x * mpp / squares.side_um).astype(np.int64) - squares.first_column
    row = np.floor(y * mpp / squares.side_um).astype(np.int64) - squares.first_row
    step = np.where(np.isnan(values), -1, np.rint(255 * np.clip(values / end, 0, 1))).astype(np.int64)
    few = (step < 0) & (squares.n_called > 0)
    # A strip at a time: the whole of a large picture in floating point would be hundreds of megabytes.
    for top in range(0, view.rows, 256):
        part = slice(top, top + 256)
        at = np.ix_(row[part], column)
        shown = step[at]
        strip = pixels[part]
        is_shown = shown >= 0
        strip[is_shown] = np.rint(OPACITY * heat()[shown[is_shown]] + (1 - OPACITY) * strip[is_shown])
        lines = (np.arange(top, top + len(strip))[:, None] + np.arange(view.columns)) % HATCH == 0
        strip[few[at] & lines] = 110


def pale(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture in light grey, on which colours tell."""
    out = np.empty_like(pixels)
    for top in range(0, len(pixels), 256):
        grey = pixels[top : top + 256] @ np.array([0.299, 0.587, 0.114], np.float32)
        out[top : top + 256] = (_PALE + grey * ((255 - _PALE) / 255)).astype(np.uint8)[..., None]
    return out


def draw_tissue(pixels: NDArray[np.uint8], view: View, tissue: "TissueMask") -> None:
    """Draw the outline of the tissue, black, two pixels wide."""
    x, y = view.centres()
    rows, columns = tissue.mask.shape
    column = np.minimum((x / tissue.square[0]).astype(np.int64), columns - 1)
    row = np.minimum((y / tissue.square[1]).astype(np.int64), rows - 1)
    inside = tissue.mask[np.ix_(row, column)]
    edge = np.zeros(inside.shape, bool)
    down, across = inside[1:] != inside[:-1], inside[:, 1:] != inside[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    pixels[edge] = 0
