"""What pages ask of results: the cohort, a slide, its cells, its index at other cut-offs."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import shapely

from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.exports.cells import Calls, slide_record, source_of
from deepliif_ray.exports.outlines import enclosing_outlines
from deepliif_ray.query.ask import scored
from deepliif_ray.query.flags import FLAGS
from deepliif_ray.query.streaming import streaming
from deepliif_ray.tables.cutoffs import BUILTIN
from deepliif_ray.viewer import packed
from deepliif_ray.viewer.packed import Packed, Which

_AT_ONCE = 200_000
"""Cells that come from DuckDB in one part."""
OUTLINES = 6_000
"""Cells whose outlines are sent at once, at most."""
REACH_UM = 5.0
"""How far from a click a cell's centre may be."""
_GONE = "IO Error"
"""DuckDB's word for a file that it cannot read."""
_Kind = TypeVar("_Kind")
_MEMORY = "300MB"
_PACKED_BYTES = 200_000_000
"""Packed cells that are kept, at most; those of one slide always."""
_MOST_LASSO = 100_000

_PATIENTS = """
SELECT patient_id, marker, n_slides, n_called, n_positive, index_percent, ci_lower_percent, ci_upper_percent,
  category, too_few_cells, positive_density_per_mm2, notes
FROM patient_indices ORDER BY patient_id, marker
"""
_SLIDES = """
SELECT i.slide_id, i.patient_id, i.marker, i.n_called, i.n_positive, i.index_percent, i.ci_lower_percent,
  i.ci_upper_percent, i.category, i.too_few_cells, i.positive_density_per_mm2, i.tissue_mm2, i.notes, n.flags
FROM slide_indices AS i JOIN slide_notes AS n ON i.slide_id = n.slide_id
ORDER BY i.patient_id, i.marker, i.slide_id
"""
_INDEX = """
SELECT i.n_called, i.n_positive, i.index_percent, i.ci_lower_percent, i.ci_upper_percent, i.category,
  i.too_few_cells, i.notes, n.flags
FROM {indices} AS i JOIN slide_notes AS n ON i.slide_id = n.slide_id WHERE i.slide_id = ?
"""
_H_SCORE = "SELECT h_score FROM {scores} WHERE slide_id = ?"
_CENTRE_WITHIN = "x + 0.5 >= ? AND x + 0.5 <= ? AND y + 0.5 >= ? AND y + 0.5 <= ?"
_WITHIN = "bbox_x1 > ? AND bbox_x0 < ? AND bbox_y1 > ? AND bbox_y0 < ?"


@dataclass(frozen=True)
class Asked:
    """Cells of a slide, and how they are called.

    Attributes
    ----------
    slide : str
    cutoffs : str or mapping, optional
    region : str, optional
    corrections : bool
    """

    slide: str
    cutoffs: str | Mapping[str, float | str] | None = None
    region: str | None = None
    corrections: bool = True

    @property
    def calls(self) -> Calls:
        """The same, for exports and pictures."""
        return Calls(self.cutoffs, self.region, self.corrections)


class Answers:
    """Answers of one moment; `reopen` makes them of now. One question at a time.

    Parameters
    ----------
    results : str
        URL of the results.

    Raises
    ------
    ResultsError, StorageError
        See `deepliif_ray.connect`.
    """

    def __init__(self, results: str) -> None:
        self.results = results
        self._lock = Lock()
        self._stack = ExitStack()
        self._stream = self._stack.enter_context(streaming(results, memory=_MEMORY))
        self._records: dict[str, dict[str, Any]] = {}
        self._packed: OrderedDict[tuple[Any, ...], Packed] = OrderedDict()

    def reopen(self) -> None:
        """See what was committed, corrected and drawn since."""
        with self._lock:
            fresh = ExitStack()
            stream = fresh.enter_context(streaming(self.results, memory=_MEMORY))
            self._stack.close()
            self._stack, self._stream = fresh, stream
            self._packed.clear()
            self._records.clear()

    def current(self, question: Callable[..., _Kind], *given: Any) -> _Kind:
        """Return the answer to a question, asked again of now if objects it needs are gone since.

        An import was taken back meanwhile, say, or a job put small objects together.
        """
        try:
            return question(*given)
        except QueryError as error:
            if _GONE not in str(error):
                raise
        self.reopen()
        return question(*given)

    def close(self) -> None:
        """Close the results."""
        with self._lock:
            self._stack.close()

    def table(self, query: str, values: tuple[Any, ...] = ()) -> pa.Table:
        """Return what a query of this software's own gives; raises QueryError."""
        with self._lock:
            return self._stream.table(query, list(values))

    def record(self, slide: str) -> dict[str, Any]:
        """Return the commit record of a slide; errors as of `slide_record`."""
        if (known := self._records.get(slide)) is not None:
            return known  # also while cells are being read: tiles wait for nothing
        with self._lock:
            self._records[slide] = found = slide_record(self._stream, self.results, slide)
            return found

    def cohort(self) -> dict[str, Any]:
        """Return patients and slides with their indices, column by column, and what the page explains."""
        patients, slides = self.table(_PATIENTS), self.table(_SLIDES)
        markers = self.table("SELECT name, localisation, categories, min_cells FROM markers")
        failures = self.table("SELECT count(*) AS n FROM failures")
        return {
            "patients": patients.to_pydict(),
            "slides": slides.to_pydict(),
            "markers": {row["name"]: row for row in markers.to_pylist()},
            "n_failures": failures["n"][0].as_py(),
            "flags": FLAGS,
        }

    def slide(self, slide: str) -> dict[str, Any]:
        """Return what the page of a slide begins with."""
        row = self.record(slide)
        sets = self.table(
            "SELECT DISTINCT name, author, note FROM cutoff_sets WHERE marker IS NULL OR marker = ? "
            "ORDER BY name",
            (row["marker"],),
        )
        return {
            "slide_id": row["slide_id"],
            "patient_id": row["patient_id"],
            "marker": row["marker"],
            "width": row["width_px"],
            "height": row["height_px"],
            "mpp": row["mpp"],
            "model": row["model_name"],
            "scored": row["committed_at"].isoformat(timespec="minutes"),
            "warnings": row["warnings"],
            "tissue_mm2": row["tissue_mm2"],
            "defaults": self._defaults(row),
            "sets": sets.to_pylist(),
            "regions": self.regions(slide),
            "bounds": [row[f"bounds_{name}"] for name in ("x", "y", "width", "height")],
        }

    def _defaults(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cut-offs that hold for a slide where none are asked for."""
        source = scored("slide_cutoffs", cutoffs=BUILTIN)
        strengths = self.table(
            f"SELECT weak, moderate, strong FROM {source} WHERE slide_id = ?", (row["slide_id"],)
        ).to_pylist()
        return {"size_thresh": row["size_thresh"], **strengths[0]}

    def regions(self, slide: str) -> list[dict[str, Any]]:
        """Return the regions of a slide that count, as GeoJSON in level-0 pixel-edge coordinates."""
        rows = self.table(
            "SELECT region_id, class, name, excludes, author, import_id, geometry, area_mm2 "
            "FROM regions WHERE slide_id = ? ORDER BY region_id",
            (slide,),
        ).to_pylist()
        return [
            {
                **{key: value for key, value in row.items() if key != "geometry"},
                "geometry": shapely.geometry.mapping(shapely.from_wkb(row["geometry"])),
            }
            for row in rows
        ]

    def packed(self, asked: Asked) -> Packed:
        """Return the cells of a slide for a page that calls them itself.

        Raises
        ------
        QueryError
            The cells are lost, or there is no such region.
        """
        row = self.record(asked.slide)
        key = row["slide_id"], row["attempt"], asked.region, asked.corrections
        with self._lock:
            if key not in self._packed:
                query, values = packed.query_of(row, self._which(row, asked))
                made = packed.pack(row, self._stream.batches(query, values, _AT_ONCE))
                if asked.region is not None and not made.n_cells:
                    raise QueryError(
                        f"slide {asked.slide!r} has no cells in regions of class {asked.region!r}"
                    )
                self._packed[key] = made
                while len(self._packed) > 1 and sum(p.nbytes for p in self._packed.values()) > _PACKED_BYTES:
                    self._packed.popitem(last=False)
            self._packed.move_to_end(key)
            return self._packed[key]

    def _which(self, row: Mapping[str, Any], asked: Asked) -> Which:
        query = (
            "SELECT (SELECT count(*) FROM corrections WHERE slide_id = $1 AND is_current), "
            "(SELECT count(*) FROM regions WHERE slide_id = $1)"
        )
        n_corrected, n_drawn = (
            column[0].as_py() for column in self._stream.table(query, [row["slide_id"]]).columns
        )
        return Which(asked.region, asked.corrections and n_corrected > 0, n_drawn > 0)

    def outlines(self, asked: Asked, area: tuple[int, int, int, int]) -> dict[str, Any]:
        """Return the outlines of the cells that may count in an area, and their measurements.

        Parameters
        ----------
        asked : Asked
        area : tuple of int
            x0, y0, x1 and y1, level-0 px, half-open. A cell belongs to the area that its centre lies in.
        """
        row = self.record(asked.slide)
        x0, y0, x1, y1 = area
        with self._lock:
            query, values = packed.query_of(
                row, self._which(row, asked), "cell_id, boundary, x AS px, y AS py,"
            )
        found = self.table(
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
        row = self.record(asked.slide)
        reach = REACH_UM / row["mpp"]
        found = self.table(
            "SELECT c.*, k.call AS correction, k.author AS corrected_by "
            f"FROM {source_of(asked.calls, _WITHIN)} AS c LEFT JOIN corrections AS k "
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
        row = self.record(asked.slide)
        polygon = shapely.make_valid(shapely.Polygon(points)) if len(points) > 2 else None
        if polygon is None or polygon.area == 0:
            raise ConfigError(f"slide {asked.slide!r}: draw around the cells that are meant")
        x0, y0, x1, y1 = polygon.bounds
        found = self.table(
            f"SELECT x, y, boundary FROM {source_of(asked.calls, _CENTRE_WITHIN)}",
            (row["slide_id"], row["marker"], x0, x1, y0, y1),
        )
        inside = shapely.contains_xy(polygon, found["x"].to_numpy() + 0.5, found["y"].to_numpy() + 0.5)
        found = found.filter(pa.array(inside))
        if found.num_rows > _MOST_LASSO:
            raise ConfigError(
                f"slide {asked.slide!r}: {found.num_rows:,} cells are inside; correct up to {_MOST_LASSO:,} "
                "at once, or draw a region that excludes them"
            )
        return _places(found)

    def index(self, asked: Asked) -> dict[str, Any]:
        """Return the index of a slide as SQL gives it, and its H-score if it has one."""
        found: dict[str, Any]
        rows = self.table(_INDEX.format(indices=asked.calls.of("slide_indices")), (asked.slide,)).to_pylist()
        if not rows:
            raise ConfigError(f"{self.results}: there is no slide {asked.slide!r}")
        (found,) = rows
        scores = asked.calls.of("slide_h_scores")
        h_score = self.table(
            _H_SCORE.format(scores=scores if scores.endswith(")") else f"{scores}()"), (asked.slide,)
        )
        return found | {"h_score": h_score["h_score"][0].as_py() if h_score.num_rows else None}

    def hot_spots(self, asked: Asked, count: int, cells: int) -> dict[str, Any]:
        """Return the hot spots of a slide, as `deepliif_ray.hot_spots` finds them."""
        from deepliif_ray.places import find_hot_spots  # brings Numba, which is slow to import

        row = self.record(asked.slide)
        found = find_hot_spots(
            self.results,
            marker=row["marker"],
            slides=[asked.slide],
            count=count,
            source=asked.calls.of("called_cells"),
            cells=cells,
        )
        return {"spots": found.table.to_pylist(), "lacking": found.lacking}

    def cutoff_set(self, asked: Asked) -> dict[str, Any]:
        """Return the values that a named set has for a slide."""
        rows = self.table(
            f"SELECT * FROM {scored('slide_cutoffs', cutoffs=asked.cutoffs)} WHERE slide_id = ?",
            (asked.slide,),
        ).to_pylist()
        return dict(rows[0]) if rows else {}


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
