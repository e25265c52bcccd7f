"""Plain PNG, JPEG and JPEG 2000 images, decoded whole into 8-bit RGB."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from deepliif_ray.errors import SlideCorruptError, SlideUnreadableError, SlideUnsuitableError
from deepliif_ray.slides.depth import bit_depth

MAX_PIXELS = 500_000_000
"""A plain image is held in memory whole: 1.5 GB at this size, and 3.5 GB while it is decoded."""
_STRIP = 512
_ORIENTATION = 0x0112
_GAMMA, _MOST_OFF_GAMMA = 1 / 2.2, 0.1
_PNG_DEPTH = 24
"""Where a PNG says how many bits a sample has."""

_FORMATS: tuple[tuple[bytes, type[ImageFile], str], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImageFile, "png"),
    (b"\xff\xd8\xff", JpegImageFile, "jpeg"),
    (b"\x00\x00\x00\x0cjP  ", Jpeg2KImageFile, "jpeg2000"),
    (b"\xff\x4f\xff\x51", Jpeg2KImageFile, "jpeg2000"),
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


@dataclass(frozen=True)
class Field:
    """A plain image: uint8 pixels (height, width, 3), kind, orientation (1 is upright), what to tell."""

    pixels: NDArray[np.uint8]
    kind: str
    orientation: int
    notes: tuple[str, ...] = ()


def load_field(path: Path) -> Field:
    """Decode a plain image.

    16-bit colours are scaled by the bits that they use, palettes become RGB, transparency is laid over white.
    Grey and CMYK images are refused: stains are told apart by colour, and CMYK has none without the profile
    of its printer.

    Raises
    ------
    SlideUnreadableError
        It is no such image, or has over 500 megapixels.
    SlideUnsuitableError
        It is sound, but grey, CMYK, or of several pictures.
    SlideCorruptError
        It cannot be decoded whole.
    """
    with path.open("rb") as file:
        magic = file.read(8)
        file.seek(0)
        for start, plugin, kind in _FORMATS:
            if magic.startswith(start):
                return _decode(plugin, file, path.name, kind)
    raise SlideUnreadableError(
        f"{path.name}: not a slide that OpenSlide knows, nor a PNG, JPEG, JPEG 2000 or TIFF image, or cut "
        "short; export or copy the file again"
    )


def _decode(plugin: type[ImageFile], file: BinaryIO, name: str, kind: str) -> Field:
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
    if pages > 1:
        raise SlideUnsuitableError(f"{name}: holds {pages} pictures; export the one that is meant")
    if image.mode not in ("RGB", "RGBA", "P", "PA", "YCbCr", "RGBX"):
        what = "CMYK" if image.mode == "CMYK" else "grey" if image.mode[0] in "1LIF" else image.mode
        raise SlideUnsuitableError(
            f"{name}: a {what} image; stains are told apart by colour: export the slide as 8-bit RGB"
        )
    if _is_of_other_gamma(image):
        raise SlideUnsuitableError(
            f"{name}: a PNG whose pixels are stored for a gamma of {1 / image.info['gamma']:.2g}, not 2.2; "
            "export the slide as sRGB"
        )
    notes: tuple[str, ...] = ()
    try:
        orientation = int(image.getexif().get(_ORIENTATION, 1))
        deep = _deep_pixels(file, kind)
        if deep is not None:
            bits = bit_depth(int(deep[..., :3].max(initial=0)))
            pixels = _scaled(deep, bits)
            notes = (f"16-bit colours scaled by the {bits} bits that they use",)
        else:
            image.load()
            pixels = _as_rgb(image)
    except _DAMAGE as error:
        raise SlideCorruptError(
            f"{name}: its pixels cannot be decoded ({_reason(error)}); export or copy the file again"
        ) from error
    return Field(pixels, kind, orientation, notes)


def _is_of_other_gamma(image: ImageFile) -> bool:
    """Tell whether a PNG's values stand for other light than usual: optical densities would be wrong."""
    gamma = image.info.get("gamma")
    if not gamma or "srgb" in image.info or "icc_profile" in image.info:  # these say it better
        return False
    return bool(abs(gamma / _GAMMA - 1) > _MOST_OFF_GAMMA)


def _deep_pixels(file: BinaryIO, kind: str) -> NDArray[np.uint16] | None:
    """Return the 16-bit pixels of an image that has such; Pillow keeps 8 of the bits."""
    place = file.tell()
    file.seek(0)
    head = file.read(_PNG_DEPTH + 1)
    file.seek(0)
    deep = None
    if kind == "jpeg2000":
        found = imagecodecs.jpeg2k_decode(file.read())
        deep = found if found.dtype == np.uint16 and found.ndim == 3 else None
    elif kind == "png" and head[_PNG_DEPTH] == 16:
        deep = imagecodecs.png_decode(file.read())
    file.seek(place)
    return deep


def _scaled(deep: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """Return 16-bit pixels as 8-bit RGB, transparency laid over white; strip by strip."""
    most = 2**bits - 1
    pixels = np.empty((*deep.shape[:2], 3), np.uint8)
    for top in range(0, len(deep), _STRIP):
        strip = deep[top : top + _STRIP].astype(np.float32)
        rgb = np.minimum(strip[..., :3] * (255 / most), 255)
        if strip.shape[2] == 4:
            alpha = strip[..., 3:] / 65_535
            rgb = rgb * alpha + 255 * (1 - alpha)
        pixels[top : top + _STRIP] = np.rint(rgb)
    return pixels


def _as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of a decoded image, converted strip by strip: whole copies would take gigabytes."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _STRIP):
        strip = image.crop((0, top, image.width, min(top + _STRIP, image.height)))
        if image.has_transparency_data:
            white = Image.new("RGBA", strip.size, "white")
            strip = Image.alpha_composite(white, strip.convert("RGBA"))
        pixels[top : top + _STRIP] = np.asarray(strip.convert("RGB"))
    return pixels


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
