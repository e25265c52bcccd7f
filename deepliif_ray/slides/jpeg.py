"""What JPEG data says of its own colours: containers are often wrong about them."""

from dataclasses import dataclass

_APP0, _APP14, _DQT_TO_SOS = 0xE0, 0xEE, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
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
