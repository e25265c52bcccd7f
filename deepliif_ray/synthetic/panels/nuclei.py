"""Nuclei of synthetic tissue: where they lie, how large, how round, how stained.

Lengths are pixels at 40x (0.25 µm).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Rng = np.random.Generator

SHEETS = ("scattered", "nests", "glands", "spindle", "lymphocytes")
_SHEET_SHARES = (0.34, 0.22, 0.14, 0.12, 0.18)


@dataclass
class Nucleus:
    """One nucleus, drawn on the canvas in the order of the list."""

    x: float
    y: float
    radius: float
    stretch: float
    angle: float
    blue: float
    brown: float
    positive: bool
    vesicular: float
    softness: float
    patchy: float
    crenated: float


def smooth_noise(rng: Rng, side: int, sigma: float, stretch: float = 1.0) -> FloatArray:
    """Return smooth noise (side, side) of mean 0 and standard deviation 1, coarse scales made small first."""
    shrink = max(1, int(sigma / 3))
    small = -(-side // shrink) + 2
    field = rng.standard_normal((small, small), np.float32)
    field = ndimage.gaussian_filter(field, (sigma / shrink, sigma * stretch / shrink))
    if shrink > 1:
        field = ndimage.zoom(field, shrink, order=1)
    field = field[:side, :side]
    result: FloatArray = ((field - field.mean()) / (field.std() + 1e-6)).astype(np.float32)
    return result


def draw_tissue(rng: Rng, side: int) -> BoolArray:
    """Return where tissue is; the rest is glass, lumen or fat."""
    if rng.random() < 0.45:
        return np.ones((side, side), np.bool_)
    field = smooth_noise(rng, side, rng.uniform(18, 70))
    tissue: BoolArray = field > np.quantile(field, rng.uniform(0.03, 0.45))
    return tissue


def _places(rng: Rng, sheet: str, side: int, wanted: int) -> FloatArray:
    """Return candidates for centres (wanted, 2) as y, x."""
    if sheet in ("scattered", "lymphocytes", "spindle"):
        return rng.uniform(0, side, (wanted, 2)).astype(np.float32)
    if sheet == "nests":
        nests = rng.uniform(0, side, (rng.integers(2, 9), 2))
        spread = rng.uniform(25, 75)
        chosen = nests[rng.integers(len(nests), size=wanted)]
        scattered = rng.uniform(0, side, (wanted, 2))
        inside = rng.random((wanted, 1)) < 0.85
        return np.where(inside, chosen + rng.normal(0, spread, (wanted, 2)), scattered).astype(np.float32)
    centres = rng.uniform(0, side, (rng.integers(2, 7), 2))
    radii = rng.uniform(30, 90, len(centres))
    which = rng.integers(len(centres), size=wanted)
    turn = rng.uniform(0, 2 * np.pi, wanted)
    reach = radii[which] + rng.normal(0, 9, wanted)
    around = centres[which] + reach[:, None] * np.stack([np.sin(turn), np.cos(turn)], 1)
    stray = rng.random((wanted, 1)) < 0.3
    return np.where(stray, rng.uniform(0, side, (wanted, 2)), around).astype(np.float32)


@dataclass(frozen=True)
class _Habit:
    """What the nuclei of one tile have in common: shares are 0 to 1, spreads those of logarithms."""

    radius: float
    radius_spread: float
    crowd: float
    small: float
    stromal: float
    positive: float
    clumped: bool
    aligned: bool
    blue: float
    blue_spread: float
    brown: float
    brown_spread: float
    grey: float
    vesicular: float
    softness: float
    unfocused: float
    patchy: float
    crenated: float


def _habit(rng: Rng, sheet: str, localisation: str) -> _Habit:
    def sometimes(chance: float, low: float, high: float) -> float:
        return float(rng.uniform(low, high)) if rng.random() < chance else 0.0

    radius = {"lymphocytes": rng.uniform(8.0, 12.5), "spindle": rng.uniform(8.5, 13)}.get(
        sheet, rng.uniform(8.5, 20)
    )
    return _Habit(
        radius=radius,
        radius_spread=rng.uniform(0.06, 0.28),
        crowd=rng.uniform(0.78, 1.45) if rng.random() < 0.75 else rng.uniform(1.4, 2.8),
        small=sometimes(0.55, 0.1, 0.5),
        stromal=0.0 if sheet == "spindle" else sometimes(0.5, 0.05, 0.35),
        positive=float(np.clip(rng.beta(0.75, 1.1), 0, 1))
        if localisation == "nuclear"
        else float(rng.uniform(0.05, 0.95)),
        clumped=rng.random() < 0.5,
        aligned=sheet == "spindle" or rng.random() < 0.25,
        blue=float(np.exp(rng.uniform(np.log(0.11), np.log(0.7)))),
        blue_spread=rng.uniform(0.1, 0.5),
        # Weakly stained laboratories, and those whose positive nuclei are almost black.
        brown=float(np.exp(rng.uniform(np.log(0.45), np.log(9.0)))),
        brown_spread=rng.uniform(0.15, 0.7),
        # Unspecific DAB makes negative nuclei grey.
        grey=sometimes(0.45, 0.05, 0.28),
        vesicular=sometimes(0.4, 0.6, 0.6),
        softness=rng.uniform(0.7, 2.2),
        # A section is as thick as half a nucleus: some lie out of the focal plane, some are only cut.
        unfocused=sometimes(0.6, 0.05, 0.4),
        patchy=sometimes(0.5, 0.3, 1.2),
        crenated=sometimes(0.4, 0.5, 2.0),
    )


def place_nuclei(rng: Rng, side: int, tissue: BoolArray, localisation: str) -> list[Nucleus]:
    """Place nuclei by throwing darts: a dart too near to a nucleus already there is lost."""
    sheet = str(rng.choice(SHEETS, p=_SHEET_SHARES))
    habit = _habit(rng, sheet, localisation)
    wanted = int(min(4000, 2.2 * side * side / (np.pi * (habit.radius * habit.crowd) ** 2)))
    blob = smooth_noise(rng, side, rng.uniform(25, 90))
    flow = rng.uniform(0, np.pi) + 0.7 * smooth_noise(rng, side, 60)
    kept: list[Nucleus] = []
    grid: dict[tuple[int, int], list[int]] = {}
    cell = 2.6 * habit.radius
    # Below 1 neighbours overlap, above they keep away.
    closest, gap = 0.94 * min(habit.crowd, 1.0), 12 * max(0.0, habit.crowd - 1)
    for y, x in _places(rng, sheet, side, wanted):
        if not (0 <= y < side and 0 <= x < side) or not tissue[int(y), int(x)]:
            continue
        nucleus = _nucleus(rng, habit, sheet, float(x), float(y), blob, flow)
        key = int(y // cell), int(x // cell)
        near = [i for dy in (-1, 0, 1) for dx in (-1, 0, 1) for i in grid.get((key[0] + dy, key[1] + dx), ())]
        if any(
            np.hypot(kept[i].y - y, kept[i].x - x) < closest * (kept[i].radius + nucleus.radius) + gap
            for i in near
        ):
            continue
        grid.setdefault(key, []).append(len(kept))
        kept.append(nucleus)
    return kept


def _nucleus(
    rng: Rng, habit: _Habit, sheet: str, x: float, y: float, blob: FloatArray, flow: FloatArray
) -> Nucleus:
    small = rng.random() < habit.small
    stromal = rng.random() < habit.stromal
    radius = habit.radius * float(np.exp(rng.normal(0, habit.radius_spread)))
    radius = float(np.clip(radius * (0.66 if small else 0.75 if stromal else 1.0), 5.5, 27))
    chance = habit.positive
    if habit.clumped:
        chance += 0.7 * blob[int(y), int(x)] * min(chance, 1 - chance)
    positive = bool(rng.random() < np.clip(chance, 0, 1) * (0.4 if stromal else 1.0))
    stretch = float(np.exp(abs(rng.normal(0, 0.22))))
    stretch *= rng.uniform(1.5, 3.2) if sheet == "spindle" or stromal else 1.0
    aligned = habit.aligned or stromal
    angle = float(flow[int(y), int(x)] + rng.normal(0, 0.25)) if aligned else float(rng.uniform(0, np.pi))
    blue = habit.blue * np.exp(rng.normal(0, habit.blue_spread))
    if positive:
        brown = float(np.clip(habit.brown * np.exp(rng.normal(0, habit.brown_spread)), 0.4, 12.0))
        brown = float(rng.uniform(4.0, 12.0)) if rng.random() < 0.08 else brown
    else:
        brown = float(min(0.3, habit.grey * np.exp(rng.normal(0, 0.5))))
        blue *= 1.5 if small else 1.25 if stromal else 1.0
    softness = habit.softness * float(rng.uniform(0.75, 1.5))
    if rng.random() < habit.unfocused:
        softness, paler = softness * rng.uniform(1.5, 3.0), rng.uniform(0.4, 0.9)
        blue, brown = blue * paler, max(brown * paler, 0.4) if positive else brown * paler
    return Nucleus(
        x=x,
        y=y,
        radius=radius,
        stretch=min(stretch, 3.4),
        angle=angle,
        blue=float(np.clip(blue, 0.08, 1.1)),
        brown=brown,
        positive=positive,
        vesicular=float(rng.uniform(0.35, 0.85)) if rng.random() < habit.vesicular else 0.0,
        softness=min(softness, 5.0),
        patchy=habit.patchy * float(rng.uniform(0.5, 1.5)) if positive else 0.0,
        crenated=habit.crenated * float(rng.uniform(0.0, 1.5)) if positive else 0.0,
    )
