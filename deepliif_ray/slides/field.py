"""Plain PNG, JPEG, JPEG 2000 and TIFF images, decoded by Pillow into 8-bit RGB."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from deepliif_ray.errors import SlideCorruptError, SlideUnreadableError

MAX_PIXELS = 500_000_000
"""A plain image is held in memory whole: 1.5 GB at this size, and 3.5 GB while it is decoded."""
_STRIP = 512

_FORMATS: tuple[tuple[bytes, type[ImageFile], str], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImageFile, "png"),
    (b"\xff\xd8\xff", JpegImageFile, "jpeg"),
    (b"\x00\x00\x00\x0cjP  ", Jpeg2KImageFile, "jpeg2000"),
    (b"\xff\x4f\xff\x51", Jpeg2KImageFile, "jpeg2000"),
    (b"II*\x00", TiffImageFile, "tiff"),
    (b"MM\x00*", TiffImageFile, "tiff"),
    (b"II+\x00", TiffImageFile, "tiff"),
    (b"MM\x00+", TiffImageFile, "tiff"),
)
# What Pillow's decoders are seen to raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def load_field(path: Path) -> tuple[NDArray[np.uint8], str]:
    """Decode a plain image.

    Grey, palette, CMYK and 16-bit images become 8-bit RGB (of 16 bits, the upper 8); transparency is laid
    over white. Orientation tags are not applied: coordinates are those of the stored pixels. The pages of a
    TIFF must all be listed correctly, so that a truncated slide is not taken for a plain image; the first is
    read.

    Returns
    -------
    pixels : ndarray of uint8, shape (height, width, 3)
    kind : str
        ``png``, ``jpeg``, ``jpeg2000`` or ``tiff``.

    Raises
    ------
    SlideUnreadableError
        It is no such image, has over 500 megapixels, or pixels of an unsuitable kind.
    SlideCorruptError
        It cannot be decoded whole.
    """
    with path.open("rb") as file:
        magic = file.read(8)
        file.seek(0)
        for start, plugin, kind in _FORMATS:
            if magic.startswith(start):
                return _decode(plugin, file, path.name, kind), kind
    raise SlideUnreadableError(
        f"{path.name}: not a slide that OpenSlide knows, nor a PNG, JPEG, JPEG 2000 or TIFF image, or cut "
        "short; export or copy the file again"
    )


def _decode(plugin: type[ImageFile], file: BinaryIO, name: str, kind: str) -> NDArray[np.uint8]:
    # The plugin is called directly: Image.open would refuse images well below our limit, and its limit is
    # a setting of the whole process.
    try:
        image = plugin(file)
        pages = getattr(image, "n_frames", 1)
    except _DAMAGE as error:
        raise SlideUnreadableError(
            f"{name}: a damaged or truncated {kind} file ({_reason(error)}); export or copy the file again"
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise SlideUnreadableError(
            f"{name}: a plain image of {image.width} × {image.height} pixels is too large to hold in memory; "
            "convert it into a pyramidal tiled TIFF"
        )
    try:
        if pages > 1:
            image.seek(0)
        image.load()
    except _DAMAGE as error:
        raise SlideCorruptError(
            f"{name}: its pixels cannot be decoded ({_reason(error)}); export or copy the file again"
        ) from error
    return _as_rgb(image, name)


def _as_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Return the pixels of a decoded image, converted strip by strip: whole copies would take gigabytes."""
    if image.mode in ("I", "F"):
        raise SlideUnreadableError(f"{name}: pixels are 32-bit grey values; convert the image into 8-bit RGB")
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _STRIP):
        strip = image.crop((0, top, image.width, min(top + _STRIP, image.height)))
        if image.mode.startswith("I;16"):
            pixels[top : top + _STRIP] = (np.asarray(strip) >> 8)[..., None]
            continue
        if image.has_transparency_data:
            white = Image.new("RGBA", strip.size, "white")
            strip = Image.alpha_composite(white, strip.convert("RGBA"))
        pixels[top : top + _STRIP] = np.asarray(strip.convert("RGB"))
    return pixels


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
