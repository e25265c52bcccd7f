"""The registry of markers: names, aliases, and where in the cell each stain lies."""

import difflib
import unicodedata
from dataclasses import dataclass
from functools import cache

from deepliif_ray import contracts
from deepliif_ray.errors import ConfigError


@dataclass(frozen=True)
class Marker:
    """One marker of ``schemas/markers.yaml``.

    Attributes
    ----------
    name : str
        Canonical name; letters and digits only, so that it can be part of a path.
    aliases : tuple of str
        Other names in use.
    localisation : tuple of str
        Where a genuine stain lies: ``nuclear``, ``membranous``, ``cytoplasmic``.
    note : str
        What the number is commonly used for.
    caution : str or None
        Where published DeepLIIF should be trusted less.
    """

    name: str
    aliases: tuple[str, ...]
    localisation: tuple[str, ...]
    note: str
    caution: str | None


@cache
def markers() -> dict[str, Marker]:
    """Return the known markers by canonical name, in the order of the registry."""
    return {
        entry["name"]: Marker(
            name=entry["name"],
            aliases=tuple(entry["aliases"]),
            localisation=tuple(entry["localisation"]),
            note=entry["note"],
            caution=entry["caution"],
        )
        for entry in contracts.load("markers")["markers"]
    }


def _key(text: str) -> str:
    """Reduce a name to what tells markers apart: no case, spaces, dashes of any kind or underscores."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(
        c for c in folded if not (c.isspace() or c == "_" or unicodedata.category(c) in ("Pd", "Cf", "Cc"))
    )


@cache
def _by_key() -> dict[str, Marker]:
    return {_key(name): marker for marker in markers().values() for name in (marker.name, *marker.aliases)}


def resolve_marker(text: str) -> Marker:
    """Return the marker that ``text`` names, by its name or an alias.

    Upper and lower case, spaces, dashes and underscores make no difference.

    Raises
    ------
    ConfigError
        No marker has this name; the message suggests the closest ones.
    """
    known = _by_key()
    key = _key(text)
    if key in known:
        return known[key]
    close = dict.fromkeys(known[match].name for match in difflib.get_close_matches(key, known, n=3))
    hint = f"did you mean {' or '.join(close)}?" if close else f"known markers: {', '.join(markers())}"
    raise ConfigError(f"unknown marker {_shorten(text)}; {hint}")


def _shorten(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")
