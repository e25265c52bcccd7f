"""The ledger: what counts as committed, whatever else lies around."""

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError
from deepliif_ray.tables.ledger import Ledger, joined_rows, slide_key
from deepliif_ray.tables.schema import schema_version, table_schema
from tests.query import fake_results as fake


def ids(table):
    return table.column("slide_id").to_pylist()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2, unique=True))
def test_slide_key_is_a_safe_name(pair):
    keys = [slide_key(slide_id) for slide_id in pair]
    assert keys[0] != keys[1]
    for key in keys:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,39}-[0-9a-f]{12}", key)


@pytest.mark.parametrize(
    "slide_id",
    [
        "../../etc/passwd",
        "..",
        ".",
        "",
        "/",
        "\0",
        "a\nb",
        "😀",
        "x" * 10_000,
        "-rf",
        "joined-000000000005-x",
    ],
)
def test_slide_key_of_hostile_ids(slide_id):
    key = slide_key(slide_id)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", key)
    assert len(key) <= 53
    assert key == slide_key(slide_id)
    assert joined_rows(f"cells/marker=Ki67/{key}-attempt.parquet") is None  # it is of one slide


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path / "res") if request.param == "local" else f"memory://{tmp_path.name}/res"


def test_newest_generation_counts(root):
    fake.commit(root, "a", [fake.cell()], second=1, attempt="zz", model_digest="old")
    fake.commit(root, "a", [fake.cell()], second=2, attempt="aa", model_digest="new")
    fake.commit(root, "b", [fake.cell()], second=3, attempt="a1", model_digest="old")
    fake.commit(root, "b", [fake.cell()], second=3, attempt="a2", model_digest="new")
    slides = Ledger(root).slides()
    assert slides.schema.equals(table_schema("slides"), check_metadata=True)
    assert ids(slides) == ["a", "b"]
    assert slides.column("model_digest").to_pylist() == ["new", "new"]


def test_failures_stand_until_a_later_commit(root):
    fake.fail(root, "healed", second=1)
    fake.commit(root, "healed", [], second=2)
    fake.commit(root, "broke", [], second=1)
    fake.fail(root, "broke", second=2, attempt="b", reason="corrupt")
    fake.fail(root, "broke", second=3, attempt="a", reason="missing")
    fake.fail(root, "never", second=1)
    fake.commit(root, "answer lost", [], second=1)
    fake.fail(root, "answer lost", second=2, run_id="r1")
    failures = Ledger(root).failures()
    assert ids(failures) == ["broke", "never"]
    assert failures.column("reason").to_pylist() == ["missing", "missing"]
    assert failures.column("attributes").to_pylist()[0] == [("site", "A")]


def test_a_lease_counts_before_the_clock(root):
    """Whoever wrote under an earlier lease comes before, though its clock is hours ahead, or it came last."""
    fake.commit(root, "a", [fake.cell()], second=7200, attempt="zz", model_digest="old", epoch=1)
    fake.commit(root, "a", [fake.cell()], second=1, attempt="aa", model_digest="new", epoch=2)
    fake.commit(root, "b", [], second=9999, model_digest="old")  # of software without epochs
    fake.commit(root, "b", [], second=1, model_digest="new", epoch=0)
    fake.commit(root, "c", [], second=5, model_digest="new", epoch=3)
    fake.fail(root, "c", second=9999, epoch=2)
    fake.commit(root, "d", [], second=9999, model_digest="old", epoch=3)
    fake.fail(root, "d", second=1, epoch=4)
    fake.fail(root, "d", second=2, attempt="b", reason="older", epoch=3)
    slides, failures = Ledger(root).slides(), Ledger(root).failures()
    assert slides.column("model_digest").to_pylist() == ["new", "new", "new", "old"]
    assert ids(failures) == ["d"] and failures.column("reason").to_pylist() == ["missing"]


def test_of_records_of_one_attempt_that_of_the_cells_joined_last_counts(root):
    """The others may be of an `optimize`, or a request, that stood still until their cells were removed."""
    places = [
        "cells/marker=Ki67/zzz.parquet",
        "cells/marker=Ki67/joined-000000000009-ffffffffffffffff.parquet",  # of software that did not count
        "cells/marker=Ki67/joined-000000000009-0002-0000-aaaa.parquet",
        "cells/marker=Ki67/joined-000000000001-0003-0000-bbbb.parquet",
        "cells/marker=Ki67/joined-000000000001-0003-0000-cccc.parquet",
    ]
    for number, place in enumerate(places):
        record = fake.commit(root, "a", [], attempt="one", cells_path=place)
        fake.write(storage.join(root, f"slides/{9 - number}.parquet"), "slides", [record])
        storage.remove(storage.join(root, f"slides/{slide_key('a')}-one.parquet"))
        assert Ledger(root).slides().column("cells_path").to_pylist() == [place]


def test_runs_are_ordered_and_rewritten(root):
    fake.run(root, "late", second=5)
    fake.run(root, "early", second=1)
    fake.run(root, "early", second=1, status="finished", finished_at=fake.moment(3), n_slides=4)
    runs = Ledger(root).runs()
    assert runs.column("run_id").to_pylist() == ["early", "late"]
    assert runs.column("n_slides").to_pylist() == [4, None]


def test_empty_and_absent_locations(tmp_path):
    ledger = Ledger(str(tmp_path))
    for name in ("slides", "failures", "runs"):
        table = getattr(ledger, name)()
        assert table.num_rows == 0
        assert table.schema.equals(table_schema(name))
    with pytest.raises(ResultsError, match="no results here"):
        Ledger(str(tmp_path / "typo"))
    assert Ledger(str(tmp_path / "new"), must_exist=False).slides().num_rows == 0


def test_staging_and_half_written_files_are_not_results(tmp_path):
    root = str(tmp_path)
    fake.commit(root, "a", [fake.cell()])
    (tmp_path / "slides/.5f2a.tmp").write_bytes(b"half")
    (tmp_path / "slides/notes.txt").write_text("x")
    storage.write_bytes(storage.join(root, "_staging/slides/b.parquet"), b"half")
    assert ids(Ledger(root).slides()) == ["a"]


def test_objects_that_vanish_while_being_read(root, monkeypatch):
    """Another job joins two records into one object between our listing and our reading."""
    for slide_id in ("a", "b", "c"):
        fake.commit(root, slide_id, [], attempt="one")
    rows = Ledger(root).slides().slice(0, 2).to_pylist()
    read_bytes, done = storage.read_bytes, []

    def compact_first(url):
        if not done:
            done.append(url)
            fake.write(storage.join(root, "slides/joined.parquet"), "slides", rows)
            for slide_id in ("a", "b"):
                storage.remove(storage.join(root, "slides", f"{slide_key(slide_id)}-one.parquet"))
        return read_bytes(url)

    monkeypatch.setattr(storage, "READ_THREADS", 1)
    monkeypatch.setattr(storage, "read_bytes", compact_first)
    assert ids(Ledger(root).slides()) == ["a", "b", "c"]


def test_newer_schema_is_refused(root):
    schema = table_schema("slides")
    newer = schema.with_metadata({**schema.metadata, b"deepliif_ray.schema_version": b"99"})
    record = fake.commit(root, "a", [])
    fake.write(storage.join(root, "slides/new.parquet"), "slides", [record], newer)
    with pytest.raises(ResultsError, match="update deepliif_ray"):
        Ledger(root).slides()


def older_schema(name, lacking):
    """Return the schema that version 1 of table ``name`` had."""
    schema = table_schema(name)
    kept = pa.schema([field for field in schema if field.name not in lacking])
    return kept.with_metadata({**schema.metadata, b"deepliif_ray.schema_version": b"1"})


def test_records_of_an_older_version_have_nulls_in_newer_columns(root):
    newer = ["focus", "tissue_percent", "pen_percent", "hematoxylin_od", "dab_od"]
    newer += ["background_grey", "background_cast", "n_tiles_bad"]
    record = fake.commit(root, "new", [], focus=90.0)
    older = {**record, "slide_id": "old"}
    schema = older_schema("slides", newer)
    assert schema_version("slides") > 1 and len(schema) == len(table_schema("slides")) - len(newer)
    fake.write(storage.join(root, "slides/old.parquet"), "slides", [older], schema)
    slides = Ledger(root).slides()
    assert slides.schema.equals(table_schema("slides"))
    assert slides.column("focus").to_pylist() == [90.0, None]
    assert slides.column("attempt").null_count == 0

    fake.run(root, "r1")
    run = Ledger(root).runs().to_pylist()[0]
    run["run_id"] = "r0"
    fake.write(storage.join(root, "runs/r0.parquet"), "runs", [run], older_schema("runs", ["timings"]))
    assert Ledger(root).runs().column("timings").to_pylist() == [None, None]


def test_a_column_that_every_version_has_may_not_lack(root):
    record = fake.commit(root, "a", [])
    fake.write(storage.join(root, "slides/b.parquet"), "slides", [record], older_schema("slides", ["mpp"]))
    ledger = Ledger(root)
    assert ids(ledger.slides()) == ["a"]
    assert [(d.object, "damaged" in d.problem) for d in ledger.damaged()] == [("slides/b.parquet", True)]


@pytest.mark.parametrize("damage", ["bytes", "other table", "no version", "cut", "empty"])
def test_damaged_records_are_named_and_the_rest_is_read(root, damage):
    record = fake.commit(root, "a", [], attempt="x", second=5)
    fake.commit(root, "a", [], attempt="older")
    fake.commit(root, "b", [])
    url = storage.join(root, f"slides/{slide_key('a')}-x.parquet")
    if damage == "bytes":
        storage.write_bytes(url, b"PAR1 not really PAR1")
    elif damage == "empty":
        storage.write_bytes(url, b"")
    elif damage == "cut":
        storage.write_bytes(url, storage.read_bytes(url)[:-50])
    elif damage == "other table":
        schema = table_schema("slides")
        fake.write(url, "slides", [record], schema.with_metadata(table_schema("runs").metadata))
    else:
        fake.write(url, "slides", [record], table_schema("slides").remove_metadata())
    ledger = Ledger(root)
    assert ids(ledger.slides()) == ["a", "b"]
    (found,) = ledger.damaged()
    assert (f"{root}/{found.object}", found.kind, found.slide_id) == (url, "slides", "a")
