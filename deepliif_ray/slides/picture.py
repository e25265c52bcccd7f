"""One image of a TIFF file, and why it may be no RGB brightfield image."""

import re
from dataclasses import dataclass

import tifffile

from deepliif_ray.slides.jpeg import JpegFacts

_AXES = {"C": "channels", "Z": "focal planes", "T": "time points"}
_RGB_NAMES = (("red", "green", "blue"), ("r", "g", "b"))
_NAMELESS = re.compile(r"(channel|ch|c)?[ :_-]*\d*([:_-]\d+)?", re.IGNORECASE)
_RGB_COLOURS = ((-16776961, 16711935, 65535), (4278190335, 16711935, 65535))
"""Red, green and blue as OME-XML writes colours, signed and unsigned RGBA."""


@dataclass(frozen=True)
class Picture:
    """One image of a file.

    Attributes
    ----------
    name : str
        As the file calls it; may be empty.
    role : str
        ``image``, or ``label``, ``macro``, ``thumbnail``, ``overview``, ``preview`` or ``mask``.
    width, height : int
    levels : tuple of (int, int)
        Width and height of its resolutions, finest first.
    sizes : dict of str to int
        Channels (C), focal planes (Z), time points (T) and other axes of more than one.
    samples, bits : int
        Of a pixel of a page; bits of a sample.
    sample_format, colour, compression : str
        ``unsigned`` …; what the photometric tag says: ``rgb``, ``ycbcr`` …; as tifffile names it.
    planar, tiled : bool
        Whether samples lie in planes of their own; whether pages are tiled.
    orientation : int
        The orientation tag; 1 is upright.
    jpeg : JpegFacts or None
        What the compressed data says.
    channels : tuple of str
        Names of channels, where the file gives any.
    mpp : tuple of float or None
        Micrometres per pixel across and down.
    flaw : str or None
        Why it is not an RGB brightfield image.
    """

    name: str
    role: str
    width: int
    height: int
    levels: tuple[tuple[int, int], ...]
    sizes: dict[str, int]
    samples: int
    bits: int
    sample_format: str
    colour: str
    compression: str
    planar: bool
    tiled: bool
    orientation: int
    jpeg: JpegFacts | None
    channels: tuple[str, ...]
    mpp: tuple[float, float] | None
    flaw: str | None = None
    at: tuple[tuple[int, int, int | None], ...] = ()
    """Where its levels are: tifffile's series, level in it, and the page where a series is split."""

    @property
    def planes(self) -> int:
        """Number of focal planes."""
        return self.sizes.get("Z", 1)

    def describe(self) -> str:
        """Return the image in a few words."""
        more = [f"{count} {_AXES.get(axis, axis)}" for axis, count in self.sizes.items()]
        name = f" {self.name!r}" if self.name else ""
        return f"{self.role}{name} of {self.width} × {self.height} px" + "".join(f", {text}" for text in more)


def ome_channels(file: tifffile.TiffFile, number: int) -> tuple[tuple[str, ...], str | None]:
    """Return the names of an OME image's channels, and why they are no red, green and blue."""
    document = tifffile.xml2dict(file.ome_metadata or "<OME/>").get("OME", {})
    images = document.get("Image", [])
    image = (images if isinstance(images, list) else [images])[number : number + 1]
    channels = image[0].get("Pixels", {}).get("Channel", []) if image else []
    channels = channels if isinstance(channels, list) else [channels]
    names = tuple(str(channel.get("Name", "")) for channel in channels)
    signs = [
        f"{key} {channel[key]}"
        for channel in channels
        for key in ("Fluor", "EmissionWavelength", "ExcitationWavelength")
        if channel.get(key)
    ]
    contrast = {str(channel.get("ContrastMethod", "")).lower() for channel in channels}
    if signs or contrast & {"fluorescence", "phase", "dic", "darkfield"}:
        return (
            names,
            f"its channels are of fluorescence or another contrast ({', '.join([*signs, *contrast])})",
        )
    if len(channels) < 2:
        return names, None
    colours = tuple(channel.get("Color") for channel in channels)
    plain = tuple(name.strip().lower() for name in names)
    if plain in _RGB_NAMES or colours in _RGB_COLOURS:
        return names, None
    if all(_NAMELESS.fullmatch(name) for name in plain) and set(colours) <= {None, -1, 4294967295}:
        return names, None
    return names, f"its channels are {', '.join(map(repr, names))}, not red, green and blue"


def flaw_of(picture: Picture, stain: str | None) -> str | None:
    """Return why an image is not one RGB brightfield image, with what to do; None if it is one."""
    export = "export the slide as 8-bit RGB"
    sizes = dict(picture.sizes)
    channels = sizes.pop("C", 1)
    sizes.pop("Z", None)
    if sizes.pop("T", 1) > 1:
        return f"a series of {picture.sizes['T']} time points; {export}, one file a time point"
    if sizes:
        return f"holds more than one image along axes {', '.join(sizes)}; {export}, one file an image"
    if picture.sample_format != "unsigned" or picture.bits not in (8, 16):
        kind = f"{picture.bits}-bit {picture.sample_format}"
        return f"its pixels are {kind} numbers, not 8-bit or 16-bit colours; {export}"
    if stain is not None:
        return f"{stain}; {export} if it is brightfield"
    if (picture.samples, channels) == (1, 3) and picture.colour == "minisblack":
        return None
    if channels > 1:
        return (
            f"it has {channels} channels; only red, green and blue are scored; {export} if it is brightfield"
        )
    if picture.colour in ("minisblack", "miniswhite") and picture.samples <= 2:
        return f"a grey image; stains are told apart by colour: {export}"
    if picture.colour not in ("rgb", "ycbcr", "palette") or (
        picture.colour != "palette" and picture.samples < 3
    ):
        return f"its colours are {picture.colour} with {picture.samples} samples a pixel; {export}"
    if picture.colour == "ycbcr" and picture.jpeg is None and "jpeg" not in picture.compression:
        return f"its colours are YCbCr without JPEG compression; {export}"
    if picture.samples > 4:
        return f"it has {picture.samples} samples a pixel; {export}"
    if picture.jpeg is not None and picture.jpeg.color in ("grey", "cmyk", "ycck") and not picture.planar:
        return f"its JPEG data is {picture.jpeg.color}, not red, green and blue; {export}"
    return None
