"""Which cells lie in which regions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from deepliif_ray.annotations.classes import class_key
from deepliif_ray.errors import AnnotationError

COLUMNS = ("cell_id", "x", "y")
MOST_PAIRS = 100_000_000
"""Rows of region_cells that one slide may have: few cells are in many regions at once."""
_NUDGE = 0.5 + 2.0**-20, 0.5 + 2.0**-21


@dataclass(frozen=True)
class Membership:
    """Cells and the regions that they lie in, ordered by both.

    Attributes
    ----------
    cell_ids : ndarray of int64, shape (N,)
    regions : ndarray of int32, shape (N,)
        Place of the region among those given.
    """

    cell_ids: NDArray[np.int64]
    regions: NDArray[np.int32]

    def counts(self, classes: Sequence[str], excludes: Sequence[bool]) -> tuple[list[int], list[int]]:
        """Return for each region how many cells it has, and how many its class has.

        Parameters
        ----------
        classes : sequence of str
            Class of each region.
        excludes : sequence of bool
            Whether each region excludes: its cells do not count for the classes of others.
        """
        each = np.bincount(self.regions, minlength=len(classes))
        keys = [class_key(name) for name in classes]
        places = {key: n for n, key in enumerate(dict.fromkeys(keys))}
        of_row = np.array([places[key] for key in keys], np.int64)[self.regions]
        out = np.array(excludes, bool)[self.regions]
        excluded = np.unique(self.cell_ids[out])
        together = {}
        for key, place in places.items():
            ids = np.unique(self.cell_ids[of_row == place])
            if not excludes[keys.index(key)]:
                ids = np.setdiff1d(ids, excluded, assume_unique=True)
            together[key] = len(ids)
        return each.tolist(), [together[key] for key in keys]


def members(areas: Sequence[Any], cells: Iterable[pa.Table]) -> Membership:
    """Find the regions that each cell lies in, by its centroid.

    A cell's centroid is a position among pixels' centres, and outlines are edges: so half a pixel is added.
    A centroid on a border counts as if it lay just right of it and below, so that of two regions that share a
    border one has the cell, as with half-open rectangles; on a border that slants it may be neither, never
    both.

    Parameters
    ----------
    areas : sequence of Polygon or MultiPolygon
        Valid, in level-0 pixels.
    cells : iterable of pyarrow.Table
        With `COLUMNS`; a part is looked at and forgotten.

    Raises
    ------
    AnnotationError
        There are over `MOST_PAIRS` of cells and regions.
    """
    shapes = np.array(areas, dtype=object)
    shapely.prepare(shapes)
    ids: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    regions: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    total = 0
    for table in cells:
        x, y = (table.column(name).to_numpy() + add for name, add in zip("xy", _NUDGE, strict=True))
        region, cell = shapely.STRtree(shapely.points(x, y)).query(shapes, predicate="contains")
        total += len(cell)
        if total > MOST_PAIRS:
            raise AnnotationError(
                f"over {MOST_PAIRS:,} pairs of cells and regions: too many regions overlap; import fewer"
            )
        ids.append(table.column("cell_id").to_numpy()[cell])
        regions.append(region.astype(np.int32))
    cell_ids, places = np.concatenate(ids), np.concatenate(regions)
    order = np.lexsort((places, cell_ids))
    return Membership(cell_ids[order], places[order])
