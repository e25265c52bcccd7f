"""The SQL views: what is visible, from any location, under any name."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray import optimize, storage
from deepliif_ray.errors import ResultsError
from deepliif_ray.query import connect
from deepliif_ray.query.views import _create_table
from deepliif_ray.tables import damage
from deepliif_ray.tables.ledger import slide_key
from deepliif_ray.tables.schema import column_names, table_schema
from tests.few import few
from tests.query import fake_results as fake

VIEWS = ["cells", "slides", "failures", "runs", "called_cells", "slide_indices", "patient_indices"]
FOLDERS = ["plain", 'it\'s "here" %20#é 😀', "glob[1]*?", "marker=CD3/slide_id=7", "a\nb;--"]


@pytest.fixture(params=few([*FOLDERS, "memory", "memory marker=CD3"], 3))
def root(request, tmp_path):
    if request.param.startswith("memory"):
        return f"memory://{tmp_path.name}/{request.param}"
    return str(tmp_path / request.param)


def test_every_view_anywhere(root):
    fake.run(root, "r1")
    fake.commit(root, "a", [fake.cell(0, positive=True), fake.cell(1, area_px=20)], attributes=[("k", "v")])
    fake.commit(root, "b", [fake.cell()], marker="CD8")
    fake.commit(root, "none", [])
    fake.fail(root, "x")
    connection = connect(root)
    counts = {view: len(connection.execute(f"FROM {view}").fetchall()) for view in VIEWS}
    assert counts == {
        "cells": 3,
        "slides": 3,
        "failures": 1,
        "runs": 1,
        "called_cells": 2,
        "slide_indices": 3,
        "patient_indices": 2,
    }
    cells = connection.sql("FROM cells ORDER BY slide_id, cell_id")
    assert cells.columns == list(column_names("cells"))
    assert [row[:4] for row in cells.fetchall()] == [
        ("a", "P1", "Ki67", 0),
        ("a", "P1", "Ki67", 1),
        ("b", "P1", "CD8", 0),
    ]
    assert connection.execute("SELECT DISTINCT boundary FROM cells").fetchall() == [(fake.SQUARE,)]
    shape = "SELECT DISTINCT ST_AsText(ST_GeomFromWKB(boundary)) FROM cells"
    assert connection.execute(shape).fetchall() == [("POLYGON ((0 0, 1 0, 1 1, 0 0))",)]
    assert connection.sql(
        "SELECT attributes['k'], timings.read_s FROM slides WHERE slide_id = 'a'"
    ).fetchall() == [("v", 0.1)]
    assert connection.cursor().sql("SELECT count(*) FROM cells").fetchall() == [(3,)]


def test_only_the_newest_committed_generation_is_visible(tmp_path):
    root = str(tmp_path)
    fake.commit(root, "a", [fake.cell(i) for i in range(5)], second=1)
    fake.commit(root, "a", [fake.cell(i) for i in range(3)], second=2)
    rows = [{"slide_id": "orphan", "patient_id": "P1", **fake.cell()}]
    fake.write(str(tmp_path / "cells/marker=Ki67/orphan-1.parquet"), "cells", rows)
    (tmp_path / "cells/marker=Ki67/broken-1.parquet").write_bytes(b"half")
    connection = connect(tmp_path)
    assert connection.execute("SELECT slide_id, count(*) FROM cells GROUP BY ALL").fetchall() == [("a", 3)]
    fake.commit(root, "b", [fake.cell()])
    assert connection.execute("SELECT count(*) FROM cells").fetchall() == [(3,)]
    assert connect(tmp_path).sql("SELECT count(*) FROM cells").fetchall() == [(4,)]


def test_empty_results_have_the_same_columns_and_types(tmp_path):
    (tmp_path / "empty").mkdir()
    fake.commit(str(tmp_path / "full"), "a", [fake.cell()])
    empty, full = connect(tmp_path / "empty"), connect(tmp_path / "full")
    for view in VIEWS:
        ours, theirs = empty.sql(f"FROM {view}"), full.sql(f"FROM {view}")
        assert (ours.columns, ours.types) == (theirs.columns, theirs.types)
        assert ours.fetchall() == []


def test_absent_results(tmp_path):
    with pytest.raises(ResultsError):
        connect(tmp_path / "typo")


def test_damaged_cells_cost_their_slides_only(root, caplog):
    kinds = ("cut", "empty", "garbage", "missing")
    paths = []
    for kind in kinds:
        record = fake.commit(root, kind, [fake.cell(0, area_px=90)], patient_id="P1")
        paths.append(record["cells_path"])
        url = storage.join(root, record["cells_path"])
        content = storage.read_bytes(url)
        storage.remove(url)
        if kind != "missing":
            storage.write_bytes(url, {"empty": b"", "garbage": b"not Parquet", "cut": content[:-1]}[kind])
    fake.commit(root, "x", [fake.cell(0, positive=True), fake.cell(1)], patient_id="P1")
    fake.commit(root, "y", [fake.cell()], patient_id="P2")
    connection = connect(root)
    assert connection.execute("SELECT object, kind, slide_id FROM damaged ORDER BY slide_id").fetchall() == [
        (path, "cells", kind) for path, kind in zip(paths, kinds, strict=True)
    ]
    assert sum(path in caplog.text for path in paths) == 3 and ", …" in caplog.text  # the first are named
    assert connection.execute("SELECT count(*) FROM slides").fetchall() == [(6,)]
    assert connection.execute("SELECT DISTINCT slide_id FROM cells ORDER BY 1").fetchall() == [("x",), ("y",)]
    # Indices at published thresholds are in the records; others are not made up of the cells that are left.
    published = "SELECT patient_id, n_called FROM patient_indices ORDER BY 1"
    assert connection.execute(published).fetchall() == [("P1", 6), ("P2", 1)]
    other = "SELECT patient_id, n_called, index_percent FROM patient_indices({'size_thresh': 50}) ORDER BY 1"
    assert connection.execute(other).fetchall() == [("P1", None, None), ("P2", 1, 0.0)]
    by_slide = "SELECT slide_id, n_called FROM slide_indices({'size_thresh': 50}) ORDER BY 1"
    lost = [(kind, None) for kind in kinds]
    assert connection.execute(by_slide).fetchall() == [*lost, ("x", 2), ("y", 1)]
    flagged = "SELECT slide_id FROM slide_quality WHERE list_contains(flags, 'cells_lost') ORDER BY 1"
    assert connection.execute(flagged).fetchall() == [(kind,) for kind in kinds]


def test_cells_of_the_wrong_size_are_not_read(tmp_path):
    """The record knows how many bytes were written."""
    record = fake.commit(str(tmp_path), "a", [fake.cell()], cells_bytes=7)
    with connect(tmp_path) as connection:
        ((path, problem),) = connection.execute("SELECT object, problem FROM damaged").fetchall()
        assert path == record["cells_path"] and "7 were written" in problem
        assert connection.execute("FROM cells").fetchall() == []


def test_an_empty_record_costs_itself_only(root, caplog):
    fake.commit(root, "a", [fake.cell()])
    fake.fail(root, "x")
    fake.run(root, "r")
    lost = [f"{name}/lost.parquet" for name in ("failures", "runs", "slides")]
    for path in lost:
        storage.write_bytes(storage.join(root, path), b"")
    connection = connect(root)
    found = [
        len(connection.execute(f"FROM {view}").fetchall()) for view in ("slides", "failures", "runs", "cells")
    ]
    assert found == [1, 1, 1, 1]
    damaged = connection.execute("SELECT object, kind FROM damaged ORDER BY 1").fetchall()
    assert damaged == [(path, path.partition("/")[0]) for path in lost]
    assert all(path in caplog.text for path in lost)


def test_sound_results_are_not_talked_about(root, caplog):
    fake.commit(root, "a", [fake.cell()])
    assert connect(root).sql("FROM damaged").fetchall() == []
    assert caplog.text == ""


def test_cells_joined_while_connecting_are_not_lost(root, monkeypatch):
    """Between our reading of the records and our listing of the cells, optimize replaces both."""
    for slide_id in "ab":
        fake.commit(root, slide_id, [fake.cell()])
    real, done = damage.lost_cells, []

    def join_first(results, slides):
        if not done:
            done.append(True)
            optimize(root, keep_minutes=0)
        return real(results, slides)

    monkeypatch.setattr(damage, "lost_cells", join_first)
    connection = connect(root)
    assert connection.execute("SELECT count(*) FROM cells").fetchall() == [(2,)]
    assert connection.execute("FROM damaged").fetchall() == []


def test_views_keep_their_contracts(tmp_path):
    fake.commit(str(tmp_path), "a", [fake.cell()])
    connection = connect(tmp_path)
    for name, view in {"patients": "patient_indices", "slides": "slides", "failures": "failures"}.items():
        found = connection.sql(f"FROM {view}").to_arrow_table().schema
        assert tuple(found.names) == column_names(name)
        for field in table_schema(name):
            plain = pa.timestamp("us") if pa.types.is_timestamp(field.type) else field.type
            assert found.field(field.name).type == plain


def test_a_marker_filter_opens_only_that_marker(root):
    fake.commit(root, "a", [fake.cell()], marker="Ki67", attempt="x")
    fake.commit(root, "b", [fake.cell()], marker="CD8", attempt="x")
    storage.write_bytes(storage.join(root, f"cells/marker=CD8/{slide_key('b')}-x.parquet"), b"unreadable")
    connection = connect(root)
    assert connection.execute("SELECT count(area_px) FROM cells WHERE marker = 'Ki67'").fetchall() == [(1,)]


def test_nothing_is_fetched_from_the_network(tmp_path):
    settings_now = dict(connect(tmp_path).sql("SELECT name, value FROM duckdb_settings()").fetchall())
    assert (
        settings_now["autoinstall_known_extensions"] == settings_now["autoload_known_extensions"] == "false"
    )


def test_slides_that_share_an_object_are_read_once(tmp_path):
    root = str(tmp_path)
    path = "cells/marker=Ki67/joined.parquet"
    rows = [{"slide_id": slide_id, "patient_id": "P1", **fake.cell()} for slide_id in "ab"]
    fake.write(storage.join(root, path), "cells", rows)
    for slide_id in "ab":
        fake.commit(root, slide_id, [], cells_path=path)
    assert connect(root).sql("SELECT slide_id FROM cells ORDER BY 1").fetchall() == [("a",), ("b",)]


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
hostile = st.sampled_from(
    ["'; DROP TABLE slides; --", "\0", "a\0b", "../../x", '"', "\n", "$files", "NULL", "x" * 10_000]
)


@settings(max_examples=15, deadline=None)
@given(st.lists(text | hostile, min_size=1, max_size=4, unique=True), text)
def test_any_text_is_an_id(slide_ids, patient_id):
    root = f"memory://ids/{uuid.uuid4().hex}"
    for number, slide_id in enumerate(slide_ids):
        cells = [fake.cell(k) for k in range(number + 1)]
        fake.commit(
            root, slide_id, cells, patient_id=patient_id, uri=slide_id, attributes=[(slide_id, slide_id)]
        )
    connection = connect(root)
    for number, slide_id in enumerate(slide_ids):
        select = "SELECT count(*), any_value(patient_id) FROM called_cells WHERE slide_id = ?"
        assert connection.execute(select, [slide_id]).fetchall() == [(number + 1, patient_id)]
        select = "SELECT uri, attributes[?] FROM slides WHERE slide_id = ?"
        assert connection.execute(select, [slide_id, slide_id]).fetchall() == [(slide_id, slide_id)]
    assert connection.execute("SELECT patient_id, n_slides FROM patient_indices").fetchall() == [
        (patient_id, len(slide_ids))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("base", ["local", pytest.param("memory", marks=pytest.mark.slow)])
def test_two_thousand_objects(tmp_path, base):
    """One commit record and one cells object copied under other names and ids."""
    root = str(tmp_path / "r") if base == "local" else f"memory://many/{tmp_path.name}"
    seed = str(tmp_path / "seed")
    record = fake.commit(seed, "s", [fake.cell(i, positive=i > 1) for i in range(4)], attempt="x")
    content = storage.read_bytes(storage.join(seed, record["cells_path"]))
    paths = [f"cells/marker={'CD3' if i % 2 else 'Ki67'}/{i}.parquet" for i in range(2000)]
    for path in paths:
        storage.write_bytes(storage.join(root, path), content, durable=False)
    same = {**record, "slide_version": "v1"}
    records = [{**same, "slide_id": f"s{i}", "cells_path": path} for i, path in enumerate(paths)]
    fake.write(storage.join(root, "slides/all.parquet"), "slides", records)
    start = time.perf_counter()
    connection = connect(root)
    assert connection.execute("SELECT count(*), sum(area_px) FROM cells").fetchall() == [(8000, 800_000)]
    assert connection.execute("SELECT count(*) FROM cells WHERE marker = 'CD3'").fetchall() == [(4000,)]
    assert time.perf_counter() - start < 20
    ((warning,),) = connection.execute("SELECT warnings[-1] FROM slides WHERE slide_id = 's1'").fetchall()
    assert warning == (
        "same content as slide 's0' of patient 'P1', 's10' of patient 'P1', 's100' of patient 'P1' "
        "and 1996 more; its cells count once for each"
    )


def test_many_threads_share_a_connection(tmp_path):
    root = f"memory://threads/{tmp_path.name}"
    for i in range(20):
        fake.commit(root, f"s{i}", [fake.cell(k, area_px=40 + k) for k in range(50)])
    connection = connect(root)

    def total(cursor):
        return cursor.execute("SELECT sum(area_px) FROM cells").fetchall()

    with ThreadPoolExecutor(4) as pool:
        assert set(map(str, pool.map(total, [connection.cursor() for _ in range(12)]))) == {"[(64500,)]"}


@pytest.mark.parametrize(
    "name", ["cells", "slides", "failures", "runs", "regions", "corrections", "region_cells"]
)
def test_a_table_without_rows_has_the_types_of_one_with_rows(name):
    """Empty ones are spelt out, others made from Arrow."""
    schema = table_schema(name)
    plain = [
        field.with_type(pa.timestamp("us")) if pa.types.is_timestamp(field.type) else field
        for field in schema
    ]
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA stored")
        connection.register("arriving", pa.schema(plain).empty_table())
        connection.execute("CREATE TABLE stored.wanted AS SELECT * FROM arriving")
        _create_table(connection, "made", schema.empty_table())
        described = [
            connection.execute(f"DESCRIBE stored.{table}").fetchall() for table in ("made", "wanted")
        ]
    assert [column[:2] for column in described[0]] == [column[:2] for column in described[1]]
