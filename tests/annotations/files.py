"""GeoJSON as QuPath writes it, and results with cells where a test wants them."""

import gzip
import json

from deepliif_ray import storage
from deepliif_ray.tables.ledger import Ledger
from tests.query import fake_results as fake


def box(x0, y0, x1, y1):
    return {"type": "Polygon", "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]}


def feature(geometry, class_name=None, feature_id=None, **properties):
    """Return a feature; its class has a colour, without which QuPath cannot read it."""
    said = {"objectType": "annotation", **properties}
    if class_name is not None:
        said["classification"] = {"name": class_name, "color": [200, 0, 0]}
    made = {"type": "Feature", "geometry": geometry, "properties": said}
    return made if feature_id is None else {**made, "id": feature_id}


def write(folder, name, features, **more):
    """Write a collection and return its path; as it stands if ``features`` is no list of features."""
    document = {"type": "FeatureCollection", "features": features, **more}
    content = features if isinstance(features, bytes) else json.dumps(document).encode()
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


def cells_at(*points):
    """Return cells with their centroids at pixels' centres: of 11 × 11 pixels, a square outline each."""
    return [cell_at(number, x, y) for number, (x, y) in enumerate(points)]


def cell_at(number, x, y, half=5, **more):
    left, top = int(x) - half, int(y) - half
    right, bottom = int(x) + half, int(y) + half
    ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    wkb = fake.struct.pack("<BIII10d", 1, 3, 1, 5, *(float(v) for point in ring for v in point))
    boxed = {"bbox_x0": left, "bbox_y0": top, "bbox_x1": right + 1, "bbox_y1": bottom + 1, "boundary": wkb}
    size = {"area_px": (2 * half + 1) ** 2}
    return fake.cell(number, x=float(x), y=float(y), **(boxed | size | more))


def listing(results):
    """Return every file of results and its content."""
    return {url: storage.read_bytes(url) for url in storage.list_files(str(results))}


def slides(results):
    return Ledger(str(results)).slides()
