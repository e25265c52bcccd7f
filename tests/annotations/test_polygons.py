"""Outlines: what is taken, mended, refused; and the area of tissue under them."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray.annotations.classes import (
    RefusedError,
    class_key,
    class_of,
    color_of,
    is_exclude,
)
from deepliif_ray.annotations.coverage import covered
from deepliif_ray.annotations.polygons import outline_of
from tests.annotations.files import box

HOLE = [[3, 3], [5, 3], [5, 5], [3, 5], [3, 3]]


@pytest.mark.parametrize(
    ("geometry", "area", "repaired"),
    [
        (box(0, 0, 10, 10), 100, False),
        ({"type": "Polygon", "coordinates": [*box(0, 0, 10, 10)["coordinates"], HOLE]}, 96, False),
        ({"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10]]]}, 100, True),
        ({"type": "Polygon", "coordinates": [[[0, 0], [0, 0], [10, 0], [10, 10], [0, 0]]]}, 50, False),
        ({"type": "Polygon", "coordinates": [[[0, 0, 1], [10, 0, 1], [10, 10, 1], [0, 0, 1]]]}, 50, False),
        # A spike, as a shaking hand draws it.
        (
            {
                "type": "Polygon",
                "coordinates": [[[0, 0], [10, 0], [20, 0], [10, 0], [10, 10], [0, 10], [0, 0]]],
            },
            100,
            True,
        ),
        (
            {
                "type": "MultiPolygon",
                "coordinates": [b["coordinates"] for b in (box(0, 0, 1, 1), box(5, 5, 7, 7))],
            },
            5,
            False,
        ),
        (
            {
                "type": "GeometryCollection",
                "geometries": [box(0, 0, 1, 1), {"type": "Point", "coordinates": [3, 3]}, box(5, 5, 7, 7)],
            },
            5,
            False,
        ),
    ],
)
def test_areas(geometry, area, repaired):
    outline = outline_of(geometry)
    assert shapely.is_valid(outline.area) and outline.area.geom_type in ("Polygon", "MultiPolygon")
    assert (outline.area.area, outline.repaired) == (pytest.approx(area), repaired)
    assert outline.others == ({"Point": 1} if geometry["type"] == "GeometryCollection" else {})


def test_a_small_loop_is_mended_and_a_large_one_refused():
    def with_loop(size):
        return {
            "type": "Polygon",
            "coordinates": [
                [
                    [0, 0],
                    [100, 0],
                    [100 + size, -size],
                    [100 + size, 0],
                    [100, -size],
                    [100, 100],
                    [0, 100],
                    [0, 0],
                ]
            ],
        }

    small = outline_of(with_loop(3))
    assert small.repaired and small.area.area == pytest.approx(10_000, rel=0.01)
    with pytest.raises(RefusedError, match="crosses or overlaps itself"):
        outline_of(with_loop(40))


@pytest.mark.parametrize(
    ("geometry", "problem"),
    [
        (
            {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]},
            "crosses or overlaps",
        ),
        ({"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [0, 0], [9, 9], [0, 0]]]}, "area is zero"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [0, 0]]]}, "fewer than three"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [float("nan"), 9], [9, 0], [0, 0]]]}, "not finite"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [float("inf"), 9], [9, 0], [0, 0]]]}, "not finite"),
        (
            {"type": "Polygon", "coordinates": [[[0, 0], ["9", "9"], ["9", "0"], ["0", "0"]]]},
            "no list of x and y",
        ),
        ({"type": "Polygon", "coordinates": [[["0", "0"], ["9", "9"], ["9", "0"]]]}, "no list of x and y"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [9], [9, 0], [0, 0]]]}, "no list of x and y"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [None, 9], [9, 0]]]}, "no list of x and y"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [10**400, 9], [9, 0]]]}, "no list of x and y"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1e300, 9], [9, 0]]]}, "larger than any slide"),
        ({"type": "Polygon", "coordinates": []}, "no outline"),
        ({"type": "Polygon"}, "no outline"),
        ({"type": "Polygon", "coordinates": [[]]}, "no list of x and y"),
        ({"type": "MultiPolygon", "coordinates": 3}, "no list"),
        # Two parts over one another: which area is meant?
        (
            {
                "type": "MultiPolygon",
                "coordinates": [b["coordinates"] for b in (box(0, 0, 9, 9), box(1, 1, 9, 9))],
            },
            "crosses or overlaps",
        ),
        # A hole outside.
        (
            {"type": "Polygon", "coordinates": [*box(0, 0, 2, 2)["coordinates"], HOLE]},
            "crosses or overlaps",
        ),
        ({"type": "Circle"}, "GeoJSON does not have"),
        ({"coordinates": [1, 2]}, "GeoJSON does not have"),
        ({"type": "GeometryCollection", "geometries": None}, "no list"),
        ({"type": "GeometryCollection", "geometries": [3]}, "no GeoJSON geometry"),
    ],
)
def test_what_is_no_area_is_refused(geometry, problem):
    with pytest.raises(RefusedError, match=problem):
        outline_of(geometry)


def test_points_and_lines_have_no_area():
    for kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        outline = outline_of({"type": kind, "coordinates": [1, 2]})
        assert outline.area is None and outline.others == {kind: 1}
    assert outline_of(None).others == outline_of({}).others == {"no geometry": 1}


@pytest.mark.parametrize(
    ("said", "name", "color"),
    [
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor", "#c80000"),
        ({"name": " Tumor ", "color": [200, 0, 0, 128]}, "Tumor", "#c80000"),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor: Positive", "#010203"),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor", "#c80000"),
        (
            {"name": "Positive", "parentClass": {"name": "Tumor", "colorRGB": -1}, "colorRGB": -1},
            "Tumor: Positive",
            "#ffffff",
        ),
        ("Tumor:Positive", "Tumor: Positive", None),
        ({"name": "Tumor", "color": "red"}, "Tumor", None),
        ({"name": "Tumor", "color": [300, 0, 0]}, "Tumor", None),
        (None, "Unclassified", None),
        ({}, "Unclassified", None),
        ("  ", "Unclassified", None),
        ({"name": None, "colorRGB": -1}, "Unclassified", "#ffffff"),
    ],
)
def test_classes(said, name, color):
    assert class_of(said) == (name, color)
    assert len(color_of(name, color)) == 3


@pytest.mark.parametrize("said", [3, ["Tumor"], {"name": 3}, {"names": "Tumor"}, "a\nb", "x" * 201])
def test_classes_that_are_none(said):
    with pytest.raises(RefusedError, match="class"):
        class_of(said)


def test_what_excludes():
    for name in ("Exclude", "exclude", "Ignore*", "ignore", "Artefact*", "Tumor: Ignore*", "Ignore*: Fold"):
        assert is_exclude(name)
    for name in ("Tumor", "Excluded?", "Ignored", "Tumor*x", "Unclassified"):
        assert not is_exclude(name)
    assert class_key("TUMOR: Ä") == class_key("Tumor: ä")


def brute(area, mask, square):
    total = 0.0
    for row, column in zip(*np.nonzero(mask), strict=True):
        x, y = column * square[0], row * square[1]
        total += shapely.intersection(area, shapely.box(x, y, x + square[0], y + square[1])).area
    return total


whole = st.integers(0, 24)
point = st.tuples(st.floats(0, 24, allow_subnormal=False) | whole, st.floats(0, 18, allow_subnormal=False))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(point, min_size=3, max_size=12), st.integers(0, 2**16), st.sampled_from([(4.0, 3.0), (2.5, 6.0)])
)
def test_what_is_covered_is_what_the_intersections_have(points, seed, square):
    area = shapely.make_valid(shapely.Polygon(points), method="structure", keep_collapsed=False)
    mask = np.random.default_rng(seed).random((int(18 / square[1]) + 1, int(24 / square[0]) + 1)) < 0.6
    found = 0.0 if area.is_empty else covered(area, mask, square)
    assert found == pytest.approx(brute(area, mask, square), abs=1e-9)


def test_covered_knows_holes_parts_and_the_grid_s_end():
    ring = shapely.Polygon(box(1, 1, 9, 9)["coordinates"][0], [box(2, 2, 5, 5)["coordinates"][0]])
    area = shapely.MultiPolygon([ring, shapely.box(3, 3, 4, 4), shapely.box(20, 20, 30, 30)])
    mask = np.ones((6, 6), bool)
    assert covered(area, mask, (4.0, 4.0)) == pytest.approx(64 - 9 + 1 + 16)  # the grid ends at 24
    assert covered(area, np.zeros((6, 6), bool), (4.0, 4.0)) == 0
    assert (
        covered(shapely.Polygon(), mask, (4.0, 4.0))
        == covered(shapely.box(50, 50, 60, 60), mask, (4.0, 4.0))
        == 0
    )
