"""Panels: an IHC tile and the images that a model learns to make of it; how they are read and written.

Panels lie side by side in one image, a *strip*, or in a file each; `list_panels` of
`deepliif_ray.training.panels.listing` finds them.
"""

import io
import json
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, StorageError

UInt8Array = NDArray[np.uint8]
IHC, SEG = "ihc", "seg"
MODALITIES = ("hematoxylin", "dapi", "lap2", "marker")
"""The published four, in the order of published strips and of generators G1 to G4."""
STRIP = (IHC, *MODALITIES, SEG)
"""Panels of a published strip, left to right."""
MAX_LISTED = 10

_NAMES_KEY = "deepliif_ray.panels"
_MODES = {
    "1": "black and white", "L": "grey", "LA": "grey with alpha", "P": "a palette", "RGBA": "RGB with alpha",
    "CMYK": "CMYK", "I": "32-bit grey", "F": "floating-point grey", "I;16": "16-bit grey",
}  # fmt: skip
# What Pillow's decoders are seen to raise on damaged files.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class Panels:
    """One co-registered tile.

    Parameters
    ----------
    name : str
        Where it came from, for messages.
    ihc : numpy.ndarray
        uint8 RGB (H, W, 3).
    targets : dict of str to numpy.ndarray
        uint8 RGB (H, W, 3) each: the modalities by name, and ``seg`` (red positive, blue negative, green
        boundary, black background).
    """

    name: str
    ihc: UInt8Array
    targets: dict[str, UInt8Array]


@dataclass(frozen=True)
class PanelSource:
    """Where the panels of one tile lie.

    Parameters
    ----------
    name : str
        Name of the tile.
    files : tuple of str
        URL of a strip; or one URL a panel: IHC, the modalities, segmentation.
    modalities : tuple of str
        The modalities to read, in order.
    """

    name: str
    files: tuple[str, ...]
    modalities: tuple[str, ...] = MODALITIES


def check_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return names of modalities, refusing those that cannot name panels.

    Raises
    ------
    ConfigError
        One is there twice, empty, or means the IHC or the segmentation.
    """
    names = tuple(modalities)
    if len({*names, IHC, SEG, ""}) != len(names) + 3:
        raise ConfigError(f"modalities {', '.join(names)}: give different names, none of them {IHC} or {SEG}")
    return names


def panel_of(stem: str, modalities: Sequence[str]) -> tuple[str, str] | None:
    """Return tile and panel that the name of a file, without extension, stands for; None if no panel.

    Published are ``NAME_Hema`` or ``NAME_mod1-Hema`` (``deepliif test``) and ``NAME_Hematoxylin`` (input of
    ``deepliif prepare-training-data``); case does not matter. ``hematoxylin`` alone is a panel of the tile
    that the folder is named after: its name is returned empty.
    """
    aliases = {name.lower(): name for name in (*STRIP, *modalities)}
    aliases.setdefault("hema", MODALITIES[0])
    words = "|".join(re.escape(alias) for alias in sorted(aliases, key=len, reverse=True))
    found = re.fullmatch(rf"(?:(.+)_)?(?:mod\d+-)?({words})", stem, re.IGNORECASE)
    return (found[1] or "", aliases[found[2].lower()]) if found else None


def refuse(problems: Sequence[str]) -> None:
    """Raise one ConfigError for all ``problems``, if there are any; it lists the first ten."""
    if not problems:
        return
    listed = "\n".join(f"  - {problem}" for problem in problems[:MAX_LISTED])
    more = f"\n  … and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
    raise ConfigError(f"{len(problems)} problem{'s' * (len(problems) > 1)} with panels:\n{listed}{more}")


def read_panels(source: PanelSource) -> Panels:
    """Read the panels of one tile.

    A strip holds the panels that `write_panels` noted in it. Without a note it holds those of a published
    strip, if the wanted ones are among them and it is not just as many squares as are wanted; else the
    wanted ones and no others. Such a strip whose width is a whole number of heights has square panels.

    Raises
    ------
    ConfigError
        A file is missing, unreadable or not 8-bit RGB, sizes differ, or a strip has another number of panels;
        the message names the file.
    """
    wanted = (IHC, *source.modalities, SEG)
    if len(source.files) == 1:
        panels = _read_strip(source.files[0], wanted)
    else:
        panels = {name: read_rgb(url)[0] for name, url in zip(wanted, source.files, strict=True)}
    size = panels[IHC].shape
    for name, url in zip(wanted, source.files, strict=False):
        if panels[name].shape != size:
            raise ConfigError(
                f"{url}: has {_size(panels[name])} pixels, but {source.files[0]} {_size(panels[IHC])}"
            )
    return Panels(source.name, panels[IHC], {name: panels[name] for name in wanted[1:]})


def _read_strip(url: str, wanted: Sequence[str]) -> dict[str, UInt8Array]:
    strip, noted = read_rgb(url)
    height, width = strip.shape[:2]
    squares = width // height if width % height == 0 else None
    if noted:
        held = noted
    elif set(wanted) <= set(STRIP) and squares != len(wanted):
        held = STRIP
    else:
        held = tuple(wanted)
    missing = [name for name in wanted if name not in held]
    if missing:
        raise ConfigError(f"{url}: holds the panels {', '.join(held)}, but no {', '.join(missing)}")
    if width % len(held) or (not noted and squares not in (None, len(held))):
        count = "" if squares is None else f", which is {squares} square panel{'s' * (squares > 1)}"
        raise ConfigError(
            f"{url}: is {_size(strip)} pixels{count}; {len(held)} panels of one size were expected side by "
            f"side: {', '.join(held)}"
        )
    side = width // len(held)
    parts = {name: strip[:, n * side : (n + 1) * side] for n, name in enumerate(held)}
    return {name: np.ascontiguousarray(parts[name]) for name in wanted}


def _size(image: UInt8Array) -> str:
    return f"{image.shape[1]} × {image.shape[0]}"


def open_image(url: str) -> Image.Image:
    """Return the PNG, JPEG or TIFF image at ``url``, decoded, in its own mode.

    Raises
    ------
    ConfigError
        It is missing, cannot be decoded, or has several pages.
    """
    try:
        content = storage.read_bytes(url)
    except StorageError as error:
        raise ConfigError(str(error)) from error
    try:
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "TIFF"))
        pages = getattr(image, "n_frames", 1)
        # Pillow turns 16-bit colors into 8-bit ones without a word; only the decoder's setting tells.
        deep = image.mode == "RGB" and ";16" in str(image.tile)
        image.load()
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{url}: not a PNG, JPEG or TIFF image that can be read ({reason})") from error
    if pages > 1:
        raise ConfigError(f"{url}: has {pages} pages; give each image a file of its own")
    if deep:
        raise ConfigError(f"{url}: has 16 bits a color; convert it into 8-bit RGB")
    return image


def read_rgb(url: str) -> tuple[UInt8Array, tuple[str, ...]]:
    """Return the pixels of an image, uint8 (H, W, 3), and the names of panels noted in it, or none.

    Grey images are refused too: published panels are RGB throughout, so a grey one is more often a mask or
    the wrong file than a panel.

    Raises
    ------
    ConfigError
        It is missing, unreadable, or not 8-bit RGB without transparency.
    """
    image = open_image(url)
    if image.mode != "RGB" or image.has_transparency_data:
        mode = "RGB with a transparent color" if image.mode == "RGB" else _MODES.get(image.mode, image.mode)
        raise ConfigError(f"{url}: its pixels are {mode}; convert it into 8-bit RGB, as published panels are")
    try:
        noted = json.loads(image.info.get(_NAMES_KEY, "[]"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{url}: its note of panels is damaged ({error}); write it again") from error
    names = tuple(noted) if isinstance(noted, list) and all(isinstance(n, str) for n in noted) else ()
    return np.array(image), names


def write_panels(folder: str, panels: Panels) -> str:
    """Write a tile as a strip, ``folder/NAME.png``, and return its URL.

    The names of its panels are noted in the file, so that `read_panels` gives back the same arrays whatever
    their number and shape. An existing file is replaced.

    Raises
    ------
    ConfigError
        The tile's name cannot be a file's, or its panels are not uint8 (H, W, 3) of one size.
    StorageError
        It cannot be written.
    """
    if any(not part or part.startswith(".") for part in panels.name.split("/")):
        raise ConfigError(
            f"{panels.name!r} cannot be the name of a strip: no part of it may begin with a dot"
        )
    modalities = check_modalities([name for name in panels.targets if name != SEG])
    names = (IHC, *modalities, SEG)
    if panel_of(panels.name.rpartition("/")[2], modalities):
        raise ConfigError(f"{panels.name}: a strip's name cannot end as those of single panels do; rename it")
    if SEG not in panels.targets:
        raise ConfigError(f"{panels.name}: has no panel {SEG}")
    images = [panels.ihc, *(panels.targets[name] for name in names[1:])]
    for name, image in zip(names, images, strict=True):
        if (
            image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != 3
            or image.shape != panels.ihc.shape
        ):
            raise ConfigError(
                f"{panels.name}: panel {name} is {image.dtype} {image.shape}; uint8 (H, W, 3) of the IHC's "
                f"size {panels.ihc.shape} was expected"
            )
    note = PngInfo()
    note.add_text(_NAMES_KEY, json.dumps(names))
    data = io.BytesIO()
    Image.fromarray(np.concatenate(images, axis=1)).save(data, "PNG", pnginfo=note)
    url = storage.join(folder, f"{panels.name}.png")
    storage.write_bytes(url, data.getvalue())
    return url
