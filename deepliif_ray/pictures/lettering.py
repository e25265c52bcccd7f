"""Text in pictures: what can be drawn of it, and how it is broken into lines."""

from functools import cache

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_MISSING = "\U000fffff"
_LONGEST = 4_000
"""Characters that are looked at: more than any picture shows."""


@cache
def font(size: int) -> Font:
    """Return the font of all pictures, which Pillow brings along, at a size in px."""
    return ImageFont.load_default(size)


def drawable(text: str) -> str:
    """Return text of one line whose characters the font has; others by their numbers, as Python does."""
    return "".join(map(_drawable, " ".join(text[:_LONGEST].split())))


@cache
def _drawable(character: str) -> str:
    if character.isascii() and character.isprintable():
        return character
    if character.isprintable() and bytes(font(16).getmask(character)) != _nothing():
        return character
    return character.encode("unicode_escape").decode()


@cache
def _nothing() -> bytes:
    return bytes(font(16).getmask(_MISSING))


def shortened(text: str, of: Font, width: float) -> str:
    """Return text that is at most ``width`` px long; of a longer one, its beginning and its end."""
    if of.getlength(text) <= width:
        return text
    # Of the most characters that fit: halving is quicker than trying each.
    least, most = 0, len(text)
    while least < most:
        keep = (least + most + 1) // 2
        if of.getlength(_cut(text, keep)) <= width:
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
        if lines and of.getlength(joined) <= width:
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
    draw.text(at, text, fill=ink, font=of, anchor="lm")
