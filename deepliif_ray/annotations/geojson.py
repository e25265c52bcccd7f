"""GeoJSON of annotations, read one feature at a time, within bounds.

Parsed as a whole, a file takes seven times its size in memory. So its text is walked by hand, and only one
feature at a time is made objects of.
"""

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deepliif_ray import storage
from deepliif_ray.annotations.classes import RefusedError, class_of
from deepliif_ray.errors import AnnotationError

MAX_BYTES = 256 * 2**20
"""Size of a file, unpacked."""
MAX_FEATURES = 500_000
SUFFIXES = (".geojson", ".json")
_SMALLER = (
    "export annotations alone, without detections and cells, or split the file by slide or class, and import "
    "its parts together"
)
_SPACE = re.compile(r"[ \t\r\n]*")
_CHILDREN = ("childObjects", "children")
_KINDS = {
    "PathAnnotationObject": "annotation",
    "PathCellObject": "cell",
    "PathDetectionObject": "detection",
    "PathTileObject": "tile",
    "PathRootObject": "root",
    "TMACoreObject": "tmaCore",
}
"""QuPath 0.2 wrote these as a feature's id, where its type is said since."""


@dataclass(frozen=True)
class Feature:
    """One feature of a file.

    Attributes
    ----------
    number : int
        Its place in the file, from 1; objects within others count after these.
    feature_id : str or None
    kind : str
        Type of object: ``annotation`` also where nothing is said.
    class_name : str
    color : str or None
        Of its class, ``#rrggbb``.
    name : str or None
    slide_id : str or None
        The slide that it says it lies on.
    geometry : dict or None
        As it stands in the file.
    """

    number: int
    feature_id: str | None
    kind: str
    class_name: str
    color: str | None
    name: str | None
    slide_id: str | None
    geometry: dict[str, Any] | None


class GeoJsonFile:
    """A GeoJSON file: a FeatureCollection, a list of features or one feature; also packed with gzip.

    Parameters
    ----------
    url : str

    Attributes
    ----------
    url : str
    name : str
        Name of the file.
    digest : str
        SHA-256 of the file as it is stored.
    slide_id : str or None
        The slide that the collection as a whole names; known once all features were read.

    Raises
    ------
    AnnotationError
        It is larger than `MAX_BYTES`, cannot be unpacked or is no text. Later, while features are read: it
        is no GeoJSON, or has over `MAX_FEATURES`.
    StorageError
        It cannot be read.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = url.rstrip("/").rpartition("/")[2]
        self.slide_id: str | None = None
        content = read_bounded(url)
        self.digest = hashlib.sha256(content).hexdigest()
        self._text = _decoded(url, unpacked(url, content))

    def features(self) -> Iterator[tuple[str, Feature | RefusedError]]:
        """Yield what each feature is to be called in messages, and the feature or what is wrong with it."""
        waiting: list[Any] = []
        number = 0
        for value in self._walk():
            waiting.append(value)
            while waiting:
                number += 1
                if number > MAX_FEATURES:
                    raise AnnotationError(f"{self.url}: over {MAX_FEATURES:,} features; {_SMALLER}")
                raw = waiting.pop(0)
                called = f"feature {number}"
                try:
                    waiting += _children(raw)
                    feature = _feature(raw, number)
                except RefusedError as refused:
                    yield called, refused
                    continue
                said = feature.feature_id or feature.name
                yield called + (f" ({storage.shown(said)})" if said else ""), feature

    def _walk(self) -> Iterator[Any]:
        """Yield the values of the features, and take up what the collection says of itself."""
        reader = _Reader(self._text)
        try:
            if reader.peek() == "[":
                yield from reader.items()
            elif reader.peek() == "{":
                yield from self._members(reader)
            else:
                raise AnnotationError(f"{self.url}: this is no GeoJSON; export it from QuPath as GeoJSON")
            if reader.peek():
                raise AnnotationError(
                    f"{self.url}: there is more behind the end of its GeoJSON; export again"
                )
        except RecursionError as error:
            raise AnnotationError(f"{self.url}: its JSON is nested too deeply") from error
        except (ValueError, IndexError) as error:
            said = storage.shown(str(error), quoted=False) if str(error) else "it ends too early"
            raise AnnotationError(f"{self.url}: this is no valid JSON ({said}); export it again") from error

    def _members(self, reader: "_Reader") -> Iterator[Any]:
        rest: dict[str, Any] = {}
        found = False
        for key in reader.members():
            if key == "features" and reader.peek() == "[":
                found = True
                yield from reader.items()
            else:
                rest[key] = reader.value()
        if not found:
            if rest.get("type") != "Feature":
                raise AnnotationError(
                    f"{self.url}: this is JSON, but neither a FeatureCollection, nor a list of features, nor "
                    "a feature; export annotations as GeoJSON"
                )
            yield rest
            return
        properties = rest.get("properties")
        for place in (rest, properties if isinstance(properties, dict) else {}):
            self.slide_id = _id(place.get("slide_id")) or self.slide_id


class _Reader:
    """JSON text read from one value to the next."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Return the next character that is no space; empty at the end."""
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches nothing too
        return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """Return the next value."""
        self.peek()
        value, self._at = self._decode(self._text, self._at)
        return value

    def items(self) -> Iterator[Any]:
        """Yield the values of the array that begins here."""
        yield from (self.value() for _ in self._parts("]"))

    def members(self) -> Iterator[str]:
        """Yield the keys of the object that begins here; read the value of each before the next."""
        for _ in self._parts("}"):
            key = self.value()
            if not isinstance(key, str):
                raise ValueError("a key that is no text")
            self._take(":")
            yield key

    def _parts(self, end: str) -> Iterator[None]:
        self._at += 1
        if self.peek() != end:
            yield
            while self.peek() == ",":
                self._at += 1
                yield
        self._take(end)

    def _take(self, expected: str) -> None:
        if self.peek() != expected:
            raise ValueError(f"{expected!r} is missing at character {self._at:,}")
        self._at += 1


def read_bounded(url: str) -> bytes:
    """Return the content of a file of at most `MAX_BYTES`; raises as `GeoJsonFile`."""
    size = storage.size(url)
    if size is not None and size > MAX_BYTES:
        raise _too_large(url)
    content = storage.read_bytes(url) if size is not None else storage.read_range(url, 0, MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _too_large(url)
    if not content.strip(b"\0 \t\r\n"):
        raise AnnotationError(f"{url}: the file is empty; export it again")
    return content


def unpacked(url: str, content: bytes) -> bytes:
    """Return the content of a file without gzip, if it was packed; raises as `GeoJsonFile`."""
    if content.startswith(b"PK"):
        raise AnnotationError(f"{url}: the file is a ZIP archive; unpack it and give the GeoJSON inside")
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            content = packed.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise AnnotationError(f"{url}: damaged, it cannot be unpacked ({error}); copy it again") from error
    if len(content) > MAX_BYTES:
        raise _too_large(url)
    return content


def _too_large(url: str) -> AnnotationError:
    return AnnotationError(f"{url}: larger than {MAX_BYTES // 2**20} MiB, unpacked; {_SMALLER}")


def _decoded(url: str, content: bytes) -> str:
    try:
        return content.decode(json.detect_encoding(content)).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{url}: not UTF-8 text, so no GeoJSON; export it again") from error


def _children(raw: Any) -> list[Any]:
    """Return the objects within an object, which QuPath writes among its properties."""
    properties = raw.get("properties") if isinstance(raw, dict) else None
    found = [properties.pop(name, None) for name in _CHILDREN] if isinstance(properties, dict) else []
    return [child for children in found if isinstance(children, list) for child in children]


def _feature(raw: Any, number: int) -> Feature:
    if not isinstance(raw, dict):
        raise RefusedError("this is no JSON object")
    if raw.get("type", "Feature") != "Feature":
        raise RefusedError(f"its type is {storage.shown(raw['type'])}, not Feature")
    properties = raw.get("properties")
    if properties is None:
        properties = {}
    geometry = raw.get("geometry")
    if not isinstance(properties, dict) or not isinstance(geometry, dict | None):
        raise RefusedError("its properties or its geometry are no JSON object")
    feature_id = _id(raw.get("id"))
    legacy = _KINDS.get(feature_id or "")
    class_name, color = class_of(properties.get("classification"))
    name = properties.get("name")
    return Feature(
        number=number,
        feature_id=None if legacy else feature_id,
        kind=legacy or _kind(properties),
        class_name=class_name,
        color=color,
        name=name.strip() or None if isinstance(name, str) else None,
        slide_id=_id(properties.get("slide_id")),
        geometry=geometry or None,
    )


def _kind(properties: dict[str, Any]) -> str:
    for key in ("objectType", "object_type", "type"):
        kind = properties.get(key)
        # Others use "type" for what they like.
        if isinstance(kind, str) and (key != "type" or kind in (*_KINDS, *_KINDS.values())):
            return _KINDS.get(kind, kind)
    return "annotation"


def _id(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if type(value) is int else None
