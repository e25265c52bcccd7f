"""Lazy frames of cells: the rows and columns of the views, from only the bytes that are needed."""

import shutil
import uuid
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from deepliif_ray import scan_cells, storage
from deepliif_ray.errors import QueryError, ResultsError
from deepliif_ray.query import connect, ranges
from tests.few import few
from tests.query import fake_results as fake
from tests.query.test_connect import FOLDERS

V1 = Path(__file__).parents[1] / "tables" / "data" / "v1"
KEY = ["slide_id", "cell_id"]


@pytest.fixture(params=few([FOLDERS[1], "a\nb;-- glob[1]*?/marker=CD3/slide_id=7", "memory"], 2))
def root(request, tmp_path):
    if request.param == "memory":
        return f"memory://frames/{tmp_path.name}"
    return str(tmp_path / request.param)


def view(connection, name="cells", where="true"):
    table = connection.sql(f"FROM {name} WHERE {where}").to_arrow_table()
    return pl.DataFrame(pl.from_arrow(table)).sort(KEY)


def same(connection, frame, name="cells", where="true"):
    assert_frame_equal(frame.collect().sort(KEY), view(connection, name, where))


def joined(root):
    """Several slides in an object, one of which was scored again since; and one slide's own object."""
    path = "cells/marker=Ki67/joined-3-0001-x.parquet"
    named = {"patient_id": "P1", "attempt": "j"}
    rows = [
        {"slide_id": slide, **named, **fake.cell(5, area_px=area)}
        for slide, area in zip("abc", (20, 40, 60), strict=True)
    ]
    fake.write(storage.join(root, path), "cells", rows)
    for slide in "abc":
        fake.commit(root, slide, [], cells_path=path, n_cells=1, attempt=f"j{slide}", second=1)
    fake.commit(root, "b", [fake.cell(0), fake.cell(1, positive=True)], second=2)
    fake.commit(root, "it's", [fake.cell(0, positive=True)], marker="CD8", patient_id="P'2")


def test_rows_and_columns_of_the_views(root):
    joined(root)
    views = connect(root)
    same(views, scan_cells(root))
    same(views, scan_cells(root, called=True), "called_cells")
    same(views, scan_cells(root, slides=["a", "it's"]), where="slide_id IN ('a', 'it''s')")
    same(views, scan_cells(root, slides="b", called=True), "called_cells", "slide_id = 'b'")
    same(views, scan_cells(root, marker="MIB-1"), where="marker = 'Ki67'")
    assert scan_cells(root, columns=["y", "marker"]).collect_schema() == {
        "y": pl.Float64,
        "marker": pl.String,
    }
    filtered = scan_cells(root).filter(pl.col("area_px") > 50, pl.col("marker") == "Ki67")
    same(views, filtered, where="area_px > 50 AND marker = 'Ki67'")


def test_objects_of_older_versions_lack_columns(tmp_path):
    root = str(tmp_path / "v1")
    shutil.copytree(V1, root)
    fake.commit(root, "new", [fake.cell(0), fake.cell(1, area_px=3)])
    found = scan_cells(root)
    assert found.select(pl.col("attempt").null_count()).collect().item() == 0
    views = connect(root)
    same(views, found)
    same(views, scan_cells(root, called=True), "called_cells")
    memory = f"memory://frames/{tmp_path.name}-v1"
    for url in storage.list_files(root):
        storage.write_bytes(storage.join(memory, url[len(root) + 1 :]), storage.read_bytes(url))
    same(views, scan_cells(memory))


def test_no_cells(tmp_path):
    (tmp_path / "empty").mkdir()
    frame = scan_cells(tmp_path / "empty", called=True)
    assert_frame_equal(frame.collect(), view(connect(tmp_path / "empty"), "called_cells"))
    with pytest.raises(ResultsError):
        scan_cells(tmp_path / "typo")


def test_what_is_not_there_is_refused_by_name(tmp_path):
    joined(str(tmp_path))
    for wrong, words in (
        ({"marker": "CD3"}, "no marker 'CD3' in these cells; there are CD8, Ki67"),
        ({"slides": ["a", "z"]}, "no slide 'z' in these cells; there are a, b, c, it's"),
        ({"columns": ["positive"]}, "no column 'positive' in these cells; there are slide_id, "),
    ):
        with pytest.raises(QueryError, match=words):
            scan_cells(tmp_path, **wrong)


def test_damage_costs_its_slides_only(tmp_path, caplog):
    root = str(tmp_path)
    fake.commit(root, "a", [fake.cell()])
    lost = fake.commit(root, "b", [fake.cell()], cells_bytes=7)
    same(connect(root), scan_cells(root))
    caplog.clear()
    scan_cells(root)
    assert lost["cells_path"] in caplog.text
    caplog.clear()
    assert scan_cells(root, slides="a").collect().height == 1 and not caplog.text


def test_only_the_bytes_of_what_is_asked_are_read(tmp_path, monkeypatch):
    root = f"memory://bytes/{tmp_path.name}"
    count = 20_000
    fake.commit(root, "a", [fake.cell(i, area_px=i, x=i / 7, boundary=bytes(100)) for i in range(count)])
    fake.commit(root, "b", [fake.cell()], marker="CD8")
    read = {}
    fetch = ranges.RangesFileSystem.cat_file

    def counting(self, path, start=None, end=None, **more):
        found = fetch(self, path, start, end, **more)
        read[path] = read.get(path, 0) + len(found)
        return found

    monkeypatch.setattr(ranges.RangesFileSystem, "cat_file", counting)
    frame = scan_cells(root, marker="Ki67")
    assert read == {}
    assert frame.select(pl.col("area_px").sum()).collect().item() == sum(range(count))
    ((path, one),) = read.items()
    read.clear()
    scan_cells(root, marker="Ki67").collect()
    assert one < read[path] / 3 and one < 12 * count and "CD8" not in path
    # On a disk Polars says what it will read.
    local = tmp_path / "local"
    fake.commit(str(local), "a", [fake.cell()])
    plan = scan_cells(local).filter(pl.col("cell_id") > 3).select(pl.col("area_px").sum()).explain()
    assert "PROJECT 2/" in plan and "SELECTION" in plan


cells_of_a_slide = st.lists(
    st.tuples(st.integers(0, 60), st.booleans(), st.none() | st.integers(0, 255)), max_size=8
)


@settings(max_examples=4, deadline=None)
@given(st.lists(st.tuples(cells_of_a_slide, st.integers(0, 60)), min_size=1, max_size=4))
def test_calls_are_those_of_sql(drawn):
    root = f"memory://calls/{uuid.uuid4().hex}"
    for number, (listed, size_thresh) in enumerate(drawn):
        rows = [
            fake.cell(k, area_px=area, positive=positive, marker_max=value)
            for k, (area, positive, value) in enumerate(listed)
        ]
        fake.commit(root, f"s{number}", rows, size_thresh=size_thresh, marker=("Ki67", "CD8")[number % 2])
    same(connect(root), scan_cells(root, called=True), "called_cells")
