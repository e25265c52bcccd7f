"""What JPEG data says of its own colours: containers are often wrong about them."""

from collections.abc import Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np

_APP0, _APP14, _DQT_TO_SOS = 0xE0, 0xEE, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BRIGHTEST_PERCENT, _CLEARLY = 90, 40
_END = b"\xff\xd9"
_LETTERS = (82, 71, 66)  # "RGB" as component names


@dataclass(frozen=True)
class JpegFacts:
    """What the markers of a JPEG stream say.

    Attributes
    ----------
    components : int
        Number of colour components; 0 where no frame was found.
    color : str or None
        ``grey``, ``rgb``, ``ycbcr``, ``cmyk`` or ``ycck``; None where the data leaves it open.
    subsampled : bool
        Whether colour is stored at a lower resolution than brightness.
    """

    components: int
    color: str | None
    subsampled: bool


def jpeg_facts(data: bytes) -> JpegFacts:
    """Return what a JPEG stream says of its colours, by the conventions of the JPEG group's library.

    Adobe's marker tells the transform; JFIF means YCbCr; components named R, G, B are that; colour at a lower
    resolution than brightness is no RGB. A stream with none of these leaves it to its container.

    Parameters
    ----------
    data : bytes
        A stream, whole or abbreviated (tables elsewhere), or its beginning.
    """
    place, is_jfif, transform = 2, False, None
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length]
        if marker == _APP0 and body.startswith(b"JFIF\0"):
            is_jfif = True
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            transform = body[11]
        elif marker in _FRAMES and len(body) >= 6:
            return _of_frame(body, is_jfif, transform)
        elif marker == _DQT_TO_SOS:
            break
        place += 2 + length
    return JpegFacts(0, None, False)


def _of_frame(body: bytes, is_jfif: bool, transform: int | None) -> JpegFacts:
    count = body[5]
    ids = tuple(body[6 + 3 * n] for n in range(count) if 6 + 3 * n < len(body))
    sampling = {body[7 + 3 * n] for n in range(count) if 7 + 3 * n < len(body)}
    subsampled = len(sampling) > 1
    color: str | None = None
    if count == 1:
        color = "grey"
    elif count == 4:
        color = "ycck" if transform == 2 else "cmyk"
    elif count == 3:
        if transform is not None:
            color = "ycbcr" if transform == 1 else "rgb"
        elif is_jfif or subsampled:
            color = "ycbcr"
        elif ids == _LETTERS:
            color = "rgb"
    return JpegFacts(count, color, subsampled)


def likelier_color(streams: Sequence[bytes], tables: bytes | None) -> str | None:
    """Return how JPEG streams of three components without any marker are meant, by what they show.

    The brightest pixels of brightfield are glass or pale tissue, near to grey. Taken for the other kind of
    colours they become magenta or red.

    Parameters
    ----------
    streams : sequence of bytes
        Parts of one picture; damaged ones are passed over.
    tables : bytes, optional
        Tables that they share.

    Returns
    -------
    str or None
        ``rgb`` or ``ycbcr``; None where neither is clearly nearer to grey.
    """
    tint = {}
    for color in ("rgb", "ycbcr"):
        found = []
        for stream in streams:
            try:
                pixels = imagecodecs.jpeg8_decode(
                    stream, tables=tables, colorspace=color.upper(), outcolorspace="RGB"
                )
            except (RuntimeError, ValueError):
                continue
            found.append(np.asarray(pixels)[::4, ::4].reshape(-1, 3).astype(np.int32))
        if not found:
            return None
        flat = np.concatenate(found)
        light = flat.sum(axis=1)
        bright = flat[light >= np.percentile(light, _BRIGHTEST_PERCENT)]
        tint[color] = float(np.ptp(bright, axis=1).mean())
    if abs(tint["rgb"] - tint["ycbcr"]) < _CLEARLY:
        return None
    return min(tint, key=lambda color: tint[color])


def check_end(data: bytes) -> None:
    """Refuse a stream of JPEG, JPEG 2000 or JPEG-LS that does not end with their marker of the end.

    Decoders fill in what is missing, and JPEG 2000 makes a picture of what was overwritten, too. Zeros may
    follow the end: containers pad with them.

    Raises
    ------
    ValueError
        The end is not there.
    """
    if not data.rstrip(b"\0").endswith(_END):
        raise ValueError("its end is not there")
