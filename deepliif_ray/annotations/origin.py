"""Where the coordinates of a file begin."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Origin(StrEnum):
    """What coordinates of a file are relative to: the scanned area of the slide, or its corner."""

    BOUNDS = "bounds"
    SLIDE = "slide"


def origin_of(row: Mapping[str, Any], asked: Origin | None) -> tuple[int, int, tuple[int, ...] | None]:
    """Return what is to be added to x and y, and the bounds of the slide if they begin there.

    QuPath shows what OpenSlide reads cropped to the bounds that OpenSlide tells: its coordinates begin at
    ``bounds_x``, ``bounds_y`` (``OpenslideImageServer.readTile`` in its source). So do coordinates here for
    slides that OpenSlide read and of which all bounds are known, unless something else is asked for.

    Parameters
    ----------
    row : mapping
        The slide's commit record.
    asked : Origin, optional
    """
    names = ("bounds_x", "bounds_y", "bounds_width", "bounds_height")
    bounds = tuple(row[name] for name in names)
    known = None not in bounds
    if asked is Origin.SLIDE or not known or (asked is None and row["reader"] != "openslide"):
        return 0, 0, None
    return bounds[0], bounds[1], bounds
