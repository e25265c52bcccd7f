"""Slides: opened, measured, planned, cut into tiles; and written, for tests and demonstrations."""

from deepliif_ray.slides.cohort import write_cohort
from deepliif_ray.slides.grid import Tile, TileGrid, default_overlap, published_positions
from deepliif_ray.slides.plan import SlidePlan, plan_slide, resolution_name, tile_size_for
from deepliif_ray.slides.pyramid import write_pyramid
from deepliif_ray.slides.reader import open_slide
from deepliif_ray.slides.slide import Level, Slide
from deepliif_ray.slides.synthetic import SyntheticTissue
from deepliif_ray.slides.tissue import TissueMask, grey_variance, is_empty, masked_tiles, tissue_mask

__all__ = [
    "Level",
    "Slide",
    "SlidePlan",
    "SyntheticTissue",
    "Tile",
    "TileGrid",
    "TissueMask",
    "default_overlap",
    "grey_variance",
    "is_empty",
    "masked_tiles",
    "open_slide",
    "plan_slide",
    "published_positions",
    "resolution_name",
    "tile_size_for",
    "tissue_mask",
    "write_cohort",
    "write_pyramid",
]
