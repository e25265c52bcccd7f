"""Forgetting slides and patients: no trace is left, other slides stay as they are, whenever it is killed."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray import optimize, storage
from deepliif_ray.errors import ConfigError, ResultsError
from deepliif_ray.query import connect
from deepliif_ray.tables.check import verify
from deepliif_ray.tables.cohort import leftovers, write_manifest
from deepliif_ray.tables.commit import bar
from deepliif_ray.tables.cutoffs import write_cutoffs
from deepliif_ray.tables.forget import erase
from deepliif_ray.tables.ledger import Ledger, joined_rows, slide_key
from deepliif_ray.tables.retire import note
from deepliif_ray.tables.schema import table_schema
from deepliif_ray.tables.traces import Target
from tests.few import few
from tests.query import fake_results as fake

SLIDE = 'Präp. "9" d\'Été/1'
PATIENT = "Zoë O'Hara 7"
ALSO = "second-of-zoe"
GONE = {SLIDE, ALSO}
OTHERS = ("alpha", "gamma")
SET = {"marker": "Ki67", "weak": 0.1, "moderate": 0.2, "strong": 0.3}


def annotation(table, slide_id, import_id):
    """A row of regions, region_cells or corrections, as an import writes it."""
    values = {
        pa.string(): "x",
        pa.int64(): 1,
        pa.float64(): 0.25,
        pa.bool_(): False,
        pa.binary(): fake.SQUARE,
    }
    row = {field.name: values.get(field.type, fake.START) for field in table_schema(table)}
    fits = {"slide_id": slide_id, "import_id": import_id, "slide_fingerprint": "s1", "call": "positive"}
    return row | {
        name: value for name, value in (fits | {"width_px": 1000, "height_px": 800}).items() if name in row
    }


def parquet(root, path, rows, metadata=None):
    table = pa.Table.from_pylist(rows)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    storage.write_bytes(f"{root}/{path}", sink.getvalue().to_pybytes())


def document(root, path, value):
    storage.write_bytes(f"{root}/{path}", json.dumps(value).encode())


def fill(root, joined=False):
    """Write results in which two slides of one patient are named wherever they can be."""
    slides = {SLIDE: PATIENT, ALSO: PATIENT} | {name: f"Q-{name}" for name in OTHERS}
    for second in (0, 2):
        for i, (slide, patient) in enumerate(slides.items()):
            cells = [fake.cell(k, area_px=40 + i + k + second) for k in range(2 + i)]
            marker = ("Ki67", "CD8")[i % 2]
            fake.commit(root, slide, cells, patient, marker, second, attempt=f"{second:016x}")
        if joined:
            optimize(root)  # what it replaces waits for readers, and is noted down
    looks_alike = f"manifest: patient_id 'Q-gamma' is another than {PATIENT!r}; if they are one patient, …"
    fake.commit(root, "gamma", [], "Q-gamma", second=3, warnings=[looks_alike, "pale"], attempt="empty")
    fake.commit(root, ALSO, [], PATIENT, "CD8", second=3, retired=True)
    fake.fail(root, SLIDE, second=1, patient_id=PATIENT, message=f"{SLIDE}: no such file")
    fake.fail(root, "never", second=1, patient_id="Q-never")
    fake.run(root, "r", status="finished", finished_at=fake.moment(9), manifest_digest="abc")
    write_manifest(root, "abc", [*slides, "never"])
    orphan = {"slide_id": ALSO, "patient_id": PATIENT, **fake.cell()}
    fake.write(f"{root}/cells/marker=CD8/{slide_key(ALSO)}-{'ab' * 8}.parquet", "cells", [orphan])
    fake.write(f"{root}/cells/marker=CD8/{slide_key(ALSO)}-{'cd' * 8}.parquet", "cells", [])
    assert bar(root, f"cells/marker=CD8/{slide_key(ALSO)}-{'ef' * 8}.parquet")
    note(root, [f"cells/marker=CD8/{slide_key(ALSO)}-{'ab' * 8}.parquet", "cells/marker=CD8/x.parquet"])
    for slide, patient in slides.items():
        entry = {"slide_id": slide, "patient_id": patient, "uri": f"/s/{slide_key(slide)}", "warnings": []}
        entry["warnings"] = [] if slide in GONE else [looks_alike]
        folder = f"_staging/{slide_key(slide)}/0123456789abcdef"
        document(root, f"{folder}/plan.json", {"entry": entry, "slide_version": "v"})
        storage.write_bytes(f"{root}/{folder}/0000000-0000003.arrow", b"tiles")
    for day in ("20260101", "20260102"):
        name = f"{day}T000000000000-00000000"
        for folder in ("regions", "region_cells", "corrections"):
            rows = [annotation(folder, slide, name) for slide in slides]
            rows = rows if day == "20260101" else rows[:1]
            fake.write(f"{root}/{folder}/{name}.parquet", folder, rows)
    write_cutoffs(root, "site", [SET], author="a", note="n", controls=[SLIDE, "alpha"])
    failures = [{"slide_id": name, "reason": "missing", "message": name} for name in (SLIDE, "alpha")]
    for kind in ("beat", "released"):
        document(root, f"_lease/0000000001.{kind}", {"epoch": 1, "progress": {"newest_failures": failures}})
    document(root, "_lease/0000000001.json", {"run_id": "r", "epoch": 1})
    storage.write_bytes(f"{root}/_damaged/slides/{slide_key(SLIDE)}-{'12' * 8}.parquet", b"damaged")
    fake.write(f"{root}/_damaged/cells/marker=CD8/joined-000000000001-0001-x.parquet", "cells", [orphan])
    if storage.is_local(root):
        Path(root, "cells", ".0123.tmp").write_bytes(SLIDE.encode())


def content(root):
    """Return what every object holds, by its path."""
    return {url.removeprefix(root): storage.read_bytes(url) for url in storage.list_files(root)}


def traces(root, *names):
    """Return the paths of what names one of these, however it is encoded, in content or path."""
    found = []
    forms = [form.encode() for name in names for form in (name, json.dumps(name)[1:-1], repr(name)[1:-1])]
    forms += [slide_key(name).encode() for name in names]
    objects = content(root)
    if storage.is_local(root):
        for path in Path(root).rglob("*"):
            objects.setdefault(str(path).removeprefix(root), path.read_bytes() if path.is_file() else b"")
    for path, held in objects.items():
        if path.endswith(".parquet") and held[:4] == b"PAR1":
            file = pq.ParquetFile(pa.BufferReader(held))
            texts = (path, file.read().to_pylist(), file.schema_arrow.metadata)
        else:
            texts = (path,)
        seen = held + repr(texts).encode()
        if any(form in seen for form in forms):
            found.append(path)
    return found


def state(root):
    """Return what counts of the other slides: their newest records and failures, and the cells these name."""
    ledger = Ledger(root)
    assert ledger.damaged() == []
    records = [row for row in ledger.slides().to_pylist() if row["slide_id"] not in GONE]
    cells = {}
    for row in records:
        if row["cells_path"]:
            held = storage.read_bytes(f"{root}/{row['cells_path']}")
            rows = pq.read_table(pa.BufferReader(held), columns=["slide_id", "patient_id", "area_px"])
            cells[row["slide_id"]] = [c for c in rows.to_pylist() if c["slide_id"] == row["slide_id"]]
            assert len(cells[row["slide_id"]]) == row["n_cells"]
        for name in ("cells_path", "cells_bytes", "cells_digest", "warnings"):
            del row[name]
    failures = [row for row in ledger.failures().to_pylist() if row["slide_id"] not in GONE]
    return records, cells, failures


def answer(root):
    """Return what queries give of the other slides."""
    named = ", ".join("'" + name.replace("'", "''") + "'" for name in GONE)
    with connect(root) as connection:
        assert connection.execute("FROM damaged").fetchall() == []
        return [
            connection.execute(f"{query} WHERE slide_id NOT IN ({named}) ORDER BY ALL").fetchall()
            for query in ("SELECT * EXCLUDE boundary FROM cells", "FROM slide_indices", "FROM failures")
        ]


@pytest.fixture(params=few(["local", "joined"], 1))
def root(request, tmp_path):
    """Results with objects of their own on a disk, and with joined ones in a store."""
    is_local = request.param == "local"
    root = str(tmp_path / "res=1") if is_local else f"memory://{uuid.uuid4().hex}/res"
    fill(root, joined=not is_local)
    return root


@pytest.fixture
def empty():
    """A place in a store in memory."""
    return f"memory://{uuid.uuid4().hex}/res"


@pytest.fixture
def few(empty):
    """Results of two slides, each an object of its own."""
    for name in (ALSO, "alpha"):
        fake.commit(empty, name, [fake.cell()], f"P-{name}")
    fake.run(empty, "r")
    return empty


def table(summary):
    return {one.kind: (one.removed, one.rewritten, one.rows) for one in summary.erased}


def test_nothing_is_left_of_a_patient_and_the_others_stay(root):
    before, answers = state(root), None if storage.is_local(root) else answer(root)
    there = content(root)
    assert len(traces(root, SLIDE, PATIENT, ALSO)) > 15
    told = erase(root, patients=[PATIENT], dry_run=True)
    assert content(root) == there
    summary = erase(root, patients=[PATIENT])
    assert traces(root, SLIDE, PATIENT, ALSO) == []
    assert state(root) == before
    assert answers is None or answer(root) == answers
    assert (summary.slides, summary.kept, summary.left) == (tuple(sorted(GONE)), (), ())
    assert table(told) == table(summary)
    counts = table(summary)
    assert counts["manifests"] == (0, 1, 2) and counts["failures"] == (1, 0, 1)
    assert counts["cutoffs"] == (0, 1, 1) and counts["lease"] == (0, 2, 2)
    assert counts["corrections"] == counts["regions"] == counts["region_cells"] == (1, 1, 3)
    assert counts["staging"] == (4, 2, 0) and counts["damaged"] == (2, 0, 1)
    with connect(root) as connection:
        kept = connection.execute("SELECT warnings FROM slides WHERE slide_id = 'gamma'").fetchall()
    assert kept == [(["pale"],)]
    document = json.loads(storage.read_bytes(f"{root}/_cutoffs/site.json"))
    assert (document["rows"], document["controls"]) == ([SET], ["alpha"])
    report = verify(root)
    assert report.is_sound and {f.kind for f in report.findings} <= {"staging"}
    if not storage.is_local(root):
        optimize(root, keep_minutes=0, drop_superseded=True)
        assert state(root) == before


def test_a_slide_goes_and_its_patient_stays(empty):
    root = empty
    fill(root)
    before = state(root)
    summary = erase(root, slides=[ALSO])
    assert summary.slides == (ALSO,) and traces(root, ALSO) == []
    assert len(traces(root, SLIDE)) > 5
    assert state(root) == before
    (row,) = (row for row in Ledger(root).slides().to_pylist() if row["patient_id"] == PATIENT)
    assert row["slide_id"] == SLIDE and storage.exists(f"{root}/{row['cells_path']}")


def test_joined_cells_lose_the_rows_and_are_named_for_what_they_hold(empty):
    root = empty
    for name in ("a", "b", "c"):
        fake.commit(root, name, [fake.cell(k) for k in range(3)], f"P-{name}")
    optimize(root, keep_minutes=0)
    fake.commit(root, "c", [fake.cell()], "P-c", second=1)  # three rows of it do not count any more
    old = storage.list_files(f"{root}/cells/marker=Ki67", ".parquet")
    erase(root, slides=["a"])
    new = [url for url in storage.list_files(f"{root}/cells", ".parquet") if url not in old]
    assert [joined_rows(url) for url in new] == [6]
    found = pq.read_table(pa.BufferReader(storage.read_bytes(new[0]))).to_pylist()
    assert [row["slide_id"] for row in found] == ["b"] * 3 + ["c"] * 3
    assert verify(root).is_sound
    with connect(root) as connection:
        found = connection.execute(
            "SELECT slide_id, count(*) FROM cells GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    assert found == [("b", 3), ("c", 1)]


def test_a_slide_that_is_another_patients_now_stays_with_that_one(empty):
    root = empty
    fake.commit(root, "s1", [fake.cell(k) for k in range(2)], "old", attempt="a1", warnings=["x"])
    fake.commit(root, "s2", [fake.cell(k) for k in range(3)], "new", attempt="a2")
    optimize(root)  # waits: the objects it joined
    fake.commit(root, "s1", [fake.cell(k) for k in range(2)], "new", second=1, attempt="a3")
    fake.fail(root, "s1", patient_id="old")
    expected = [("s1", "new", 2), ("s2", "new", 3)]
    query = "SELECT slide_id, patient_id, count(*) FROM cells GROUP BY ALL ORDER BY ALL"
    summary = erase(root, patients=["old"])
    assert (summary.slides, summary.kept, summary.left) == ((), (("s1", "new"),), ())
    assert traces(root, "old") == []
    with connect(root) as connection:
        assert connection.execute(query).fetchall() == expected
    # The other way round it is the patient's now: all of it goes, what was another's too.
    assert erase(root, patients=["new"]).slides == ("s1", "s2")
    assert traces(root, "s1", "s2", "new") == []


def test_a_name_of_a_slide_that_stays_is_told_if_it_holds_the_patients(empty):
    root = empty
    fake.commit(root, "P9-Ki67", [fake.cell()], "P9", attempt="a")
    fake.commit(root, "P9-Ki67", [fake.cell()], "Q", second=1, attempt="b", uri="s3://b/P9/x.svs")
    summary = erase(root, patients=["P9"])
    assert [left.object.split("/")[0] for left in summary.left] == ["P9-Ki67", "slides"]
    assert "give it another" in summary.left[0].problem and "uri" in summary.left[1].problem


def test_cells_that_contradict_their_record_are_named_and_left(empty):
    root = empty
    record = fake.commit(root, "s1", [fake.cell()], "Q")
    rows = [{"slide_id": "s1", "patient_id": "P", "attempt": record["attempt"], **fake.cell()}]
    fake.write(f"{root}/{record['cells_path']}", "cells", rows)
    fake.commit(root, "s2", [fake.cell()], "P")
    summary = erase(root, patients=["P"])
    assert summary.slides == ("s2",) and not summary.is_complete
    assert [left.object for left in summary.left] == [record["cells_path"]]
    with connect(root) as connection:
        assert connection.execute("SELECT slide_id FROM cells").fetchall() == [("s1",)]


def unknown(root, **asked):
    before = content(root)
    with pytest.raises(ResultsError) as caught:
        erase(root, **asked)
    assert content(root) == before
    return str(caught.value)


def test_who_is_not_there_is_refused_by_name(few):
    root = few
    assert "no slide 'alpah' here; did you mean 'alpha'?" in unknown(root, slides=["alpah", ALSO])
    said = unknown(root, patients=["p-alpha", "nobody at all"])
    assert "did you mean" in said and "'P-alpha'" in said and "no patient 'nobody at all' here;" in said
    assert "no slide" in unknown(root, slides=[slide_key("alpha")])
    assert "no results here" in unknown(f"{root}/typo", slides=["alpha"])
    with pytest.raises(ConfigError, match="nobody"):
        erase(root)


def test_only_in_a_manifest_a_plan_or_a_failure(few):
    root = few
    fake.fail(root, "never", patient_id="Q-never")
    write_manifest(root, "later", ["to come"])
    assert table(erase(root, slides=["to come"])) == {"manifests": (0, 1, 1)}
    assert erase(root, patients=["Q-never"]).slides == ("never",)
    assert traces(root, "never", "to come") == []
    plan = {"entry": {"slide_id": "planned", "patient_id": "P-planned", "uri": "s", "warnings": []}}
    document(root, f"_staging/{slide_key('planned')}/0/plan.json", plan)
    assert erase(root, patients=["P-planned"]).slides == ("planned",)
    storage.write_bytes(f"{root}/_staging/{slide_key('tiles')}/0/0000000-0000003.arrow", b"")
    assert table(erase(root, slides=["tiles"])) == {"staging": (1, 0, 0)}


def test_a_slide_in_the_manifest_still_is_no_leftover_when_it_comes_back(few):
    root = few
    fake.run(root, "r", status="finished", finished_at=fake.moment(9), manifest_digest="abc")
    write_manifest(root, "abc", [ALSO, "alpha"])
    listed = [ALSO, "alpha"]
    erase(root, slides=[ALSO])
    write_manifest(root, "abc", listed)  # as the next run does, which scores it again
    fake.commit(root, ALSO, [fake.cell()], PATIENT, second=9)
    assert leftovers(Ledger(root)).num_rows == 0


DAMAGED = {
    "joined cells": "cells/marker=Ki67/joined-000000000009-0001-x.parquet",
    "joined records": "slides/joined-x.parquet",
    "regions": "regions/20260103T000000000000-00000000.parquet",
    "a manifest": "_manifests/half.json",
    "cut-offs": "_cutoffs/half.json",
    "what was moved away": "_damaged/cells/marker=Ki67/joined-000000000009-0001-x.parquet",
}


@pytest.mark.parametrize("path", DAMAGED.values(), ids=DAMAGED)
def test_what_cannot_be_read_and_may_hold_it_is_named_and_stays(few, path):
    root = few
    storage.write_bytes(f"{root}/{path}", b"half")
    summary = erase(root, slides=[ALSO])
    assert [left.object for left in summary.left] == [path]
    assert storage.exists(f"{root}/{path}") and traces(root, ALSO) == []


def test_what_cannot_be_read_goes_if_its_name_tells_the_slide(few):
    root = few
    for path in ("slides", "failures", "cells/marker=CD8", "_damaged/failures"):
        storage.write_bytes(f"{root}/{path}/{slide_key(ALSO)}-{'77' * 8}.parquet", b"half")
    theirs = f"slides/{slide_key('alpha')}-{'77' * 8}.parquet"
    storage.write_bytes(f"{root}/{theirs}", b"half")
    assert erase(root, slides=[ALSO]).left == ()
    assert traces(root, ALSO) == []
    # Whose it was in an older generation is not known.
    fake.commit(root, ALSO, [fake.cell()], "P")
    assert [left.object for left in erase(root, patients=["P"]).left] == [theirs]


def test_damaged_joined_cells_are_not_copied(few):
    optimize(few, keep_minutes=0)
    (url,) = storage.list_files(f"{few}/cells")
    rows = pq.read_table(pa.BufferReader(storage.read_bytes(url))).to_pylist()
    fake.write(url, "cells", rows)  # as many cells, another checksum
    summary = erase(few, slides=[ALSO])
    assert "another checksum" in summary.left[0].problem and storage.exists(url)


def test_what_is_no_object_of_ours_is_named(few):
    root = few
    for path, text in {
        "notes.csv": "second-of-zoe,3",
        "log.txt": "xsecond-of-zoex",
        f"{ALSO}.svs": "",
    }.items():
        storage.write_bytes(f"{root}/{path}", text.encode())
    fake.write(f"{root}/export.parquet", "cells", [{"slide_id": ALSO, "patient_id": "P", **fake.cell()}])
    left = {damage.object for damage in erase(root, slides=[ALSO]).left}
    assert left == {"notes.csv", f"{ALSO}.svs", "export.parquet"}


def test_texts_of_others_that_name_it_are_told(few):
    root = few
    fake.run(root, "named", manifest_uri=f"s3://b/{ALSO}/m.csv")
    rows = [{"slide_id": "alpha", "note": f"as in {ALSO}."}]
    parquet(root, "corrections/1.parquet", rows)
    parquet(root, "regions/1.parquet", [{"slide_id": "alpha"}], {"file": f"{ALSO}.geojson"})
    told = {damage.object: damage.problem for damage in erase(root, slides=[ALSO]).left}
    assert set(told) == {"runs/named.parquet", "corrections/1.parquet", "regions/1.parquet"}
    assert "note" in told["corrections/1.parquet"] and "manifest_uri" in told["runs/named.parquet"]


IDS = st.one_of(st.text(min_size=1, max_size=50), st.sampled_from(["a", "a-b", "P01-CD3", "joined-1-x"]))
ATTEMPT = st.sampled_from(["0123456789abcdef", "0123456789012345-01234567", "ffffffffffffffff-ffffffff"])


@settings(max_examples=30, deadline=None)
@given(IDS, ATTEMPT, st.sampled_from(["", "-x", "_x", "-0123456789ab-x"]))
def test_names_tell_slides_apart_though_one_is_called_as_the_others_key(slide, attempt, more):
    target = Target(frozenset((slide,)), frozenset())
    assert target.names(f"{slide_key(slide)}-{attempt}.parquet")
    other = f"{slide_key(slide)}{more}"
    assert not target.names(f"{slide_key(other)}-{attempt}.parquet")
    assert Target(frozenset((other,)), frozenset()).names(f"{slide_key(other)}-{attempt}.parquet")


def test_a_slide_that_is_called_as_anothers_key_stays(empty):
    root = empty
    other = slide_key("a")
    for name in ("a", other):
        attempt = "0123456789abcdef"
        fake.commit(root, name, [fake.cell()], "P", attempt=attempt)
        assert bar(root, f"cells/marker=Ki67/{slide_key(name)}-{'f' * 16}.parquet")
    erase(root, slides=["a"])
    assert len(storage.list_files(f"{root}/slides")) == 2
    with connect(root) as connection:
        assert connection.execute("SELECT slide_id FROM cells").fetchall() == [(other,)]


def test_an_optimize_that_read_the_slide_before_brings_nothing_back(empty, monkeypatch):
    """It has read cells of the slide and stands still until that is forgotten; then it writes joined ones."""
    fill(empty)
    expected = state(empty)
    real = storage.write_file

    def forget_first(url, source):
        monkeypatch.setattr(storage, "write_file", real)
        erase(empty, patients=[PATIENT])
        real(url, source)

    monkeypatch.setattr(storage, "write_file", forget_first)
    optimize(empty)
    assert traces(empty, SLIDE, PATIENT, ALSO) == []
    assert state(empty) == expected


@pytest.mark.parametrize(
    ("joined", "table"),
    [
        (True, "slides"),
        (False, "failures"),
        pytest.param(False, "slides", marks=pytest.mark.slow),
        pytest.param(True, "failures", marks=pytest.mark.slow),
    ],
)
def test_an_optimize_that_has_read_all_records_brings_nothing_back(empty, monkeypatch, joined, table):
    """It is about to write joined records: such that name joined cells of the slide, and such that do not."""
    fill(empty, joined)
    expected = state(empty)
    for name in ("create_bytes", "write_bytes"):
        real = getattr(storage, name)

        def forget_first(url, data, real=real, name=name):
            if f"/{table}/joined-" in url:
                monkeypatch.setattr(storage, name, real)
                erase(empty, patients=[PATIENT])
            return real(url, data)

        monkeypatch.setattr(storage, name, forget_first)
    optimize(empty, keep_minutes=0)
    assert state(empty) == expected
    assert traces(empty, SLIDE, PATIENT, ALSO) == []


class _Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    ("every", "joined"),
    [
        (17, True),
        pytest.param(1, True, marks=pytest.mark.slow),
        pytest.param(1, False, marks=pytest.mark.slow),
    ],
)
def test_killed_before_any_write_or_removal(empty, monkeypatch, every, joined):
    """It is stopped before each of its calls to the store in turn; the same call goes on."""
    fill(empty, joined)
    expected, there, write = state(empty), content(empty), storage.write_bytes
    calls, at = [0], [0]
    for name in ("write_bytes", "write_file", "create_bytes", "remove"):
        real = getattr(storage, name)

        def counted(*arguments, real=real, **options):
            calls[0] += 1
            if calls[0] == at[0]:
                raise _Killed
            return real(*arguments, **options)

        monkeypatch.setattr(storage, name, counted)
    monkeypatch.setattr(storage, "READ_THREADS", 1)
    moment, finished = 0, False
    while not finished:
        moment += every
        root = f"memory://{uuid.uuid4().hex}/res"
        for path, held in there.items():
            write(f"{root}{path}", held)
        at[0], calls[0] = moment, 0
        try:
            erase(root, patients=[PATIENT])
            finished = True
        except _Killed:
            assert state(root) == expected, moment
            at[0] = 0
            assert erase(root, patients=[PATIENT]).left == ()
        at[0] = 0
        assert state(root) == expected, moment
        assert traces(root, SLIDE, PATIENT, ALSO) == [], moment
        assert not storage.list_files(f"{root}/_forget")
    assert moment > 30


def test_killed_while_records_change_from_old_joined_cells_to_new_ones(empty, monkeypatch):
    """The moments that the order of writes is for: before the new record, and before the old one goes."""
    fill(empty, joined=True)
    expected = state(empty)
    for name, part in (("create_bytes", "/slides/joined-"), ("remove", "/slides/"), ("remove", "/cells/")):
        real = getattr(storage, name)

        def killed(url, *arguments, part=part, real=real):
            if part in url:
                raise _Killed
            return real(url, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(storage, name, killed)
            with pytest.raises(_Killed):
                erase(empty, patients=[PATIENT])
        assert state(empty) == expected
    erase(empty, patients=[PATIENT])
    assert traces(empty, SLIDE, PATIENT, ALSO) == [] and state(empty) == expected


def test_what_was_begun_for_another_is_finished_too(few):
    root = few
    mark = f"_forget/{datetime.now(UTC):%Y%m%d}-x.json"
    document(root, mark, {"patients": [f"P-{ALSO}"], "slides": [ALSO]})
    (finding,) = verify(root).findings
    assert (finding.object, finding.kind, finding.is_wrong) == (mark, "forget", False)
    assert erase(root, slides=["alpha"]).slides == ("alpha", ALSO)
    assert traces(root, ALSO, "alpha") == []
