"""Regions as GeoJSON that QuPath opens."""

import gzip
import json
from typing import Any

import shapely

from deepliif_ray import storage
from deepliif_ray.annotations import objects
from deepliif_ray.annotations.classes import BETWEEN, UNCLASSIFIED, color_of
from deepliif_ray.annotations.current import newest_imports
from deepliif_ray.annotations.geojson import SUFFIXES
from deepliif_ray.annotations.origin import Origin, origin_of
from deepliif_ray.annotations.which_slide import Slides
from deepliif_ray.errors import AnnotationError, ConfigError

_DECIMALS = 6
"""Of coordinates: finer than any outline; and moving them back and forth by whole pixels changes nothing."""


def export_regions(results: str, slide_id: str, url: str, *, origin: Origin | None = None) -> int:
    """Write the regions of a slide that count as GeoJSON; return how many these are.

    Parameters
    ----------
    results : str
        URL of the results.
    slide_id : str
    url : str
        File to write: ``.geojson`` or ``.json``, also with ``.gz``.
    origin : Origin, optional
        Where coordinates begin; by default where those of the imported file did.

    Raises
    ------
    AnnotationError
        The slide has no regions.
    ConfigError
        There is no such slide, or the file has another suffix.
    StorageError
        The file cannot be written, or the store does not answer.
    """
    plain = url.lower().removesuffix(".gz")
    if not plain.endswith(SUFFIXES):
        raise ConfigError(f"{url}: the name of such a file ends in .geojson or .json, also with .gz")
    results = storage.absolute(results)
    row = Slides(results, slide_id).rows[slide_id]
    imports = objects.read(results, objects.REGIONS, [])
    import_id = newest_imports(imports, [slide_id]).get(slide_id)
    if import_id is None:
        raise AnnotationError(f"{results}: slide {slide_id!r} has no regions; import some first")
    held = next(held for held in imports if held.import_id == import_id)
    regions = [region for region in held.table.to_pylist() if region["slide_id"] == slide_id]
    begin = None if origin is None else origin_of(row, origin)[:2]
    features = [_feature(region, begin or (region["origin_x"], region["origin_y"])) for region in regions]
    document = {"type": "FeatureCollection", "features": features}
    content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    storage.write_bytes(url, gzip.compress(content, mtime=0) if url.lower().endswith(".gz") else content)
    return len(features)


def _feature(region: dict[str, Any], begin: tuple[int, int]) -> dict[str, Any]:
    area = shapely.transform(
        shapely.from_wkb(region["geometry"]), lambda points: (points - begin).round(_DECIMALS)
    )
    properties: dict[str, Any] = {"objectType": "annotation"}
    if region["name"] is not None:
        properties["name"] = region["name"]
    if region["class"] != UNCLASSIFIED:
        parts = region["class"].split(BETWEEN)
        name = {"name": parts[0]} if len(parts) == 1 else {"names": parts}
        properties["classification"] = name | {"color": color_of(region["class"], region["color"])}
    return {
        "type": "Feature",
        "id": region["region_id"],
        "geometry": shapely.geometry.mapping(area),
        "properties": properties | {"slide_id": region["slide_id"]},
    }
