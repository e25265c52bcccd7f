"""Shifts of fields by what was changed, as an SVG picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_LEFT, _TOP, _WIDTH, _HEIGHT = 130, 74, 380, 110
_GAP_X, _GAP_Y, _MARGIN = 90, 44, 20
_DOT, _BAR = "#3b6ea5", "#c2410c"
_STYLE = "font-family='Helvetica, Arial, sans-serif' font-size='12' fill='#222'"


@dataclass(frozen=True)
class Sweep:
    """What one row of the picture shows.

    Attributes
    ----------
    name : str
    steps : sequence of str
    index_points, cells_percent : sequence of (int, float)
        Number of the step and the shift, one of each field.
    """

    name: str
    steps: Sequence[str]
    index_points: Sequence[tuple[int, float]]
    cells_percent: Sequence[tuple[int, float]]


def draw_sweeps(title: str, sweeps: Sequence[Sweep]) -> str:
    """Return an SVG document: a row a sweep, shifts of the index on the left, changes of cells on the right.

    A dot is a field, a bar the mean of a step. Every panel has a scale of its own, which is at least ±1 point
    and ±5 %, so that rounding does not look like a shift.

    Parameters
    ----------
    title : str
    sweeps : sequence of Sweep
    """
    width = _LEFT + 2 * _WIDTH + _GAP_X + _MARGIN
    height = _TOP + len(sweeps) * (_HEIGHT + _GAP_Y) + _MARGIN
    right = _LEFT + _WIDTH + _GAP_X
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}' role='img' aria-label='{escape(title, quote=True)}'>",
        f"<rect width='{width}' height='{height}' fill='white'/><g {_STYLE}>",
        f"<text x='{_MARGIN}' y='26' font-size='15' font-weight='bold'>{escape(title)}</text>",
        f"<text x='{_LEFT}' y='56'>shift of the index, percentage points</text>",
        f"<text x='{right}' y='56'>change of the number of cells, %</text>",
    ]
    for row, sweep in enumerate(sweeps):
        top = _TOP + row * (_HEIGHT + _GAP_Y)
        parts.append(
            f"<text x='{_MARGIN}' y='{top + _HEIGHT / 2:g}' font-weight='bold'>{escape(sweep.name)}</text>"
        )
        parts += _panel(_LEFT, top, sweep.steps, sweep.index_points, 1.0)
        parts += _panel(right, top, sweep.steps, sweep.cells_percent, 5.0)
    return "\n".join([*parts, "</g></svg>"]) + "\n"


def _panel(
    left: int, top: int, steps: Sequence[str], points: Sequence[tuple[int, float]], least: float
) -> list[str]:
    limit = _round_up(max([least, *(abs(value) for _, value in points)]))
    middle, wide = top + _HEIGHT / 2, _WIDTH / len(steps)

    def y(value: float) -> float:
        return round(middle - value / limit * (_HEIGHT / 2 - 6), 1)

    parts = [f"<rect x='{left}' y='{top}' width='{_WIDTH}' height='{_HEIGHT}' fill='none' stroke='#bbb'/>"]
    for value in (-limit, 0.0, limit):
        sign = "+" if value > 0 else "−" if value < 0 else ""
        parts.append(
            f"<line x1='{left}' x2='{left + _WIDTH}' y1='{y(value)}' y2='{y(value)}' stroke='#ddd'/>"
            f"<text x='{left - 6}' y='{y(value) + 4}' text-anchor='end'>{sign}{abs(value):g}</text>"
        )
    for number, step in enumerate(steps):
        x = round(left + (number + 0.5) * wide, 1)
        parts += [
            f"<text x='{x}' y='{top + _HEIGHT + 15 + 12 * line}' text-anchor='middle' font-size='10'>"
            f"{escape(word)}</text>"
            for line, word in enumerate(step.split(" ", 1))
        ]
        values = [value for at, value in points if at == number]
        parts += [
            f"<circle cx='{x}' cy='{y(value)}' r='3.5' fill='{_DOT}' fill-opacity='0.6'/>" for value in values
        ]
        if values:
            mean = y(sum(values) / len(values))
            parts.append(
                f"<line x1='{x - 12}' x2='{x + 12}' y1='{mean}' y2='{mean}' stroke='{_BAR}' "
                "stroke-width='2'/>"
            )
    return parts


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50, …; also of fractions."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-12))
