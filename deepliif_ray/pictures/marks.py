"""What is drawn above cells and maps: regions with their names, and hot spots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deepliif_ray.pictures.colours import EXCLUDED, INK, PAPER, REGIONS, Colour
from deepliif_ray.pictures.lettering import Font, drawable, room, shortened, size_of, write
from deepliif_ray.pictures.view import View
from deepliif_ray.query.streaming import Stream

Box = tuple[float, float, float, float]
_BEYOND = 20
"""Px of the picture around it in which lines are drawn too, so that none is cut short."""
_LONGEST_NAME = 0.4
"""Of the picture's width."""


@dataclass(frozen=True)
class Region:
    """A class of regions of a slide.

    Attributes
    ----------
    name : str
    excludes : bool
        Whether cells in it do not count.
    colour : tuple of int
    areas : ndarray of shapely.Polygon or MultiPolygon
        Level-0 pixel-edge coordinates.
    """

    name: str
    excludes: bool
    colour: Colour
    areas: NDArray[np.object_]

    @property
    def label(self) -> str:
        """What stands beside it."""
        return drawable(self.name) + (" (not counted)" if self.excludes else "")


def regions_of(stream: Stream, slide_id: str) -> list[Region]:
    """Return the regions of a slide by class, without regard to case, in the order of their names."""
    rows = stream.table(
        "SELECT class, excludes, geometry FROM regions WHERE slide_id = ? ORDER BY lower(class), region_id",
        [slide_id],
    ).to_pylist()
    named: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        named.setdefault(row["class"].lower(), []).append(row)
    counting = [key for key, (first, *_) in named.items() if not first["excludes"]]
    colours = {key: REGIONS[n % len(REGIONS)] for n, key in enumerate(counting)}
    return [
        Region(
            its[0]["class"],
            its[0]["excludes"],
            colours.get(key, EXCLUDED),
            shapely.from_wkb(np.array([row["geometry"] for row in its], object)),
        )
        for key, its in named.items()
    ]


def draw_regions(picture: Image.Image, view: View, regions: Sequence[Region], of: Font) -> None:
    """Draw the outlines of regions, each with the name of its class at its upper end."""
    draw = ImageDraw.Draw(picture)
    names = []
    taken: list[Box] = []
    x0, y0, x1, y1 = view.edges
    margin = _BEYOND / view.scale
    for region in regions:
        seen = shapely.clip_by_rect(region.areas, x0 - margin, y0 - margin, x1 + margin, y1 + margin)
        # What differs by less than half a pixel is the same line.
        seen = shapely.simplify(seen, 0.5 / view.scale)
        for area in shapely.get_parts(seen[~shapely.is_empty(seen)]):
            rings = [view.to_picture(shapely.get_coordinates(r)) for r in shapely.get_rings(area)]
            for ring in rings:
                line = list(map(tuple, ring.tolist()))
                draw.line(line, fill=PAPER, width=5, joint="curve")
                draw.line(line, fill=region.colour, width=3, joint="curve")
            if rings:
                names.append((region, rings[0]))
    for region, ring in names:
        inside = ring[(ring >= 0).all(axis=1) & (ring < (view.columns, view.rows)).all(axis=1)]
        x, y = (inside[np.argmin(inside[:, 1])] if len(inside) else np.array([0.0, 0.0])).tolist()
        taken.append(tag(picture, (x, y), region.label, of, region.colour, taken))


def draw_hot_spots(picture: Image.Image, view: View, spots: Sequence[Mapping[str, Any]], of: Font) -> None:
    """Draw the circles of hot spots, each with its rank; rows are those of `deepliif_ray.hot_spots`."""
    draw = ImageDraw.Draw(picture)
    for spot in spots:
        x, y = view.to_picture(np.array([spot["x"] + 0.5, spot["y"] + 0.5])).tolist()
        radius = spot["radius_um"] * spot["x"] / spot["x_um"] * view.scale if spot["x_um"] else 0.0
        for ink, width, more in ((PAPER, 7, 2), (INK, 3, 0)):
            size = radius + more
            draw.ellipse((x - size, y - size, x + size, y + size), outline=ink, width=width)
        if 0 <= x < view.columns and 0 <= y < view.rows:
            tag(picture, (x, y - radius), str(spot["rank"]), of, INK)


def tag(
    picture: Image.Image,
    at: tuple[float, float],
    text: str,
    of: Font,
    colour: Colour,
    taken: Sequence[Box] = (),
) -> Box:
    """Write text on a plate whose upper left corner is near ``at``, below those that are there.

    Returns
    -------
    tuple of float
        Left, top, right and bottom of the plate, px.
    """
    draw = ImageDraw.Draw(picture)
    text = shortened(text, of, max(_LONGEST_NAME * picture.width, 40))
    height = int(1.5 * size_of(of))
    width = room(text, of) + height / 2
    x = min(max(at[0], 0), max(picture.width - width - 1, 0))
    y = min(max(at[1], 0), max(picture.height - height - 1, 0))
    for left, top, right, bottom in sorted(taken, key=lambda box: box[1]):
        if x < right and left < x + width and y < bottom and top < y + height:
            y = bottom + 2
    draw.rectangle((x, y, x + width, y + height), fill=PAPER, outline=colour, width=2)
    write(draw, (x + height / 4, y + height / 2), text, of, colour)
    return x, y, x + width, y + height
