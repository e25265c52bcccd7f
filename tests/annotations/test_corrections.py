"""Corrections: which cell they are about, and what is refused."""

import gzip

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray import storage
from deepliif_ray.annotations import corrections as importing
from deepliif_ray.annotations.corrections import call_of, drop_corrections, import_corrections
from deepliif_ray.annotations.current import attach
from deepliif_ray.annotations.matching import match
from deepliif_ray.annotations.origin import Origin
from deepliif_ray.errors import AnnotationError, ConfigError, DeepliifRayError
from tests.annotations.files import box, cell_at, cells_at, feature, listing, slides, write
from tests.annotations.test_current import table_of
from tests.query import fake_results as fake


def filled(results):
    big = cell_at(2, 520, 110, half=40)
    fake.commit(results, "S-1", [*cells_at((100, 100), (140, 100)), big, cell_at(3, 500, 100)], "P1")
    fake.commit(results, "S-2", cells_at((50, 50)), "P2")
    return results


@pytest.fixture
def root(tmp_path):
    return filled(str(tmp_path / "results"))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """Results for what is refused: nothing of them may change."""
    return filled(str(tmp_path_factory.mktemp("untouched")))


def found(root):
    table = attach(root, slides(root)).corrections
    return [
        tuple(row.values()) for row in table.select(["slide_id", "cell_id", "call", "is_current"]).to_pylist()
    ]


def test_a_table(root, tmp_path):
    path = table_of(
        tmp_path,
        "S-1,102,98,Positive,B. Reader,faint",
        "S-1,122.0,100,negative,,",  # 18 and 22 px from two centroids, in neither: 4.5 µm
        "S-1,300,300,not a cell,,",
        "S-1,500,100,Ignore*,,",
        "S-2,50,50,NEGATIVE,,",
        head="slide_id,x,y,call,author,note",
    )
    report = import_corrections(root, [path], author="me")
    assert report.calls == {"positive": 1, "negative": 2, "not_a_cell": 2}
    assert report.unmatched == ["c.csv: row 4: slide 'S-1' at 300.0, 300.0"]
    assert found(root) == [
        ("S-1", 0, "positive", True),
        ("S-1", 1, "negative", True),
        ("S-1", None, "not_a_cell", False),
        ("S-1", 3, "not_a_cell", True),
        ("S-2", 0, "negative", True),
    ]
    rows = attach(root, slides(root)).corrections.to_pylist()
    assert [row["author"] for row in rows[:2]] == ["B. Reader", "me"]
    assert [row["note"] for row in rows[:2]] == ["faint", None]
    assert rows[0]["distance_um"] == pytest.approx(np.hypot(2, 2) / 4)
    assert rows[2]["distance_um"] is None and rows[2]["attempt"] == rows[0]["attempt"]


def test_geojson(root, tmp_path):
    points = {"type": "MultiPoint", "coordinates": [[100.5, 100.5], [140.5, 100.5]]}
    cell = box(497.5, 97.5, 503.5, 103.5)
    features = [
        feature(points, "Positive", name="both"),
        feature(cell, "Tumor: Negative", objectType="detection"),
        feature({"type": "Point", "coordinates": [540.5, 130.5]}, "Ignore*"),
    ]
    report = import_corrections(root, [write(tmp_path, "S-1.geojson", features)], author="me")
    assert not report.unmatched
    assert found(root) == [
        ("S-1", 0, "positive", True),
        ("S-1", 1, "positive", True),
        ("S-1", 3, "negative", True),
        ("S-1", 2, "not_a_cell", True),
    ]
    rows = attach(root, slides(root)).corrections.to_pylist()
    # Outlines are edges, cells are placed by centres of pixels.
    assert [(row["x"], row["y"]) for row in rows[:2]] == [(100, 100), (140, 100)]
    assert (rows[0]["note"], rows[0]["distance_um"], rows[2]["distance_um"]) == ("both", 0, 0)


def test_geojson_of_a_slide_with_bounds(root, tmp_path):
    bounds = {"bounds_x": 90, "bounds_y": 80, "bounds_width": 700, "bounds_height": 600}
    fake.commit(root, "S-2", cells_at((100, 100)), second=5, reader="openslide", **bounds)
    path = write(tmp_path, "S-2.geojson", [feature({"type": "Point", "coordinates": [10, 20]}, "Positive")])
    assert not import_corrections(root, [path], author="me").unmatched
    assert import_corrections(root, [path], author="me", origin=Origin.SLIDE).unmatched
    table = table_of(tmp_path, "S-2,100,100,negative")
    assert not import_corrections(root, [table], author="me").unmatched
    assert [row[1:] for row in found(root)] == [
        (0, "positive", False),
        (None, "positive", False),
        (0, "negative", True),
    ]


def test_newest_counts_and_imports_can_be_dropped(root, tmp_path):
    first = import_corrections(root, [table_of(tmp_path, "S-1,100,100,positive", "S-1,101,101,positive")])
    second = import_corrections(root, [table_of(tmp_path, "100,99,negative", head="x,y,call")], slide="S-1")
    assert [row[3] for row in found(root)] == [False, False, True]
    assert drop_corrections(root, second.import_id) == 1
    assert [row[3] for row in found(root)] == [False, True]  # of one import the later row
    with pytest.raises(AnnotationError, match="no import"):
        drop_corrections(root, second.import_id)
    assert drop_corrections(root, first.import_id) == 2 and found(root) == []


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv.gz", "tsv"])
def test_formats(root, tmp_path, kind):
    frame = pl.DataFrame(
        {"slide_id": ["S-1"], "x": [100.25], "y": [100], "call": ["positive"], "site": ["a"]}
    )
    path = tmp_path / f"c.{kind}"
    if kind == "parquet":
        frame.write_parquet(path)
    elif kind == "jsonl":
        frame.write_ndjson(path)
    else:
        text = frame.write_csv(separator="\t" if kind == "tsv" else ",").encode()
        path.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    report = import_corrections(root, [str(path)], author="me")
    assert report.other_columns == ["site"] and found(root) == [("S-1", 0, "positive", True)]


BAD = {
    "call": (["S-1,1,1,maybe"], "row 2: 'maybe' is no call; give positive, negative"),
    "no call": (["S-1,1,1,"], "'' is no call"),
    "no number": (["S-1,one,1,positive"], "x is 'one', which is no number"),
    "nan": (["S-1,1,nan,positive"], "y is 'nan', which is no number"),
    "inf": (["S-1,1e999,1,positive"], "x is '1e999', which is no number"),
    "underscore": (["S-1,1_0,1,positive"], "x is '1_0', which is no number"),
    "empty": (["S-1,,1,positive"], "x is '', which is no number"),
    "outside": (["S-1,1003,1,positive"], "x is 1,003.0, but slide 'S-1' has 1,000 × 800"),
    "below": (["S-1,1,-3,positive"], "y is -3.0, but slide"),
    "slide": (["S-9,1,1,positive"], "there is no slide 'S-9'"),
    "no slide": ([",1,1,positive"], "nothing says which slide"),
    "differ": (
        ["S-1,100,100,positive", "S-1,101,100,negative"],
        r"row 3: calls the cell negative that c\.csv: row 2 calls positive \(slide 'S-1'",
    ),
    "differ where no cell is": (["S-1,300,300,positive", "S-1,300,300,negative"], "calls the cell negative"),
    "fields": (["S-1,1,1"], "3 fields where the header has 4"),
    "quotes": (['S-1,1,1,"positive'], "not valid CSV"),
    "nothing": ([], "no corrections in there"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_by_name_and_results_untouched(untouched, tmp_path, name):
    root = untouched
    lines, problem = BAD[name]
    before = listing(root)
    with pytest.raises(AnnotationError, match=problem) as raised:
        import_corrections(root, [table_of(tmp_path, *lines)], author="me")
    assert "c.csv" in str(raised.value) and "manifest" not in str(raised.value)
    assert listing(root) == before


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (feature(box(0, 0, 300, 300), "Positive"), "5,625 µm², which is no cell"),
        (feature(box(0, 0, 9, 9), "Tumor"), "'Tumor' is no call"),
        (feature(box(0, 0, 9, 9)), "'Unclassified' is no call"),
        (feature({"type": "LineString", "coordinates": [[0, 0], [1, 1]]}, "Positive"), "neither a point nor"),
        (feature(None, "Positive"), "neither a point nor"),
        (feature({"type": "Point", "coordinates": ["1", "2"]}, "Positive"), "no list of x and y"),
        (feature({"type": "Point", "coordinates": [1]}, "Positive"), "no list of x and y"),
        (feature({"type": "Point", "coordinates": [1, float("nan")]}, "Positive"), "not finite"),
        (feature({"type": "Point", "coordinates": [1, 900]}, "Positive"), "y is 899.5, but slide"),
    ],
)
def test_bad_features(untouched, tmp_path, made, problem):
    root = untouched
    good = feature({"type": "Point", "coordinates": [100, 100]}, "Positive")
    path = write(tmp_path, "S-1.geojson", [good, made])
    before = listing(root)
    with pytest.raises(AnnotationError, match=problem) as raised:
        import_corrections(root, [path], author="me")
    assert "S-1.geojson: feature 2" in str(raised.value) and listing(root) == before


def test_what_is_refused_can_be_left_out(root, tmp_path):
    at = {"type": "Point", "coordinates": [100, 100]}
    path = write(tmp_path, "S-1.geojson", [feature(at, "Positive"), feature(at, "Tumor")])
    report = import_corrections(root, [path], author="me", skip_refused=True)
    assert len(report.refused) == 1 and found(root) == [("S-1", 0, "positive", True)]


def test_other_wrong_calls(root, tmp_path, monkeypatch):
    before = listing(root)
    with pytest.raises(AnnotationError, match="has no column x, call"):
        import_corrections(root, [table_of(tmp_path, "S-1,1", head="slide_id,y")])
    with pytest.raises(AnnotationError, match="has no column slide_id"):
        import_corrections(root, [table_of(tmp_path, "1,1,positive", head="x,y,call")])
    with pytest.raises(AnnotationError, match="the column x twice"):
        import_corrections(root, [table_of(tmp_path, "S-1,1,1,1,positive", head="slide_id,x,X,y,call")])
    path = table_of(tmp_path, "S-1,1,1,positive", "S-2,1,1,positive")
    with pytest.raises(AnnotationError, match="row 2: it says that it is of slide 'S-1'"):
        import_corrections(root, [path], slide="S-2")
    for reach in (-1, 101, float("nan")):
        with pytest.raises(ConfigError, match="--reach-um"):
            import_corrections(root, [path], reach_um=reach)
    with pytest.raises(DeepliifRayError, match="no such file"):
        import_corrections(root, [str(tmp_path / "none.csv")])
    monkeypatch.setattr(importing, "MAX_CORRECTIONS", 1)
    with pytest.raises(AnnotationError, match="over 1 corrections"):
        import_corrections(root, [path])
    assert listing(root) == before


def test_calls():
    for text in ("Negative", " negative ", "Tumor: Negative", "tumor:NEGATIVE"):
        assert call_of(text) == "negative"
    for text in ("not a cell", "Not_A_Cell", "Ignore*", "ignore", "Artefact*", "not  a\tcell"):
        assert call_of(text) == "not_a_cell"


def slow_match(cells, x, y, reach):
    """Return the cell that a position means, looking at every one."""

    def inside(c):
        px, py = np.floor(x + 0.5), np.floor(y + 0.5)
        return c["bbox_x0"] <= px < c["bbox_x1"] and c["bbox_y0"] <= py < c["bbox_y1"]  # outlines are squares

    near = [(np.hypot(c["x"] - x, c["y"] - y), c["cell_id"]) for c in cells]
    around = [(c["area_px"], *near[n]) for n, c in enumerate(cells) if inside(c)]
    if around:
        return min(around)[2]
    near = [pair for pair in near if pair[0] <= reach]
    return min(near)[1] if near else None


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 79), st.integers(1, 8)), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(-20, 1010), st.integers(-20, 820)), min_size=1, max_size=20),
    st.sampled_from([0.0, 3.0, 30.0]),
)
def test_matches_are_those_of_a_slow_look(tmp_path_factory, placed, positions, reach):
    root = str(tmp_path_factory.mktemp("match"))
    cells = [cell_at(n, 10 * x, 10 * y, half) for n, (x, y, half) in enumerate(placed)]
    fake.commit(root, "S-1", cells)
    x, y = (np.array(axis, float) / 1.5 for axis in zip(*positions, strict=True))
    row = slides(root).to_pylist()[0]
    answer = match(root, row, x, y, np.full(len(x), reach * row["mpp"]))
    assert [cell for cell, _ in answer] == [slow_match(cells, a, b, reach) for a, b in zip(x, y, strict=True)]


def test_an_outline_that_touches_itself(tmp_path):
    # Two squares joined by a line of pixels, there and back, as the published outline has it.
    left = [(0, 0), (4, 0), (4, 2)]
    right = [(9, 2), (9, 0), (13, 0), (13, 4), (9, 4), (9, 2)]
    ring = [*left, *right, (4, 2), (4, 4), (0, 4), (0, 0)]
    wkb = fake.struct.pack(f"<BIII{2 * len(ring)}d", 1, 3, 1, len(ring), *(float(v) for p in ring for v in p))
    cell = cell_at(7, 6, 2, half=2, boundary=wkb, bbox_x0=0, bbox_x1=14, bbox_y0=0, bbox_y1=5)
    fake.commit(str(tmp_path), "S-1", [cell])
    x = np.array([2.0, 6.4, 11, 6, 13.4, 13.6])
    y = np.array([2.0, 2.4, 2, 3, 0, 0])
    found = match(str(tmp_path), slides(tmp_path).to_pylist()[0], x, y, np.zeros(6))
    assert [cell for cell, _ in found] == [7, 7, 7, None, 7, None]


def test_cells_that_are_gone(root, tmp_path):
    storage.remove(storage.join(root, slides(root)["cells_path"][0].as_py()))
    with pytest.raises(DeepliifRayError, match="cells of slide 'S-1' are gone"):
        import_corrections(root, [table_of(tmp_path, "S-1,1,1,positive")])
