"""The registry of markers: names, aliases, where in the cell each stain lies; and a rule for others."""

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from typing import Any

from deepliif_ray import contracts
from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.marker_entries import LONGEST_NAME, Marker, key_of, parse_markers

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "κ": "kappa", "λ": "lambda",
    "μ": "mu",
}  # fmt: skip
_IN_BRACKETS = re.compile(r"\s*[(\[{][^)\]}]*[)\]}]\s*$")
_PARTS = re.compile(r"[/+,&|;]|\band\b")


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
        self._stains = {key_of(stain) for stain in stains}
        self._by_key: dict[str, Marker] = {}
        for marker in self.markers.values():
            for name in (marker.name, *marker.aliases):
                other = self._by_key.setdefault(key_of(name), marker)
                if other is not marker:
                    raise ConfigError(f"{name!r} names both {other.name} and {marker.name}; leave out one")

    def find(self, text: str) -> Marker | None:
        """Return the marker that ``text`` names, by its name or an alias; None if none does."""
        return self._by_key.get(key_of(text))

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
        if key_of(text) in self._stains:
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
        matches = difflib.get_close_matches(key_of(text)[:100], self._by_key, n=3)
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
        folded = {key_of(name) for name in replaced}
        kept = [marker for marker in self.markers.values() if key_of(marker.name) not in folded]
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


def _generic_name(text: str) -> str:
    spelled = "".join(_GREEK.get(c, c) for c in key_of(text))
    plain = "".join(c for c in unicodedata.normalize("NFKD", spelled) if c.isascii() and c.isalnum()).upper()
    dropped = any(c.isalnum() and not unicodedata.normalize("NFKD", c)[0].isascii() for c in spelled)
    if not any(c.isalnum() for c in spelled):
        raise ConfigError(f"marker {_shorten(text)} holds no letter or digit; give the marker's name")
    if dropped or len(plain) > LONGEST_NAME:  # else two markers could get one name
        digest = hashlib.sha256(spelled.encode()).hexdigest()[:8].upper()
        plain = f"{plain[: LONGEST_NAME - 9]}X{digest}"
    return plain


def _shorten(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")
