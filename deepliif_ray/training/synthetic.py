"""Synthetic tissue for training: procedural IHC tiles with known nuclei and all target panels.

Made to teach variety, not to look like one laboratory's slides: every tile draws its own stains (hue,
strength, saturation), nuclei (size, shape, density, overlap, chromatin), arrangement (scattered, nests,
glands, spindle cells, lymphocytes), localisation of the marker, background, and artefacts (debris,
anthracosis, pen, folds, blur). Light is absorbed as in Beer–Lambert's law: pixels are mixed as optical
densities of hematoxylin and DAB, with stain vectors around those of Ruifrok & Johnston (2001).

Lengths are pixels at 40x (0.25 µm).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepliif_ray.errors import ConfigError
from deepliif_ray.training.panels import Panels, UInt8Array

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Rng = np.random.Generator

SHEETS = ("scattered", "nests", "glands", "spindle", "lymphocytes")
_SHEET_SHARES = (0.34, 0.22, 0.14, 0.12, 0.18)
LOCALISATIONS = ("nuclear", "cytoplasmic", "membranous")
_LOCALISATION_SHARES = (0.78, 0.12, 0.10)
_HEMATOXYLIN = ((0.75, 0.60, 0.26), (0.62, 0.70, 0.33), (0.70, 0.62, 0.36))
_DAB = ((0.30, 0.55, 0.78), (0.40, 0.57, 0.70), (0.27, 0.50, 0.82), (0.56, 0.58, 0.59))
_MARGIN = 24
MOST_HEMATOXYLIN = 1.5
HEMATOXYLIN_GLASS = (205.0, 214.0, 222.0)
HEMATOXYLIN_DENSITY = (0.62, 0.42, 0.12)


@dataclass
class _Nucleus:
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


@dataclass
class _Canvas:
    """What is drawn so far: who owns each pixel, and densities."""

    owner: NDArray[np.int32]
    depth: FloatArray
    hematoxylin: FloatArray
    dab: FloatArray
    dapi: FloatArray
    rim: FloatArray


def synthetic_panels(seed: int, index: int, size: int = 512) -> Panels:
    """Return tile ``index`` of the endless series that ``seed`` names.

    Parameters
    ----------
    seed, index : int
        Everything follows from the two; tiles do not depend on one another.
    size : int
        Side of the tile in pixels, at least 64.

    Returns
    -------
    Panels
        The IHC tile (size, size, 3) and its hematoxylin, DAPI, Lap2, marker and segmentation panels.

    Raises
    ------
    ConfigError
        ``size`` is below 64.
    """
    if size < 64:
        raise ConfigError(f"synthetic tile of {size} px: a tile has at least 64")
    rng = np.random.default_rng([seed, index])
    side = size + 2 * _MARGIN
    localisation = str(rng.choice(LOCALISATIONS, p=_LOCALISATION_SHARES))
    tissue = _tissue(rng, side)
    nuclei = _nuclei(rng, side, tissue, localisation)
    canvas = _draw(rng, nuclei, side)
    if localisation != "nuclear":
        _stain_around(rng, canvas, nuclei, localisation, tissue)
    _stroma(rng, canvas, tissue)
    _debris(rng, canvas)
    inner = (slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
    ihc = np.ascontiguousarray(_photograph(rng, canvas)[inner])
    targets = _targets(rng, canvas, nuclei)
    name = f"synthetic-{seed}-{index:05d}"
    return Panels(name, ihc, {key: np.ascontiguousarray(image[inner]) for key, image in targets.items()})


def _noise(rng: Rng, side: int, sigma: float, stretch: float = 1.0) -> FloatArray:
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


def _tissue(rng: Rng, side: int) -> BoolArray:
    """Return where tissue is; the rest is glass, lumen or fat."""
    if rng.random() < 0.45:
        return np.ones((side, side), np.bool_)
    field = _noise(rng, side, rng.uniform(18, 70))
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


def _nuclei(rng: Rng, side: int, tissue: BoolArray, localisation: str) -> list[_Nucleus]:
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
    blob = _noise(rng, side, rng.uniform(25, 90))
    clumped = rng.random() < 0.5
    flow = rng.uniform(0, np.pi) + 0.7 * _noise(rng, side, 60)
    aligned = sheet == "spindle" or rng.random() < 0.25
    blue_mean = float(np.exp(rng.uniform(np.log(0.14), np.log(0.85))))
    blue_spread = rng.uniform(0.1, 0.45)
    # Weakly stained laboratories, and those whose positive nuclei are almost black.
    brown_mean, brown_spread = float(np.exp(rng.uniform(np.log(0.45), np.log(9.0)))), rng.uniform(0.15, 0.7)
    # Unspecific DAB makes negative nuclei grey.
    grey = rng.uniform(0.05, 0.28) if rng.random() < 0.45 else 0.0
    vesicular = rng.random() < 0.4
    softness = rng.uniform(0.7, 2.2)
    kept: list[_Nucleus] = []
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
            _Nucleus(
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


def _draw(rng: Rng, nuclei: list[_Nucleus], side: int) -> _Canvas:
    """Draw the nuclei, each over those before it."""
    zeros = np.zeros((side, side), np.float32)
    canvas = _Canvas(
        owner=np.zeros((side, side), np.int32),
        depth=np.full((side, side), -99, np.float32),
        hematoxylin=zeros.copy(),
        dab=zeros.copy(),
        dapi=zeros.copy(),
        rim=zeros.copy(),
    )
    fine, coarse = _noise(rng, side, 1.1), _noise(rng, side, 2.6)
    grain = rng.uniform(0.05, 0.3)
    clump = rng.uniform(0.0, 0.3)
    grain_dab, clump_dab = rng.uniform(0.03, 0.3), rng.uniform(0.05, 0.4)
    under = rng.uniform(0.1, 0.9)
    rough = rng.uniform(0.5, 2.4)
    for number, n in enumerate(nuclei, 1):
        reach = int(np.ceil(n.radius * np.sqrt(n.stretch) * 1.25 + 5))
        x0, y0 = max(0, int(n.x) - reach), max(0, int(n.y) - reach)
        window = (slice(y0, min(side, int(n.y) + reach + 1)), slice(x0, min(side, int(n.x) + reach + 1)))
        ys, xs = np.mgrid[window]
        dy, dx = ys - n.y, xs - n.x
        turn = np.arctan2(dy, dx) - n.angle
        distance = np.hypot(dy, dx)
        outline = n.radius / np.sqrt(np.cos(turn) ** 2 / n.stretch + np.sin(turn) ** 2 * n.stretch)
        for wave, size in ((2, 0.05), (3, 0.05), (4, 0.03), (5, 0.025)):
            outline = outline * (1 + rng.normal(0, rough * size) * np.cos(wave * turn + rng.uniform(0, 6.3)))
        depth = (outline - distance).astype(np.float32)
        body = np.clip(0.5 + depth / (2 * n.softness), 0, 1)
        inside = depth > 0
        chromatin = np.clip(1 + grain * fine[window] + clump * coarse[window], 0.3, 2.0)
        rim = np.exp(-((depth - 1.2) ** 2) / (2 * 1.4**2))
        fill = 1 - n.vesicular * np.clip(depth / 4, 0, 1)
        blue = n.blue * (0.85 * fill * chromatin + 0.3 * rim)
        if rng.random() < 0.3:
            blue += n.blue * 0.8 * _spots(rng, dx, dy, n.radius)
        # A counterstain is never black; what is black is DAB.
        blue = np.minimum(blue, MOST_HEMATOXYLIN)
        if n.positive:
            blue *= under
        brown_texture = np.clip(1 + grain_dab * fine[window] + clump_dab * coarse[window], 0.25, 2.2)
        brown = n.brown * (0.9 * brown_texture + 0.12 * rim)
        if n.positive and rng.random() < 0.25:
            brown = brown * (0.6 + 0.8 * _spots(rng, dx, dy, n.radius))
        for plane, value in (
            (canvas.hematoxylin, blue),
            (canvas.dab, brown),
            (canvas.dapi, (0.35 + 0.4 * n.blue) * (0.8 * chromatin + 0.25 * rim)),
        ):
            # What lies on top hides part of what lies below; in a section both absorb.
            below = plane[window]
            plane[window] = body * np.maximum(value, 0.45 * below) + (1 - body) * below
        canvas.rim[window] = np.maximum(canvas.rim[window] * (1 - body), rim * body)
        owner, deepest = canvas.owner[window], canvas.depth[window]
        owner[inside] = number
        deepest[inside] = depth[inside]
    return canvas


def _spots(rng: Rng, dx: NDArray[np.float64], dy: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Return one to three round spots (nucleoli) inside a nucleus, 0 to 1."""
    spots = np.zeros(dx.shape)
    for _ in range(rng.integers(1, 4)):
        away, turn = rng.uniform(0, 0.55 * radius), rng.uniform(0, 6.3)
        square = (dx - away * np.cos(turn)) ** 2 + (dy - away * np.sin(turn)) ** 2
        spots = np.maximum(spots, np.exp(-square / (2 * rng.uniform(1.2, 2.8) ** 2)))
    return spots


def _stain_around(
    rng: Rng, canvas: _Canvas, nuclei: list[_Nucleus], localisation: str, tissue: BoolArray
) -> None:
    """Move the DAB of positive cells from the nucleus to the cytoplasm or the membrane."""
    positive = np.array([False, *(n.positive for n in nuclei)])
    strength = np.array([0.0, *(min(n.brown, 2.2) for n in nuclei)], np.float32)
    background = canvas.owner == 0
    distance, nearest = ndimage.distance_transform_edt(background, return_indices=True)
    cell = canvas.owner[tuple(nearest)]
    width = rng.uniform(3, 9)
    stained = positive[cell] & tissue
    if localisation == "cytoplasmic":
        ring = np.clip((width - distance) / 2.5, 0, 1) * (distance > 0)
        inside = rng.uniform(0.1, 0.5)
    else:
        ring = np.exp(-((distance - width / 2) ** 2) / (2 * rng.uniform(1.0, 1.8) ** 2)) * (distance > 0)
        inside = rng.uniform(0.02, 0.25)
    texture = np.clip(1 + 0.25 * _noise(rng, len(tissue), 1.5), 0.3, 1.8)
    coat = ndimage.gaussian_filter((ring * stained * strength[cell] * texture).astype(np.float32), 0.8)
    canvas.dab[:] = np.where(background, coat, inside * canvas.dab * texture + 0.3 * coat)


def _stroma(rng: Rng, canvas: _Canvas, tissue: BoolArray) -> None:
    """Add what lies between nuclei: counterstained stroma, cytoplasm, haze of unspecific DAB."""
    side = len(tissue)
    soft = ndimage.gaussian_filter(tissue.astype(np.float32), 2.0)
    fibres = ndimage.rotate(
        _noise(rng, int(side * 1.5), 1.3, rng.uniform(4, 14)), rng.uniform(0, 180), reshape=False, order=1
    )
    start = (len(fibres) - side) // 2
    fibres = fibres[start : start + side, start : start + side]
    clouds, wide, fine = _noise(rng, side, 5), _noise(rng, side, 25), _noise(rng, side, 0.8)
    level = float(np.exp(rng.uniform(np.log(0.015), np.log(0.22))))
    shape = 1 + 0.45 * clouds + 0.35 * wide + rng.uniform(0, 0.7) * fibres + 0.15 * fine
    near = ndimage.gaussian_filter((canvas.owner > 0).astype(np.float32), rng.uniform(4, 10))
    canvas.hematoxylin += level * np.clip(shape, 0, 4) * soft + rng.uniform(0, 0.14) * near * soft
    haze = float(np.exp(rng.uniform(np.log(0.004), np.log(0.16))))
    canvas.dab += haze * np.clip(1 + 0.6 * wide + 0.4 * clouds, 0, 4) * soft
    near_dab = ndimage.gaussian_filter(canvas.dab, rng.uniform(3, 8))
    canvas.dab += rng.uniform(0, 0.22) * near_dab * soft


def _debris(rng: Rng, canvas: _Canvas) -> None:
    """Add what must not be counted: brown crumbs, blue fragments, coal dust (anthracosis)."""
    side = len(canvas.owner)
    for plane, chance, most, strength in (
        (canvas.dab, 0.6, 80, (0.3, 4.0)),
        (canvas.hematoxylin, 0.35, 40, (0.2, 0.7)),
    ):
        if rng.random() < chance:
            _crumbs(
                rng, plane, int(rng.integers(3, most)), strength, (0.7, 3.0), rng.uniform(0, side, 2), side
            )
    if rng.random() < 0.08:
        spread = rng.uniform(15, 70)
        for plane in (canvas.dab, canvas.hematoxylin):
            centre = rng.uniform(0, side, 2)
            _crumbs(rng, plane, int(rng.integers(20, 150)), (1.0, 3.0), (0.6, 2.5), centre, spread)


def _crumbs(
    rng: Rng,
    plane: FloatArray,
    count: int,
    strength: tuple[float, float],
    sizes: tuple[float, float],
    centre: NDArray[np.float64],
    spread: float,
) -> None:
    layer = np.zeros_like(plane)
    spots = rng.normal(0, 1, (count, 2)) * spread + centre
    for y, x in spots:
        if not (8 <= y < len(plane) - 8 and 8 <= x < len(plane) - 8):
            continue
        size = rng.uniform(*sizes)
        ys, xs = np.mgrid[int(y) - 7 : int(y) + 8, int(x) - 7 : int(x) + 8]
        stretch = rng.uniform(0.5, 1.0)
        spot = np.exp(-(((ys - y) * stretch) ** 2 + (xs - x) ** 2) / (2 * size**2))
        part = layer[int(y) - 7 : int(y) + 8, int(x) - 7 : int(x) + 8]
        np.maximum(part, rng.uniform(*strength) * spot, out=part)
    plane += layer


def _photograph(rng: Rng, canvas: _Canvas) -> UInt8Array:
    """Return the IHC image (side, side, 3): stains absorb, the lens blurs, the sensor adds noise."""
    side = len(canvas.owner)
    blue = _vector(rng, _HEMATOXYLIN)
    brown = _vector(rng, _DAB)
    glass = np.clip(rng.normal((241, 241, 240), (6, 6, 7)), 205, 255)
    density = canvas.hematoxylin[..., None] * blue + canvas.dab[..., None] * brown
    if rng.random() < 0.06:
        line = np.abs(_noise(rng, side, 90)) < rng.uniform(0.01, 0.08)
        density *= 1 + ndimage.gaussian_filter(line.astype(np.float32), 3)[..., None]
    light = glass * 10 ** -(density * np.float32(1 / np.log(10) * 1.6))
    light = 255 * (light / 255) ** rng.uniform(0.85, 1.3)
    if rng.random() < 0.06:
        light = _pen(rng, light)
    shade = 1 + rng.uniform(0, 0.03) * _noise(rng, side, 120)
    light = ndimage.gaussian_filter(light * shade[..., None], (*(rng.uniform(0.3, 1.2),) * 2, 0))
    grain = ndimage.gaussian_filter(rng.normal(0, rng.uniform(0.5, 5.0), light.shape), (0.6, 0.6, 0))
    image: UInt8Array = np.clip(light + grain, 0, 255).round().astype(np.uint8)
    return image


def _vector(rng: Rng, choices: tuple[tuple[float, float, float], ...]) -> FloatArray:
    mixed = np.array(choices).T @ rng.dirichlet(np.ones(len(choices)))
    vector = np.clip(mixed + rng.normal(0, 0.035, 3), 0.05, 1)
    result: FloatArray = (vector / np.linalg.norm(vector)).astype(np.float32)
    return result


def _pen(rng: Rng, light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw a felt-tip stroke over the image."""
    side = len(light)
    ink = np.array([(0.9, 0.25, 0.3), (0.3, 0.75, 0.4), (0.25, 0.3, 0.9), (0.2, 0.2, 0.2)])[rng.integers(4)]
    ys, xs = np.mgrid[:side, :side]
    turn = rng.uniform(0, np.pi)
    line = np.sin(turn) * (ys - rng.uniform(0, side)) + np.cos(turn) * (xs - rng.uniform(0, side))
    line = np.abs(line + 6 * _noise(rng, side, 50))
    cover = np.clip((rng.uniform(8, 40) - line) / 4, 0, 1)[..., None] * rng.uniform(0.4, 0.95)
    result: NDArray[np.float64] = light * (1 - cover + cover * ink)
    return result


def _targets(rng: Rng, canvas: _Canvas, nuclei: list[_Nucleus]) -> dict[str, UInt8Array]:
    """Return the panels that belong to the canvas, each uint8 (side, side, 3)."""
    positive = np.array([False, *(n.positive for n in nuclei)])
    seg = draw_segmentation(canvas.owner, positive)
    density = np.clip(canvas.dapi + 0.05 * canvas.hematoxylin, 0, 1.6)[..., None]
    hematoxylin = np.array(HEMATOXYLIN_GLASS) * 10 ** -(density * np.array(HEMATOXYLIN_DENSITY))
    dapi = ndimage.gaussian_filter(canvas.dapi, 1.2) * 190 + 8
    lap2 = ndimage.gaussian_filter(canvas.rim * (0.4 + 0.6 * (canvas.dapi > 0)), 0.9) * 170
    stained = np.array([0.0, *(min(n.brown, 2.0) / 2.0 if n.positive else 0.0 for n in nuclei)])
    marker = ndimage.gaussian_filter(stained[canvas.owner] * (0.75 + 0.25 * canvas.dapi), 1.8) * 255 + 8
    black = np.zeros_like(lap2)
    return {
        "hematoxylin": _as_bytes(hematoxylin),
        "dapi": _as_bytes(np.stack([dapi] * 3, -1)),
        "lap2": _as_bytes(np.stack([black, lap2, 0.25 * lap2], -1)),
        "marker": _as_bytes(np.stack([marker] * 3, -1)),
        "seg": seg,
    }


def draw_segmentation(owner: NDArray[np.int32], positive: BoolArray) -> UInt8Array:
    """Draw cells as DeepLIIF's truth shows them.

    Parameters
    ----------
    owner : numpy.ndarray
        int (H, W): number of the cell that owns each pixel, 0 outside.
    positive : numpy.ndarray
        bool, one for each number (entry 0 means nothing).

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3): red or blue inside, and a green line 2 px wide around every cell and between touching
        ones.
    """
    padded = np.pad(owner, 1, mode="edge")
    height, width = owner.shape
    touching = np.zeros(owner.shape, np.bool_)
    for dy, dx in ((0, 1), (1, 0), (1, 2), (2, 1)):
        beside = padded[dy : dy + height, dx : dx + width]
        touching |= (beside != owner) & (beside > 0) & (owner > 0)
    around = ndimage.binary_dilation(owner > 0, iterations=2) & (owner == 0)
    wide = touching | around
    seg = np.zeros((*owner.shape, 3), np.uint8)
    inside = (owner > 0) & ~wide
    seg[inside & positive[owner], 0] = 255
    seg[inside & ~positive[owner], 2] = 255
    seg[wide, 1] = 255
    return seg


def _as_bytes(image: NDArray[np.float64]) -> UInt8Array:
    result: UInt8Array = np.clip(image, 0, 255).round().astype(np.uint8)
    return result
