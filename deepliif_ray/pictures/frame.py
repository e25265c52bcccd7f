"""A picture with its alarms above it and its legend and scale below."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deepliif_ray.pictures import heat_map
from deepliif_ray.pictures.colours import ALARM, INK, PALE_INK, PAPER, Colour, heat
from deepliif_ray.pictures.legend import Bar, Key, Legend
from deepliif_ray.pictures.lettering import Font, font, room, shortened, size_of, wrapped, write
from deepliif_ray.pictures.overlay import cross, dot

_LEAST_WIDTH = 720
_BAR_SHARE = 0.25
"""Of the width of the picture, at most."""


def framed(picture: Image.Image, legend: Legend, um_per_px: float) -> Image.Image:
    """Return a picture with its alarms above it and its legend and scale below it.

    Nothing is written on the picture itself, so that nothing of it is hidden.

    Parameters
    ----------
    picture : Image
    legend : Legend
    um_per_px : float
        µm per pixel of the picture.
    """
    width = max(picture.width, _LEAST_WIDTH)
    of = font(int(np.clip(width / 62, 15, 44)))
    above = _Strip(width, of, PAPER, ALARM)
    for alarm in legend.alarms:
        above.text(alarm)
    below = _Strip(width, of, INK, PAPER)
    below.line()
    below.text(legend.title, of=font(int(1.3 * size_of(of))), most=1)
    below.scale(picture.width, um_per_px)
    for line in legend.lines:
        below.text(line)
    below.keys(legend.keys)
    if legend.bar is not None:
        below.bar(legend.bar)
    for line in legend.small:
        below.text(line, of=font(int(0.8 * size_of(of))), ink=PALE_INK)
    parts = [strip.image() for strip in (above, below)]
    height = parts[0].height + picture.height + parts[1].height
    whole = Image.new("RGB", (width, height), PAPER)
    whole.paste(parts[0], (0, 0))
    whole.paste(picture, ((width - picture.width) // 2, parts[0].height))
    whole.paste(parts[1], (0, parts[0].height + picture.height))
    return whole


def bar_length_um(most_um: float) -> float:
    """Return the longest of 1, 2 or 5 times a power of ten that is at most ``most_um``."""
    power: float = 10.0 ** math.floor(math.log10(most_um))
    return next(step * power for step in (5, 2, 1) if step * power <= most_um * (1 + 1e-9))


def length(um: float) -> str:
    """Return a length in µm or mm, as a scale bar says it."""
    return f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} µm"


class _Strip:
    """Lines of text and symbols, one below the other, as high as they need."""

    def __init__(self, width: int, of: Font, ink: Colour, paper: Colour) -> None:
        self._width, self._of, self._ink, self._paper = width, of, ink, paper
        self._line = int(1.45 * size_of(of))
        self._edge = self._line // 2
        self._image = Image.new("RGB", (width, self._line * 4), paper)
        self._draw = ImageDraw.Draw(self._image)
        self._y = self._edge // 2

    def image(self) -> Image.Image:
        """Return the strip; of no height if nothing was written."""
        is_empty = self._y == self._edge // 2
        return self._image.crop((0, 0, self._width, 0 if is_empty else self._y + self._edge // 2))

    def _take(self, height: float) -> float:
        """Return the middle of the next line, and make room for it."""
        middle, self._y = self._y + height / 2, self._y + int(height)
        if self._y + self._line > self._image.height:
            taller = Image.new("RGB", (self._width, 2 * self._y + self._line), self._paper)
            taller.paste(self._image, (0, 0))
            self._image, self._draw = taller, ImageDraw.Draw(taller)
        return middle

    def text(self, text: str, *, of: Font | None = None, ink: Colour | None = None, most: int = 6) -> None:
        of, width = of or self._of, self._width - 2 * self._edge
        lines = wrapped(text, of, width, most) if most > 1 else [shortened(text, of, width)]
        for line in lines:
            middle = self._take(1.45 * size_of(of))
            write(self._draw, (self._edge, middle), line, of, ink or self._ink)

    def line(self) -> None:
        """Draw where the picture ends: one of cells on white does not show it."""
        self._draw.line((0, 0, self._width, 0), fill=PALE_INK)

    def scale(self, width: int, um_per_px: float) -> None:
        um = bar_length_um(max(width * _BAR_SHARE, 1) * um_per_px)
        px, middle = um / um_per_px, self._take(self._line)
        left, high = self._edge, self._line // 4
        self._draw.rectangle((left, middle - high / 2, left + px - 1, middle + high / 2), fill=self._ink)
        write(self._draw, (left + px + self._edge, middle), length(um), self._of, self._ink)

    def keys(self, keys: Sequence[Key]) -> None:
        middle, x, mark = 0.0, float(self._width), 1.2 * self._line
        for key in keys:
            needed = mark + room(key.text, self._of) + 2 * self._edge
            if x + needed > self._width:
                middle, x = self._take(self._line), float(self._edge)
            half = self._line * 0.3
            at = x + half
            if key.symbol == "outline":
                self._draw.rectangle(
                    (x, middle - half, x + 2 * half, middle + half), outline=key.colour, width=3
                )
            elif key.symbol == "dot":
                dot(self._draw, at, middle, int(half), key.colour)
            else:
                cross(self._draw, at, middle, int(half * 0.8))
            write(self._draw, (x + 0.8 * self._line, middle), key.text, self._of, self._ink)
            x += needed

    def bar(self, bar: Bar) -> None:
        middle = self._take(self._line)
        left, wide, high = self._edge, int(self._width * 0.4), self._line * 0.35
        x: float
        colours = _over(heat(), 255)
        strip = Image.fromarray(colours[None]).resize((wide, int(2 * high)), Image.Resampling.NEAREST)
        self._image.paste(strip, (left, int(middle - high)))
        if bar.few is not None:
            x = left + wide + 2 * self._edge
            box = (int(x), int(middle - high), int(x + self._line), int(middle + high))
            self._draw.rectangle(box, outline=PALE_INK)
            for n in range(box[0], box[2]):
                for m in range(box[1], box[3]):
                    if (n + m) % heat_map.HATCH == 0:
                        self._draw.point((n, m), fill=PALE_INK)
            write(self._draw, (x + self._line + self._edge / 2, middle), bar.few, self._of, self._ink)
        middle = self._take(self._line)
        for share in (0.0, 0.5, 1.0):
            label = f"{share * bar.end:,.6g}"
            x = left + share * wide
            self._draw.line(
                (min(x, left + wide - 1), middle - self._line / 2, x, middle - self._line / 3), self._ink
            )
            x = min(max(x - room(label, self._of) / 2, left), left + wide)
            write(self._draw, (x, middle), label, self._of, self._ink)
        x = left + wide + 2 * self._edge + room(label, self._of) / 2
        write(self._draw, (x, middle), bar.what, self._of, self._ink)


def _over(colours: NDArray[np.uint8], paper: int) -> NDArray[np.uint8]:
    """Return colours as they look on a pale picture."""
    shown: NDArray[np.uint8] = np.rint(heat_map.OPACITY * colours + (1 - heat_map.OPACITY) * paper).astype(
        np.uint8
    )
    return shown
