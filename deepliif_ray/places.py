"""Where on their slides positive cells lie: hot spots and spatial results of committed cells."""

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.query import asking, scored
from deepliif_ray.scoring import hot_spots as scoring
from deepliif_ray.scoring.markers import registry_with
from deepliif_ray.scoring.spatial import hexagon_entropy, nearest_neighbour_um, ripley_l, share_within_percent
from deepliif_ray.tables.cohort import read_markers

_log = logging.getLogger(__name__)
RIPLEY_UM = (25.0, 50.0, 100.0, 200.0)
_FLOAT, _INT, _TEXT = pa.float64(), pa.int64(), pa.string()
_OF_SLIDE = {"slide_id": _TEXT, "patient_id": _TEXT, "marker": _TEXT}
_HOT_SPOTS = pa.schema(
    _OF_SLIDE
    | {
        "rank": _INT,
        "x": _FLOAT,
        "y": _FLOAT,
        "x_um": _FLOAT,
        "y_um": _FLOAT,
        "radius_um": _FLOAT,
        "area_mm2": _FLOAT,
        "n_cells": _INT,
        "n_positive": _INT,
        "share_percent": _FLOAT,
        "density_per_mm2": _FLOAT,
        "notes": _TEXT,
    }
)


@dataclass(frozen=True)
class Found:
    """What was found on slides.

    Attributes
    ----------
    table : pyarrow.Table
    lacking : list of str
        One line for each slide that gave nothing, or less than was asked for, with the reason.
    """

    table: pa.Table
    lacking: list[str]


def hot_spots(
    results: str | os.PathLike[str],
    *,
    marker: str,
    slides: Sequence[str] | None = None,
    cells: int | None = None,
    area_mm2: float | None = None,
    by: Literal["share", "density"] = "share",
    count: int = 1,
    min_cells: int | None = None,
    cutoffs: str | Mapping[str, float | str] | None = None,
    region: str | None = None,
    corrections: bool = True,
) -> pa.Table:
    """Find the hot spots of slides, exactly, among the cells that count at the published thresholds.

    What a hot spot is, `deepliif_ray.scoring.hot_spots.hot_spots` says. A slide that has none, or fewer
    than asked for, is named in a warning of the log.

    Parameters
    ----------
    results : str or path
        URL of the results.
    marker : str
        By its name or an alias.
    slides : sequence of str, optional
        Which slides; by default all of this marker.
    cells, area_mm2, by, count, min_cells
        As of `deepliif_ray.scoring.hot_spots.hot_spots`.
    cutoffs, region, corrections
        Which cells count, as of `deepliif_ray.query.scored`.

    Returns
    -------
    pyarrow.Table
        A row a hot spot, by slide and ``rank``: its centre (``x`` and ``y`` in level-0 px), radius, area,
        cells, positive cells, share and density of these, and the slide's ``notes``.

    Raises
    ------
    ConfigError
        An option cannot be used.
    QueryError
        There is no such marker or slide in the results.
    ResultsError, StorageError
        The results cannot be read.
    """
    return _warned(
        find_hot_spots(
            results,
            marker=marker,
            slides=slides,
            cells=cells,
            area_mm2=area_mm2,
            by=by,
            count=count,
            min_cells=min_cells,
            source=scored("called_cells", cutoffs=cutoffs, region=region, corrections=corrections),
        )
    )


def find_hot_spots(
    results: str | os.PathLike[str],
    *,
    marker: str,
    slides: Sequence[str] | None = None,
    count: int = 1,
    source: str = "called_cells",
    **options: Any,
) -> Found:
    """Find hot spots, and tell of the slides that lack them; parameters and errors as of `hot_spots`.

    ``source`` is what of SQL gives the cells that count, as of `deepliif_ray.query.scored`.
    """
    scoring.hot_spots([], [], [], count=count, **options)  # wrong options are told before anything is read
    rows: list[dict[str, Any]] = []
    lacking: list[str] = []
    with _slides_of(results, marker, slides, lacking, source) as found:
        for slide, x_um, y_um, positive in found:
            with _naming(slide):
                spots = scoring.hot_spots(x_um, y_um, positive, count=count, **options)
            if len(spots) < count:
                lacking.append(f"slide {slide['slide_id']!r}: {_why(len(x_um), len(spots), count, options)}")
            rows += [
                _named(slide)
                | asdict(spot)
                | {"rank": rank, "x": spot.x_um / slide["mpp"], "y": spot.y_um / slide["mpp"]}
                | {"notes": slide["notes"]}
                for rank, spot in enumerate(spots, start=1)
            ]
    return Found(pa.Table.from_pylist(rows, schema=_HOT_SPOTS), lacking)


def _why(n: int, found: int, count: int, options: dict[str, Any]) -> str:
    cells, area = options.get("cells"), options.get("area_mm2")
    if found:
        return f"{found} of {count} hot spots; no other circle that counts has room beside these"
    if cells is not None and n < cells:
        return f"no hot spot: it has {n} counted cells, fewer than the {cells} of a circle"
    if cells is not None:
        return f"no hot spot: every circle of {cells} cells has all of them at one place, so no density"
    fewest = options.get("min_cells") or (scoring.MIN_CELLS if options.get("by") != "density" else 1)
    return (
        f"no hot spot: no circle of {area:g} mm² holds {fewest} of its {n} counted cells; ask for a larger "
        "circle or fewer cells (min_cells)"
    )


def spatial(
    results: str | os.PathLike[str],
    *,
    marker: str,
    slides: Sequence[str] | None = None,
    radius_um: float = 50.0,
    ripley_um: Sequence[float] = RIPLEY_UM,
    hexagon_um: float = 250.0,
    hexagon_cells: int = 50,
    hexagon_classes: int = 10,
    cutoffs: str | Mapping[str, float | str] | None = None,
    region: str | None = None,
    corrections: bool = True,
) -> pa.Table:
    """Tell of slides how their positive cells lie, among the cells that count at the published thresholds.

    Parameters
    ----------
    results : str or path
        URL of the results.
    marker : str
        By its name or an alias.
    slides : sequence of str, optional
        Which slides; by default all of this marker.
    radius_um : float
        What is near, for the shares of positive cells.
    ripley_um : sequence of float
        Radii of Ripley's L. What is observed is taken to be the smallest upright rectangle around all
        counted cells. Where tissue does not fill it, all cells seem clustered, and L says more of the
        tissue than of the marker.
    hexagon_um, hexagon_cells, hexagon_classes
        Side of a hexagon, fewest cells of one that counts, and classes of the index; see
        `deepliif_ray.scoring.spatial.hexagon_entropy`. The defaults are this software's, not from a paper.
    cutoffs, region, corrections
        Which cells count, as of `deepliif_ray.query.scored`.

    Returns
    -------
    pyarrow.Table
        A row a slide. ``nearest_positive_um``: median distance of positive cells to the nearest other one.
        ``share_near_percent`` and ``share_near_positive_percent``: share of positive among the other cells
        within the radius, averaged over all cells, and over positive ones, that have another one so near.
        ``l_minus_r_<radius>_um``: Ripley's L of the positive cells, less the radius. ``n_hexagons``,
        ``entropy_bits`` and ``pair_entropy_bits``: of the hexagons. Null where there are too few cells.

    Raises
    ------
    ConfigError
        An option cannot be used.
    QueryError
        There is no such marker or slide in the results.
    ResultsError, StorageError
        The results cannot be read.
    """
    return _warned(
        find_spatial(
            results,
            marker=marker,
            slides=slides,
            radius_um=radius_um,
            ripley_um=ripley_um,
            hexagon_um=hexagon_um,
            hexagon_cells=hexagon_cells,
            hexagon_classes=hexagon_classes,
            source=scored("called_cells", cutoffs=cutoffs, region=region, corrections=corrections),
        )
    )


def find_spatial(
    results: str | os.PathLike[str],
    *,
    marker: str,
    slides: Sequence[str] | None = None,
    radius_um: float = 50.0,
    ripley_um: Sequence[float] = RIPLEY_UM,
    hexagon_um: float = 250.0,
    hexagon_cells: int = 50,
    hexagon_classes: int = 10,
    source: str = "called_cells",
) -> Found:
    """Tell how cells lie, and of slides of which nothing can be told; otherwise as `spatial`."""
    columns = [f"l_minus_r_{radius:g}_um" for radius in ripley_um]
    if len(set(columns)) < len(columns):
        raise ConfigError("a radius of Ripley's L is given twice; leave one out")

    def measured(x_um: NDArray[Any], y_um: NDArray[Any], positive: NDArray[Any]) -> dict[str, Any]:
        shares = share_within_percent(x_um, y_um, positive, radius_um)
        grid = hexagon_entropy(
            x_um, y_um, positive, side_um=hexagon_um, min_cells=hexagon_cells, bins=hexagon_classes
        )
        few = {"x_um": x_um[positive], "y_um": y_um[positive]}
        window = (x_um.min(), y_um.min(), x_um.max(), y_um.max()) if len(x_um) else (0.0, 0.0, 0.0, 0.0)
        if window[0] < window[2] and window[1] < window[3]:
            lengths = ripley_l(**few, radii_um=ripley_um, window=window) - np.asarray(ripley_um)
        else:
            lengths = np.full(len(columns), np.nan)
        return {
            "n_called": len(x_um),
            "n_positive": int(np.count_nonzero(positive)),
            "nearest_positive_um": _median(nearest_neighbour_um(**few)),
            "share_near_percent": _mean(shares),
            "share_near_positive_percent": _mean(shares[positive]),
            **dict(zip(columns, map(_known, lengths), strict=True)),
            "n_hexagons": len(grid.q),
            "entropy_bits": _known(grid.entropy_bits),
            "pair_entropy_bits": _known(grid.pair_entropy_bits),
        }

    none = np.empty(0)
    kinds = {name: _INT if name.startswith("n_") else _FLOAT for name in measured(none, none, none > 0)}
    ripley_l([0.0], [0.0], ripley_um, window=(0, 0, 1, 1))  # wrong radii are told before anything is read
    rows: list[dict[str, Any]] = []
    lacking: list[str] = []
    with _slides_of(results, marker, slides, lacking, source) as found:
        for slide, *of_cells in found:
            with _naming(slide):
                values = measured(*of_cells)
            rows.append(_named(slide) | values | {"notes": slide["notes"]})
    schema = pa.schema(_OF_SLIDE | kinds | {"notes": _TEXT})
    return Found(pa.Table.from_pylist(rows, schema=schema), lacking)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _median(values: NDArray[np.float64]) -> float | None:
    return _known(float(np.median(values))) if len(values) else None


def _named(slide: dict[str, Any]) -> dict[str, Any]:
    return {name: slide[name] for name in _OF_SLIDE}


@contextmanager
def _naming(slide: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"slide {slide['slide_id']!r}: {error}") from error


def _warned(found: Found) -> pa.Table:
    for line in found.lacking:
        _log.warning("%s", line)
    return found.table


@contextmanager
def _slides_of(
    results: str | os.PathLike[str],
    marker: str,
    slides: Sequence[str] | None,
    lacking: list[str],
    source: str,
) -> Iterator[Iterator[tuple[dict[str, Any], NDArray[Any], NDArray[Any], NDArray[Any]]]]:
    """Give the slides of a marker one by one with the cells that count; damaged ones go to ``lacking``."""
    url = os.fspath(results)
    name = registry_with(read_markers(url), url).read(marker)[0].name
    with asking(url) as answer:
        of_marker = answer(
            "SELECT s.slide_id, s.patient_id, s.marker, s.mpp, i.notes, d.problem "
            "FROM slides AS s JOIN slide_indices AS i USING (slide_id) "
            "LEFT JOIN (SELECT slide_id, any_value(problem) AS problem FROM damaged WHERE kind = 'cells' "
            "GROUP BY 1) AS d USING (slide_id) WHERE s.marker = ? ORDER BY s.patient_id, s.slide_id",
            [name],
        ).to_pylist()
        if not of_marker:
            known = answer("SELECT DISTINCT marker FROM slides ORDER BY 1")["marker"].to_pylist()
            raise QueryError(
                f"{url}: no slide of marker {marker!r}; markers there are: {', '.join(known) or 'none'}"
            )
        if slides is not None:
            unknown = sorted(set(slides) - {slide["slide_id"] for slide in of_marker})
            if unknown:
                raise QueryError(
                    f"{url}: no slide of {name} is called {', '.join(map(repr, unknown))}; "
                    "`SELECT slide_id, marker FROM slides` lists them"
                )

        def each() -> Iterator[tuple[dict[str, Any], NDArray[Any], NDArray[Any], NDArray[Any]]]:
            for slide in of_marker:
                if slides is not None and slide["slide_id"] not in slides:
                    continue
                if slide["problem"] is not None:
                    lacking.append(f"slide {slide['slide_id']!r}: its cells are damaged ({slide['problem']})")
                    continue
                cells = answer(
                    f"SELECT x_um, y_um, positive FROM {source} WHERE slide_id = ? AND marker = ?",
                    [slide["slide_id"], name],
                )
                yield slide, *(cells[column].to_numpy() for column in ("x_um", "y_um", "positive"))

        yield each()
