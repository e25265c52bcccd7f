"""What the metadata of an OME-Zarr folder say (NGFF 0.1 to 0.5, https://ngff.openmicroscopy.org).

Version 0.4 lies in ``.zattrs`` files, 0.5 in ``zarr.json`` under ``attributes.ome``; otherwise they are the
same here.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any
from xml.etree import ElementTree

from deepliif_ray.errors import SlideUnreadableError, SlideUnsuitableError

MAX_METADATA = 16 << 20
"""Bytes of one file of metadata."""
MAX_SERIES = 1000

Document = dict[str, Any]
_UNIT_UM = {
    "angstrom": 1e-4, "picometer": 1e-6, "pm": 1e-6, "nanometer": 1e-3, "nm": 1e-3, "micrometer": 1.0,
    "micron": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0,
    "millimeter": 1e3, "mm": 1e3, "centimeter": 1e4, "cm": 1e4, "meter": 1e6,
    "m": 1e6, "inch": 25_400.0,
}  # fmt: skip
_PURE = {"FF0000": 0, "00FF00": 1, "0000FF": 2}
_LETTERS = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}
_STAINS = re.compile(
    r"dapi|hoechst|fitc|tritc|cy-?[2357]|alexa|\baf ?\d{3}|[gryc]fp\b|cherry|tomato|texas|rhodamine|opal|"
    r"fluor|autofl|\bex\d|\bem\d|\d{3} ?nm",
    re.IGNORECASE,
)
_BESIDE = re.compile(r"label|macro|thumbnail|overview|preview", re.IGNORECASE)


@dataclass(frozen=True)
class Dataset:
    """One level: the array's path below the image's group; a pixel's size and its beginning by axis."""

    path: str
    scale: tuple[float, ...] | None
    translation: tuple[float, ...]


@dataclass(frozen=True)
class Image:
    """An image of the folder.

    Attributes
    ----------
    group : str
        Path of its group, empty for the folder itself.
    name : str
    axes : str
        A letter an axis, in the order of the arrays.
    units : tuple of (str or None)
        Per axis.
    datasets : tuple of Dataset
    channels : tuple of dict
        OMERO's display settings.
    is_rgb : bool
        OME-XML beside it says that its channels are the samples of one colour.
    """

    group: str
    name: str
    axes: str
    units: tuple[str | None, ...]
    datasets: tuple[Dataset, ...]
    channels: tuple[Document, ...]
    is_rgb: bool = False

    @property
    def is_beside(self) -> bool:
        """Whether its name says that it is a label, macro or thumbnail image."""
        return bool(_BESIDE.search(self.name))


def read_images(read: Callable[[str], bytes | None], name: str) -> list[Image]:
    """Return the images of an OME-Zarr folder.

    Parameters
    ----------
    read : callable
        Returns a file of the folder, None if it is not there.
    name : str
        The folder's, for messages.

    Raises
    ------
    SlideUnreadableError
        There is no OME-Zarr metadata, or it cannot be understood.
    SlideUnsuitableError
        It is a plate, a well or an image of labels.
    """
    try:
        return _read_images(read, name)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise SlideUnreadableError(
            f"{name}: its OME-Zarr metadata cannot be understood ({type(error).__name__}: {error}); convert "
            "the slide again"
        ) from error


def _read_images(read: Callable[[str], bytes | None], name: str) -> list[Image]:
    attributes = _attributes(read, "")
    if attributes is None:
        raise SlideUnreadableError(f"{name}: no Zarr group; give the uri of an OME-Zarr image")
    for key, what in (("plate", "a plate of many wells"), ("well", "a well of many fields")):
        if key in attributes:
            raise SlideUnsuitableError(
                f"{name}: {what}, not a slide; give the uri of one field's image below it"
            )
    if "image-label" in attributes or ("labels" in attributes and "multiscales" not in attributes):
        raise SlideUnsuitableError(
            f"{name}: an image of labels, not of tissue; give the uri of the image above it"
        )
    if "multiscales" in attributes:
        return _images_of(attributes, "")
    if "bioformats2raw.layout" not in attributes:
        raise SlideUnreadableError(
            f"{name}: a Zarr group without OME-Zarr's multiscales; give the uri of an OME-Zarr image"
        )
    stated = (_attributes(read, "OME") or {}).get("series")
    described = _described(read("OME/METADATA.ome.xml"))
    images: list[Image] = []
    for number, group in enumerate(map(str, stated) if isinstance(stated, list) else map(str, count())):
        inside = _attributes(read, group)
        if inside is None or number == MAX_SERIES:
            break
        title, is_rgb = described[number] if number < len(described) else ("", False)
        images += _images_of(inside, group, title, is_rgb)
    if not images:
        raise SlideUnreadableError(f"{name}: it holds no image; convert the slide again")
    return images


def _attributes(read: Callable[[str], bytes | None], group: str) -> Document | None:
    """Return the OME-Zarr attributes of a group, None if there is no such group."""
    folder = f"{group}/" if group else ""
    if (text := read(f"{folder}zarr.json")) is not None:
        document = dict(_parsed(text).get("attributes", {}))
        return dict(document.get("ome", document))
    if (text := read(f"{folder}.zattrs")) is not None:
        return _parsed(text)
    return {} if read(f"{folder}.zgroup") is not None else None


def _parsed(text: bytes) -> Document:
    if len(text) > MAX_METADATA:
        raise ValueError(f"metadata of more than {MAX_METADATA >> 20} MiB")
    document = json.loads(text)
    if not isinstance(document, dict):
        raise TypeError("metadata that are no JSON object")
    return document


def _described(text: bytes | None) -> list[tuple[str, bool]]:
    """Return name and whether it is RGB of each image of OME-XML."""
    if text is None or len(text) > MAX_METADATA:
        return []
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return []
    found = []
    for image in root.iterfind("{*}Image"):
        samples = [channel.get("SamplesPerPixel") for channel in image.iterfind("{*}Pixels/{*}Channel")]
        found.append((image.get("Name", ""), samples == ["3"]))
    return found


def _images_of(attributes: Document, group: str, title: str = "", is_rgb: bool = False) -> list[Image]:
    channels = dict(attributes.get("omero") or {}).get("channels") or []
    images = []
    for scales in attributes["multiscales"]:
        axes = scales.get("axes", ["t", "c", "z", "y", "x"])
        named = [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]
        common = _transformation(scales.get("coordinateTransformations"), len(named))
        datasets = tuple(_dataset(dataset, common, len(named)) for dataset in scales["datasets"])
        letters = "".join(
            str(axis["name"]).lower()[:1] if len(str(axis["name"])) == 1 else "?" for axis in named
        )
        if not datasets or len(set(letters)) != len(letters):
            raise ValueError(f"axes {letters}, {len(datasets)} levels")
        units = tuple(axis.get("unit") for axis in named)
        name = title or str(scales.get("name") or "")
        images.append(Image(group, name, letters, units, datasets, tuple(map(dict, channels)), is_rgb))
    return images


def _dataset(dataset: Document, common: tuple[Any, Any], axes: int) -> Dataset:
    scale, translation = _transformation(dataset.get("coordinateTransformations"), axes)
    outer, shift = common
    if scale is None or outer is None:
        return Dataset(str(dataset["path"]), scale if outer is None else outer, translation)
    moved = tuple(t * s + u for t, s, u in zip(translation, outer, shift, strict=True))
    return Dataset(str(dataset["path"]), tuple(a * b for a, b in zip(scale, outer, strict=True)), moved)


def _transformation(
    steps: list[Document] | None, axes: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...]]:
    scale, translation = None, (0.0,) * axes
    for step in steps or []:
        if step["type"] == "identity":
            continue
        values = tuple(float(value) for value in step[step["type"]])
        if step["type"] not in ("scale", "translation") or len(values) != axes:
            raise ValueError(f"a coordinate transformation of {len(values)} numbers of type {step['type']!r}")
        if step["type"] == "scale":
            scale = values
        else:
            translation = values
    return scale, translation


def micrometers(value: float, unit: str | None) -> float | None:
    """Return a length in micrometres; None where its unit is not stated, not known, or it is none above 0."""
    factor = _UNIT_UM.get((unit or "").strip().lower().removesuffix("s"))
    return value * factor if factor is not None and 0 < value < float("inf") else None


def colour_order(image: Image, name: str) -> tuple[int, int, int]:
    """Return which channel is red, green and blue of an image of three.

    Raises
    ------
    SlideUnsuitableError
        What is said of its channels is not that they are one colour's.
    """
    labels = [str(channel.get("label") or "").strip() for channel in image.channels]
    colors = [str(channel.get("color") or "").strip().lstrip("#").upper()[:6] for channel in image.channels]
    stain = next((label for label in labels if _STAINS.search(label)), None)
    if stain is not None:
        raise SlideUnsuitableError(f"{name}: {_fluorescence(f'a channel is named {stain!r}')}")
    if image.is_rgb or not image.channels:
        return 0, 1, 2
    by_label = [_LETTERS.get(label.lower()) for label in labels]
    by_color = [_PURE.get(color) for color in colors]
    if sorted(place for place in by_label if place is not None) == [0, 1, 2]:
        return by_label.index(0), by_label.index(1), by_label.index(2)
    if by_color == [0, 1, 2] or len(set(colors)) == 1:
        return 0, 1, 2
    raise SlideUnsuitableError(f"{name}: {_fluorescence('its channels are shown in ' + ', '.join(colors))}")


def _fluorescence(why: str) -> str:
    return f"separate stains rather than one colour image ({why}); only RGB brightfield images are scored"
