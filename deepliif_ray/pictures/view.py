"""Which part of a slide a picture shows, and how large."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.annotations.origin import Origin, origin_of
from deepliif_ray.errors import ConfigError

MOST_ZOOM = 4
"""Pixels of a picture per level-0 pixel, at most: more would show nothing more."""
MOST_SIDE = 6_000
LEAST_WIDTH = 64


@dataclass(frozen=True)
class View:
    """An area of a slide, half-open, and the pixels of a picture of it.

    Attributes
    ----------
    x, y, width, height : int
        The area, level-0 px from the slide's corner.
    columns, rows : int
        Size of the picture, px.
    """

    x: int
    y: int
    width: int
    height: int
    columns: int
    rows: int

    @property
    def scale(self) -> float:
        """Pixels of the picture per level-0 pixel."""
        return self.columns / self.width

    @property
    def area(self) -> tuple[int, int, int, int]:
        """x, y, width and height, level-0 px."""
        return self.x, self.y, self.width, self.height

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """First and last x and y: ``x0, y0, x1, y1``, the last two outside."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    def to_picture(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return level-0 pixel-edge coordinates, shape (..., 2), in pixels of the picture."""
        placed: NDArray[np.float64] = (points - (self.x, self.y)) * self.scale
        return placed

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return where the centres of the picture's columns and rows lie, level-0 px."""
        x: NDArray[np.float64] = self.x + (np.arange(self.columns, dtype=float) + 0.5) / self.scale
        y: NDArray[np.float64] = self.y + (np.arange(self.rows, dtype=float) + 0.5) / self.scale
        return x, y


def view_of(
    row: Mapping[str, Any],
    at: tuple[int, int, int, int] | None = None,
    width: int = 1600,
    origin: Origin | None = None,
) -> View:
    """Return the view of an area of a slide; without one, of the scanned area, or else of all of it.

    Parameters
    ----------
    row : mapping
        The slide's commit record.
    at : tuple of int, optional
        x, y, width and height, level-0 px. What reaches beyond the slide is left out.
    width : int
        Of the picture, px. It is narrower where a level-0 pixel would be larger than `MOST_ZOOM` pixels, or
        the picture higher than `MOST_SIDE`.
    origin : Origin, optional
        Where x and y begin; by default at the slide's corner.

    Raises
    ------
    ConfigError
        The area has no pixel of the slide, or the picture cannot be of this size.
    """
    slide, most_x, most_y = f"slide {row['slide_id']!r}", row["width_px"], row["height_px"]
    if not LEAST_WIDTH <= width <= MOST_SIDE:
        raise ConfigError(f"{slide}: a picture is {LEAST_WIDTH:,} to {MOST_SIDE:,} px wide, not {width:,}")
    if at is None:
        left, top, bounds = origin_of(row, Origin.BOUNDS)
        at = (left, top, bounds[2], bounds[3]) if bounds else (0, 0, most_x, most_y)
    else:
        left, top, _ = origin_of(row, origin or Origin.SLIDE)
        at = (at[0] + left, at[1] + top, *at[2:])
    x0, y0 = max(0, at[0]), max(0, at[1])
    x1, y1 = min(most_x, at[0] + at[2]), min(most_y, at[1] + at[3])
    if x1 <= x0 or y1 <= y0:
        raise ConfigError(
            f"{slide}: there is nothing at x {at[0]:,}, y {at[1]:,} of {at[2]:,} × {at[3]:,} px; it has "
            f"{most_x:,} × {most_y:,} px from 0, 0"
        )
    across, down = x1 - x0, y1 - y0
    columns = max(1, int(across * min(width / across, MOST_ZOOM, MOST_SIDE / down)))
    rows = max(1, round(down * columns / across))
    if rows > MOST_SIDE:
        raise ConfigError(
            f"{slide}: {across:,} × {down:,} px are too narrow for a picture; ask for a wider area"
        )
    return View(x0, y0, across, down, columns, rows)
