"""A picture of one image's evaluation: what was found, what was not, what should not have been."""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

UInt8Array = NDArray[np.uint8]
_Colour = tuple[int, int, int]
HIT, EXTRA, MISSED = "true positive", "false positive", "false negative"
_COLOURS = {"positive": (255, 64, 64), "negative": (64, 224, 255)}
_RIM = (0, 0, 0)
_SMALL_SIDE = 1500
_RADIUS, _LINE, _TEXT = 10, 3, 20


@dataclass(frozen=True)
class Marks:
    """Where symbols go: one class, one outcome.

    Attributes
    ----------
    kind : {'positive', 'negative'}
    outcome : {HIT, EXTRA, MISSED}
    xy : ndarray of float64, shape (n, 2)
        Px of the image.
    """

    kind: str
    outcome: str
    xy: NDArray[np.float64]


def draw_evaluation(
    rgb: UInt8Array, marks: Iterable[Marks], outlines: Iterable[tuple[str, NDArray[np.int32]]], caption: str
) -> bytes:
    """Draw the outcome on the IHC, with a legend below.

    Circles are true positives, crosses false positives, squares false negatives; the colour is the class. A
    cell found in the wrong class is a cross of that class and a square of the true one. Images up to 1500 px
    are doubled in size.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    marks : iterable of Marks
    outlines : iterable of (str, ndarray of int32 of shape (H, W))
        Class and labels (0 background) of cells to outline.
    caption : str
        First line of the legend.

    Returns
    -------
    bytes
        A PNG file.
    """
    marks = list(marks)
    scale = 2 if max(rgb.shape[:2]) <= _SMALL_SIDE else 1
    pixels = rgb.repeat(scale, axis=0).repeat(scale, axis=1)
    for kind, labels in outlines:
        pixels[_inner_edge(labels.repeat(scale, axis=0).repeat(scale, axis=1))] = _COLOURS[kind]
    font = ImageFont.load_default(size=_TEXT)
    row = _TEXT + 12
    picture = Image.new("RGB", (max(pixels.shape[1], 1020), pixels.shape[0] + 3 * row + 12), "white")
    picture.paste(Image.fromarray(pixels), (0, 0))
    draw = ImageDraw.Draw(picture)
    for group in marks:
        for x, y in (group.xy + 0.5) * scale:
            _symbol(draw, group.outcome, x, y, _COLOURS[group.kind])
    top = pixels.shape[0] + 8
    draw.text((12, top), caption, fill="black", font=font)
    for line, kind in enumerate(_COLOURS, start=1):
        middle = top + line * row + _TEXT / 2 + 2
        for column, outcome in enumerate((HIT, EXTRA, MISSED)):
            left = 24 + 335 * column
            count = sum(len(group.xy) for group in marks if (group.kind, group.outcome) == (kind, outcome))
            _symbol(draw, outcome, left, middle, _COLOURS[kind])
            draw.text(
                (left + 20, middle), f"{kind} cells: {count} {outcome}s", fill="black", font=font, anchor="lm"
            )
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _inner_edge(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the pixels of instances that have a neighbour (of eight) outside their own."""
    edge = (ndimage.maximum_filter(labels, 3) != labels) | (ndimage.minimum_filter(labels, 3) != labels)
    return np.asarray(edge & (labels > 0))


def _symbol(draw: ImageDraw.ImageDraw, outcome: str, x: float, y: float, colour: _Colour) -> None:
    # A dark rim, one pixel wide, keeps the symbol visible on any stain.
    for ink, rim in ((_RIM, 1), (colour, 0)):
        r, width = _RADIUS + rim, _LINE + 2 * rim
        if outcome == HIT:
            draw.ellipse((x - r, y - r, x + r, y + r), outline=ink, width=width)
        elif outcome == MISSED:
            draw.rectangle((x - r, y - r, x + r, y + r), outline=ink, width=width)
        else:
            draw.line((x - r, y - r, x + r, y + r), fill=ink, width=width)
            draw.line((x - r, y + r, x + r, y - r), fill=ink, width=width)
