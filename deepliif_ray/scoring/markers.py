"""The registry of markers: names, aliases, where in the cell each stain lies; and a rule for others."""

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from deepliif_ray import contracts
from deepliif_ray.errors import ConfigError

LOCALISATIONS = ("nuclear", "membranous", "cytoplasmic")
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "κ": "kappa", "λ": "lambda",
    "μ": "mu",
}  # fmt: skip
_IN_BRACKETS = re.compile(r"\s*[(\[{][^)\]}]*[)\]}]\s*$")
_LONGEST_NAME = 40
_PARTS = re.compile(r"[/+,&|;]|\band\b")


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
    """

    name: str
    aliases: tuple[str, ...] = ()
    localisation: tuple[str, ...] = ()
    note: str = ""
    caution: str | None = None

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
    problems += wrong
    if wrong:
        return None
    return Marker(str(name), tuple(aliases), tuple(places), entry.get("note") or "", entry.get("caution"))


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
