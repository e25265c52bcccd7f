"""What is unusual about slides, what failed, and how stain drifts."""

from dataclasses import dataclass
from typing import Any

from deepliif_ray import storage
from deepliif_ray.errors import QueryError
from deepliif_ray.query.flags import FLAGS
from deepliif_ray.query.streaming import Stream
from deepliif_ray.report.indices import SLIDES

MOST_GROUPS = 24
"""Values of a column, or days, that the drift is shown of."""
MEANINGS = FLAGS | {
    "too_few_cells": "fewer cells were counted than the marker wants",
    "has_warnings": "a warning came with its record; it is listed",
    "not_in_newest_manifest": "the newest manifest does not list it, and it still counts",
}
MEASURES = {
    "hematoxylin_od": ("Hematoxylin, mean of tissue", "optical density"),
    "dab_od": ("DAB, mean of tissue", "optical density"),
    "counterstain_od": ("Hematoxylin alone, median", "optical density, red"),
    "stain_residual": ("Colour that is neither hematoxylin nor DAB", "sine of the angle"),
    "background_grey": ("Glass", "grey level, 0 – 255"),
    "background_cast": ("Colour cast of glass", "grey levels"),
    "focus": ("Focus", "variance of the Laplacian"),
    "nucleus_area_um2": ("Area of nuclei, median", "µm²"),
}
"""Columns of ``slides`` whose drift is shown: title and unit."""
Rows = list[dict[str, Any]]

_ASK_FLAGS = f"""
SELECT flag, count(*) AS n FROM (
  SELECT unnest(flags) AS flag FROM {SLIDES}
  UNION ALL SELECT 'too_few_cells' FROM {SLIDES} WHERE too_few_cells AND n_called > 0
  UNION ALL SELECT 'has_warnings' FROM {SLIDES} WHERE has_warnings
  UNION ALL SELECT 'not_in_newest_manifest' FROM {SLIDES} WHERE is_left
) GROUP BY flag ORDER BY n DESC, flag
"""
_ASK_DRIFT = """
WITH grouped AS (
  SELECT marker, {group} AS value, {finite} FROM slides WHERE {where}
), long AS (FROM grouped UNPIVOT INCLUDE NULLS (measured FOR measure IN ({measures})))
SELECT measure, {marker} AS marker, value, count(*) AS n_slides, count(measured) AS n, min(measured) AS least,
  quantile_cont(measured, 0.25) AS q1, median(measured) AS median, quantile_cont(measured, 0.75) AS q3,
  max(measured) AS most
FROM long WHERE measure {which} 'dab_od' GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True)
class Quality:
    """Flags of slides and what failed.

    Attributes
    ----------
    flags : list of tuple
        Flag, what it means, how many slides have it.
    warnings : dict of str to list of str
        Warnings of slides by slide_id.
    failures : list of dict
    reasons : list of dict
        ``reason``, ``stage``, ``n``: failures by reason.
    damaged : list of dict
        As of the view ``damaged``.
    """

    flags: list[tuple[str, str, int]]
    warnings: dict[str, list[str]]
    failures: Rows
    reasons: Rows
    damaged: Rows


@dataclass(frozen=True)
class Drift:
    """Measures of slides by a column of the manifest, or by the day of scoring.

    Attributes
    ----------
    by : str
        What groups slides, in words.
    rows : list of dict
        ``measure``, ``marker`` (of DAB alone; else None), ``value``, ``n_slides``, ``n`` (measured), and
        ``least``, ``q1``, ``median``, ``q3``, ``most``.
    values : list of str
        Groups that are shown, in order.
    left_out : int
        Groups that are not shown: those of the fewest slides.
    """

    by: str
    rows: Rows
    values: list[str]
    left_out: int


def read_quality(stream: Stream, marker: str | None) -> Quality:
    """Ask for flags and failures; `deepliif_ray.report.indices.read_indices` comes first."""
    where, values = ("marker = ?", [marker]) if marker is not None else ("true", [])
    flags = [
        (row["flag"], MEANINGS.get(row["flag"], "see docs/monitoring.md"), row["n"])
        for row in stream.table(_ASK_FLAGS).to_pylist()
    ]
    warned = stream.table(
        f"SELECT slide_id, warnings FROM slides WHERE len(warnings) > 0 AND {where} ORDER BY 1", values
    )
    failures = stream.table(
        "SELECT slide_id, patient_id, marker, stage, reason, message, failed_at FROM failures "
        f"WHERE {where} ORDER BY slide_id",
        values,
    ).to_pylist()
    for row in failures:
        row["message"] = storage.scrub(row["message"])
    reasons = stream.table(
        f"SELECT reason, stage, count(*) AS n FROM failures WHERE {where} GROUP BY ALL "
        "ORDER BY n DESC, reason, stage",
        values,
    )
    damaged = stream.table(
        "SELECT object, kind, slide_id, problem FROM damaged ORDER BY object, slide_id"
    ).to_pylist()
    return Quality(
        flags,
        {row["slide_id"]: list(map(storage.scrub, row["warnings"])) for row in warned.to_pylist()},
        failures,
        reasons.to_pylist(),
        [row | {"problem": storage.scrub(row["problem"])} for row in damaged],
    )


def read_drift(stream: Stream, by: str | None, marker: str | None) -> Drift:
    """Ask how measures of slides differ by a column of the manifest.

    Raises
    ------
    QueryError
        No slide has such a column.
    """
    where, values = ("marker = ?", [marker]) if marker is not None else ("true", [])
    names = stream.table(
        f"SELECT DISTINCT unnest(map_keys(attributes)) AS name FROM slides WHERE {where} ORDER BY 1", values
    )["name"].to_pylist()
    if by is None and "site" in names:
        by = "site"
    if by is not None and by not in names:
        raise QueryError(f"no slide has a column {by!r}; there are {', '.join(names) or 'none'}")
    group, given = "strftime(committed_at, '%Y-%m-%d')", []
    if by is not None:
        group, given = "coalesce(attributes[?], '(not given)')", [by]
    query = (
        f"SELECT {group} AS value, count(*) AS n FROM slides WHERE {where} GROUP BY ALL "
        "ORDER BY n DESC, value"
    )
    groups = stream.table(query, [*given, *values])["value"].to_pylist()
    shown = sorted(groups[:MOST_GROUPS])
    rows: Rows = []
    for of_marker, which in (("NULL", "<>"), ("marker", "=")):
        asked = _ASK_DRIFT.format(
            group=group,
            where=where,
            marker=of_marker,
            which=which,
            measures=", ".join(MEASURES),
            finite=", ".join(f"CASE WHEN isfinite({name}) THEN {name} END AS {name}" for name in MEASURES),
        )
        rows += stream.table(asked, [*given, *values]).to_pylist()
    return Drift(
        "day of scoring (UTC)" if by is None else by,
        [row for row in rows if row["value"] in shown],
        shown,
        len(groups) - len(shown),
    )
