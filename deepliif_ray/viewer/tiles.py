"""Tissue for a page that zooms: square tiles of slides, read by the process that reads slides."""

import io
import math
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from PIL import Image

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, SlideChangedError, SlideError, StorageError
from deepliif_ray.pictures.backdrop import read_view
from deepliif_ray.pictures.picture import why_on_white
from deepliif_ray.pictures.view import View
from deepliif_ray.slide_access import scored_slide
from deepliif_ray.slides import Slide
from deepliif_ray.slides.levels import level_within

TILE = 256
"""Side of a tile, px of the picture."""
_OPEN = 4
"""Slides that are kept open, at most."""
_QUALITY = 85
_SLACK = 1.01


@dataclass(frozen=True)
class Opened:
    """A slide, or why there is none.

    Attributes
    ----------
    slide : Slide or None
    problem : str or None
        What a person is told: why there is no tissue, or what is not known of it.
    is_changed : bool
        It is not the file that was scored.
    is_sound : dict of int to bool
        Whether a level shows what level 0 shows, as far as that was asked.
    """

    slide: Slide | None
    problem: str | None = None
    is_changed: bool = False
    is_sound: dict[int, bool] = field(default_factory=dict)

    def level_for(self, slide: Slide, most_downsample: float) -> int:
        """Return the coarsest level up to a downsample that may stand for level 0.

        Each level is compared once, all over the slide; comparing it at each tile would take longer than
        reading the tile.
        """
        levels = sorted(range(1, len(slide.levels)), key=lambda n: -slide.levels[n].downsample)
        for number in levels:
            downsample = slide.levels[number].downsample
            if downsample > most_downsample:
                continue
            if number not in self.is_sound:
                whole = 0, 0, slide.width, slide.height
                self.is_sound[number] = level_within(slide, downsample, whole) == number
            if self.is_sound[number]:
                return number
        return 0


class Tissue:
    """The slides of results, opened when first looked at; the newest stay open."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: OrderedDict[tuple[str, str, bool], tuple[Opened, ExitStack]] = OrderedDict()

    def of(self, row: Mapping[str, Any], *, changed: bool = False) -> Opened:
        """Return a slide of a commit record, if it is still the one that was scored.

        Cells are not shown unasked over another picture than the one that they were found in: a slide that
        was changed is shown with ``changed`` alone, if it is as large as it was.
        """
        key = row["slide_id"], row["attempt"], changed
        with self._lock:
            if key not in self._open:
                made = _open(row, changed)
                if made[0].slide is None:
                    return made[0]  # not kept: what is missing now may be there when it is asked for again
                self._open[key] = made
                while len(self._open) > _OPEN:
                    self._open.popitem(last=False)[1][1].close()
            self._open.move_to_end(key)
            return self._open[key][0]

    def tile(
        self, row: Mapping[str, Any], level: int, column: int, line: int, *, changed: bool = False
    ) -> bytes:
        """Return a tile as JPEG.

        Parameters
        ----------
        row : mapping
            The slide's commit record.
        level : int
            0 shows the slide in one pixel, each further one has twice the size, the last is level 0 of the
            slide; see `deepest`.
        column, line : int
            Which tile of `TILE` px.
        changed : bool
            As of `of`.

        Raises
        ------
        ConfigError
            There is no such tile.
        SlideError
            There is no tissue, or it cannot be read.
        """
        view = tile_view(row["width_px"], row["height_px"], level, column, line)
        opened = self.of(row, changed=changed)
        if opened.slide is None:
            raise SlideError(opened.problem or f"slide {row['slide_id']!r}: there is no tissue to show")
        slide = opened.slide
        # A level's downsample is a ratio of rounded sides, so it may be a little above a power of two.
        pixels, _ = read_view(slide, view, opened.level_for(slide, _SLACK / view.scale))
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "JPEG", quality=_QUALITY)
        return encoded.getvalue()

    def close(self) -> None:
        """Close all slides."""
        with self._lock:
            while self._open:
                self._open.popitem()[1][1].close()


def deepest(width: int, height: int) -> int:
    """Return the number of the level that has every pixel."""
    return math.ceil(math.log2(max(width, height, 1)))


def tile_view(width: int, height: int, level: int, column: int, line: int) -> View:
    """Return the area of a tile and its size; raises ConfigError if there is none.

    Parameters
    ----------
    width, height : int
        Of the slide, level-0 px.
    level, column, line : int
        As of `Tissue.tile`.
    """
    last = deepest(width, height)
    if 0 <= level <= last and column >= 0 and line >= 0:
        side = 1 << (last - level)
        x, y = column * TILE * side, line * TILE * side
        if x < width and y < height:
            columns, rows = (min(TILE, -(-left // side)) for left in (width - x, height - y))
            return View(x, y, columns * side, rows * side, columns, rows)
    raise ConfigError(f"there is no tile {level}/{column}/{line} of a slide of {width:,} × {height:,} px")


def _open(row: Mapping[str, Any], changed: bool) -> tuple[Opened, ExitStack]:
    with ExitStack() as stack:
        try:
            slide = stack.enter_context(scored_slide(row, accept_changed=changed))
        except (SlideError, StorageError) as error:
            why = f"{why_on_white(error)} ({storage.scrub(str(error))})"
            return Opened(None, why, isinstance(error, SlideChangedError)), ExitStack()
        said = None
        if changed:
            said = "This is not the file that was scored"
        elif row["slide_version"] is None:
            said = "The record is too old to tell whether this is the file that was scored"
        return Opened(slide, said, changed), stack.pop_all()
