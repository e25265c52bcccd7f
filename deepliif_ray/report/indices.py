"""Indices of a cohort: of patients and slides, and how each marker spreads."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from deepliif_ray.exports.cells import Calls
from deepliif_ray.query.streaming import Stream

BIN_PERCENT = 5
"""Width of the bars of a distribution."""
PATIENTS, SLIDES = "report_patients", "report_slides"
"""What queries call the indices that `Indices` was made of."""
Rows = list[dict[str, Any]]

_ASK_SLIDES = """
SELECT i.slide_id, i.patient_id, i.marker, i.n_called, i.n_positive, i.index_percent, i.ci_lower_percent,
  i.ci_upper_percent, i.category, i.too_few_cells, i.tissue_mm2, i.notes, n.flags, n.has_warnings, n.is_left,
  {in_region} AS in_region,
  i.slide_id IN (SELECT d.slide_id FROM damaged AS d WHERE d.kind = 'cells') AS is_damaged
FROM {source} AS i JOIN slide_notes AS n ON i.slide_id = n.slide_id
WHERE {where} ORDER BY i.patient_id, i.marker, i.slide_id
"""
_ASK_MARKERS = f"""
WITH spread AS (
  SELECT marker, count(*) AS n_patients, count(index_percent) AS n_known, sum(n_slides)::BIGINT AS n_slides,
    sum(n_called)::BIGINT AS n_called, sum(n_positive)::BIGINT AS n_positive, sum(tissue_mm2) AS tissue_mm2,
    count_if(too_few_cells) AS n_too_few, min(index_percent) AS least,
    quantile_cont(index_percent, 0.25) AS q1, median(index_percent) AS median,
    quantile_cont(index_percent, 0.75) AS q3, max(index_percent) AS most
  FROM {PATIENTS} GROUP BY marker
)
SELECT s.*, m.note, m.caution, coalesce(m.brief, 'marker not in the registry') AS brief,
  coalesce(m.categories, []) AS categories, m.source
FROM spread AS s LEFT JOIN markers AS m ON s.marker = m.name ORDER BY s.marker
"""
_ASK_BINS = f"""
SELECT marker, least(floor(index_percent / {BIN_PERCENT})::INT, {100 // BIN_PERCENT - 1}) AS bin,
  count(*) AS n
FROM {PATIENTS} WHERE index_percent IS NOT NULL GROUP BY ALL
"""
_ASK_CATEGORIES = f"SELECT marker, category, count(*) AS n FROM {PATIENTS} GROUP BY ALL"
_ASK_FAILED = """
SELECT patient_id, marker, count(*) AS n, string_agg(DISTINCT reason, ', ' ORDER BY reason) AS reasons
FROM failures WHERE {where} GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True)
class Category:
    """A range of a marker's index that has a name, and the patients in it; it ends at ``to_percent``."""

    name: str
    to_percent: float | None
    inclusive: bool
    n_patients: int


@dataclass(frozen=True)
class MarkerSummary:
    """How the indices of one marker spread over patients.

    Attributes
    ----------
    name, brief : str
    note, caution, source : str or None
        What the number is used for, where to trust it less, who names its ranges.
    n_patients, n_known : int
        Patients with a scored slide, and those of them who have an index.
    n_slides, n_called, n_positive : int
    tissue_mm2 : float or None
    n_too_few : int
        Patients with fewer cells than the marker wants.
    n_flagged : int
        Patients with an index and a flag.
    least, q1, median, q3, most : float or None
        Of the patients' indices, percent.
    bins : list of int
        Patients by index, in steps of `BIN_PERCENT`; a bin has its lower end, the last both.
    categories : list of Category
    """

    name: str
    brief: str
    note: str | None
    caution: str | None
    source: str | None
    n_patients: int
    n_known: int
    n_slides: int
    n_called: int | None
    n_positive: int | None
    tissue_mm2: float | None
    n_too_few: int
    n_flagged: int
    least: float | None
    q1: float | None
    median: float | None
    q3: float | None
    most: float | None
    bins: list[int]
    categories: list[Category]


@dataclass(frozen=True)
class Indices:
    """Indices of patients and slides, with what to know of each.

    Attributes
    ----------
    patients : list of dict
        As of ``patient_indices``, and ``flags`` (texts) and ``unknown`` (why there is no index, or None); one
        row for patients and markers of which all slides failed, too.
    slides : list of dict
        As of ``slide_indices``, and ``flags``, ``unknown``.
    markers : list of MarkerSummary
    """

    patients: Rows
    slides: Rows
    markers: list[MarkerSummary]


def read_indices(stream: Stream, calls: Calls, marker: str | None) -> Indices:
    """Ask for all indices, once.

    Afterwards queries of this stream know them by `PATIENTS` and `SLIDES`.

    Raises
    ------
    QueryError
        There are no such cut-offs or regions.
    """
    where, values = ("marker = ?", [marker]) if marker is not None else ("true", [])
    patients = stream.table(
        f"SELECT * FROM {calls.of('patient_indices')} WHERE {where} ORDER BY patient_id, marker", values
    )
    in_region, given = in_region_of(calls)
    query = _ASK_SLIDES.format(
        source=calls.of("slide_indices"), where=where.replace("marker", "i.marker"), in_region=in_region
    )
    slides = stream.table(query, [*given, *values])
    stream.give(PATIENTS, patients)
    stream.give(SLIDES, slides)
    failed = stream.table(_ASK_FAILED.format(where=where), values).to_pylist()
    slide_rows = slides.to_pylist()
    for row in slide_rows:
        row["unknown"] = why_unknown([row], calls)
        row["flags"] = [*row["flags"], *more_flags(row)]
    patient_rows = _of_patients(patients.to_pylist(), slide_rows, failed, calls)
    return Indices(patient_rows, slide_rows, _markers(stream, patient_rows))


def in_region_of(calls: Calls) -> tuple[str, list[str]]:
    """Return SQL that tells whether slide ``i`` has a region of the class that counts, and its parameters."""
    if calls.region is None:
        return "true", []
    return "i.slide_id IN (SELECT slide_id FROM region_areas WHERE lower(class) = lower(?))", [calls.region]


def more_flags(row: dict[str, Any]) -> list[str]:
    """Return what is to be known of a slide's index beside the flags of its quality, as names."""
    flags = {
        "too_few_cells": row["too_few_cells"] and row["n_called"],
        "has_warnings": row["has_warnings"],
        "not_in_newest_manifest": row["is_left"],
    }
    return [name for name, holds in flags.items() if holds]


def why_unknown(slides: Rows, calls: Calls) -> str | None:
    """Return why slides have no index together; None if they have one."""
    if any(row["is_damaged"] and row["n_called"] is None for row in slides):
        return "cells are damaged"
    if not any(row["in_region"] for row in slides):
        return f"no region of class {calls.region}"
    if any(row["n_called"] is None for row in slides if row["in_region"]):
        return "cells cannot be counted"
    if not any(row["n_called"] for row in slides):
        return "no cell was counted"
    return None


def _of_patients(patients: Rows, slides: Rows, failed: Rows, calls: Calls) -> Rows:
    """Return the rows of patients with flags of their slides, and rows of those who have failures alone."""
    theirs: dict[tuple[str, str], Rows] = defaultdict(list)
    for row in slides:
        theirs[row["patient_id"], row["marker"]].append(row)
    failures = {(row["patient_id"], row["marker"]): row for row in failed}
    found = []
    for row in patients:
        key = row["patient_id"], row["marker"]
        counts = Counter(flag for slide in theirs[key] for flag in slide["flags"] if flag != "too_few_cells")
        flags = ["too_few_cells"] if row["too_few_cells"] and row["n_called"] else []
        flags += [_counted(flag, n, len(theirs[key])) for flag, n in sorted(counts.items())]
        lacking = sum(not slide["in_region"] for slide in theirs[key])
        if lacking and lacking < len(theirs[key]):
            flags.append(f"no_region ({lacking} of {len(theirs[key])} slides)")
        if failure := failures.pop(key, None):
            flags.append(
                f"failed: {failure['reasons']} (1 slide more)"
                if failure["n"] == 1
                else f"failed: {failure['reasons']} ({failure['n']} slides more)"
            )
        unknown = (
            None if row["index_percent"] is not None else why_unknown(theirs[key], calls) or "cannot be told"
        )
        found.append(row | {"flags": flags, "unknown": unknown})
    for (patient, marker), failure in failures.items():
        nothing = dict.fromkeys(
            ("n_called", "n_positive", "index_percent", "ci_lower_percent", "ci_upper_percent", "category")
        )
        of = {"patient_id": patient, "marker": marker, "n_slides": 0, "flags": []}
        found.append(of | nothing | {"unknown": f"failed: {failure['reasons']}"})
    return sorted(found, key=lambda row: (row["patient_id"], row["marker"]))


def _counted(flag: str, n: int, of: int) -> str:
    return flag if n == of else f"{flag} ({n} of {of} slides)"


def _markers(stream: Stream, patients: Rows) -> list[MarkerSummary]:
    flagged = Counter(row["marker"] for row in patients if row["flags"] and row["index_percent"] is not None)
    bins: dict[str, list[int]] = defaultdict(lambda: [0] * (100 // BIN_PERCENT))
    for row in stream.table(_ASK_BINS).to_pylist():
        bins[row["marker"]][row["bin"]] = row["n"]
    counts = {(row["marker"], row["category"]): row["n"] for row in stream.table(_ASK_CATEGORIES).to_pylist()}
    found = []
    for row in stream.table(_ASK_MARKERS).to_pylist():
        name = row.pop("marker")
        categories = [
            Category(c["category"], c["to_percent"], c["inclusive"], counts.get((name, c["category"]), 0))
            for c in row.pop("categories")
        ]
        found.append(
            MarkerSummary(name=name, n_flagged=flagged[name], bins=bins[name], categories=categories, **row)
        )
    return found
