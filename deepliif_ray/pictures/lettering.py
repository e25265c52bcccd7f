"""Text in pictures: what can be drawn of it, and how it is broken into lines."""

import unicodedata
from functools import cache

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
MICRO = "µ"
"""The font of Pillow lacks it, and scales need it: it is drawn as a u with a stem below."""
_SPELLED = {"\u03bc": MICRO, "\u2013": "-", "\u2014": "-", "\u2212": "-", "×": "x"}
_MISSING = "\U000fffff"
_LONGEST = 4_000
"""Characters that are looked at: more than any picture shows."""


@cache
def font(size: int) -> Font:
    """Return the font of all pictures, which Pillow brings along, at a size in px."""
    return ImageFont.load_default(size)


def drawable(text: str) -> str:
    """Return text of one line whose characters the font has.

    Others lose their accents, or are told by their numbers as Python writes them.
    """
    return "".join(map(_drawable, " ".join(text[:_LONGEST].split())))


@cache
def _drawable(character: str) -> str:
    character = _SPELLED.get(character, character)
    if _is_there(character):
        return character
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    if plain and all(map(_is_there, plain)):
        return plain
    return character.encode("unicode_escape").decode()


def _is_there(character: str) -> bool:
    if character.isascii() or character == MICRO:
        return character.isprintable()
    return character.isprintable() and bytes(font(16).getmask(character)) != _nothing()


@cache
def _nothing() -> bytes:
    return bytes(font(16).getmask(_MISSING))


def size_of(of: Font) -> float:
    """Return the size of a font, px."""
    return float(getattr(of, "size", 15))


def room(text: str, of: Font) -> float:
    """Return how long text is, px."""
    return of.getlength(text.replace(MICRO, "u"))


def shortened(text: str, of: Font, width: float) -> str:
    """Return text that is at most ``width`` px long; of a longer one, its beginning and its end."""
    if room(text, of) <= width:
        return text
    # Of the most characters that fit: halving is quicker than trying each.
    least, most = 0, len(text)
    while least < most:
        keep = (least + most + 1) // 2
        if room(_cut(text, keep), of) <= width:
            least = keep
        else:
            most = keep - 1
    return _cut(text, least)


def _cut(text: str, keep: int) -> str:
    return f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"


def wrapped(text: str, of: Font, width: float, most: int = 6) -> list[str]:
    """Return text in lines of at most ``width`` px, broken between words; no more than ``most`` lines."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and room(joined, of) <= width:
            lines[-1] = joined
        else:
            lines.append(shortened(word, of, width))
    if len(lines) > most:
        lines[most - 1 :] = [shortened(" ".join(lines[most - 1 :]), of, width)]
    return lines


def write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, of: Font, ink: tuple[int, ...]
) -> None:
    """Write text, with the middle of its line at the left at ``at``."""
    x, size = at[0], size_of(of)
    base = round(at[1] + 0.35 * size)
    draw.text((x, base), text.replace(MICRO, "u"), fill=ink, font=of, anchor="ls")
    stem = max(1, round(0.085 * size))
    for place in (n for n, character in enumerate(text) if character == MICRO):
        left = round(x + room(text[:place], of) + 0.075 * size)
        draw.rectangle((left, base - round(0.2 * size), left + stem - 1, base + round(0.2 * size)), fill=ink)
