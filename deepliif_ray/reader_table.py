"""A reader's indices: the table, row by row, beside those of results."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from deepliif_ray.errors import ConfigError, ManifestError
from deepliif_ray.manifest import Record, read_rows
from deepliif_ray.manifest.values import is_nothing
from deepliif_ray.scoring.markers import Registry

Pairs = dict[str, dict[str, tuple[float, ...]]]
"""Indices of each subject, by marker and name."""
Rows = list[dict[str, Any]]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LISTED = 50


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


def with_reader(
    url: str, slides: Rows, patients: Rows, registry: Registry, wanted: str | None = None
) -> tuple[Pairs, list[LeftOut]]:
    """Return indices of these results beside a reader's, and what cannot be compared.

    Parameters
    ----------
    url : str
        Table with ``slide_id`` or ``patient_id``, ``index_percent``, and ``marker`` where a patient has
        several.
    slides, patients : list of dict
        Rows of ``slide_indices`` and ``patient_indices``.
    registry : Registry
        Tells which marker the reader means.
    wanted : str, optional
        One marker only.

    Raises
    ------
    ConfigError
        The file is no such table, or has rows that cannot be used, each of which is named; or none of them
        names a slide or patient of the results.
    """
    try:
        columns, numbered = read_rows(url)
    except ManifestError as error:
        raise ConfigError(
            f"{url}: cannot be read as a reader's table: {'; '.join(error.problems)}"
        ) from error
    by = _reader_key(url, columns)
    known: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for ours in slides if by == "slide_id" else patients:
        known[ours[by]].append(ours)
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
            row: dict[str, Any] | None = _named(known[name], name, by, marker) if name in known else None
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
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        lines = "\n".join(f"  - {problem}" for problem in [*problems[:_LISTED], *more])
        raise ConfigError(f"{url}: {len(problems)} problems in the reader's table:\n{lines}")
    if not pairs:
        raise ConfigError(
            f"{url}: none of its {len(numbered)} rows names a {by.removesuffix('_id')} with an index in "
            f"these results; give {by} exactly as the manifest has it"
        )
    left += [
        LeftOut(ours["marker"], name, "not in the reader's table")
        for name, rows in known.items()
        for ours in rows
        if (name, ours["marker"]) not in seen
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
            f"{url}: no column {' and no column '.join(missing)}; its columns are "
            f"{', '.join(columns) or 'none'}. A reader's table has slide_id or patient_id, index_percent "
            "(0 to 100), and marker where a patient has several"
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
            f"index_percent {text!r} is no number; write percent as 12.5, with a point and no %"
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
