"""What a model infers of tiles, as images of their cores: for who wants to see them, and not cells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.engine.steps import BLOCK_TILES, core_of, read_pixels, shown
from deepliif_ray.models import Model
from deepliif_ray.slides import Slide, SlidePlan, Tile, is_empty

SEGMENTATION = "segmentation"
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class CoreMaps:
    """What was inferred in the core of a tile.

    Attributes
    ----------
    tile : Tile
    images : dict of str to ndarray of uint8, shape (rows, columns, 3), or None
        `SEGMENTATION` and modalities; None where scoring does not run the model either.
    bad : str, optional
        Why the tile cannot be decoded.
    """

    tile: Tile
    images: dict[str, Image] | None = None
    bad: str | None = None


def tiles_within(plan: SlidePlan, area: tuple[int, int, int, int]) -> list[Tile]:
    """Return the tiles that own a pixel of an area: x, y, width and height, level-0 px."""
    x, y, width, height = area
    found = []
    for tile in plan.grid:
        x0, y0, x1, y1 = tile.core
        if x0 < x + width and x1 > x and y0 < y + height and y1 > y:
            found.append(tile)
    return found


def infer_cores(
    slide: Slide, plan: SlidePlan, model: Model, tiles: Sequence[Tile], modalities: Sequence[str]
) -> Iterator[CoreMaps]:
    """Run the model on tiles as scoring does, and yield what it infers in their cores; not in their order.

    Parameters
    ----------
    slide : Slide
    plan : SlidePlan
        Of the whole slide.
    model : Model
        Loaded with ``modalities``.
    tiles : sequence of Tile
    modalities : sequence of str
        As the model calls them.

    Raises
    ------
    ModelError
        Inference failed.
    SlideError
        The slide cannot be read any more.
    """
    masked = set(plan.masked)
    for start in range(0, len(tiles), BLOCK_TILES):
        seen: list[tuple[Tile, Image]] = []
        for tile in tiles[start : start + BLOCK_TILES]:
            if tile.index in masked:
                yield CoreMaps(tile)
                continue
            pixels, bad = read_pixels(slide, plan, tile)
            if bad is not None or is_empty(pixels):
                yield CoreMaps(tile, bad=bad)
            else:
                seen.append((tile, shown(plan, pixels)))
        if seen:
            found = model.infer(np.stack([pixels for _, pixels in seen]), modalities)
            images = {SEGMENTATION: found.seg, **found.modalities}
            for n, (tile, _) in enumerate(seen):
                yield CoreMaps(tile, {name: core_of(image[n], tile) for name, image in images.items()})
