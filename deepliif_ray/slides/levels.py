"""Which levels of a slide may stand for level 0: those of its shape that show what it shows.

Scanners, converters and copies leave levels that lack tiles, hold another picture (a photograph of the whole
glass, say) or belong to another scan. What is measured on such a level is wrong without a sign of it.
"""

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.errors import SlideCorruptError
from deepliif_ray.slides.slide import Slide

MISFIT = 3.0
"""Pixels of a level by which its sides may be off: they are rounded, and some scanners pad them."""
BLOCKS = 16
LEAST_BLOCK = 512
"""A slide is compared in at most so many blocks a side, none smaller than so many level-0 pixels."""
HINTS = 256
"""Squares that a level shows as one colour, or without pixels, are compared too: up to so many of them."""
PATCH = 64
PATCH_LEVEL = 8
"""Side of what is compared: level-0 pixels, and at least so many of the level's own."""
AREA_PATCHES = 6
"""Patches a side where only an area is compared."""
DIFFERENCE = 25.0
"""Grey levels by which the averages of a patch may differ. Compression and rounding make up to about 10."""


def has_shape(slide: Slide, number: int) -> bool:
    """Tell whether a level has the shape of level 0."""
    level = slide.levels[number]
    return (
        abs(level.width - slide.width / level.downsample) <= MISFIT
        and abs(level.height - slide.height / level.downsample) <= MISFIT
    )


def usable_level(slide: Slide, most_downsample: float) -> tuple[int, tuple[str, ...]]:
    """Return the coarsest level up to ``most_downsample`` that may stand for level 0, and what was found.

    Parameters
    ----------
    slide : Slide
    most_downsample : float
        Level-0 pixels per pixel that are wanted at most.

    Returns
    -------
    number : int
        0 if no other may.
    warnings : tuple of str
        Levels that have another shape, or show something else than level 0.
    """
    warnings = []
    usable = [0]
    for number in range(1, len(slide.levels)):
        if not has_shape(slide, number):
            level = slide.levels[number]
            warnings.append(
                f"level {number}, {level.width} × {level.height} px, has another shape than the slide and is "
                "passed over"
            )
        elif slide.levels[number].downsample <= most_downsample:
            usable.append(number)
    for number in sorted(usable, key=lambda n: slide.levels[n].downsample, reverse=True):
        where = number and _disagreement(slide, number)
        if not where:
            return number, tuple(warnings)
        warnings.append(
            f"level {number} does not show what level 0 shows at {where[0]}, {where[1]} and is passed over"
        )
    return 0, tuple(warnings)


def level_within(slide: Slide, most_downsample: float, area: tuple[int, int, int, int]) -> int:
    """Return the coarsest level up to ``most_downsample`` that shows what level 0 shows in an area.

    It looks at `AREA_PATCHES` squared patches of the area alone, where `usable_level` looks at the whole
    slide.

    Parameters
    ----------
    slide : Slide
    most_downsample : float
        Level-0 pixels per pixel that are wanted at most.
    area : tuple of int
        x, y, width and height, level-0 px, within the slide.

    Raises
    ------
    SlideError
        The slide cannot be read any more.
    """
    fitting = [
        number
        for number in range(1, len(slide.levels))
        if has_shape(slide, number) and slide.levels[number].downsample <= most_downsample
    ]
    for number in sorted(fitting, key=lambda n: slide.levels[n].downsample, reverse=True):
        side = max(PATCH, math.ceil(PATCH_LEVEL * slide.levels[number].downsample))
        if _differs(slide, number, side, _spread_within(area, side)) is None:
            return number
    return 0


def _spread_within(area: tuple[int, int, int, int], side: int) -> list[tuple[int, int]]:
    starts = []
    for begin, length in (area[::2], area[1::2]):
        count = max(1, min(AREA_PATCHES, length // side))
        starts.append([max(0, round(begin + (n + 0.5) * length / count - side / 2)) for n in range(count)])
    return [(x, y) for y, x in product(starts[1], starts[0])]


def _disagreement(slide: Slide, number: int) -> tuple[int, int] | None:
    """Return where (level-0 px) a level shows something else than level 0; None where none was found."""
    side = max(PATCH, math.ceil(PATCH_LEVEL * slide.levels[number].downsample))
    return _differs(slide, number, side, [*_spread(slide, side), *_hints(slide, number, side)])


def _differs(slide: Slide, number: int, side: int, patches: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the first patch, by its top left pixel, of which a level shows something else than level 0."""
    for x, y in patches:
        try:
            ours, other = _average(slide, 0, x, y, side), _average(slide, number, x, y, side)
        except SlideCorruptError:  # tiles that cannot be decoded are told of elsewhere
            continue
        if np.abs(ours - other).max() > DIFFERENCE:
            return x, y
    return None


def _spread(slide: Slide, side: int) -> list[tuple[int, int]]:
    """Return the top left pixels of patches in the middle of blocks that cover the slide."""
    starts = []
    for length in (slide.width, slide.height):
        count = max(1, min(BLOCKS, length // LEAST_BLOCK))
        starts.append([max(0, round((n + 0.5) * length / count - side / 2)) for n in range(count)])
    return [(x, y) for y, x in product(starts[1], starts[0])]


def _hints(slide: Slide, number: int, side: int) -> list[tuple[int, int]]:
    """Return patches where the level shows one colour or nothing: a tile that it lacks looks like that."""
    level = slide.levels[number]
    found = []
    step = max(1, side // round(level.downsample))
    for top in range(0, level.height, 16 * step):
        height = min(16 * step, level.height - top)
        try:
            strip = slide.read_level(number, 0, top, level.width, height)
        except SlideCorruptError:
            continue
        for y, x in product(range(0, height - step + 1, step), range(0, level.width - step + 1, step)):
            square = strip[y : y + step, x : x + step]
            if square[..., 3].max() == 0 or (square == square[0, 0]).all():
                place = (round(x * level.downsample), round((top + y) * level.downsample))
                found.append(place)
    if not found:
        return []
    return [found[pick] for pick in np.unique(np.linspace(0, len(found) - 1, HINTS).round().astype(int))]


def _average(slide: Slide, number: int, x: int, y: int, side: int) -> NDArray[np.float64]:
    """Return the average colour of what a level shows of a square of level-0 pixels."""
    level = slide.levels[number]
    left, top = (
        min(round(place / level.downsample), most - 1)
        for place, most in ((x, level.width), (y, level.height))
    )
    width = max(1, min(round(side / level.downsample), level.width - left))
    height = max(1, min(round(side / level.downsample), level.height - top))
    average: NDArray[np.float64] = slide.read_rgb(number, left, top, width, height).mean(axis=(0, 1))
    return average
