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


def place_nuclei(rng: Rng, side: int, tissue: BoolArray, localisation: str) -> list[Nucleus]:
    """Place nuclei by throwing darts: a dart too near to a nucleus already there is lost."""
    sheet = str(rng.choice(SHEETS, p=_SHEET_SHARES))
    mean_radius = {"lymphocytes": rng.uniform(8.0, 12.5), "spindle": rng.uniform(8.5, 13)}.get(
        sheet, rng.uniform(8.5, 20)
    )
    spread = rng.uniform(0.06, 0.28)
    crowd = rng.uniform(0.78, 1.45) if rng.random() < 0.75 else rng.uniform(1.4, 2.8)
    wanted = int(min(4000, 2.2 * side * side / (np.pi * (mean_radius * crowd) ** 2)))
    places = _places(rng, sheet, side, wanted)
    second = rng.random() < 0.55
    share = float(np.clip(rng.beta(0.75, 1.1), 0, 1))
    if localisation != "nuclear":
        share = float(rng.uniform(0.05, 0.95))
    blob = smooth_noise(rng, side, rng.uniform(25, 90))
    clumped = rng.random() < 0.5
    flow = rng.uniform(0, np.pi) + 0.7 * smooth_noise(rng, side, 60)
    aligned = sheet == "spindle" or rng.random() < 0.25
    blue_mean = float(np.exp(rng.uniform(np.log(0.14), np.log(0.85))))
    blue_spread = rng.uniform(0.1, 0.45)
    # Weakly stained laboratories, and those whose positive nuclei are almost black.
    brown_mean, brown_spread = float(np.exp(rng.uniform(np.log(0.45), np.log(9.0)))), rng.uniform(0.15, 0.7)
    # Unspecific DAB makes negative nuclei grey.
    grey = rng.uniform(0.05, 0.28) if rng.random() < 0.45 else 0.0
    vesicular = rng.random() < 0.4
    softness = rng.uniform(0.7, 2.2)
    kept: list[Nucleus] = []
    grid: dict[tuple[int, int], list[int]] = {}
    cell = 2.6 * mean_radius
    for y, x in places:
        if not (0 <= y < side and 0 <= x < side) or not tissue[int(y), int(x)]:
            continue
        small = second and rng.random() < 0.3
        radius = mean_radius * float(np.exp(rng.normal(0, spread))) * (0.66 if small else 1.0)
        radius = float(np.clip(radius, 5.5, 27))
        key = int(y // cell), int(x // cell)
        near = [i for dy in (-1, 0, 1) for dx in (-1, 0, 1) for i in grid.get((key[0] + dy, key[1] + dx), ())]
        # Below 1 neighbours overlap, above they keep away.
        closest = 0.94 * min(crowd, 1.0)
        gap = 12 * max(0.0, crowd - 1)
        if any(
            np.hypot(kept[i].y - y, kept[i].x - x) < closest * (kept[i].radius + radius) + gap for i in near
        ):
            continue
        chance = share
        if clumped:
            chance = float(np.clip(share + 0.35 * blob[int(y), int(x)] * min(share, 1 - share) * 2, 0, 1))
        positive = bool(rng.random() < chance)
        stretch = float(np.exp(abs(rng.normal(0, 0.22))))
        stretch *= rng.uniform(1.5, 3.2) if sheet == "spindle" else 1.0
        angle = float(flow[int(y), int(x)] + rng.normal(0, 0.25)) if aligned else float(rng.uniform(0, np.pi))
        blue = float(np.clip(blue_mean * np.exp(rng.normal(0, blue_spread)), 0.1, 1.1))
        brown = float(np.clip(brown_mean * np.exp(rng.normal(0, brown_spread)), 0.4, 12.0))
        if positive and rng.random() < 0.08:
            brown = float(rng.uniform(4.0, 12.0))
        if not positive:
            brown = float(min(0.3, grey * np.exp(rng.normal(0, 0.5))))
        if small and not positive:
            blue = min(1.1, blue * 1.5)
        grid.setdefault(key, []).append(len(kept))
        kept.append(
            Nucleus(
                x=float(x),
                y=float(y),
                radius=radius,
                stretch=min(stretch, 3.4),
                angle=angle,
                blue=blue,
                brown=brown,
                positive=positive,
                vesicular=float(rng.uniform(0.35, 0.85)) if vesicular and rng.random() < 0.6 else 0.0,
                softness=softness * float(rng.uniform(0.75, 1.5)),
            )
        )
    return kept
