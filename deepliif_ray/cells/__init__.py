"""Segmentation maps to cells, exactly: fragments of cores, joined across seams."""

from deepliif_ray.cells.contours import decode_wkb
from deepliif_ray.cells.extract import ExtractedCells, Thresholds, extract_cells
from deepliif_ray.cells.refine import refine_mask

__all__ = ["ExtractedCells", "Thresholds", "decode_wkb", "extract_cells", "refine_mask"]
