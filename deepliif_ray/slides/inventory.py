"""What a TIFF file holds, found before a pixel is scored: its images, and which of them is the slide.

A TIFF is a box of pages: the slide and coarser copies of it, a thumbnail, a photograph of the label, several
fields, colour in separate pages, focal planes, fluorescence. tifffile lists them; here it is decided which
one is *one RGB brightfield image with levels*, or said by name why none is.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tifffile

from deepliif_ray.errors import SlideUnreadableError, SlideUnsuitableError
from deepliif_ray.slides.jpeg import JpegFacts, jpeg_facts, likelier_color
from deepliif_ray.slides.picture import Picture, flaw_of, ome_channels
from deepliif_ray.slides.pixel_size import pixel_size

JPEG = frozenset((6, 7, 34892, 33007))
JPEG_2000 = frozenset((33003, 33004, 33005, 34712))
_COLOURS = {"2": "rgb", "6": "ycbcr", "0": "miniswhite", "1": "minisblack", "3": "palette"}
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 4: "undefined", 5: "complex", 6: "complex"}
_ASSOCIATED = re.compile(r"\b(label|macro|thumbnail|overview|slide preview|preview)\b", re.IGNORECASE)
_LEVEL_MISFIT = 3.0
"""Level-0 pixels per pixel of a level by which its sides may be off: it was rounded, or padded."""
_LESSER = 8
"""An image with less than one in so many of the largest one's pixels is no field beside it."""
_LISTED = 8
_MASK = 4
"""Bit of the tag NewSubfileType: the page says which pixels of another one count."""
_HEADER = 4096
_LOOKED_AT, _LOOKED_AT_BYTES = 8, 1 << 20
"""Tiles or strips that are decoded, and how large they may be, where JPEG data leave their colours open."""


@dataclass(frozen=True)
class Inventory:
    """The images of a file, in its order, and its byte order (``<`` or ``>``) and kind (ome, svs, …)."""

    name: str
    pictures: tuple[Picture, ...]
    byteorder: str
    is_big: bool
    kinds: tuple[str, ...]

    def choose(self, series: int | None) -> tuple[int, Picture, tuple[str, ...]]:
        """Return the number of the image that is the slide, the image, and what to tell about the choice.

        Parameters
        ----------
        series : int, optional
            The number that is wanted, from 0.

        Raises
        ------
        SlideUnsuitableError
            There is no such image, several could be meant, or it is not one RGB brightfield image.
        """
        notes: tuple[str, ...] = ()
        if series is not None:
            if not 0 <= series < len(self.pictures):
                raise SlideUnsuitableError(
                    f"{self.name}: there is no series {series}; the file holds {self._list()}"
                )
            number = series
        else:
            number, notes = self._slide()
        picture = self.pictures[number]
        if picture.flaw is not None:
            raise SlideUnsuitableError(f"{self.name}: {picture.flaw}")
        return number, picture, notes

    def _slide(self) -> tuple[int, tuple[str, ...]]:
        images = [n for n, picture in enumerate(self.pictures) if picture.role == "image"]
        if not images:
            raise SlideUnsuitableError(
                f"{self.name}: holds no image of tissue, only {self._list()}; export the slide again, or "
                "choose one by the manifest's column series"
            )
        area = {n: self.pictures[n].width * self.pictures[n].height for n in images}
        largest = max(images, key=lambda n: area[n])
        fields = [n for n in images if area[n] * _LESSER >= area[largest]]
        if len(fields) > 1:
            raise SlideUnsuitableError(
                f"{self.name}: holds {len(fields)} images that could be meant: {self._list(fields)}; choose "
                "one by the manifest's column series, a row an image"
            )
        others = [n for n in images if n != largest]
        if not others:
            return largest, ()
        return largest, (f"other images of the file are not scored: {self._list(others)}",)

    def _list(self, numbers: list[int] | None = None) -> str:
        numbers = list(range(len(self.pictures))) if numbers is None else numbers
        listed = "; ".join(f"series {n}: {self.pictures[n].describe()}" for n in numbers[:_LISTED])
        return listed + ("; …" if len(numbers) > _LISTED else "") or "no image"


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what tifffile only logs: that a file's list of pages is broken off."""
    said: list[str] = []

    class _Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    log, ear = logging.getLogger("tifffile"), _Ear(logging.ERROR)
    before = log.propagate
    log.addHandler(ear)
    log.propagate = False
    try:
        yield said
    finally:
        log.removeHandler(ear)
        log.propagate = before


def take_inventory(path: Path) -> Inventory:
    """Return what a TIFF file holds.

    Raises
    ------
    SlideUnreadableError
        It is no TIFF file, or its directories are damaged.
    """
    with _complaints() as said:
        try:
            # A slide is the one file that was asked for: others that OME-XML names are not followed.
            with tifffile.TiffFile(path, _multifile=False) as file:
                pictures = _pictures(file)
                inventory = Inventory(
                    path.name, pictures, file.byteorder, file.is_bigtiff, tuple(sorted(file.flags))
                )
        except MemoryError:
            raise
        except Exception as error:  # a damaged directory can make it raise anything
            raise SlideUnreadableError(
                f"{path.name}: a damaged or truncated TIFF file ({_short(error)}); export or copy it again"
            ) from error
    if said:
        raise SlideUnreadableError(
            f"{path.name}: a damaged or truncated TIFF file ({_short(said[0])}); export or copy it again"
        )
    if not pictures:
        raise SlideUnreadableError(
            f"{path.name}: a TIFF file without an image, or cut short; export or copy it again"
        )
    return inventory


def _short(error: object) -> str:
    text = " ".join(str(error).split())
    return re.sub(r"0x[0-9a-fA-F]{6,}|<[^>]*>", "…", text)[:150]


def _pictures(file: tifffile.TiffFile) -> tuple[Picture, ...]:
    found: list[Picture] = []
    for number, series in enumerate(file.series):
        sizes = _sizes(series)
        if sizes and not set(sizes) & set("CZT") and not file.is_ome:
            # Pages of one size that nothing else is known of: each is an image.
            found += [_picture(file, series, number, page) for page in range(len(series.pages))]
        else:
            found.append(_picture(file, series, number, None))
    return tuple(_with_levels(found))


def _sizes(series: Any) -> dict[str, int]:
    """Return the axes of a series that are longer than one, but for those of a page."""
    shape = dict(zip(series.axes, series.shape, strict=True))
    return {axis: size for axis, size in shape.items() if axis not in "YXS" and size > 1}


def _picture(file: tifffile.TiffFile, series: Any, number: int, index: int | None) -> Picture:
    page = series.pages[index or 0] or series.keyframe
    key = page.keyframe
    name = str(series.name or "")
    described = "" if file.is_ome else str(getattr(page, "description", "") or "")[:_HEADER]
    associated = _ASSOCIATED.search(f"{name}\n{described}")
    channels, stain = ome_channels(file, number) if file.is_ome else ((), None)
    levels = [(number, 0, index)]
    if index is None:
        levels += [
            (number, n, None)
            for n, level in enumerate(series.levels)
            if n and _is_level((key.imagewidth, key.imagelength), _size(level.keyframe))
        ]
    tags = getattr(page, "tags", None)
    picture = Picture(
        name=name,
        role="mask"
        if int(getattr(page, "subfiletype", 0)) & _MASK
        else associated[1].lower().removeprefix("slide ")
        if associated
        else "image",
        width=key.imagewidth,
        height=key.imagelength,
        levels=tuple(_size(series.levels[level].keyframe) for _, level, _ in levels),
        sizes={} if index is not None else _sizes(series),
        samples=key.samplesperpixel,
        bits=int(key.bitspersample),
        sample_format=_SAMPLE_FORMATS.get(int(key.sampleformat or 1), "unknown"),
        colour=str(getattr(key.photometric, "name", key.photometric)).lower(),
        compression=str(getattr(key.compression, "name", key.compression)).lower(),
        planar=key.planarconfig == 2 and key.samplesperpixel > 1,
        tiled=bool(key.is_tiled),
        orientation=int(tags.valueof(274, default=1)) if tags is not None else 1,
        jpeg=_jpeg(file, page) if int(key.compression) in JPEG else None,
        channels=channels,
        mpp=pixel_size(file, number, key),
        at=tuple(levels),
    )
    missing = index is None and any(part is None for part in series.pages)
    elsewhere = "some of its pages are not in this file; export the slide as one file" if missing else None
    return replace(picture, flaw=elsewhere or flaw_of(picture, stain))


def _size(page: Any) -> tuple[int, int]:
    return int(page.imagewidth), int(page.imagelength)


def _is_level(finest: tuple[int, int], other: tuple[int, int]) -> bool:
    """Tell whether an image has the shape of a coarser copy of another."""
    across, down = finest[0] / max(other[0], 1), finest[1] / max(other[1], 1)
    factor = min(across, down)
    return factor > 1.2 and all(
        abs(a - factor * b) <= _LEVEL_MISFIT * factor for a, b in zip(finest, other, strict=True)
    )


def _with_levels(pictures: list[Picture]) -> list[Picture]:
    """Make coarser copies that follow as pages of their own levels of the largest image."""
    largest = max(pictures, key=lambda picture: picture.width * picture.height, default=None)
    if largest is None or largest.sizes:
        return pictures
    copies = [
        other
        for other in pictures
        if other.role == "image"
        and not other.sizes
        and (other.colour, other.bits, other.samples) == (largest.colour, largest.bits, largest.samples)
        and _is_level((largest.width, largest.height), (other.width, other.height))
    ]
    copies.sort(key=lambda picture: -picture.width)
    whole = replace(
        largest,
        levels=(*largest.levels, *(size for copy in copies for size in copy.levels)),
        at=(*largest.at, *(place for copy in copies for place in copy.at)),
    )
    return [whole if other is largest else other for other in pictures if other not in copies]


def _jpeg(file: tifffile.TiffFile, page: Any) -> JpegFacts | None:
    """Return what the data of a page say of its colours: the first segment's markers, else the pixels."""
    there = [place for place in zip(page.dataoffsets, page.databytecounts, strict=False) if all(place)]
    if not there:
        return None
    offset, count = there[0]
    file.filehandle.seek(offset)
    head = page.keyframe.jpegheader or b""
    facts = jpeg_facts(head + file.filehandle.read(min(count, _HEADER)))
    if facts.color is None and facts.components == 3 and page.keyframe.planarconfig == 1:
        streams = []
        for offset, count in there[:: -(-len(there) // _LOOKED_AT)]:
            if count <= _LOOKED_AT_BYTES:
                file.filehandle.seek(offset)
                streams.append(head + file.filehandle.read(count))
        facts = replace(facts, color=likelier_color(streams, page.jpegtables))
    return facts
