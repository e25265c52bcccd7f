"""A reader of GeoJSON that is as strict as QuPath, where QuPath would refuse a file or misread it."""

import gzip
import json
import re
import uuid
from pathlib import Path

import shapely
from shapely.geometry import shape

NUMBER = re.compile(r"-?\d+(\.\d{1,2})?")


def read(path):
    """Return the features of a file, after what QuPath needs was found to be there."""
    content = Path(path).read_bytes()
    text = (gzip.decompress(content) if str(path).endswith(".gz") else content).decode()
    collection = json.loads(text, parse_constant=_refuse)
    assert collection["type"] == "FeatureCollection"
    names = set()
    for feature in collection["features"]:
        assert set(feature) == {"type", "id", "geometry", "properties"} and feature["type"] == "Feature"
        assert str(uuid.UUID(feature["id"])) == feature["id"]
        names.add(feature["id"])
        _check_geometry(feature["geometry"])
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        called = properties["classification"]
        assert set(called) == {"name", "color"} and called["name"]
        assert len(called["color"]) == 3
        assert all(type(part) is int and 0 <= part <= 255 for part in called["color"])
        measured = properties["measurements"]
        assert isinstance(measured, dict)
        assert all(type(value) in (int, float) for value in measured.values())
    assert len(names) == len(collection["features"])
    for coordinates in re.findall(r'"coordinates":([\[\]0-9.,eE+-]+)', text):
        assert all(NUMBER.fullmatch(number) for number in re.findall(r"[^\[\],]+", coordinates))
    return collection["features"]


def _refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def _check_geometry(geometry):
    assert set(geometry) == {"type", "coordinates"}
    if geometry["type"] == "Point":
        assert len(geometry["coordinates"]) == 2
        return
    (ring,) = geometry["coordinates"]
    assert geometry["type"] == "Polygon" and ring[0] == ring[-1] and len(ring) >= 5
    polygon = shape(geometry)
    assert shapely.is_valid(polygon) and polygon.area > 0, shapely.is_valid_reason(polygon)
    assert polygon.exterior.is_ccw
