"""Slides and fields as arrays of pixels: which library reads a file is decided here.

OpenSlide reads the formats of scanners, and TIFFs in which nothing can be misunderstood. Of every TIFF an
inventory is made first; what OpenSlide does not read, or would read wrongly, tifffile does. PNG, JPEG and
JPEG 2000 images are read whole, into memory. Everything a file can do wrong comes out as a `SlideError` whose
message depends on the file alone: not on what was read before, nor on the folder the file lies in.
"""

import math
import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from deepliif_ray.errors import (
    SlideCorruptError,
    SlideMissingError,
    SlideUnreadableError,
    SlideUnsuitableError,
)
from deepliif_ray.slides.field import load_field
from deepliif_ray.slides.folders import is_folder, open_folder
from deepliif_ray.slides.inventory import Inventory, take_inventory
from deepliif_ray.slides.picture import Picture
from deepliif_ray.slides.pixel_size import PRINT_MPP
from deepliif_ray.slides.slide import Level, Slide, square_mpp
from deepliif_ray.slides.tiff import TiffSlide
from deepliif_ray.slides.upright import upright

_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PLAIN = ("generic-tiff",)
_BOUNDS = tuple(f"openslide.bounds-{side}" for side in ("x", "y", "width", "height"))

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_inherited: list[openslide.OpenSlide] = []


class OpenSlideSlide(Slide):
    """A slide that OpenSlide reads.

    The handle is opened anew in a forked process, because OpenSlide's are not safe to share, and after an
    error, because a damaged tile spoils the handle for every later read. ``mpp`` is what the file says in
    words that OpenSlide does not read.
    """

    reader = "openslide"

    def __init__(self, path: Path, mpp: tuple[float, float] | None = None) -> None:
        self.path = path
        self._handle: openslide.OpenSlide | None = openslide.OpenSlide(path)
        self._pid = os.getpid()
        self._closed = False
        properties = self._handle.properties
        self.vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        self.levels = tuple(
            Level(width, height, float(downsample))
            for (width, height), downsample in zip(
                self._handle.level_dimensions, self._handle.level_downsamples, strict=True
            )
        )
        for number, level in enumerate(self.levels):
            if min(level.width, level.height) < 1 or not 1 <= level.downsample < math.inf:
                raise SlideUnreadableError(
                    f"{self.name}: level {number} is {level.width} × {level.height} pixels, "
                    f"{level.downsample:g} times coarser; export the slide again"
                )
        color = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "")
        if re.fullmatch(r"[0-9A-Fa-f]{6}", color):
            red, green, blue = bytes.fromhex(color)
            self.background = (red, green, blue)
        with suppress(KeyError, ValueError):
            x, y, width, height = (int(properties[name]) for name in _BOUNDS)
            self.bounds = (x, y, width, height)
        self._mpp_x = _positive(properties.get(openslide.PROPERTY_NAME_MPP_X))
        self._mpp_y = _positive(properties.get(openslide.PROPERTY_NAME_MPP_Y))
        if mpp is not None:
            self._mpp_x, self._mpp_y = mpp

    @property
    def mpp(self) -> float | None:  # noqa: D102  # as in Slide
        if self._mpp_x is None or self._mpp_y is None:
            return None
        if self.vendor in _PLAIN and math.sqrt(self._mpp_x * self._mpp_y) > PRINT_MPP:
            return None
        return square_mpp(self.name, self._mpp_x, self._mpp_y)

    def read_level(  # noqa: D102  # as in Slide
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        if self._closed:
            raise ValueError(f"{self.name}: the slide is closed")
        downsample = self.levels[level].downsample
        region = (round(x * downsample), round(y * downsample)), level, (width, height)
        try:
            return np.asarray(self._shared().read_region(*region))
        except openslide.OpenSlideError:
            self._handle = None
        # Once more with a fresh handle that no other thread reads with: what it says depends on the file
        # alone, not on damage that was met before.
        try:
            handle = openslide.OpenSlide(self.path)
            pixels = np.asarray(handle.read_region(*region))
        except openslide.OpenSlideError as error:
            raise SlideCorruptError(
                f"{self.name}: pixels at {x}, {y} ({width} × {height}, level {level}) cannot be decoded "
                f"({portable(error, self.path)}); export or copy the file again"
            ) from error
        self._handle, self._pid = handle, os.getpid()
        return pixels

    def _shared(self) -> openslide.OpenSlide:
        """Return the handle of this process. Threads share it and may drop it; a reader keeps it alive."""
        handle = self._handle
        if handle is not None and self._pid != os.getpid():
            _inherited.append(handle)  # closing it here could wait for a lock the parent's thread held
            handle = None
        if handle is None:
            handle = openslide.OpenSlide(self.path)
            self._handle, self._pid = handle, os.getpid()
        return handle

    def close(self) -> None:  # noqa: D102  # as in Slide
        self._closed = True
        self._handle = None


class FieldSlide(Slide):
    """A plain image, held in memory: one level, no resolution of its own.

    The dpi of a PNG or JPEG is a print size more often than not, so it is not taken for one.
    """

    reader = "pillow"

    def __init__(
        self, path: Path, pixels: NDArray[np.uint8], vendor: str, notes: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.vendor, self.notes = vendor, notes
        self.levels = (Level(pixels.shape[1], pixels.shape[0], 1.0),)
        self._pixels = pixels

    def read_level(  # noqa: D102  # as in Slide
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        rgb = self.read_rgb(level, x, y, width, height)
        return np.concatenate([rgb, np.full((*rgb.shape[:2], 1), 255, np.uint8)], axis=2)

    def read_rgb(  # noqa: D102  # as in Slide
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        return self._pixels[y : y + height, x : x + width].copy()

    def close(self) -> None:
        """Do nothing: the file is closed already."""


def open_slide(path: Path, *, series: int | None = None, plane: int | None = None) -> Slide:
    """Open a slide or a plain image.

    Parameters
    ----------
    path : Path
        A local file; for a DICOM slide its folder or any of its files; for OME-Zarr its folder.
    series, plane : int, optional
        Which image of the file, and which focal plane, from 0; chosen by the reader where not given.

    Raises
    ------
    SlideMissingError
        There is no such file, or it may not be read.
    SlideUnreadableError
        Neither OpenSlide nor Pillow can open it, or it is a plain image over 500 megapixels.
    SlideCorruptError
        It is a plain image that cannot be decoded whole.
    """
    if is_folder(path):
        return open_folder(path, series, plane)
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SlideMissingError(f"{path}: no such file; correct the uri in the manifest") from error
    except PermissionError as error:
        raise SlideMissingError(f"{path}: may not be read; correct its permissions") from error
    except OSError as error:
        raise SlideUnreadableError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not head:
        raise SlideUnreadableError(f"{path.name}: the file is empty; copy it again")
    if head[:4] in _TIFF:
        return _open_tiff(path, series, plane)
    if head[128:] == b"DICM":
        from deepliif_ray.slides.dicom import open_dicom

        return open_dicom(path, series=series, plane=plane)
    if head.startswith(b"ZISRAWFILE"):
        from deepliif_ray.slides.czi import open_czi

        return open_czi(path, series=series, plane=plane)
    if series or plane:
        raise SlideUnsuitableError(
            f"{path.name}: holds one image of one plane, but the manifest asks for another; leave series and "
            "plane empty"
        )
    try:
        return OpenSlideSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        field = load_field(path)
        return upright(FieldSlide(path, field.pixels, field.kind, field.notes), field.orientation)
    except openslide.OpenSlideError as error:
        raise SlideUnreadableError(
            f"{path.name}: OpenSlide cannot open it ({portable(error, path)}); export the slide again"
        ) from error


def _open_tiff(path: Path, series: int | None, plane: int | None) -> Slide:
    """Open a TIFF file with the library that reads it rightly."""
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor is not None and vendor not in _PLAIN and not series and not plane:
        slide = _scanner_slide(path)
        if slide is not None:
            return slide
    inventory = take_inventory(path)
    number, picture, notes = inventory.choose(series)
    if vendor is not None and not plane and _is_plain(inventory, picture):
        with suppress(openslide.OpenSlideError):
            slide = OpenSlideSlide(path, picture.mpp)
            if [(level.width, level.height) for level in slide.levels] == list(picture.levels):
                return slide
            slide.close()
    return upright(
        TiffSlide(path, inventory, number if series is None else series, plane, notes), picture.orientation
    )


def _scanner_slide(path: Path) -> Slide | None:
    """Return a scanner's own format read by OpenSlide; None if it fails, or would take colours wrongly."""
    try:
        slide = OpenSlideSlide(path)
    except openslide.OpenSlideError:
        return None
    try:
        pictures = take_inventory(path).pictures
    except SlideUnreadableError:  # OpenSlide is more patient with what does not matter
        return slide
    largest = max(pictures, key=lambda picture: picture.width * picture.height)
    if largest.jpeg is None or largest.jpeg.color in (None, largest.colour):
        return slide
    slide.close()
    return None


def _is_plain(inventory: Inventory, picture: Picture) -> bool:
    """Tell whether nothing in a TIFF can be misunderstood: one upright image of 8-bit colours, tagged so."""
    said = None if picture.jpeg is None else picture.jpeg.color
    return (
        len(inventory.pictures) == 1
        and not picture.sizes
        and picture.tiled
        and not picture.planar
        and (picture.samples, picture.bits, picture.orientation) == (3, 8, 1)
        and (picture.colour == "rgb" if picture.jpeg is None else said in (None, picture.colour))
    )


def portable(error: Exception, path: Path) -> str:
    """Return the message of ``error`` less what differs between machines and runs.

    The folder of ``path`` and memory addresses are dropped.
    """
    text = str(error).replace(f"{path.parent}{os.sep}", "")
    return _ADDRESS.sub("(address)", " ".join(text.split())).rstrip(".") or type(error).__name__


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def library_version() -> str:
    """Return the version of the OpenSlide library that reads slides here."""
    return str(openslide.__library_version__)
