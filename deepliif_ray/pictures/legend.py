"""What is written around a picture: which slide, how many cells, what the colours mean, what is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deepliif_ray import __version__
from deepliif_ray.exports.cells import Calls
from deepliif_ray.pictures import heat_map
from deepliif_ray.pictures.colours import INK, NEGATIVE, NO_CELL, POSITIVE, STRENGTHS, Colour
from deepliif_ray.pictures.lettering import drawable
from deepliif_ray.pictures.overlay import Counts
from deepliif_ray.pictures.view import View
from deepliif_ray.query.flags import FLAGS
from deepliif_ray.query.streaming import Stream

Symbol = Literal["outline", "dot", "cross"]


@dataclass(frozen=True)
class Key:
    """A symbol and what it means."""

    symbol: Symbol
    colour: Colour
    text: str


@dataclass(frozen=True)
class Bar:
    """The colours of a map: the value of the last one, and what they tell."""

    end: float
    what: str
    few: str | None


@dataclass(frozen=True)
class Legend:
    """All text of a picture.

    Attributes
    ----------
    alarms : tuple of str
        What must not be overlooked; it stands above the picture.
    title : str
        Slide and marker.
    lines : tuple of str
    keys : tuple of Key
    bar : Bar, optional
    small : tuple of str
        How the picture was made.
    """

    alarms: tuple[str, ...]
    title: str
    lines: tuple[str, ...]
    keys: tuple[Key, ...]
    bar: Bar | None
    small: tuple[str, ...]

    def texts(self) -> tuple[str, ...]:
        """Return every text, from top to bottom."""
        bar = () if self.bar is None else tuple(filter(None, (self.bar.what, self.bar.few)))
        keys = tuple(key.text for key in self.keys)
        return (*self.alarms, self.title, *self.lines, *keys, *bar, *self.small)


def index_of(stream: Stream, row: Mapping[str, Any], calls: Calls) -> dict[str, Any]:
    """Return a slide's index with what is to be known of it: ``slide_indices`` and ``slide_notes``."""
    found: dict[str, Any]
    (found,) = stream.table(
        "SELECT i.n_called, i.n_positive, i.index_percent, i.ci_lower_percent, i.ci_upper_percent, "
        "i.category, i.too_few_cells, i.notes, n.min_cells, n.brief, n.flags, n.is_left "
        f"FROM {calls.of('slide_indices')} AS i JOIN slide_notes AS n ON i.slide_id = n.slide_id "
        "WHERE i.slide_id = ?",
        [row["slide_id"]],
    ).to_pylist()
    return found


def alarms_of(index: Mapping[str, Any]) -> list[str]:
    """Return the flags of a slide in words."""
    return [f"Flag {flag}: {FLAGS.get(flag, 'see docs/monitoring.md')}" for flag in index["flags"]]


def lines_of(row: Mapping[str, Any], index: Mapping[str, Any], calls: Calls) -> list[str]:
    """Return what is told of a slide's index, and of how its cells were called."""
    low, high = index["ci_lower_percent"], index["ci_upper_percent"]
    interval = "no interval" if low is None else f"95 % interval {low:.2f} to {high:.2f} %"
    told = (
        f"Slide: {index['n_called']:,} cells called, {index['n_positive']:,} positive; "
        f"index {index['index_percent']:.2f} % ({interval})"
    )
    chosen = []
    if calls.region is not None:
        chosen.append(f"only in regions of class {drawable(calls.region)}")
    if calls.cutoffs is not None:
        named = isinstance(calls.cutoffs, str)
        chosen.append(f"cut-offs {drawable(str(calls.cutoffs)) if named else 'given as values'}")
    if not calls.corrections:
        chosen.append("without corrections")
    notes = [index["brief"]]
    if index["too_few_cells"]:
        notes.append(f"too few cells (under {index['min_cells']})")
    if row["warnings"]:
        notes.append(f"warnings: {len(row['warnings'])}, see `warnings` of slides")
    if index["is_left"]:
        notes.append("not in the newest manifest")
    return [told, *(["Cells: " + ", ".join(chosen)] if chosen else []), "Note: " + drawable("; ".join(notes))]


def here_of(view: View, counts: Counts) -> str:
    """Return what is told of the cells of a picture."""
    share = f", {100 * counts.n_positive / counts.n_called:.2f} %" if counts.n_called else ""
    return (
        f"Here: {counts.n_called:,} cells with their centre in x {view.x:,} to {view.x + view.width:,}, "
        f"y {view.y:,} to {view.y + view.height:,} px; {counts.n_positive:,} positive{share}"
    )


def keys_of(counts: Counts) -> list[Key]:
    """Return what the outlines and marks of a picture mean."""
    if counts.n_strengths:
        names = ("0", "1+", "2+", "3+")
        keys = [
            Key("outline", colour, f"{name}: {count:,}")
            for name, colour, count in zip(names, STRENGTHS, counts.n_strengths, strict=True)
        ]
    else:
        keys = [
            Key("outline", POSITIVE, f"positive: {counts.n_positive:,}"),
            Key("outline", NEGATIVE, f"negative: {counts.n_called - counts.n_positive:,}"),
        ]
    if counts.n_said:
        keys.append(Key("dot", INK, f"called by a person: {counts.n_said:,}"))
    if counts.n_no_cell:
        keys.append(Key("cross", NO_CELL, f"no cell, says a person: {counts.n_no_cell:,}"))
    return keys


def bar_of(what: heat_map.What, end: float, side_um: float, least_cells: int) -> Bar:
    """Return what the colours of a map mean."""
    squares = f"squares of {side_um:g} µm"
    if what == "index":
        return Bar(end, f"% of called cells positive, {squares}", f"1 to {least_cells - 1} cells")
    return Bar(end, f"positive cells per square mm, {squares}", None)


def small_of(row: Mapping[str, Any], view: View) -> list[str]:
    """Return how a picture was made."""
    return [
        drawable(
            f"A pixel of the picture is {row['mpp'] / view.scale:.3g} µm, one of the slide "
            f"{row['mpp']:.3g} µm. "
            f"Model {row['model_name']}, deepliif_ray {__version__}. Research use only."
        )
    ]


def title_of(row: Mapping[str, Any]) -> str:
    """Return slide and marker."""
    return f"{drawable(row['marker'])}, slide {drawable(row['slide_id'])}"
