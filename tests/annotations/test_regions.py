"""Regions imported: which slide, which cells, what is refused; results are untouched by what is."""

import json

import pyarrow.compute as pc
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray import storage
from deepliif_ray.annotations import export, geojson, membership, objects, regions
from deepliif_ray.annotations.current import attach
from deepliif_ray.annotations.export import export_regions
from deepliif_ray.annotations.listing import list_regions
from deepliif_ray.annotations.origin import Origin
from deepliif_ray.annotations.polygons import moved
from deepliif_ray.annotations.regions import drop_regions, import_regions
from deepliif_ray.errors import AnnotationError, ConfigError, DeepliifRayError
from tests.annotations.files import box, cells_at, feature, listing, slides, write
from tests.query import fake_results as fake

CELLS = ((100, 100), (300, 100), (500, 100), (700, 100))


def filled(results):
    fake.commit(results, "S-1", cells_at(*CELLS), "P1", uri="/slides/one.svs")
    fake.commit(results, "S-2", cells_at((50, 50)), "P2", uri="/slides/two.tar.tif")
    fake.commit(results, "S-3", [], "P3", uri="s3://bucket/a%20b.ndpi")
    return results


@pytest.fixture
def root(tmp_path):
    return filled(str(tmp_path / "results"))


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return filled(f"memory://{tmp_path_factory.mktemp('once').name}")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """Results for what is refused: nothing of them may change."""
    return filled(str(tmp_path_factory.mktemp("untouched")))


def brought(root, *files, **options):
    return import_regions(root, list(files), read_slides=False, author="A. Reader", **options)


def counted(root):
    found = attach(root, slides(root)).regions
    rows = found.select(["slide_id", "region_id", "class", "n_cells", "class_n_cells"]).to_pylist()
    return [tuple(row.values()) for row in rows]


def test_regions_and_what_is_in_them(root, tmp_path):
    features = [
        feature(box(0, 0, 400, 800), "Tumor", "a", name="left"),
        feature(box(200, 0, 600, 800), "tumor"),
        feature(box(290, 0, 310, 800), "Ignore*", "c"),
        feature(box(600, 0, 1000, 800)),
        feature(box(0, 0, 9, 9), "Tumor", objectType="detection"),
        feature(box(0, 0, 9, 9), "Tumor", objectType="cell"),
        feature({"type": "Point", "coordinates": [3, 3]}, "Tumor"),
    ]
    report = brought(root, write(tmp_path, "S-1.geojson", features))
    assert report.slides == {"S-1": 4} and not report.refused and not report.replaced
    assert report.passed_over == {"detection": 1, "cell": 1, "Point": 1}
    # The cell at 300 is in both and in what excludes.
    assert counted(root) == [
        ("S-1", "a", "Tumor", 2, 2),
        ("S-1", "r2", "tumor", 2, 2),
        ("S-1", "c", "Ignore*", 1, 1),
        ("S-1", "r4", "Unclassified", 1, 1),
    ]
    attached = attach(root, slides(root))
    row = attached.regions.to_pylist()[0]
    mm2 = 0.25**2 / 1e6
    assert row["area_mm2"] == pytest.approx(400 * 800 * mm2)
    assert row["class_area_mm2"] == pytest.approx((600 - 20) * 800 * mm2)
    assert (row["name"], row["color"], row["author"], row["patient_id"]) == (
        "left",
        "#c80000",
        "A. Reader",
        "P1",
    )
    assert (row["source"], len(row["source_digest"]), row["import_id"]) == (
        "S-1.geojson",
        64,
        report.import_id,
    )
    assert (row["class_tissue_mm2"], row["slide_tissue_mm2"]) == (None, None) and "not read" in row[
        "tissue_reason"
    ]
    assert attached.region_cells_paths == [f"region_cells/{report.import_id}.parquet"]
    assert attached.region_cells.num_rows == 0 and not attached.damaged
    table = objects.read_region_cells(root, report.import_id, ["S-1"])
    pairs = list(zip(table["cell_id"].to_pylist(), table["region_id"].to_pylist(), strict=True))
    assert pairs == [(0, "a"), (1, "a"), (1, "r2"), (1, "c"), (2, "r2"), (3, "r4")]
    assert set(table["attempt"].to_pylist()) == {row["attempt"]}


@pytest.mark.parametrize(
    ("name", "features", "more", "slide"),
    [
        ("S-2.geojson", [feature(box(0, 0, 9, 9))], {}, "S-2"),
        ("S-2.json.gz", [feature(box(0, 0, 9, 9))], {}, "S-2"),
        ("one.geojson", [feature(box(0, 0, 9, 9))], {}, "S-1"),
        ("one.svs.geojson", [feature(box(0, 0, 9, 9))], {}, "S-1"),
        ("two.tar.geojson", [feature(box(0, 0, 9, 9))], {}, "S-2"),
        ("a b.geojson", [feature(box(0, 0, 9, 9))], {}, "S-3"),
        ("any.geojson", [feature(box(0, 0, 9, 9))], {"slide_id": "S-2"}, "S-2"),
        ("any.geojson", [feature(box(0, 0, 9, 9))], {"properties": {"slide_id": "S-2"}}, "S-2"),
        ("any.geojson", [feature(box(0, 0, 9, 9), slide_id="S-2")], {}, "S-2"),
        ("any.geojson", json.dumps([feature(box(0, 0, 9, 9), slide_id="S-2")]).encode(), {}, "S-2"),
        ("any.geojson", json.dumps(feature(box(0, 0, 9, 9), slide_id="S-2")).encode("utf-16"), {}, "S-2"),
        (
            "any.geojson",
            b"\xef\xbb\xbf" + json.dumps(feature(box(0, 0, 9, 9), slide_id="S-2")).encode(),
            {},
            "S-2",
        ),
    ],
)
def test_which_slide(once, tmp_path, name, features, more, slide):
    root = once
    assert brought(root, write(tmp_path, name, features, **more)).slides == {slide: 1}


def test_one_file_of_several_slides_and_several_of_one(root, tmp_path):
    both = write(
        tmp_path,
        "both.geojson",
        [feature(box(0, 0, 400, 400), "Tumor", "x", slide_id=i) for i in ("S-1", "S-2")],
    )
    more = write(tmp_path, "more.geojson", [feature(box(400, 0, 600, 400), "Tumor", "y")], slide_id="S-1")
    assert brought(root, both, more).slides == {"S-1": 2, "S-2": 1}
    assert [row[:2] for row in counted(root)] == [("S-1", "x"), ("S-1", "y"), ("S-2", "x")]


def test_objects_within_objects_and_of_old_versions(root, tmp_path):
    inner = feature(box(0, 0, 200, 200), "Stroma", "in")
    outer = feature(box(0, 0, 400, 400), "Tumor", "out", childObjects=[inner])
    old = feature(box(500, 0, 600, 200), feature_id="PathAnnotationObject")
    del old["properties"]["objectType"]
    found = feature(box(500, 0, 600, 200), feature_id="PathDetectionObject")
    del found["properties"]["objectType"]
    report = brought(root, write(tmp_path, "S-1.geojson", [outer, old, found]))
    assert {row[1]: row[3] for row in counted(root)} == {"out": 2, "in": 1, "r3": 1}
    assert report.passed_over == {"detection": 1}


BAD = {
    "no json": (b'{"type": "FeatureCollection", "features": [', "no valid JSON"),
    "cut": (json.dumps({"features": [feature(box(0, 0, 9, 9))]}).encode()[:-1], "no valid JSON"),
    "more behind": (b"[]{}", "more behind the end"),
    "no text": (b"\xff\xfe\xfd\x00\x80", "not UTF-8|no GeoJSON"),
    "empty": (b" \n", "the file is empty"),
    "nothing in it": (b"[]", "no regions in there"),
    "other json": (b'{"a": 1}', "neither a FeatureCollection"),
    "a number": (b"3", "no GeoJSON"),
    "deep": (b"[" * 100_000, "nested too deeply|no valid JSON"),
    "long number": (b'[{"a":' + b"9" * 10_000 + b"}]", "no valid JSON"),
    "zip": (b"PK\x03\x04", "ZIP archive"),
    "half a gzip": (b"\x1f\x8b\x08\x00abc", "cannot be unpacked"),
    "no feature": (b"[3]", "no JSON object"),
    "properties": (b'[{"type": "Feature", "properties": []}]', "no JSON object"),
    "type": (b'[{"type": "Topology"}]', "not Feature"),
    "another slide's size": ([feature(box(0, 0, 1003, 9), "Tumor", "wide")], "another slide's size"),
    "left of it": ([feature(box(-3, 0, 100, 9))], "another slide's size"),
    "bow-tie": (
        [feature({"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]})],
        "crosses or overlaps",
    ),
    "twice": (
        [feature(box(0, 0, 9, 9), "Tumor", "a"), feature(box(0, 0, 9, 9), "Tumor", "a")],
        "there twice",
    ),
    "no such slide": ([feature(box(0, 0, 9, 9), slide_id="S-9")], "it is of slide 'S-9'"),
    "only detections": ([feature(box(0, 0, 9, 9), objectType="detection")], "but 1 detection"),
    "class": ([feature(box(0, 0, 9, 9), classification=3)], "classification is int"),
    "nan": (
        b'[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [NaN, 9], [9, 0]]]}}]',
        "not finite",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name_and_results_untouched(untouched, tmp_path, name):
    root = untouched
    good = write(tmp_path, "S-2.geojson", [feature(box(0, 0, 9, 9))])
    bad = write(tmp_path, "S-1.geojson", BAD[name][0])
    before = listing(root)
    with pytest.raises(DeepliifRayError, match=BAD[name][1]) as raised:
        brought(root, good, bad) if name not in ("nothing in it", "only detections") else brought(root, bad)
    assert "S-1.geojson" in str(raised.value)
    assert listing(root) == before


def test_every_refused_feature_is_named_or_left_out(root, tmp_path):
    bad = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]}
    features = [feature(bad, "Tumor", "x"), feature(box(0, 0, 200, 200)), feature(bad, name="b")]
    path = write(tmp_path, "S-1.geojson", features)
    with pytest.raises(AnnotationError, match=r"2 features cannot be used") as raised:
        brought(root, path)
    assert "feature 1 ('x')" in str(raised.value) and "feature 3" in str(raised.value)
    report = brought(root, path, skip_refused=True)
    assert report.slides == {"S-1": 1} and len(report.refused) == 2


def test_other_wrong_calls(root, tmp_path):
    path = write(tmp_path, "unknown.geojson", [feature(box(0, 0, 9, 9))])
    before = listing(root)
    with pytest.raises(ConfigError, match=r"unknown\.geojson: nothing says which slide"):
        brought(root, path)
    some = [feature(box(0, 0, 9, 9)), feature(box(0, 0, 9, 9), slide_id="S-1")]
    with pytest.raises(AnnotationError, match="feature 1: nothing says which slide"):
        brought(root, write(tmp_path, "some.geojson", some))
    with pytest.raises(ConfigError, match="no slide 'S-9'"):
        brought(root, path, slide="S-9")
    with pytest.raises(AnnotationError, match=r"the same as .*; give it once"):
        brought(root, path, path, slide="S-1")
    with pytest.raises(AnnotationError, match="taken for one of 'S-1'"):
        brought(root, write(tmp_path, "S-1.geojson", [feature(box(0, 0, 9, 9), slide_id="S-2")]))
    with pytest.raises(DeepliifRayError, match="no such file"):
        brought(root, str(tmp_path / "none.geojson"), slide="S-1")
    with pytest.raises(DeepliifRayError, match="there are no results here"):
        brought(str(tmp_path / "nowhere"), path)
    fake.commit(root, "S-4", [], uri="/other/one.svs")
    before |= listing(root)
    with pytest.raises(ConfigError, match=r"'S-1', 'S-4'; give --slide"):
        brought(root, write(tmp_path, "one.geojson", [feature(box(0, 0, 9, 9))]))
    assert listing(root) == before


def test_limits(root, tmp_path, monkeypatch):
    path = write(tmp_path, "S-1.geojson", [feature(box(0, 0, 9, 9)), feature(box(0, 0, 9, 9))])
    bomb = write(tmp_path, "S-2.geojson.gz", b" " * 100_000 + b"[]")
    before = listing(root)
    for module, name, value, problem in (
        (geojson, "MAX_BYTES", 100, "larger than 0 MiB"),
        (geojson, "MAX_FEATURES", 1, "over 1 features; export annotations alone"),
        (regions, "MAX_REGIONS", 1, "over 1 regions"),
        (regions, "MAX_VERTICES", 9, "over 9 vertices"),
        (membership, "MOST_PAIRS", 0, "too many regions overlap"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            big = (
                write(tmp_path, "S-1.json", [feature(box(0, 0, 200, 200))]) if name == "MOST_PAIRS" else path
            )
            with pytest.raises(AnnotationError, match=problem):
                brought(root, big)
    monkeypatch.setattr(geojson, "MAX_BYTES", 1000)
    assert storage.size(bomb) < 1000
    with pytest.raises(AnnotationError, match="unpacked; export annotations alone"):
        brought(root, bomb)
    assert listing(root) == before


def openslide(root, second=9, **more):
    bounds = {"bounds_x": 100, "bounds_y": 50, "bounds_width": 700, "bounds_height": 600}
    fake.commit(root, "S-1", cells_at(*CELLS), second=second, **{"reader": "openslide", **bounds, **more})


@pytest.mark.parametrize(
    ("reader", "asked", "moves"),
    [
        ("openslide", None, True),
        ("openslide", Origin.SLIDE, False),
        ("czi", None, False),
        ("czi", Origin.BOUNDS, True),
    ],
)
def test_coordinates_begin_where_qupath_s_do(root, tmp_path, reader, asked, moves):
    openslide(root, reader=reader)
    brought(root, write(tmp_path, "S-1.geojson", [feature(box(0.25, 0, 300, 200))]), origin=asked)
    (row,) = attach(root, slides(root)).regions.to_pylist()
    expected = (100.25, 50, 400, 250) if moves else (0.25, 0, 300, 200)
    assert shapely.from_wkb(row["geometry"]).bounds == expected
    assert (row["origin_x"], row["origin_y"], row["n_cells"]) == ((100, 50, 2) if moves else (0, 0, 1))


def test_beyond_the_scanned_area(root, tmp_path):
    openslide(root)
    path = write(tmp_path, "S-1.geojson", [feature(box(0, 0, 703, 200))])
    with pytest.raises(AnnotationError, match=r"scanned area of 700 × 600 px .* --origin slide"):
        brought(root, path)
    assert brought(root, path, origin=Origin.SLIDE).slides == {"S-1": 1}
    openslide(root, second=10, bounds_height=None)  # a file that does not say all
    assert brought(root, path).slides == {"S-1": 1}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=6, max_size=6), st.integers(0, 10**5), st.integers(0, 10**5))
def test_moving_there_and_back_changes_no_coordinate(thousandths, x, y):
    ring = shapely.Polygon(
        [(a / 1000, b / 1000) for a, b in zip(thousandths[:3], thousandths[3:], strict=True)]
    )
    there = moved(ring, x, y)
    region = {"geometry": shapely.to_wkb(there), "name": None, "class": "A", "color": None}
    back = export._feature(region | {"region_id": "a", "slide_id": "S"}, (x, y))["geometry"]["coordinates"]
    assert [list(point) for point in back[0]] == shapely.get_coordinates(ring).tolist()


def test_export_and_import_again_are_the_identity(root, tmp_path):
    openslide(root)
    classes = ("Tumor", "Tumor: Positive", "Exclude", "Ä 'q' \"x\"", None)
    many = {
        "type": "MultiPolygon",
        "coordinates": [box(0.1, 0.7, 20.01, 30.3)["coordinates"], box(30, 0.01, 40, 9.9)["coordinates"]],
    }
    features = [feature(many, name, f"id-{name}", name="n") for name in classes]
    brought(root, write(tmp_path, "S-1.geojson", [*features, feature(box(0, 0, 9, 9))]))
    first = attach(root, slides(root)).regions
    assert export_regions(root, "S-1", str(tmp_path / "S-1.json.gz")) == 6
    brought(root, str(tmp_path / "S-1.json.gz"))
    again = attach(root, slides(root)).regions
    same = [
        "slide_id",
        "region_id",
        "class",
        "name",
        "geometry",
        "area_mm2",
        "n_cells",
        "origin_x",
        "excludes",
    ]
    assert again.select(same).equals(first.select(same))
    assert again["import_id"][0] != first["import_id"][0]
    export_regions(root, "S-1", str(tmp_path / "second.geojson"))
    export_regions(root, "S-1", str(tmp_path / "third.geojson"), origin=Origin.SLIDE)
    second, third = (json.loads((tmp_path / f"{n}.geojson").read_bytes()) for n in ("second", "third"))
    assert {f["properties"]["objectType"] for f in second["features"]} == {"annotation"}
    found = [f["properties"].get("classification") for f in second["features"]]
    assert [said and said.get("name", said.get("names")) for said in found] == [
        "Tumor", ["Tumor", "Positive"], "Exclude", classes[3], None, None,
    ]  # fmt: skip
    assert all(said is None or len(said["color"]) == 3 for said in found)
    bounds = [shapely.geometry.shape(d["features"][5]["geometry"]).bounds for d in (second, third)]
    assert bounds == [(0, 0, 9, 9), (100, 50, 109, 59)]


def test_what_cannot_be_exported(root, tmp_path):
    brought(root, write(tmp_path, "S-1.geojson", [feature(box(0, 0, 9, 9))]))
    with pytest.raises(ConfigError, match=r"ends in \.geojson"):
        export_regions(root, "S-1", str(tmp_path / "out.txt"))
    with pytest.raises(AnnotationError, match="'S-2' has no regions"):
        export_regions(root, "S-2", str(tmp_path / "out.geojson"))
    with pytest.raises(ConfigError, match="no slide 'S-9'"):
        export_regions(root, "S-9", str(tmp_path / "out.geojson"))
    assert not (tmp_path / "out.geojson").exists()


def test_a_new_import_replaces_and_the_one_before_comes_back(root, tmp_path):
    first = brought(root, write(tmp_path, "S-1.geojson", [feature(box(0, 0, 200, 200), "Tumor", "old")]))
    other = brought(root, write(tmp_path, "S-2.geojson", [feature(box(0, 0, 200, 200), "Tumor", "two")]))
    second = brought(root, write(tmp_path, "S-1.json", [feature(box(0, 0, 400, 200), "Stroma", "new")]))
    assert second.replaced == ["S-1"] and not other.replaced
    assert [row[1] for row in counted(root)] == ["new", "two"]
    table, damaged = list_regions(root)
    assert table["class"].to_pylist() == ["Stroma", "Tumor"] and not damaged
    table, _ = list_regions(root, history=True)
    assert dict(zip(table["import_id"].to_pylist(), table["state"].to_pylist(), strict=True)) == {
        first.import_id: "replaced",
        other.import_id: "current",
        second.import_id: "current",
    }
    assert drop_regions(root, second.import_id) == 1
    assert [row[1] for row in counted(root)] == ["old", "two"]
    with pytest.raises(AnnotationError, match="no import 'x' of regions"):
        drop_regions(root, "x")
    assert drop_regions(root, first.import_id) == drop_regions(root, other.import_id) == 1
    assert counted(root) == [] and not storage.list_files(f"{root}/region_cells")


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(10, 400), st.integers(10, 400)), max_size=30),
    st.integers(10, 400),
    st.integers(10, 400),
)
def test_neighbours_never_share_a_cell_and_none_is_lost(points, x, y):
    """Borders go through the very centres of cells."""
    x, y = x + 0.5, y + 0.5
    areas = [
        shapely.box(0, 0, x, y),
        shapely.box(x, 0, 500, y),
        shapely.box(0, y, x, 500),
        shapely.box(x, y, 500, 500),
    ]
    table = membership.pa.table(
        {
            "cell_id": list(range(len(points))),
            "x": [float(p[0]) for p in points],
            "y": [float(p[1]) for p in points],
        }
    )
    found = membership.members(areas, [table.slice(0, 9), table.slice(9)] if points else [])
    assert found.cell_ids.tolist() == list(range(len(points)))
    expected = [(px + 0.5 >= x) + 2 * (py + 0.5 >= y) for px, py in points]
    assert found.regions.tolist() == expected


def test_slides_that_share_an_object_of_cells(root, tmp_path):
    from deepliif_ray import optimize

    optimize(root, keep_minutes=0)
    brought(root, write(tmp_path, "S-2.geojson", [feature(box(0, 0, 1000, 800))]))
    brought(root, write(tmp_path, "S-1.geojson", [feature(box(0, 0, 1000, 800))]))
    assert [row[3] for row in counted(root)] == [4, 1]
    assert pc.unique(slides(root)["cells_path"].drop_null()).to_pylist()[0].count("joined") == 1
