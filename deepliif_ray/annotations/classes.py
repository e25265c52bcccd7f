"""Classes of annotations, as QuPath and others write them: names, which of them exclude, colours."""

import hashlib
from typing import Any

UNCLASSIFIED = "Unclassified"
BETWEEN = ": "
"""Between the parts of a nested class, as in ``Tumor: Positive``."""
_EXCLUDE = ("exclude", "ignore")
_MOST = 200
_USUAL = {
    "tumor": (200, 0, 0),
    "stroma": (150, 200, 150),
    "immune cells": (160, 90, 160),
    "necrosis": (50, 50, 50),
    "exclude": (180, 180, 180),
    "ignore*": (180, 180, 180),
    "positive": (200, 50, 50),
    "negative": (90, 90, 180),
}


class RefusedError(Exception):
    """What is wrong with one feature or row, said of it alone."""


def class_of(value: Any) -> tuple[str, str | None]:
    """Return the name and the colour (``#rrggbb``, or None) of a ``classification`` as it stands in GeoJSON.

    QuPath writes ``{"name": …, "color": [r, g, b]}``, or ``names`` for a nested class; before 0.4
    ``{"name": …, "parentClass": …, "colorRGB": …}``; and it reads a text (``PathClassTypeAdapter`` in its
    source). Nothing at all is `UNCLASSIFIED`.

    Raises
    ------
    RefusedError
        It is none of these.
    """
    if isinstance(value, str):
        return class_name(value), None
    if value is None or value == {}:
        return UNCLASSIFIED, None
    if not isinstance(value, dict):
        raise RefusedError(f"its classification is {type(value).__name__}, neither a text nor an object")
    names = value.get("names")
    if names is None:
        level: Any = value
        names, depth = [], 0
        while isinstance(level, dict) and depth < _MOST:
            names.insert(0, level.get("name"))
            level, depth = level.get("parentClass"), depth + 1
    if not isinstance(names, list) or not all(isinstance(name, str | None) for name in names):
        raise RefusedError("its classification has a name that is no text")
    return class_name(BETWEEN.join(name for name in names if name)), _color(value)


def class_name(text: str) -> str:
    """Return a class as it is kept: trimmed, its parts apart by ``": "``; `UNCLASSIFIED` for an empty one.

    Raises
    ------
    RefusedError
        It has more than 200 characters, or what steers a terminal.
    """
    parts = [part.strip() for part in text.split(":")]
    name = BETWEEN.join(part for part in parts if part)
    if len(name) > _MOST:
        raise RefusedError(f"its class has {len(name):,} characters; at most {_MOST} are kept")
    if not all(c.isprintable() for c in name):
        raise RefusedError(f"its class {name!r} holds a line break or another character that is not shown")
    return name or UNCLASSIFIED


def class_key(name: str) -> str:
    """Return the same text for names of one class: case makes no difference."""
    return name.lower()


def is_exclude(name: str) -> bool:
    """Tell whether regions of this class exclude what lies in them.

    A part of it is ``Exclude`` or ``Ignore``, or ends in an asterisk, as classes do that QuPath ignores
    (``PathClassTools.isIgnoredClass`` in its source looks at the last part).
    """
    return any(part in _EXCLUDE or part.endswith("*") for part in class_key(name).split(BETWEEN))


def color_of(name: str, kept: str | None) -> list[int]:
    """Return red, green and blue for a class: those that were kept, else usual ones, else some of its own."""
    if kept is not None:
        return list(bytes.fromhex(kept.removeprefix("#")))
    usual = _USUAL.get(class_key(name))
    return list(usual or (64 + byte // 2 for byte in hashlib.sha256(class_key(name).encode()).digest()[:3]))


def _color(value: dict[str, Any]) -> str | None:
    color, packed = value.get("color"), value.get("colorRGB")
    if isinstance(color, list) and len(color) in (3, 4) and all(type(c) is int for c in color):
        if all(0 <= c <= 255 for c in color):
            return "#" + bytes(color[:3]).hex()
    elif type(packed) is int:
        return f"#{packed & 0xFFFFFF:06x}"
    return None
