"""What pages ask of results: the cohort, a slide, its cells, its index at other cut-offs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar

import pyarrow as pa
import shapely

from deepliif_ray.errors import QueryError
from deepliif_ray.exports.cells import Calls, slide_record
from deepliif_ray.pictures.legend import index_of
from deepliif_ray.query.flags import FLAGS
from deepliif_ray.query.streaming import streaming
from deepliif_ray.tables.cutoffs import BUILTIN

_AT_ONCE = 200_000
"""Cells that come from DuckDB in one part."""
_GONE = "IO Error"
"""DuckDB's word for a file that it cannot read."""
_Kind = TypeVar("_Kind")
_MEMORY = "300MB"

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


@dataclass(frozen=True)
class Asked:
    """Cells of a slide, and how they are called."""

    slide: str
    calls: Calls = field(default_factory=Calls)


class Answers:
    """Answers of one moment; `reopen` makes them of now. One question at a time.

    Parameters
    ----------
    results : str
        URL of the results.

    Attributes
    ----------
    results : str
    n_opened : int
        How often the results were opened: what was answered before may be old.

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
        self.n_opened = 1

    def reopen(self) -> None:
        """See what was committed, corrected and drawn since."""
        with self._lock:
            fresh = ExitStack()
            stream = fresh.enter_context(streaming(self.results, memory=_MEMORY))
            self._stack.close()
            self._stack, self._stream = fresh, stream
            self._records.clear()
            self.n_opened += 1

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

    def table(self, query: str, values: Sequence[Any] = ()) -> pa.Table:
        """Return what a query of this software's own gives; raises QueryError."""
        with self._lock:
            return self._stream.table(query, values)

    def made_of(
        self, query: str, values: Sequence[Any], make: Callable[[Iterator[pa.Table]], _Kind]
    ) -> _Kind:
        """Return what is made of a large answer, which comes in parts; raises QueryError."""
        with self._lock:
            return make(self._stream.batches(query, values, _AT_ONCE))

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
        }

    def _defaults(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cut-offs that hold for a slide where none are asked for."""
        source = Calls(BUILTIN).of("slide_cutoffs")
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

    def index(self, asked: Asked) -> dict[str, Any]:
        """Return the index of a slide as SQL gives it, and its H-score if it has one."""
        row = self.record(asked.slide)
        with self._lock:
            found = index_of(self._stream, row, asked.calls)
        scores = asked.calls.of_macro("slide_h_scores")
        h_score = self.table(f"SELECT h_score FROM {scores} WHERE slide_id = ?", [asked.slide])["h_score"]
        return found | {"h_score": h_score[0].as_py()}

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
        source = asked.calls.of_macro("slide_cutoffs")
        (row,) = self.table(f"SELECT * FROM {source} WHERE slide_id = ?", [asked.slide]).to_pylist()
        found: dict[str, Any] = row
        return found
