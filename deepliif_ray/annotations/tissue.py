"""The tissue in regions, by the mask that the tissue of the whole slide was measured with."""

import math
from typing import Any

import shapely

from deepliif_ray.annotations.coverage import covered
from deepliif_ray.errors import DeepliifRayError, SlideError
from deepliif_ray.slide_access import entry_of, open_entry
from deepliif_ray.slides import tissue_mask

MOST_OFF = 0.001
"""Share by which the tissue found now may differ from the slide's record: decoders round differently."""


class Tissue:
    """The tissue of a committed slide, read again.

    Parameters
    ----------
    row : dict
        The slide's commit record.

    Raises
    ------
    SlideError
        The slide cannot be read, or is not the one that was scored.
    StorageError
        The store failed.
    """

    def __init__(self, row: dict[str, Any]) -> None:
        with open_entry(entry_of(row)) as slide:
            self._size = slide.width, slide.height
            self._found = tissue_mask(slide, row["mpp"])
        self._mm2_per_px = row["mpp"] ** 2 / 1e6
        if self._size != (row["width_px"], row["height_px"]) or not math.isclose(
            self.mm2, row["tissue_mm2"], rel_tol=MOST_OFF, abs_tol=1e-9
        ):
            raise SlideError(
                f"{row['uri']}: {self._size[0]} × {self._size[1]} px with {self.mm2:.4g} mm² of tissue, but "
                f"its record says {row['width_px']} × {row['height_px']} and {row['tissue_mm2']:.4g}: it "
                "changed since it was scored; score it again"
            )

    @property
    def mm2(self) -> float:
        """All of it, in mm²."""
        return float(self._found.area_px * self._mm2_per_px)

    def within(self, area: Any) -> float:
        """Return how much of it lies in an area (level-0 pixels, valid), in mm²."""
        inside = shapely.intersection(area, shapely.box(0, 0, *self._size))
        return float(covered(inside, self._found.mask, self._found.square) * self._mm2_per_px)


def tissue_of(row: dict[str, Any]) -> tuple[Tissue | None, str | None]:
    """Return the tissue of a slide, or why it cannot be measured now."""
    try:
        return Tissue(row), None
    except DeepliifRayError as error:
        return None, " ".join(str(error).split())
