"""Outlines enclose their cells, are valid, and are wound as the standard asks."""

import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from deepliif_ray import Execution, score
from deepliif_ray.cells.extract import extract_cells
from deepliif_ray.exports.outlines import BRIDGE, enclosing_outlines
from deepliif_ray.exports.qupath import export_qupath
from tests.cells.maps import blobs, colour, noise, rings, spiral
from tests.exports import strict
from tests.query.fake_results import SQUARE

MASKS = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(
    lambda size: arrays(np.uint8, size, elements=st.integers(0, 1))
)


def outlined(classes):
    """Return the cells of a map, and their outlines, which hold what all outlines must."""
    cells = extract_cells(colour(classes), noise_thresh=0, large_noise_thresh=None).table
    found = enclosing_outlines(cells["boundary"].to_numpy())
    area = cells["area_px"].to_numpy()
    assert all(shapely.is_valid(found)), shapely.is_valid_reason(found)
    assert all(shapely.get_type_id(found) == shapely.GeometryType.POLYGON)
    assert all(shapely.get_num_interior_rings(found) == 0)
    assert all(shapely.is_ccw(shapely.get_exterior_ring(found)))
    more = shapely.area(found) - area
    assert all(more > -1e-6) and all(more <= BRIDGE**2 * area + 1e-6)
    return cells, found


def pixels(classes):
    y, x = np.nonzero(classes)
    return shapely.box(x, y, x + 1, y + 1)


@settings(deadline=None, max_examples=150)
@given(MASKS)
def test_every_pixel_is_enclosed(classes):
    _, found = outlined(classes)
    together = shapely.union_all(found)
    assert all(shapely.covers(together, pixels(classes)))
    # Each cell by itself is in one piece, whatever touches by its corners alone.
    assert shapely.area(found).sum() >= classes.sum() - 1e-6


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.floats(0.05, 0.95))
def test_noise_and_blobs(seed, height, width, fill):
    rng = np.random.default_rng(seed)
    outlined(noise(rng, height, width, fill))
    outlined(blobs(rng, height, width))


@pytest.mark.parametrize(
    ("rows", "area"),
    [
        (["#"], 1),
        (["###"], 3),
        (["#", "#", "#"], 3),
        (["#..", ".#.", "..#"], 3 + 2 * BRIDGE**2),
        (["#.", ".#"], 2 + BRIDGE**2),
        ([".#", "#."], 2 + BRIDGE**2),
        (["#.#", ".#.", "#.#"], 5 + 4 * BRIDGE**2),
        ([".#.", "#.#", ".#."], 5),  # what is inside is a hole, though its corners touch the outside
        (["####", "#..#", "####"], 12),
        (["###....", "###....", "#######", "###....", "###...."], 19),  # a spur of one pixel
        (["#####", "....#", "#####", "#....", "#####"], 17),  # a snake
        (["##...", "##...", "..#..", "...##", "...##"], 9 + 2 * BRIDGE**2),
    ],
)
def test_shapes(rows, area):
    classes = np.array([[c == "#" for c in row] for row in rows], int)
    _, (found,) = outlined(np.pad(classes, 1))
    assert shapely.area(found) == pytest.approx(area)
    assert all(shapely.covers(found, pixels(np.pad(classes, 1))))


def test_lines_that_wind():
    outlined(spiral(40, 53))
    outlined(rings(31, 40, broken=True))
    outlined(rings(31, 40))


def test_coordinates_are_those_of_edges():
    classes = np.zeros((9, 9), int)
    classes[3:5, 6] = 1
    _, (found,) = outlined(classes)
    assert found.bounds == (6, 3, 7, 5)
    assert shapely.get_coordinates(found).tolist() == [[6, 3], [7, 3], [7, 5], [6, 5], [6, 3]]


def test_outlines_that_are_no_chains_of_pixels_are_enclosed_too():
    strange = [
        shapely.Polygon([(0, 0), (3, 1), (3, 5), (0, 4)]),
        shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)]),
        shapely.Polygon([(0.5, 0.5), (4.5, 0.5), (4.5, 4.5)]),
        shapely.Polygon([(0, 0), (0, 4), (4, 4), (4, 0)]),  # wound the other way
    ]
    found = enclosing_outlines([SQUARE, *shapely.to_wkb(strange), SQUARE])
    assert all(shapely.is_valid(found)) and all(shapely.is_ccw(shapely.get_exterior_ring(found)))
    assert all(shapely.get_type_id(found) == shapely.GeometryType.POLYGON)
    assert shapely.equals(found[0], found[-1]) and shapely.area(found[0]) == 3
    for polygon, outline in zip(strange, found[1:-1], strict=True):
        centres = shapely.get_coordinates(polygon) + 0.5
        assert all(shapely.covers(outline, shapely.points(centres)))
    assert shapely.area(found[4]) == 25


def test_none():
    assert len(enclosing_outlines([])) == 0


@pytest.mark.parametrize("image", ["deepliif/more/442/ihc.png", "bcdata/0.png"])
def test_cells_of_the_baseline_on_real_images(shared_data, tmp_path, image):
    manifest, results = tmp_path / "m.csv", str(tmp_path / "results")
    manifest.write_text(f"slide_id,patient_id,marker,uri,mpp\nS,P,Ki67,{shared_data / image},0.25\n")
    score(str(manifest), results, model="stain", execution=Execution(engine="local"))
    done = export_qupath(results, tmp_path / "a.geojson")
    features = strict.read(tmp_path / "a.geojson")
    assert done.n_cells == len(features) > 30
    outlines = shapely.from_geojson([json.dumps(feature["geometry"]) for feature in features])
    area = [feature["properties"]["measurements"]["Nucleus: Area px^2"] for feature in features]
    assert shapely.area(outlines) == pytest.approx(np.array(area), rel=0.01)


@pytest.mark.parametrize("name", ["6_2", "34_3", "mosaic"])
def test_cells_of_real_images(shared_reference, name):
    seg = np.asarray(Image.open(shared_reference / "postprocess" / f"{name}-seg.png").convert("RGB"))
    cells = extract_cells(seg).table
    found = enclosing_outlines(cells["boundary"].to_numpy())
    assert cells.num_rows > 100 and all(shapely.is_valid(found))
    assert shapely.area(found) / cells["area_px"].to_numpy() == pytest.approx(1, abs=0.01)
    boxes = np.column_stack([cells[f"bbox_{edge}"].to_numpy() for edge in ("x0", "y0", "x1", "y1")])
    assert (shapely.bounds(found) == boxes).all()
    stored = shapely.from_wkb(cells["boundary"].to_numpy())
    assert not all(shapely.is_valid(stored))
    centres, cell = shapely.get_coordinates(stored, return_index=True)
    assert all(shapely.covers(found[cell], shapely.points(centres + 0.5)))
