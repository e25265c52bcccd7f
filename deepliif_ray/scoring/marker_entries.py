"""Entries of ``schemas/markers.yaml`` and of files of its form: what they hold, what is wrong with one."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from deepliif_ray.errors import ConfigError

LOCALISATIONS = ("nuclear", "membranous", "cytoplasmic")
SCORES = ("index", "density", "h_score", "allred", "pattern", "tps")
MIN_CELLS = 100
"""Cells below which a number is flagged, of markers for which nobody says otherwise; our own choice."""
LONGEST_NAME = 40


@dataclass(frozen=True)
class Category:
    """A range of the index that has a name.

    Attributes
    ----------
    name : str
    to_percent : float or None
        Where it ends; None for the last.
    inclusive : bool
        Whether ``to_percent`` itself belongs to it.
    """

    name: str
    to_percent: float | None = None
    inclusive: bool = False


@dataclass(frozen=True)
class Scoring:
    """How the field reads a marker.

    Attributes
    ----------
    score : str
        What is usually reported, one of `SCORES`.
    min_cells : int
        Fewer counted cells than this are flagged.
    positive_from_percent : float or None
        From this index on a slide counts as positive; None where nobody says.
    categories : tuple of Category
        Ranges of the index, upwards; empty where none are agreed on.
    source : str
        Paper or guideline.
    """

    score: str = "index"
    min_cells: int = MIN_CELLS
    positive_from_percent: float | None = None
    categories: tuple[Category, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Marker:
    """One marker of ``schemas/markers.yaml``, of a file of the same form, or one that neither has.

    Attributes
    ----------
    name : str
        Canonical name; ASCII letters and digits only, so that it can be part of a path.
    aliases : tuple of str
        Other names in use.
    localisation : tuple of str
        Where a genuine stain lies: ``nuclear``, ``membranous``, ``cytoplasmic``; empty where nobody said.
    note : str
        What the number is commonly used for.
    caution : str or None
        Where published DeepLIIF should be trusted less.
    scoring : Scoring
        How the field reads it.
    """

    name: str
    aliases: tuple[str, ...] = ()
    localisation: tuple[str, ...] = ()
    note: str = ""
    caution: str | None = None
    scoring: Scoring = Scoring()

    @property
    def brief(self) -> str:
        """The caution in a few words, for tables."""
        if not self.localisation:
            return "marker not in the registry"
        if "nuclear" in self.localisation:
            return "all nuclei count, not tumour alone"
        return f"{'/'.join(self.localisation)} stain, called on nuclei"


def parse_markers(document: Any, source: str) -> list[Marker]:
    """Return the markers of a parsed file of the form of ``schemas/markers.yaml``.

    Parameters
    ----------
    document : object
        What YAML or JSON made of it.
    source : str
        Names the file in messages.

    Raises
    ------
    ConfigError
        It has another form; the message lists every problem.
    """
    listed = document.get("markers") if isinstance(document, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{source}: expected a list 'markers' of entries with name and localisation")
    problems: list[str] = []
    found = [marker for n, entry in enumerate(listed, start=1) if (marker := _entry(n, entry, problems))]
    names = [marker.name.casefold() for marker in found]
    problems += [f"marker {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if problems:
        listed_problems = "\n".join(f"  - {problem}" for problem in problems[:50])
        raise ConfigError(f"{source}: these markers cannot be used:\n{listed_problems}")
    return found


def _entry(number: int, entry: Any, problems: list[str]) -> Marker | None:
    if not isinstance(entry, Mapping):
        problems.append(f"entry {number} is no mapping of name, aliases, localisation")
        return None
    label = f"entry {number} ({str(entry.get('name'))[:40]!r})"
    wrong = [
        f"{label}: unknown key {str(key)[:40]!r}" for key in entry if key not in Marker.__dataclass_fields__
    ]
    name = entry.get("name")
    if not (isinstance(name, str) and name.isascii() and name.isalnum() and len(name) <= LONGEST_NAME):
        wrong.append(
            f"{label}: a name has up to {LONGEST_NAME} ASCII letters and digits, and no other characters"
        )
    aliases, places = entry.get("aliases") or [], entry.get("localisation") or []
    if not (isinstance(aliases, list) and all(isinstance(a, str) and key_of(a) for a in aliases)):
        wrong.append(f"{label}: aliases is a list of texts (write numbers in quotes)")
    if not (isinstance(places, list) and places and all(place in LOCALISATIONS for place in places)):
        wrong.append(f"{label}: localisation is a list of {', '.join(LOCALISATIONS)}")
    for key in ("note", "caution"):
        if not isinstance(entry.get(key) or "", str):
            wrong.append(f"{label}: {key} is a text")
    scoring = _scoring(label, entry.get("scoring"), wrong)
    problems += wrong
    if wrong:
        return None
    return Marker(
        str(name), tuple(aliases), tuple(places), entry.get("note") or "", entry.get("caution"), scoring
    )


def _scoring(label: str, given: Any, wrong: list[str]) -> Scoring:
    """Return how a marker is read, and add what is wrong with it to ``wrong``."""
    if given is None:
        return Scoring()
    if not isinstance(given, Mapping):
        wrong.append(f"{label}: scoring is a mapping of {', '.join(f.name for f in fields(Scoring))}")
        return Scoring()
    found = [f"unknown key {str(key)[:40]!r}" for key in given if key not in Scoring.__dataclass_fields__]
    score, least = given.get("score") or "index", given.get("min_cells", MIN_CELLS)
    positive, source = given.get("positive_from_percent"), given.get("source") or ""
    if score not in SCORES:
        found.append(f"score is one of {', '.join(SCORES)}")
    if isinstance(least, bool) or not isinstance(least, int) or least < 0:
        found.append("min_cells is a whole number from 0 on")
    if positive is not None and not _is_percent(positive):
        found.append("positive_from_percent is a number from 0 to 100")
    if not isinstance(source, str):
        found.append("source is a text")
    categories = _categories(given.get("categories") or [], found)
    wrong += [f"{label}: scoring: {problem}" for problem in found]
    return Scoring() if found else Scoring(score, least, positive, categories, source)


def _categories(given: Any, found: list[str]) -> tuple[Category, ...]:
    """Return ranges of the index, and add what is wrong with them to ``found``."""
    known = Category.__dataclass_fields__
    if not isinstance(given, list | tuple) or not all(
        isinstance(entry, Mapping)
        and set(entry) <= set(known)
        and isinstance(entry.get("name"), str)
        and entry["name"]
        and isinstance(entry.get("inclusive", False), bool)
        for entry in given
    ):
        found.append(f"categories is a list of {', '.join(known)}")
        return ()
    ends = [entry.get("to_percent") for entry in given]
    rising = all(_is_percent(end) for end in ends[:-1]) and sorted(set(ends[:-1])) == ends[:-1]
    if ends and not (rising and ends[-1] is None):
        found.append("categories rise: each has a to_percent above the one before, and the last has none")
        return ()
    return tuple(
        Category(entry["name"], entry.get("to_percent"), entry.get("inclusive", False)) for entry in given
    )


def _is_percent(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100


def key_of(text: str) -> str:
    """Reduce a name to what tells markers apart: no case, spaces, dashes of any kind or underscores."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(
        c for c in folded if not (c.isspace() or c == "_" or unicodedata.category(c) in ("Pd", "Cf", "Cc"))
    )
