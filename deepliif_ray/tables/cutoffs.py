"""Sets of cut-offs that are kept beside results, each with a name that answers show.

One object a set, ``_cutoffs/<name>.json``: who made it, when, how, from which control slides, and its rows. A
row holds values for a marker, or for all, and for one value of an attribute such as the site, or for all.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, ResultsError

FOLDER = "_cutoffs"
VALUES = (
    "size_thresh", "size_thresh_upper", "marker_thresh", "od_thresh_lower", "od_thresh_upper", "weak",
    "moderate", "strong",
)  # fmt: skip
"""Names of the values of a row; ``docs/scores.md`` says what they do."""
BUILTIN = "QuPath"
"""Name of the set that holds where none is asked for."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_WHERE = ("marker", "attribute", "value")


def check_name(name: str) -> None:
    """Refuse what cannot name a set; raises ConfigError."""
    if not _NAME.fullmatch(name) or name.casefold() == BUILTIN.casefold():
        raise ConfigError(
            f"{name!r} cannot name a set of cut-offs: take up to 60 letters, digits, dots, dashes and "
            f"underscores, and not {BUILTIN}, which is the set that holds without one"
        )


def write_cutoffs(
    results: str,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    author: str,
    note: str,
    controls: Sequence[str] = (),
    overwrite: bool = False,
) -> str:
    """Keep a set of cut-offs with results, and return its URL.

    Parameters
    ----------
    results : str
        URL of the results.
    name : str
        By which ``cutoffs := 'name'`` asks for it.
    rows : sequence of mapping
        Each with some of `VALUES`, and ``marker``, ``attribute`` and ``value`` where it is not for all.
    author, note : str
        Who made it, and how.
    controls : sequence of str
        Slides that it was made from.
    overwrite : bool
        Replace a set of this name: answers that named it do not hold any more.

    Raises
    ------
    ConfigError
        The name cannot be one or is taken, or a row makes no sense.
    StorageError
        The store does not answer.
    """
    check_name(name)
    problems = [f"row {n}: {problem}" for n, row in enumerate(rows, 1) if (problem := _problem(row))]
    if problems or not rows:
        raise ConfigError(f"cut-offs {name!r}: {'; '.join(problems) or 'there are no rows'}")
    document = {
        "name": name,
        "author": author,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "note": note,
        "controls": list(controls),
        "rows": [dict(row) for row in rows],
    }
    url = storage.join(results, FOLDER, f"{name}.json")
    content = json.dumps(document, ensure_ascii=False, indent=1).encode()
    if overwrite:
        storage.write_bytes(url, content)
    elif not storage.create_bytes(url, content):
        raise ConfigError(f"{url}: there is a set of this name; choose another, or say to overwrite it")
    return url


def read_cutoffs(results: str) -> list[dict[str, Any]]:
    """Return the rows of all sets that are kept with results, each with ``name``, ``author`` and ``note``.

    Raises
    ------
    ResultsError
        One cannot be read: an answer must not name cut-offs that it did not use.
    StorageError
        The store does not answer.
    """
    rows: list[dict[str, Any]] = []
    for url in storage.list_files(storage.join(results, FOLDER), ".json"):
        try:
            document = json.loads(storage.read_bytes(url))
            name, found = str(document["name"]), document["rows"]
            check_name(name)
            for row in found:
                if problem := _problem(row):
                    raise ValueError(problem)
                about = {key: document.get(key) for key in ("author", "note", "made_at")}
                rows.append({"name": name, **about, **row})
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise ResultsError(f"{url}: damaged cut-offs ({error}); mend or remove it") from error
    return rows


def _problem(row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a row of cut-offs."""
    unknown = set(row) - {*VALUES, *_WHERE}
    if unknown:
        return f"unknown {', '.join(sorted(map(str, unknown)))}; known are {', '.join((*_WHERE, *VALUES))}"
    if (row.get("attribute") is None) != (row.get("value") is None):
        return "attribute and value come together"
    given = {key: row[key] for key in VALUES if row.get(key) is not None}
    for key, value in given.items():
        if key == "marker_thresh" and value == "default":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            return f"{key} is a number, not {value!r}"
    strengths = [given[key] for key in ("weak", "moderate", "strong") if key in given]
    if len(strengths) not in (0, 3) or sorted(strengths) != strengths:
        return "weak, moderate and strong come together and rise"
    for low, high in (("size_thresh", "size_thresh_upper"), ("od_thresh_lower", "od_thresh_upper")):
        if low in given and high in given and not given[low] < given[high]:
            return f"{low} is below {high}"
    if min(given.get("size_thresh", 0), given.get("size_thresh_upper", 0)) < 0:
        return "sizes of cells are not negative"
    return None if given else "no value is given"
