"""Slides: opened, measured, planned, cut into tiles; and written.

Names are imported when first used: the process that reads slides needs few of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepliif_ray.slides.grid import Tile, TileGrid, default_overlap, published_positions
    from deepliif_ray.slides.guard import open_guarded
    from deepliif_ray.slides.plan import SlidePlan, plan_slide, resolution_name, tile_size_for
    from deepliif_ray.slides.pyramid import write_pyramid
    from deepliif_ray.slides.reader import open_slide
    from deepliif_ray.slides.slide import Level, Slide
    from deepliif_ray.slides.tissue import TissueMask, grey_variance, is_empty, masked_tiles, tissue_mask

__all__ = [
    "Level",
    "Slide",
    "SlidePlan",
    "Tile",
    "TileGrid",
    "TissueMask",
    "default_overlap",
    "grey_variance",
    "is_empty",
    "masked_tiles",
    "open_guarded",
    "open_slide",
    "plan_slide",
    "published_positions",
    "resolution_name",
    "tile_size_for",
    "tissue_mask",
    "write_pyramid",
]

_HOMES = {
    "grid": ("Tile", "TileGrid", "default_overlap", "published_positions"),
    "guard": ("open_guarded",),
    "plan": ("SlidePlan", "plan_slide", "resolution_name", "tile_size_for"),
    "pyramid": ("write_pyramid",),
    "reader": ("open_slide",),
    "slide": ("Level", "Slide"),
    "tissue": ("TissueMask", "grey_variance", "is_empty", "masked_tiles", "tissue_mask"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
