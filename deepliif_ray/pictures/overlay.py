"""Called cells over the tissue: each outlined in its colour, and marked if a person said something of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deepliif_ray.errors import QueryError
from deepliif_ray.exports.cells import ROWS, TOUCHING, Calls, source_of
from deepliif_ray.exports.outlines import enclosing_outlines
from deepliif_ray.pictures.colours import INK, NEGATIVE, NO_CELL, PAPER, POSITIVE, STRENGTHS, Colour
from deepliif_ray.pictures.raster import borders, fill
from deepliif_ray.pictures.view import View
from deepliif_ray.query.streaming import Stream

_THICKER_FROM = (1.5, 3.0)
"""Pixels per level-0 pixel from which lines are two, and three, pixels wide."""
_SAID = "JOIN corrections AS k ON k.slide_id = c.slide_id AND k.cell_id = c.cell_id AND k.is_current"


@dataclass(frozen=True)
class Counts:
    """The cells of a picture whose centre lies in its area.

    Attributes
    ----------
    n_called, n_positive : int
    n_said : int
        Called as a person said.
    n_no_cell : int
        Of which a person said that they are none; not among ``n_called``.
    n_strengths : tuple of int
        Of 0, 1+, 2+ and 3+; empty where they are not shown.
    """

    n_called: int
    n_positive: int
    n_said: int
    n_no_cell: int
    n_strengths: tuple[int, ...] = ()


def draw_cells(
    pixels: NDArray[np.uint8],
    stream: Stream,
    row: Mapping[str, Any],
    view: View,
    calls: Calls,
    *,
    strength: bool = False,
) -> Counts:
    """Draw the outlines of the cells that count, and of those that a person struck out.

    An outline is the outermost pixels of its cell: a pixel of the picture belongs to the cell that its centre
    lies in. Only cells that touch the area are read.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (rows, columns, 3)
        Is drawn on.
    stream : Stream
    row : mapping
        The slide's commit record.
    view : View
    calls : Calls
    strength : bool
        Colours by 0, 1+, 2+ and 3+ and not by the call.

    Raises
    ------
    QueryError
        These cut-offs say nothing of the strength of this marker, or DuckDB cannot answer.
    """
    labels = np.zeros((view.rows, view.columns), np.int32)
    called = _fill(labels, stream, row, view, source_of(calls, TOUCHING), f"LEFT {_SAID}")
    struck = _Cells.none()
    if not calls.corrections:
        called = replace(called, said=np.zeros(len(called.x), bool))
    else:
        measured = Calls(calls.cutoffs, calls.region, corrections=False)
        join = f"{_SAID} AND k.call = 'not_a_cell'"
        struck = _fill(labels, stream, row, view, source_of(measured, TOUCHING), join, 1 + len(called.x))
    if strength:
        refuse_no_strength(row, called.strength)
        colour = np.array(STRENGTHS, np.uint8)[called.strength.astype(np.int64)]
    else:
        colour = np.array((NEGATIVE, POSITIVE), np.uint8)[called.positive.astype(np.int64)]
    palette = np.concatenate([[PAPER], colour, np.tile(NO_CELL, (len(struck.x), 1))]).astype(np.uint8)
    edge = borders(labels, 1 + sum(view.scale >= scale for scale in _THICKER_FROM))
    pixels[edge] = palette[labels[edge]]
    _mark(pixels, view, called, colour, struck)
    here, gone = called.within(view), struck.within(view)
    return Counts(
        int(here.sum()),
        int((here & called.positive).sum()),
        int((here & called.said).sum()),
        int(gone.sum()),
        tuple(np.bincount(called.strength[here].astype(np.int64), minlength=4).tolist()) if strength else (),
    )


def refuse_no_strength(row: Mapping[str, Any], strength: NDArray[np.float64]) -> None:
    """Refuse strengths, float64 with NaN for none, where there are none.

    Raises
    ------
    QueryError
    """
    if np.isnan(strength).any():
        raise QueryError(
            f"slide {row['slide_id']!r}: these cut-offs say nothing of the strength of its marker; choose "
            "others, or leave out --strength"
        )


_NAMES = ("x", "y", "positive", "strength", "said")


@dataclass(frozen=True)
class _Cells:
    """Cells in the order of their labels; centroids in pixel-edge coordinates of level 0."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    positive: NDArray[np.bool_]
    strength: NDArray[np.float64]
    said: NDArray[np.bool_]

    @classmethod
    def none(cls) -> "_Cells":
        number, truth = np.empty(0), np.empty(0, bool)
        return cls(number, number, truth, number, truth)

    def within(self, view: View) -> NDArray[np.bool_]:
        x0, y0, x1, y1 = view.edges
        found: NDArray[np.bool_] = (self.x >= x0) & (self.x < x1) & (self.y >= y0) & (self.y < y1)
        return found


def _fill(
    labels: NDArray[np.int32],
    stream: Stream,
    row: Mapping[str, Any],
    view: View,
    source: str,
    join: str,
    first: int = 1,
) -> _Cells:
    """Write the numbers of cells, from ``first`` on, into the picture's pixels; return what the cells are."""
    x0, y0, x1, y1 = view.edges
    values = [row["slide_id"], row["marker"], x0, x1, y0, y1]
    query = (
        "SELECT c.x + 0.5 AS x, c.y + 0.5 AS y, c.positive, c.strength::DOUBLE AS strength, "
        f"k.call IS NOT NULL AS said, c.boundary FROM {source} AS c {join} ORDER BY c.cell_id"
    )
    parts: list[_Cells] = [_Cells.none()]
    for cells in stream.batches(query, values, ROWS):
        outlines = enclosing_outlines(cells["boundary"].to_numpy())
        points, owner = shapely.get_coordinates(outlines, return_index=True)
        fill(labels, points, owner.astype(np.int64), first, view)
        first += cells.num_rows
        parts.append(_Cells(*(cells[name].to_numpy() for name in _NAMES)))
    return _Cells(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES))


def _mark(
    pixels: NDArray[np.uint8], view: View, called: _Cells, colour: NDArray[np.uint8], struck: _Cells
) -> None:
    """Put a dot on cells of which a person said what they are, and a cross on those that are none."""
    if not called.said.any() and not len(struck.x):
        return
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    radius = mark_radius(view.scale)
    for n in np.flatnonzero(called.said).tolist():
        x, y = view.to_picture(np.array([called.x[n], called.y[n]])).tolist()
        red, green, blue = colour[n].tolist()
        dot(draw, x, y, radius, (red, green, blue))
    for x, y in view.to_picture(np.column_stack([struck.x, struck.y])).tolist():
        cross(draw, x, y, radius)
    pixels[:] = np.asarray(picture)


def mark_radius(scale: float) -> int:
    """Return half the size of a mark on a cell, px of the picture."""
    return int(np.clip(round(4 * scale), 3, 7))


def dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: int, colour: Colour) -> None:
    """Draw a dot with a white rim."""
    for ink, size in ((PAPER, radius + 1), (colour, radius - 1)):
        draw.ellipse((x - size, y - size, x + size, y + size), fill=ink)


def cross(draw: ImageDraw.ImageDraw, x: float, y: float, radius: int) -> None:
    """Draw a black cross with a white rim."""
    for ink, width in ((PAPER, 5), (INK, 2)):
        draw.line((x - radius, y - radius, x + radius, y + radius), fill=ink, width=width)
        draw.line((x - radius, y + radius, x + radius, y - radius), fill=ink, width=width)
