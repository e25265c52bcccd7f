"""Outlines of regions: polygons made of GeoJSON, made valid where that hardly changes them, or refused."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from deepliif_ray import storage
from deepliif_ray.annotations.classes import RefusedError

MOST_CHANGED = 0.01
"""Share of its area by which an outline may change when it is made valid."""
TOLERANCE_PX = 2.0
"""How far an outline may reach beyond the slide."""
_DEEPEST = 8
_LARGEST = 1e9

Geometry = Any  # shapely has no types


@dataclass(frozen=True)
class Outline:
    """What a feature's geometry comes to.

    Attributes
    ----------
    area : Polygon or MultiPolygon, or None
        Valid; None if nothing of the geometry has an area.
    repaired : bool
        Whether it had to be made valid.
    others : Counter
        What has no area, as points and lines, by type.
    """

    area: Geometry | None
    repaired: bool
    others: Counter[str]


def outline_of(geometry: dict[str, Any] | None) -> Outline:
    """Return the area that a GeoJSON geometry encloses.

    Parameters
    ----------
    geometry : dict or None
        Polygon, MultiPolygon or a GeometryCollection; other types have no area.

    Raises
    ------
    RefusedError
        It has coordinates that are no finite numbers, no area, or is invalid in a way that cannot be mended
        without changing its area by more than `MOST_CHANGED`.
    """
    polygons: list[Geometry] = []
    others: Counter[str] = Counter()
    closed = _collect(geometry, polygons, others, 0)
    if not polygons:
        return Outline(None, False, others)
    area = polygons[0] if len(polygons) == 1 else shapely.multipolygons(polygons)
    if shapely.is_valid(area):
        if area.area == 0:
            raise RefusedError("its area is zero")
        return Outline(area, not closed, others)
    before = float(sum(shapely.area(polygon) for polygon in polygons))
    why = shapely.is_valid_reason(area)
    parts = shapely.get_parts(shapely.make_valid(area, method="structure", keep_collapsed=False))
    parts = [part for part in shapely.get_parts(parts) if part.geom_type == "Polygon" and part.area > 0]
    if not parts:
        raise RefusedError("its area is zero")
    area = parts[0] if len(parts) == 1 else shapely.multipolygons(parts)
    if abs(area.area - before) > MOST_CHANGED * max(area.area, before):
        raise RefusedError(
            f"its outline crosses or overlaps itself ({why}), and making it valid would change its area from "
            f"{before:,.0f} to {area.area:,.0f} px; draw it again"
        )
    return Outline(area, True, others)


def moved(area: Geometry, x: float, y: float) -> Geometry:
    """Return an area moved by ``x`` and ``y``."""
    return area if x == y == 0 else shapely.transform(area, lambda points: np.add(points, (x, y)))


def refuse_beyond(area: Geometry, width: int, height: int, bounds: tuple[int, ...] | None) -> None:
    """Refuse an area that reaches beyond the slide, or beyond what QuPath shows of it.

    Parameters
    ----------
    area : Polygon or MultiPolygon
        In level-0 pixels of the slide.
    width, height : int
        Of the slide.
    bounds : tuple of int, optional
        ``x, y, width, height`` of the part of the slide that its coordinates are relative to.

    Raises
    ------
    RefusedError
        By more than `TOLERANCE_PX`.
    """
    x0, y0, x1, y1 = area.bounds
    if min(x0, y0) < -TOLERANCE_PX or x1 > width + TOLERANCE_PX or y1 > height + TOLERANCE_PX:
        raise RefusedError(
            f"it reaches from {x0:,.0f}, {y0:,.0f} to {x1:,.0f}, {y1:,.0f}, but the slide has {width:,} × "
            f"{height:,} px: it is of another slide's size, or was drawn on another resolution"
            + (" (--origin slide, if its coordinates begin at the slide's corner)" if bounds else "")
        )
    if bounds is None:
        return
    left, top, right, bottom = bounds[0], bounds[1], bounds[0] + bounds[2], bounds[1] + bounds[3]
    if min(x0 - left, y0 - top) < -TOLERANCE_PX or x1 > right + TOLERANCE_PX or y1 > bottom + TOLERANCE_PX:
        raise RefusedError(
            f"it reaches beyond the scanned area of {bounds[2]:,} × {bounds[3]:,} px that QuPath shows; give "
            "--origin slide if its coordinates begin at the slide's corner"
        )


def _collect(geometry: Any, polygons: list[Geometry], others: Counter[str], depth: int) -> bool:
    """Sort the parts of a geometry into polygons and what has no area; tell whether all rings are closed."""
    if geometry is None or geometry == {}:
        others["no geometry"] += 1
        return True
    if not isinstance(geometry, dict) or depth > _DEEPEST:
        raise RefusedError("its geometry is no GeoJSON geometry, or collections are nested too deeply")
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "Polygon":
        polygon, closed = _polygon(coordinates)
        polygons.append(polygon)
        return closed
    if kind == "MultiPolygon":
        if not isinstance(coordinates, list):
            raise RefusedError("its coordinates are no list")
        made = [_polygon(rings) for rings in coordinates]
        polygons += [polygon for polygon, _ in made]
        return all(closed for _, closed in made)
    if kind == "GeometryCollection":
        members = geometry.get("geometries")
        if not isinstance(members, list):
            raise RefusedError("its geometries are no list")
        closed_members = [_collect(member, polygons, others, depth + 1) for member in members]
        return all(closed_members)
    if kind not in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        raise RefusedError(f"its geometry is of the type {storage.shown(kind)}, which GeoJSON does not have")
    others[kind] += 1
    return True


def _polygon(rings: Any) -> tuple[Geometry, bool]:
    if not isinstance(rings, list) or not rings:
        raise RefusedError("a polygon of it has no outline")
    made = [_ring(ring) for ring in rings]
    polygon = shapely.polygons(made[0][0], holes=[ring for ring, _ in made[1:]] or None)
    return polygon, all(closed for _, closed in made)


def _ring(ring: Any) -> tuple[Geometry, bool]:
    points = points_of(ring)
    closed = bool((points[0] == points[-1]).all())
    points = points if closed else np.concatenate([points, points[:1]])
    if len(points) < 4:
        raise RefusedError("an outline of it has fewer than three points, so its area is zero")
    return shapely.linearrings(points), closed


def points_of(coordinates: Any) -> NDArray[np.float64]:
    """Return GeoJSON positions as float64 of shape (N, 2), N at least 1.

    Raises
    ------
    RefusedError
        They are none, or not finite.
    """
    try:
        points = np.array(coordinates if isinstance(coordinates, list) else None)
    except ValueError:  # positions of different length
        points = np.array(None)
    if points.dtype.kind not in "iuf" or points.ndim != 2 or not len(points) or points.shape[1] not in (2, 3):
        raise RefusedError("its coordinates are no list of x and y")
    points = points[:, :2].astype(np.float64)
    if not np.isfinite(points).all() or np.abs(points).max() > _LARGEST:
        raise RefusedError("a coordinate of it is not finite, or larger than any slide")
    return points
