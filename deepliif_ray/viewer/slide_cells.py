"""Cells of a slide for its page: packed, outlined, the one at a place, those inside a line."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.exports.cells import TOUCHING, source_of
from deepliif_ray.exports.outlines import enclosing_outlines
from deepliif_ray.viewer.answers import Answers, Asked
from deepliif_ray.viewer.packed import Packed, Which, pack, query_of

OUTLINES = 6_000
"""Cells whose outlines are sent at once, at most."""
REACH_UM = 5.0
"""How far from a click a cell may be."""
_PACKED_BYTES = 100_000_000
"""Packed cells that are kept, at most; those of one slide always."""
_MOST_LASSO = 100_000
_CENTRE_WITHIN = "x + 0.5 >= ? AND x + 0.5 <= ? AND y + 0.5 >= ? AND y + 0.5 <= ?"


class SlideCells:
    """Questions about single cells."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._lock = Lock()
        self._packed: OrderedDict[tuple[Any, ...], tuple[tuple[Any, ...], Packed]] = OrderedDict()

    def packed(self, asked: Asked) -> Packed:
        """Return the cells of a slide for a page that calls them itself.

        Raises
        ------
        QueryError
            The cells are lost, or there is no such region.
        """
        row = self._answers.record(asked.slide)
        region = asked.calls.region
        key = row["slide_id"], region, asked.calls.corrections
        with self._lock:
            which, state = self._which(row, asked)
            kept = self._packed.get(key)
            if kept is None or kept[0] != state:
                self._packed.pop(key, None)
                query, values = query_of(row, which)
                made = self._answers.made_of(query, values, partial(pack, row))
                if region is not None and not made.n_cells:
                    raise QueryError(f"slide {asked.slide!r} has no cells in regions of class {region!r}")
                self._packed[key] = kept = state, made
                while len(self._packed) > 1 and self._nbytes() > _PACKED_BYTES:
                    self._packed.popitem(last=False)
            self._packed.move_to_end(key)
            return kept[1]

    def _nbytes(self) -> int:
        return sum(packed.nbytes for _, packed in self._packed.values())

    def _which(self, row: Mapping[str, Any], asked: Asked) -> tuple[Which, tuple[Any, ...]]:
        """Return which cells are meant, and of what they are made: as long as that stays, they do.

        Results are opened anew whenever something of them may have changed; that alone is no reason to pack
        the cells of a slide again, of which nothing did. Where there are regions it is one: which cells lie
        in them is not known without reading as much.
        """
        query = (
            "SELECT (SELECT count(*) FROM regions WHERE slide_id = $1) AS drawn, count(*) AS corrected, "
            "bit_xor(hash(cell_id, call)) AS said FROM corrections WHERE slide_id = $1 AND is_current"
        )
        (found,) = self._answers.table(query, [row["slide_id"]]).to_pylist()
        corrections = asked.calls.corrections and found["corrected"] > 0
        which = Which(asked.calls.region, corrections, found["drawn"] > 0)
        said = (found["corrected"], found["said"]) if corrections else None
        return which, (row["attempt"], said, self._answers.n_opened if which.has_regions else None)

    def outlines(self, asked: Asked, area: tuple[int, int, int, int]) -> dict[str, Any]:
        """Return the outlines of the cells that may count in an area, and their measurements.

        Parameters
        ----------
        asked : Asked
        area : tuple of int
            x0, y0, x1 and y1, level-0 px, half-open. A cell belongs to the area that its centre lies in.
        """
        row = self._answers.record(asked.slide)
        x0, y0, x1, y1 = area
        query, values = query_of(row, self._which(row, asked)[0], "cell_id, boundary, x AS px, y AS py,")
        found = self._answers.table(
            f"SELECT * FROM ({query}) WHERE px >= ? AND px < ? AND py >= ? AND py < ? "
            f"ORDER BY cell_id LIMIT {OUTLINES + 1}",
            (*values, x0, x1, y0, y1),
        )
        if found.num_rows > OUTLINES:
            return {"too_many": True, "cells": []}
        outlines = enclosing_outlines(found["boundary"].to_numpy())
        return {"too_many": False, "cells": _outlined(found, outlines)}

    def cell(self, asked: Asked, x: float, y: float) -> dict[str, Any] | None:
        """Return the measurements of the cell at a place, or nearest to it within `REACH_UM`; else None."""
        row = self._answers.record(asked.slide)
        reach = REACH_UM / row["mpp"]
        found = self._answers.table(
            "SELECT c.*, k.call AS correction, k.author AS corrected_by "
            f"FROM {source_of(asked.calls, TOUCHING)} AS c LEFT JOIN corrections AS k "
            "ON k.slide_id = c.slide_id AND k.cell_id = c.cell_id AND k.is_current",
            (row["slide_id"], row["marker"], x - reach, x + reach, y - reach, y + reach),
        )
        if not found.num_rows:
            return None
        outlines = enclosing_outlines(found["boundary"].to_numpy())
        distance = shapely.distance(outlines, shapely.Point(x, y))
        best = int(distance.argmin())
        if distance[best] > reach:
            return None
        (place,) = _places(found.slice(best, 1))
        said = found.drop_columns(["boundary"]).slice(best, 1).to_pylist()[0]
        return {**said, "place": place, "outline": _flat(outlines[best])}

    def inside(self, asked: Asked, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Return a place in each called cell whose centre a polygon holds, level-0 px as in ``cells``.

        Raises
        ------
        ConfigError
            The polygon is none, or holds too many cells.
        """
        row = self._answers.record(asked.slide)
        polygon = shapely.make_valid(shapely.Polygon(points)) if len(points) > 2 else None
        if polygon is None or polygon.area == 0:
            raise ConfigError(f"slide {asked.slide!r}: draw around the cells that are meant")
        x0, y0, x1, y1 = polygon.bounds
        within = source_of(asked.calls, _CENTRE_WITHIN)
        values = row["slide_id"], row["marker"], x0, x1, y0, y1
        found = self._answers.table(f"SELECT cell_id, x + 0.5 AS x, y + 0.5 AS y FROM {within}", values)
        inside = shapely.contains_xy(polygon, found["x"].to_numpy(), found["y"].to_numpy())
        ids = found["cell_id"].filter(pa.array(inside)).to_pylist()
        if len(ids) > _MOST_LASSO:
            raise ConfigError(
                f"slide {asked.slide!r}: {len(ids):,} cells are inside; correct up to {_MOST_LASSO:,} at "
                "once, or draw a region that excludes them"
            )
        query = f"SELECT x, y, boundary FROM {within} WHERE cell_id IN (SELECT unnest(?)) ORDER BY cell_id"
        return _places(self._answers.table(query, (*values, ids)))


def _outlined(found: pa.Table, outlines: Any) -> list[list[Any]]:
    names = ("cell_id", "area", "od", "dab", "marker", "flags")
    columns = [found[name].to_pylist() for name in names]
    return [[*row, _flat(outline)] for *row, outline in zip(*columns, outlines, strict=True)]


def _places(found: pa.Table) -> list[tuple[float, float]]:
    """Return a place in each cell: its centre, or where that lies outside, a pixel of its border."""
    boundary = shapely.from_wkb(found["boundary"].to_numpy())
    centre = np.column_stack([found["x"].to_numpy(), found["y"].to_numpy()])
    border = np.array([shapely.get_coordinates(outline)[0] for outline in boundary]).reshape(-1, 2)
    is_in = shapely.contains_xy(boundary, *centre.T)
    return [(x, y) for x, y in np.where(is_in[:, None], centre, border).tolist()]


def _flat(outline: Any) -> list[float]:
    points = shapely.get_coordinates(outline)
    whole: list[float] = [round(value, 1) for value in points.ravel().tolist()]
    return whole
