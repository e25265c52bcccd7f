"""How indices agree: between a patient's slides, with those of other results, with a reader's."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, ManifestError
from deepliif_ray.manifest import Record, read_rows
from deepliif_ray.manifest.values import is_nothing
from deepliif_ray.query import ask_all
from deepliif_ray.scoring.agreement import (
    Weights,
    bland_altman,
    categories,
    concordance,
    icc_a1,
    weighted_kappa,
)
from deepliif_ray.scoring.markers import Registry, registry_with
from deepliif_ray.tables.cohort import read_markers

IKWG_CUTOFFS = (5.0, 30.0)
"""Percent; of Ki67 in breast cancer (Nielsen and others 2021). Where a marker has others, give those."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NAMED = 10
_SLIDES = "SELECT slide_id, patient_id, marker, index_percent FROM slide_indices ORDER BY ALL"
_PATIENTS = "SELECT patient_id, marker, index_percent FROM patient_indices ORDER BY ALL"
_DOUBTFUL = """
SELECT q.slide_id, list_contains(q.flags, 'same_content') AS is_copy, l.slide_id IS NOT NULL AS is_left
FROM slide_quality AS q LEFT JOIN leftovers AS l ON q.slide_id = l.slide_id
WHERE is_copy OR is_left ORDER BY ALL
"""
_FIGURES = (
    "icc", "icc_lower", "icc_upper", "ccc", "ccc_lower", "ccc_upper", "bias_percent", "bias_lower_percent",
    "bias_upper_percent", "limit_lower_percent", "limit_upper_percent", "kappa", "kappa_lower", "kappa_upper",
)  # fmt: skip
_SCHEMA = pa.schema(
    [("marker", pa.string()), ("n", pa.int64()), ("k", pa.int64()), *((f, pa.float64()) for f in _FIGURES)]
)


@dataclass(frozen=True)
class LeftOut:
    """What is not compared.

    Attributes
    ----------
    marker : str or None
        None where it is not known.
    name : str
        Slide or patient.
    why : str
    """

    marker: str | None
    name: str
    why: str


@dataclass(frozen=True)
class Agreement:
    """How indices agree, and of what that is not told.

    Attributes
    ----------
    table : pyarrow.Table
        One row a marker: ``n`` subjects of ``k`` indices each; ICC(A,1), Lin's concordance and weighted kappa, each
        with its 95 % interval; mean difference and limits of agreement in percentage points, first − second. Null
        where a figure cannot be told, or is one of pairs and k is not 2.
    pairs : pyarrow.Table
        What was compared: ``marker``, ``name`` of the slide or patient, ``indices_percent``.
    left_out : list of LeftOut
    notes : list of str
        Why figures are null, and what is doubtful.
    """

    table: pa.Table
    pairs: pa.Table
    left_out: list[LeftOut]
    notes: list[str]

    def lines(self) -> list[str]:
        """Return what was left out, by reason, and the notes, each a line."""
        groups: dict[tuple[str | None, str], list[str]] = defaultdict(list)
        for left in self.left_out:
            groups[left.marker, left.why].append(left.name)
        found = []
        for (marker, why), names in groups.items():
            what = f"{marker}: " if marker else ""
            found.append(f"{what}{len(names):,} left out, {why}: {_some(names)}")
        return found + self.notes


def agreement(
    results: str,
    *,
    other: str | None = None,
    reader: str | None = None,
    per_patient: int = 2,
    marker: str | None = None,
    cutoffs: Sequence[float] = IKWG_CUTOFFS,
    weights: Weights = "linear",
) -> Agreement:
    """Tell how ``index_percent`` agrees, marker by marker, at the published thresholds.

    By default between slides of one patient: those of patients with exactly ``per_patient`` slides that have an index,
    in the order of slide_id. Slides have no first and second by nature, so between them a bias says little.

    Parameters
    ----------
    results : str
        URL of the results.
    other : str, optional
        URL of other results, of the same slides; slides are matched by slide_id and marker.
    reader : str, optional
        URL of a table with a column ``slide_id`` or ``patient_id``, a column ``index_percent`` (0–100), and ``marker``
        where a patient has several.
    per_patient : int
        Slides that a patient must have to be compared; at least 2.
    marker : str, optional
        One marker only, by any of its names.
    cutoffs : sequence of float
        Edges of categories for kappa, percent; an index that equals one is in the category above it.
    weights : {"linear", "quadratic"}
        Of kappa.

    Raises
    ------
    ConfigError
        Options contradict one another, the reader's file is no table, or it has rows that cannot be used, each of
        which is named.
    ResultsError, StorageError
        See `deepliif_ray.query.connect`.
    """
    _check_options(results, other, reader, per_patient, cutoffs, weights)
    registry = registry_with(read_markers(results), results)
    wanted = None if marker is None else registry.read(marker)[0].name
    answers = ask_all(results, {"slides": _SLIDES, "patients": _PATIENTS, "doubtful": _DOUBTFUL})
    slides, patients = (_of_marker(answers[name].to_pylist(), wanted) for name in ("slides", "patients"))
    if not slides:
        raise ConfigError(f"{results}: no slides{f' of marker {wanted!r}' if wanted else ''} to compare")
    if other is not None:
        theirs = _of_marker(ask_all(other, {"": _SLIDES})[""].to_pylist(), wanted)
        pairs, left = _with_other(slides, theirs)
    elif reader is not None:
        pairs, left = _with_reader(reader, slides, patients, registry, wanted)
    else:
        pairs, left = _of_patients(slides, per_patient)
    rows, notes = [], [*_doubtful(answers["doubtful"].to_pylist(), slides), *_doubts(reader, pairs)]
    for name in sorted({row["marker"] for row in slides} | pairs.keys()):
        row, missing = _figures(pairs.get(name, {}), cutoffs, weights, per_patient)
        rows.append({"marker": name, **row})
        notes += [f"{name}: {text}" for text in missing]
    compared = [
        {"marker": name, "name": subject, "indices_percent": list(values)}
        for name, subjects in sorted(pairs.items())
        for subject, values in subjects.items()
    ]
    schema = pa.schema(
        [("marker", pa.string()), ("name", pa.string()), ("indices_percent", pa.list_(pa.float64()))]
    )
    return Agreement(pa.Table.from_pylist(rows, _SCHEMA), pa.Table.from_pylist(compared, schema), left, notes)


Pairs = dict[str, dict[str, tuple[float, ...]]]
"""Indices of each subject, by marker and name."""
Rows = list[dict[str, Any]]


def _check_options(
    results: str,
    other: str | None,
    reader: str | None,
    per_patient: int,
    cutoffs: Sequence[float],
    weights: str,
) -> None:
    if other is not None and reader is not None:
        raise ConfigError("compare with other results or with a reader, one at a time")
    if per_patient < 2:
        raise ConfigError(f"{per_patient} slides a patient agree with nothing; give 2 or more")
    if per_patient != 2 and (other or reader):
        raise ConfigError("the number of slides a patient is about comparing slides of one patient alone")
    if other is not None and storage.absolute(other) == storage.absolute(results):
        raise ConfigError(f"{other}: these are the same results, which agree with themselves")
    if weights not in ("linear", "quadratic"):
        raise ConfigError(f"weights {weights!r}; give linear or quadratic")
    categories([], cutoffs)
    if not all(0 < edge < 100 for edge in cutoffs):
        raise ConfigError(f"cut-offs {list(cutoffs)}; percentages lie between 0 and 100")


def _of_marker(rows: Rows, wanted: str | None) -> Rows:
    return [row for row in rows if wanted in (None, row["marker"])]


def _of_patients(slides: Rows, per_patient: int) -> tuple[Pairs, list[LeftOut]]:
    groups: dict[tuple[str, str], Rows] = defaultdict(list)
    for row in slides:
        groups[row["marker"], row["patient_id"]].append(row)
    pairs: Pairs = defaultdict(dict)
    left = []
    for (marker, patient), rows in groups.items():
        told = sorted(
            (row for row in rows if row["index_percent"] is not None), key=lambda row: row["slide_id"]
        )
        left += [
            LeftOut(marker, row["slide_id"], "a slide without an index")
            for row in rows
            if row["index_percent"] is None
        ]
        if len(told) == per_patient:
            pairs[marker][patient] = tuple(row["index_percent"] for row in told)
        else:
            count = f"{len(told)} slide{'s' * (len(told) != 1)} with an index"
            left.append(LeftOut(marker, patient, f"a patient with {count} where {per_patient} are compared"))
    return pairs, left


def _with_other(slides: Rows, others: Rows) -> tuple[Pairs, list[LeftOut]]:
    theirs = {row["slide_id"]: row for row in others}
    ours = {row["slide_id"] for row in slides}
    pairs: Pairs = defaultdict(dict)
    left = [
        LeftOut(row["marker"], row["slide_id"], "a slide of the other results alone")
        for row in others
        if row["slide_id"] not in ours
    ]
    for row in slides:
        match = theirs.get(row["slide_id"])
        if match is None:
            why = "a slide of these results alone"
        elif match["marker"] != row["marker"]:
            why = f"a slide of marker {match['marker']} in the other results"
        elif row["index_percent"] is None or match["index_percent"] is None:
            why = "a slide without an index in these or the other results"
        else:
            pairs[row["marker"]][row["slide_id"]] = (row["index_percent"], match["index_percent"])
            continue
        left.append(LeftOut(row["marker"], row["slide_id"], why))
    return pairs, left


def _with_reader(
    url: str, slides: Rows, patients: Rows, registry: Registry, wanted: str | None
) -> tuple[Pairs, list[LeftOut]]:
    try:
        columns, numbered = read_rows(url)
    except ManifestError as error:
        raise ConfigError(
            f"{url}: cannot be read as a reader's table: {'; '.join(error.problems)}"
        ) from error
    by = _reader_key(url, columns)
    known: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in slides if by == "slide_id" else patients:
        known[row[by]].append(row)
    problems: list[str] = []
    pairs: Pairs = defaultdict(dict)
    left: list[LeftOut] = []
    seen: dict[tuple[str, str], int] = {}
    for number, record in numbered:
        name = record.get(by, "").strip()
        try:
            value = _reader_value(record, by)
            marker = _reader_marker(record, registry)
            if wanted is not None and marker not in (None, wanted):
                continue
            row = _named(known[name], name, by, marker) if name in known else None
            _check_patient(record, row, by)
        except ConfigError as error:
            problems.append(f"row {number}: {error}")
            continue
        key = (name, row["marker"] if row else marker or "")
        if key in seen:
            problems.append(f"row {number}: {name!r} was read in row {seen[key]} already; keep one")
            continue
        seen[key] = number
        if row is None:
            why = f"a {by.removesuffix('_id')} of the reader that these results do not have"
            left.append(LeftOut(marker, name, why))
        elif value is None:
            left.append(LeftOut(row["marker"], name, "the reader gives no value"))
        elif row["index_percent"] is None:
            left.append(LeftOut(row["marker"], name, "no index in these results"))
        else:
            pairs[row["marker"]][name] = (row["index_percent"], value)
    if problems:
        more = [f"and {len(problems) - 50} more"] if len(problems) > 50 else []
        lines = "\n".join(f"  - {problem}" for problem in [*problems[:50], *more])
        raise ConfigError(f"{url}: {len(problems)} problems in the reader's table:\n{lines}")
    if not pairs:
        raise ConfigError(
            f"{url}: none of its {len(numbered)} rows names a {by.removesuffix('_id')} with an index in these "
            f"results; give {by} exactly as the manifest has it"
        )
    left += [
        LeftOut(row["marker"], name, "not in the reader's table")
        for name, rows in known.items()
        for row in rows
        if (name, row["marker"]) not in seen
    ]
    return pairs, left


def _reader_key(url: str, columns: list[str]) -> str:
    """Return the column that says what was read."""
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise ConfigError(f"{url}: column {twice[0]!r} is there more than once; keep one")
    by = next((name for name in ("slide_id", "patient_id") if name in columns), None)
    missing = [] if by else ["slide_id or patient_id"]
    missing += [] if "index_percent" in columns else ["index_percent"]
    if missing or by is None:
        raise ConfigError(
            f"{url}: no column {' and no column '.join(missing)}; its columns are {', '.join(columns) or 'none'}. "
            "A reader's table has slide_id or patient_id, index_percent (0 to 100), and marker where a patient has "
            "several"
        )
    return by


def _reader_value(record: Record, by: str) -> float | None:
    if is_nothing(record.get(by, ""), by):
        raise ConfigError(f"{by} is {record.get(by, '')!r}; name what was read")
    text = record.get("index_percent", "").strip()
    if is_nothing(text):
        return None
    if _NUMBER.fullmatch(text) is None:
        raise ConfigError(
            f"index_percent {text!r} is no number; write percent as 12.5, with a point and no sign"
        )
    value = float(text)
    if not 0 <= value <= 100:
        raise ConfigError(f"index_percent {text} is no percentage; it lies between 0 and 100")
    return value


def _reader_marker(record: Record, registry: Registry) -> str | None:
    text = record.get("marker", "").strip()
    return None if is_nothing(text, "marker") else registry.read(text)[0].name


def _named(rows: Rows, name: str, by: str, marker: str | None) -> dict[str, Any]:
    """Return the row of the results that is meant."""
    there = ", ".join(sorted(row["marker"] for row in rows))
    if marker is None and len(rows) > 1:
        raise ConfigError(f"patient {name!r} has slides of {there}; say which in a column 'marker'")
    found = [row for row in rows if marker in (None, row["marker"])]
    if not found:
        raise ConfigError(f"{by} {name!r} is of {there} in these results, not of {marker}")
    return found[0]


def _check_patient(record: Record, row: dict[str, Any] | None, by: str) -> None:
    said = record.get("patient_id", "").strip()
    if by == "slide_id" and row is not None and said and said != row["patient_id"]:
        raise ConfigError(
            f"slide {row['slide_id']!r} is of patient {row['patient_id']!r} in these results, not of {said!r}"
        )


def _doubtful(doubtful: Rows, slides: Rows) -> list[str]:
    """Say which slides may agree, or not, for reasons of their own."""
    ours = {row["slide_id"] for row in slides}
    found = []
    for kind, what in (
        ("is_copy", "have the same content as another slide of these results, and agree with it by that"),
        ("is_left", "are not in the newest manifest"),
    ):
        names = [row["slide_id"] for row in doubtful if row[kind] and row["slide_id"] in ours]
        if names:
            found.append(f"warning: {_some(names)} {what}")
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _doubts(reader: str | None, pairs: Pairs) -> list[str]:
    """Say where a reader's values look like shares, which would agree with nothing."""
    if reader is None:
        return []
    found = [values for subjects in pairs.values() for values in subjects.values()]
    most, ours = max(value for _, value in found), max(value for value, _ in found)
    if most <= 1 < 5 <= ours:
        return [f"warning: no value of {reader} is above 1; they were taken as percent. Are they shares?"]
    return []


def _figures(
    subjects: dict[str, tuple[float, ...]], cutoffs: Sequence[float], weights: Weights, k: int
) -> tuple[dict[str, float | int], list[str]]:
    """Return the figures of one marker, and why others are missing."""
    n = len(subjects)
    row: dict[str, float | int] = {"n": n, "k": k}
    if n == 0:
        return row, ["nothing to compare"]
    values = np.array(list(subjects.values()))
    missing: dict[str, list[str]] = defaultdict(list)

    def tell(name: str, compute: Callable[[], dict[str, float]]) -> None:
        try:
            row.update(compute())
        except ConfigError as error:
            missing[str(error)].append(name)

    def icc() -> dict[str, float]:
        found = icc_a1(values)
        return {"icc": found.icc, "icc_lower": found.lower, "icc_upper": found.upper}

    def ccc() -> dict[str, float]:
        found = concordance(*values.T)
        return {"ccc": found.ccc, "ccc_lower": found.lower, "ccc_upper": found.upper}

    def bias() -> dict[str, float]:
        found = bland_altman(*values.T)
        ends = (found.bias, found.bias_lower, found.bias_upper, found.limit_lower, found.limit_upper)
        return dict(zip(_FIGURES[6:11], ends, strict=True))

    def kappa() -> dict[str, float]:
        both = (categories(column, cutoffs) for column in values.T)
        found = weighted_kappa(*both, len(cutoffs) + 1, weights)
        ends = {} if isnan(found.lower) else {"kappa_lower": found.lower, "kappa_upper": found.upper}
        return {"kappa": found.kappa} | ends

    tell("ICC", icc)
    if k == 2:
        tell("concordance", ccc)
        tell("limits of agreement", bias)
        tell("kappa", kappa)
    return row, [f"no {_listed(names)}: {why}" for why, names in missing.items()]


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
