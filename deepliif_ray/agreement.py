"""How indices agree: between a patient's slides, with those of other results, with a reader's."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.query import ask_all
from deepliif_ray.reader_table import LeftOut, Pairs, Rows, with_reader
from deepliif_ray.scoring.agreement import bland_altman, concordance, icc_a1
from deepliif_ray.scoring.kappa import Weights, categories, weighted_kappa
from deepliif_ray.scoring.markers import Registry, registry_with
from deepliif_ray.tables.cohort import read_markers

_NAMED = 10
_SLIDES = "SELECT slide_id, patient_id, marker, index_percent FROM slide_indices ORDER BY ALL"
_PATIENTS = "SELECT patient_id, marker, index_percent FROM patient_indices ORDER BY ALL"
DOUBTFUL = """
SELECT q.slide_id, list_contains(q.flags, 'same_content') AS is_copy, l.slide_id IS NOT NULL AS is_left
FROM slide_quality AS q LEFT JOIN leftovers AS l ON q.slide_id = l.slide_id
WHERE is_copy OR is_left ORDER BY ALL
"""
"""SQL of slides that agree, or do not, for reasons of their own."""
_FIGURES = (
    "icc", "icc_lower", "icc_upper", "ccc", "ccc_lower", "ccc_upper", "bias_percent", "bias_lower_percent",
    "bias_upper_percent", "limit_lower_percent", "limit_upper_percent", "kappa", "kappa_lower", "kappa_upper",
)  # fmt: skip
_SCHEMA = pa.schema(
    [("marker", pa.string()), ("n", pa.int64()), ("k", pa.int64()), *((f, pa.float64()) for f in _FIGURES)]
)


@dataclass(frozen=True)
class Agreement:
    """How indices agree, and of what that is not told.

    Attributes
    ----------
    table : pyarrow.Table
        One row a marker: ``n`` subjects of ``k`` indices each; ICC(A,1), Lin's concordance and weighted
        kappa, each with its 95 % interval; mean difference and limits of agreement in percentage points,
        first − second. Null where a figure cannot be told, or is one of pairs and k is not 2.
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
    cutoffs: Sequence[float] | None = None,
    weights: Weights = "linear",
) -> Agreement:
    """Tell how ``index_percent`` agrees, marker by marker, at the published thresholds.

    By default between slides of one patient: those of patients with exactly ``per_patient`` slides that have
    an index, in the order of slide_id. Slides have no first and second by nature, so between them a bias says
    little.

    Parameters
    ----------
    results : str
        URL of the results.
    other : str, optional
        URL of other results, of the same slides; slides are matched by slide_id and marker.
    reader : str, optional
        URL of a table with a column ``slide_id`` or ``patient_id``, a column ``index_percent`` (0–100), and
        ``marker`` where a patient has several.
    per_patient : int
        Slides that a patient must have to be compared; at least 2.
    marker : str, optional
        One marker only, by any of its names.
    cutoffs : sequence of float, optional
        Edges of categories for kappa, percent; an index that equals one is in the category above it. By
        default the ranges that the field names for the marker (``schemas/markers.yaml``), if it does.
    weights : {"linear", "quadratic"}
        Of kappa.

    Raises
    ------
    ConfigError
        Options contradict one another, the reader's file is no table, or it has rows that cannot be used,
        each of which is named.
    ResultsError, StorageError
        See `deepliif_ray.query.connect`.
    """
    _check_options(results, other, reader, per_patient, cutoffs, weights)
    registry = registry_with(read_markers(results), results)
    wanted = None if marker is None else registry.read(marker)[0].name
    answers = ask_all(results, {"slides": _SLIDES, "patients": _PATIENTS, "doubtful": DOUBTFUL})
    slides, patients = (_of_marker(answers[name].to_pylist(), wanted) for name in ("slides", "patients"))
    if not slides:
        raise ConfigError(f"{results}: no slides{f' of marker {wanted!r}' if wanted else ''} to compare")
    if other is not None:
        theirs = _of_marker(ask_all(other, {"": _SLIDES})[""].to_pylist(), wanted)
        pairs, left = _with_other(slides, theirs)
    elif reader is not None:
        pairs, left = with_reader(reader, slides, patients, registry, wanted)
    else:
        pairs, left = _of_patients(slides, per_patient)
    notes = [*_doubtful(answers["doubtful"].to_pylist(), slides), *_doubts(reader, pairs)]
    return _told(
        pairs, left, notes, {row["marker"] for row in slides}, registry, cutoffs, weights, per_patient
    )


def between_slides(
    slides: Rows, doubtful: Rows, registry: Registry, *, per_patient: int = 2, weights: Weights = "linear"
) -> Agreement:
    """Tell how indices of a patient's slides agree, as `agreement` does, of rows that were asked for already.

    Parameters
    ----------
    slides : list of dict
        ``slide_id``, ``patient_id``, ``marker``, ``index_percent``, at any cut-offs.
    doubtful : list of dict
        What `DOUBTFUL` gives.
    registry : Registry
        Names the ranges of each marker's index, for kappa.
    per_patient : int
    weights : {"linear", "quadratic"}
    """
    pairs, left = _of_patients(slides, per_patient)
    notes = _doubtful(doubtful, slides)
    return _told(pairs, left, notes, {row["marker"] for row in slides}, registry, None, weights, per_patient)


def _told(
    pairs: Pairs,
    left: list[LeftOut],
    notes: list[str],
    markers: set[str],
    registry: Registry,
    cutoffs: Sequence[float] | None,
    weights: Weights,
    per_patient: int,
) -> Agreement:
    rows, notes = [], list(notes)
    for name in sorted(markers | pairs.keys()):
        edges = _edges(registry, name) if cutoffs is None else [(edge, False) for edge in cutoffs]
        row, missing = _figures(pairs.get(name, {}), edges, weights, per_patient)
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


def _check_options(
    results: str,
    other: str | None,
    reader: str | None,
    per_patient: int,
    cutoffs: Sequence[float] | None,
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
    if cutoffs is None:
        return
    categories([], cutoffs)
    if not all(0 < edge < 100 for edge in cutoffs):
        raise ConfigError(f"cut-offs {list(cutoffs)}; percentages lie between 0 and 100")


def _edges(registry: Registry, marker: str) -> list[tuple[float, bool]]:
    """Return where the named ranges of a marker's index end, and whether they have the value there."""
    known = registry.markers.get(marker)
    ranges = known.scoring.categories if known else ()
    return [(each.to_percent, each.inclusive) for each in ranges if each.to_percent is not None]


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
    ours, theirs = (max(side) for side in zip(*found, strict=True))
    if theirs <= 1 and ours >= 5:
        return [f"warning: no value of {reader} is above 1; they were taken as percent. Are they shares?"]
    return []


def _figures(
    subjects: dict[str, tuple[float, ...]], edges: list[tuple[float, bool]], weights: Weights, k: int
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
        if not edges:
            raise ConfigError("no ranges of this marker's index have a name; give cut-offs")
        one, other = (categories(column, *zip(*edges, strict=True)) for column in values.T)
        found = weighted_kappa(one, other, len(edges) + 1, weights)
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
