"""Stains on synthetic tissue: how much hematoxylin and DAB every pixel has, and what is under the nuclei.

Lengths are pixels at 40x (0.25 µm).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepliif_ray.synthetic.panels.nuclei import BoolArray, FloatArray, Nucleus, Rng, smooth_noise

MOST_HEMATOXYLIN = 1.5
_CRUMB_REACH = 14


@dataclass
class Canvas:
    """What is drawn so far: who owns each pixel, and densities."""

    owner: NDArray[np.int32]
    hematoxylin: FloatArray
    dab: FloatArray
    dapi: FloatArray
    rim: FloatArray


def paint(rng: Rng, nuclei: list[Nucleus], side: int) -> Canvas:
    """Draw the nuclei, each over those before it."""
    zeros = np.zeros((side, side), np.float32)
    canvas = Canvas(
        owner=np.zeros((side, side), np.int32),
        hematoxylin=zeros.copy(),
        dab=zeros.copy(),
        dapi=zeros.copy(),
        rim=zeros.copy(),
    )
    fine, coarse = smooth_noise(rng, side, 1.1), smooth_noise(rng, side, 2.6)
    flakes = smooth_noise(rng, side, rng.uniform(1.5, 4.0))
    grain = rng.uniform(0.05, 0.3)
    clump = rng.uniform(0.0, 0.3)
    grain_dab, clump_dab = rng.uniform(0.03, 0.3), rng.uniform(0.05, 0.4)
    # Counterstain under DAB: from hidden to blue-black.
    under = rng.uniform(0.1, 1.4)
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
        for wave, size in ((2, 0.05), (3, 0.05), (4, 0.03), (5, 0.025), (7, 0.02 * n.crenated)):
            swing = rng.normal(0, (rough + n.crenated) * size)
            outline = outline * (1 + swing * np.cos(wave * turn + rng.uniform(0, 6.3)))
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
        if n.patchy:
            # DAB in flakes, with holes that show the counterstain; some nuclei are rings.
            patches = np.exp(n.patchy * (0.8 * flakes[window] + 0.6 * coarse[window]) - 0.5 * n.patchy**2)
            brown = brown * np.clip(patches, 0.04, 3.0)
            if rng.random() < 0.25:
                brown = brown * (1 - rng.uniform(0.5, 0.95) * np.clip(depth / n.radius - 0.3, 0, 0.3) / 0.3)
        for plane, value in (
            (canvas.hematoxylin, blue),
            (canvas.dab, brown),
            (canvas.dapi, (0.35 + 0.4 * n.blue) * (0.8 * chromatin + 0.25 * rim)),
        ):
            # What lies on top hides part of what lies below; in a section both absorb.
            below = plane[window]
            plane[window] = body * np.maximum(value, 0.45 * below) + (1 - body) * below
        canvas.rim[window] = np.maximum(canvas.rim[window] * (1 - body), rim * body)
        canvas.owner[window][inside] = number
    return canvas


def _spots(rng: Rng, dx: NDArray[np.float64], dy: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Return one to three round spots (nucleoli) inside a nucleus, 0 to 1."""
    spots = np.zeros(dx.shape)
    for _ in range(rng.integers(1, 4)):
        away, turn = rng.uniform(0, 0.55 * radius), rng.uniform(0, 6.3)
        square = (dx - away * np.cos(turn)) ** 2 + (dy - away * np.sin(turn)) ** 2
        spots = np.maximum(spots, np.exp(-square / (2 * rng.uniform(1.2, 2.8) ** 2)))
    return spots


def add_smears(rng: Rng, canvas: Canvas, nuclei: list[Nucleus]) -> None:
    """Add DAB that has left some of the positive nuclei and lies beside them, in clouds."""
    share = rng.uniform(0, 0.4)
    side = len(canvas.owner)
    layer = np.zeros_like(canvas.dab)
    for n in nuclei:
        if not n.positive or rng.random() > share:
            continue
        away, turn = n.radius * rng.uniform(0.5, 1.4), rng.uniform(0, 6.3)
        y, x, size = n.y + away * np.sin(turn), n.x + away * np.cos(turn), n.radius * rng.uniform(0.3, 0.7)
        reach = int(3 * size) + 1
        # A cloud beside a nucleus at the edge may lie outside altogether; then the window is empty.
        (y0, y1), (x0, x1) = (np.clip((int(at) - reach, int(at) + reach), 0, side) for at in (y, x))
        window = (slice(y0, y1), slice(x0, x1))
        ys, xs = np.mgrid[window]
        cloud = np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / (2 * size**2))
        layer[window] = np.maximum(layer[window], min(n.brown, 3.0) * rng.uniform(0.03, 0.25) * cloud)
    texture = np.clip(1 + 0.6 * smooth_noise(rng, side, 1.5) + 0.5 * smooth_noise(rng, side, 4), 0, 3)
    canvas.dab += layer * texture * (canvas.owner == 0)


def stain_around(
    rng: Rng, canvas: Canvas, nuclei: list[Nucleus], localisation: str, tissue: BoolArray
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
    texture = np.clip(1 + 0.25 * smooth_noise(rng, len(tissue), 1.5), 0.3, 1.8)
    coat = ndimage.gaussian_filter((ring * stained * strength[cell] * texture).astype(np.float32), 0.8)
    canvas.dab[:] = np.where(background, coat, inside * canvas.dab * texture + 0.3 * coat)


def add_stroma(rng: Rng, canvas: Canvas, tissue: BoolArray) -> None:
    """Add what lies between nuclei: counterstained stroma, cytoplasm, haze of unspecific DAB."""
    side = len(tissue)
    soft = ndimage.gaussian_filter(tissue.astype(np.float32), 2.0)
    fibres = ndimage.rotate(
        smooth_noise(rng, int(side * 1.5), 1.3, rng.uniform(4, 14)),
        rng.uniform(0, 180),
        reshape=False,
        order=1,
    )
    start = (len(fibres) - side) // 2
    fibres = fibres[start : start + side, start : start + side]
    clouds, wide, fine = smooth_noise(rng, side, 5), smooth_noise(rng, side, 25), smooth_noise(rng, side, 0.8)
    level = float(np.exp(rng.uniform(np.log(0.015), np.log(0.22))))
    shape = 1 + 0.45 * clouds + 0.35 * wide + rng.uniform(0, 0.7) * fibres + 0.15 * fine
    near = ndimage.gaussian_filter((canvas.owner > 0).astype(np.float32), rng.uniform(4, 10))
    canvas.hematoxylin += level * np.clip(shape, 0, 4) * soft + rng.uniform(0, 0.14) * near * soft
    haze = float(np.exp(rng.uniform(np.log(0.004), np.log(0.16))))
    canvas.dab += haze * np.clip(1 + 0.6 * wide + 0.4 * clouds, 0, 4) * soft
    near_dab = ndimage.gaussian_filter(canvas.dab, rng.uniform(3, 8))
    canvas.dab += rng.uniform(0, 0.22) * near_dab * soft


def add_debris(rng: Rng, canvas: Canvas) -> None:
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
        if not (
            _CRUMB_REACH < y < len(plane) - _CRUMB_REACH - 1
            and _CRUMB_REACH < x < len(plane) - _CRUMB_REACH - 1
        ):
            continue
        size = rng.uniform(*sizes)
        around = tuple(slice(int(at) - _CRUMB_REACH, int(at) + _CRUMB_REACH + 1) for at in (y, x))
        ys, xs = np.mgrid[around]
        stretch = rng.uniform(0.5, 1.0)
        spot = np.exp(-(((ys - y) * stretch) ** 2 + (xs - x) ** 2) / (2 * size**2))
        part = layer[around]
        np.maximum(part, rng.uniform(*strength) * spot, out=part)
    plane += layer
