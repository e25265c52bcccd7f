"""The registry of markers: names, aliases, where in the cell each stain lies; and a rule for others."""

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

from deepliif_ray import contracts
from deepliif_ray.errors import ConfigError

LOCALISATIONS = ("nuclear", "membranous", "cytoplasmic")
SCORES = ("index", "density", "h_score", "allred", "pattern", "tps")
MIN_CELLS = 100
"""Cells below which a number is flagged, of markers for which nobody says otherwise; our own choice."""
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "κ": "kappa", "λ": "lambda",
    "μ": "mu",
}  # fmt: skip
_IN_BRACKETS = re.compile(r"\s*[(\[{][^)\]}]*[)\]}]\s*$")
_LONGEST_NAME = 40
_PARTS = re.compile(r"[/+,&|;]|\band\b")


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


class Registry:
    """Markers by all their names.

    Upper and lower case, spaces, dashes and underscores make no difference.

    Parameters
    ----------
    markers : iterable of Marker
    stains : iterable of str
        Names of stains that show no marker.

    Raises
    ------
    ConfigError
        Two markers have a name or an alias in common.
    """

    def __init__(self, markers: Iterable[Marker], stains: Iterable[str] = ()) -> None:
        self.markers = {marker.name: marker for marker in markers}
        self._stains = {_key(stain) for stain in stains}
        self._by_key: dict[str, Marker] = {}
        for marker in self.markers.values():
            for name in (marker.name, *marker.aliases):
                other = self._by_key.setdefault(_key(name), marker)
                if other is not marker:
                    raise ConfigError(f"{name!r} names both {other.name} and {marker.name}; leave out one")

    def find(self, text: str) -> Marker | None:
        """Return the marker that ``text`` names, by its name or an alias; None if none does."""
        return self._by_key.get(_key(text))

    def read(self, text: str) -> tuple[Marker, str | None]:
        """Return the marker that a person wrote as ``text``, and what to tell about it.

        One that is not in the registry gets a name by rule: Greek letters spelled, other characters than
        ASCII letters and digits left out, in capitals; so all spellings of one marker have one name.

        Raises
        ------
        ConfigError
            ``text`` names a stain that shows no marker, or holds no letter or digit.
        """
        known = self.find(text)
        if known is not None:
            return known, None
        if _key(text) in self._stains:
            raise ConfigError(
                f"{_shorten(text)} shows no marker, so an index of it would mean nothing; remove the row"
            )
        for shorter in (_IN_BRACKETS.sub("", text), text.rstrip("+ ")):
            if shorter != text and (marker := self.find(shorter)) is not None:
                return marker, f"marker {_shorten(text)} is read as {marker.name}"
        name = _generic_name(text)
        if (marker := self.find(name)) is not None:
            return marker, f"marker {_shorten(text)} is read as {marker.name}"
        parts = {marker.name for part in _PARTS.split(text) if (marker := self.find(part)) is not None}
        if len(parts) > 1:
            told = f"names several markers ({', '.join(sorted(parts))}), which one stain does not tell apart"
        else:
            told = "is not in the registry"
        hint = self._hint(text)
        return Marker(name), (
            f"marker {_shorten(text)} {told}; it is scored as {name} by the generic rule: every nucleus is "
            f"called as a whole, wherever the stain lies{f'; {hint}' if hint else ''}"
        )

    def resolve(self, text: str) -> Marker:
        """Return the marker that ``text`` names, by its name or an alias.

        Raises
        ------
        ConfigError
            No marker has this name; the message suggests the closest ones.
        """
        marker = self.find(text)
        if marker is None:
            hint = self._hint(text) or f"known markers: {', '.join(list(self.markers)[:20])}, …"
            raise ConfigError(f"unknown marker {_shorten(text)}; {hint}")
        return marker

    def _hint(self, text: str) -> str:
        matches = difflib.get_close_matches(_key(text)[:100], self._by_key, n=3)
        close = dict.fromkeys(self._by_key[match].name for match in matches)
        return f"did you mean {' or '.join(close)}?" if close else ""

    def document(self) -> dict[str, Any]:
        """Return the markers as `parse_markers` reads them."""
        return {
            "markers": [
                {
                    "name": marker.name,
                    "aliases": list(marker.aliases),
                    "localisation": list(marker.localisation),
                    "note": marker.note,
                    "caution": marker.caution,
                    "scoring": asdict(marker.scoring),
                }
                for marker in self.markers.values()
            ]
        }

    def extended(self, own: Iterable[Marker]) -> "Registry":
        """Return a registry with the markers of a cohort's own file, which replace those of the same name.

        Raises
        ------
        ConfigError
            A name or an alias is that of another marker.
        """
        replaced = {marker.name: marker for marker in own}
        folded = {_key(name) for name in replaced}
        kept = [marker for marker in self.markers.values() if _key(marker.name) not in folded]
        registry = Registry([*replaced.values(), *kept])
        registry._stains = self._stains
        return registry


@cache
def builtin() -> Registry:
    """Return the registry of ``schemas/markers.yaml``."""
    contract = contracts.load("markers")
    return Registry(parse_markers(contract, "markers.yaml"), contract["stains"])


def registry_with(kept: Any | None, source: str) -> Registry:
    """Return the built-in registry, with the markers ``kept`` with results; raises as `parse_markers`.

    Parameters
    ----------
    kept : object, optional
        What YAML or JSON made of a file of the form of ``schemas/markers.yaml``; None if there is none.
    source : str
        Names it in messages.
    """
    return builtin() if kept is None else builtin().extended(parse_markers(kept, source))


def intensity() -> dict[str, Any]:
    """Return the default optical densities of DAB from which a nucleus is 1+, 2+, 3+, and their source."""
    return dict(contracts.load("markers")["intensity"])


def markers() -> dict[str, Marker]:
    """Return the known markers by canonical name, in the order of the registry."""
    return builtin().markers


def resolve_marker(text: str) -> Marker:
    """Return the marker of the built-in registry that ``text`` names; raises as `Registry.resolve`."""
    return builtin().resolve(text)


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
    if not (isinstance(name, str) and name.isascii() and name.isalnum() and len(name) <= _LONGEST_NAME):
        wrong.append(
            f"{label}: a name has up to {_LONGEST_NAME} ASCII letters and digits, and no other characters"
        )
    aliases, places = entry.get("aliases") or [], entry.get("localisation") or []
    if not (isinstance(aliases, list) and all(isinstance(a, str) and _key(a) for a in aliases)):
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


def _key(text: str) -> str:
    """Reduce a name to what tells markers apart: no case, spaces, dashes of any kind or underscores."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(
        c for c in folded if not (c.isspace() or c == "_" or unicodedata.category(c) in ("Pd", "Cf", "Cc"))
    )


def _generic_name(text: str) -> str:
    spelled = "".join(_GREEK.get(c, c) for c in _key(text))
    plain = "".join(c for c in unicodedata.normalize("NFKD", spelled) if c.isascii() and c.isalnum()).upper()
    dropped = any(c.isalnum() and not unicodedata.normalize("NFKD", c)[0].isascii() for c in spelled)
    if not any(c.isalnum() for c in spelled):
        raise ConfigError(f"marker {_shorten(text)} holds no letter or digit; give the marker's name")
    if dropped or len(plain) > _LONGEST_NAME:  # else two markers could get one name
        digest = hashlib.sha256(spelled.encode()).hexdigest()[:8].upper()
        plain = f"{plain[: _LONGEST_NAME - 9]}X{digest}"
    return plain


def _shorten(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")
