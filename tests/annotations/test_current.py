"""What counts after a slide was scored again, and what killed imports and damage leave."""

from collections import Counter
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from deepliif_ray import optimize, storage
from deepliif_ray.annotations import objects
from deepliif_ray.annotations.corrections import import_corrections
from deepliif_ray.annotations.current import attach
from deepliif_ray.annotations.listing import list_regions
from deepliif_ray.annotations.refresh import refresh
from deepliif_ray.annotations.regions import drop_regions, import_regions
from deepliif_ray.errors import ResultsError
from deepliif_ray.tables.check import verify
from tests.annotations.files import box, cells_at, feature, listing, slides, write
from tests.query import fake_results as fake

LEFT, ALL = box(0, 0, 400, 800), box(0, 0, 1000, 800)


def filled(root):
    fake.commit(root, "S-1", cells_at((100, 100), (300, 100), (500, 100)), "P1", attempt="a1")
    fake.commit(root, "S-2", cells_at((50, 50)), "P2", attempt="b1")
    return root


@pytest.fixture
def root(tmp_path):
    return filled(f"memory://{tmp_path.name}/res")


@pytest.fixture(params=["local", "memory"])
def anywhere(request, tmp_path):
    return filled(str(tmp_path / "res=1") if request.param == "local" else f"memory://{tmp_path.name}/res")


def brought(root, tmp_path, **geometry_of):
    features = [feature(g, "Tumor", f"{i}-x", slide_id=i.replace("_", "-")) for i, g in geometry_of.items()]
    path = write(tmp_path, "any.geojson", features)
    return import_regions(root, [path], read_slides=False, author="me").import_id


def rescored(root, second=5, **more):
    cells = cells_at((100, 100), (200, 100), (350, 300), (700, 100))
    fake.commit(root, "S-1", cells, "P9", second=second, **{"attempt": "a2", **more})


def counted(root):
    """Return (slide, region, cells) and the (slide, cell) that count as a view would join them."""
    found = attach(root, slides(root))
    attempts = dict(zip(*(slides(root)[n].to_pylist() for n in ("slide_id", "attempt")), strict=True))
    rows = [row for path in found.region_cells_paths for row in read_all(root, path)]
    rows += found.region_cells.to_pylist()
    rows = [r for r in rows if attempts.get(r["slide_id"]) == r["attempt"]]
    pairs = [(r["slide_id"], r["region_id"], r["cell_id"]) for r in rows]
    assert len(pairs) == len(set(pairs))
    regions = found.regions.select(["slide_id", "region_id", "n_cells", "patient_id"]).to_pylist()
    regions = [tuple(r.values()) for r in regions]
    assert Counter(pair[:2] for pair in pairs) == Counter({r[:2]: r[2] for r in regions if r[2]})
    return regions, found


def read_all(root, path):
    name = path.removeprefix("region_cells/").removesuffix(".parquet")
    return objects.read_region_cells(root, name, ["S-1", "S-2", "S-3"]).to_pylist()


def test_without_annotations_two_listings_are_all(root, monkeypatch):
    asked = []
    inner = storage.list_stored
    table = slides(root)
    monkeypatch.setattr(storage, "list_stored", lambda *a: asked.append(a) or inner(*a))
    monkeypatch.setattr(storage, "read_bytes", None)
    found = attach(root, table)
    assert len(asked) == 2 and not found.damaged and not found.region_cells_paths
    assert (found.regions.num_rows, found.corrections.num_rows, found.region_cells.num_rows) == (0, 0, 0)
    assert found.corrections.column_names[-1] == "is_current"


def test_a_rescored_slide_is_measured_anew_and_kept_by_refresh(anywhere, tmp_path, caplog):
    root = anywhere
    first = brought(root, tmp_path, S_1=LEFT, S_2=ALL)
    assert counted(root)[0] == [("S-1", "S_1-x", 2, "P1"), ("S-2", "S_2-x", 1, "P2")]
    assert not caplog.records
    rescored(root)
    expected = [("S-1", "S_1-x", 3, "P9"), ("S-2", "S_2-x", 1, "P2")]
    rows, found = counted(root)
    assert rows == expected and found.region_cells.num_rows == 3
    assert found.region_cells_paths == [f"region_cells/{first}.parquet"]
    assert "of 1 slides measured anew" in caplog.text and "regions refresh" in caplog.text
    assert list_regions(root)[0]["state"].to_pylist() == ["stale", "current"]
    report = refresh(root)
    assert (report.regions, report.left) == (["S-1"], [])
    caplog.clear()
    rows, found = counted(root)
    assert rows == expected and found.region_cells.num_rows == 0 and not caplog.records
    assert [h.import_id for h in objects.read_all(root, "regions", [])] == [first]
    assert len(storage.list_files(f"{root}/region_cells")) == 1
    before = listing(root)
    assert refresh(root, read_slides=False).regions == [] and listing(root) == before
    assert verify(root).is_sound
    assert drop_regions(root, first) == 2 and counted(root)[0] == []


def test_an_import_that_counts_for_some_of_its_slides(root, tmp_path):
    first = brought(root, tmp_path, S_1=LEFT, S_2=ALL)
    second = brought(root, tmp_path, S_1=ALL)
    rows, found = counted(root)  # the old rows of S-1 are of this attempt, and must not count
    assert rows == [("S-1", "S_1-x", 3, "P1"), ("S-2", "S_2-x", 1, "P2")]
    assert found.region_cells_paths == [f"region_cells/{second}.parquet"]
    rescored(root)
    assert counted(root)[0] == [("S-1", "S_1-x", 4, "P9"), ("S-2", "S_2-x", 1, "P2")]
    assert refresh(root).regions == ["S-1"]
    assert counted(root)[0] == [("S-1", "S_1-x", 4, "P9"), ("S-2", "S_2-x", 1, "P2")]
    drop_regions(root, second)
    assert counted(root)[0] == [("S-1", "S_1-x", 3, "P9"), ("S-2", "S_2-x", 1, "P2")]
    assert [h.import_id for h in objects.read(root, "regions", [])] == [first]


def test_a_slide_of_another_size_or_pixel_size(root, tmp_path):
    brought(root, tmp_path, S_1=LEFT, S_2=ALL)
    area = attach(root, slides(root)).regions["area_mm2"].to_pylist()[0]
    rescored(root, mpp=0.5, slide_fingerprint="s2")
    row = attach(root, slides(root)).regions.to_pylist()[0]
    assert row["area_mm2"] == pytest.approx(4 * area) == row["class_area_mm2"]
    assert (row["mpp"], row["slide_fingerprint"], row["class_tissue_mm2"]) == (0.5, "s2", None)
    assert "changed since" in row["tissue_reason"]
    assert refresh(root, read_slides=False).regions == ["S-1"]
    assert attach(root, slides(root)).regions.to_pylist()[0]["area_mm2"] == pytest.approx(4 * area)
    rescored(root, second=6, width_px=5000)
    rows, found = counted(root)
    assert [row[0] for row in rows] == ["S-2"]
    assert [(d.kind, d.slide_id) for d in found.damaged] == [("regions", "S-1")]
    assert "drawn on a slide of 1,000 × 800 px, which has 5,000 × 800" in found.damaged[0].problem
    assert len(refresh(root).left) == 1


def test_slides_that_are_no_more_or_whose_cells_are_lost(root, tmp_path):
    brought(root, tmp_path, S_1=LEFT, S_2=ALL)
    rescored(root)
    table = slides(root)
    storage.remove(storage.join(root, table["cells_path"].to_pylist()[0]))
    found = attach(root, table)
    assert found.regions.select(["slide_id", "n_cells", "attempt"]).to_pylist() == [
        {"slide_id": "S-1", "n_cells": None, "attempt": None},
        {"slide_id": "S-2", "n_cells": 1, "attempt": "b1"},
    ]
    assert "not measured" in found.damaged[0].problem
    fake.commit(root, "S-1", [], second=9, retired=True)
    assert [row[0] for row in counted(root)[0]] == ["S-2"]
    assert list_regions(root, history=True)[0]["state"].to_pylist() == ["no slide", "current"]


def test_killed_between_cells_and_regions(root, tmp_path, monkeypatch):
    before = listing(root)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(objects, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        brought(root, tmp_path, S_1=LEFT)
    monkeypatch.undo()
    left = set(listing(root)) - set(before)
    assert len(left) == 1 and "region_cells" in left.pop()
    assert counted(root)[0] == []
    report = verify(root)
    assert report.is_sound and "its import was stopped" in report.findings[0].problem
    assert refresh(root).removed == 0  # it may be at work
    monkeypatch.setattr("deepliif_ray.annotations.refresh.ORPHAN_AGE", timedelta(-1))
    assert refresh(root).removed == 1 and listing(root) == before


def test_killed_between_writing_anew_and_removing(root, tmp_path, monkeypatch):
    first = brought(root, tmp_path, S_1=LEFT, S_2=ALL)
    rescored(root)
    monkeypatch.setattr(objects, "remove", lambda *_: None)
    refresh(root)
    monkeypatch.undo()
    assert len(objects.read_all(root, "regions", [])) == 2
    assert counted(root)[0] == [("S-1", "S_1-x", 3, "P9"), ("S-2", "S_2-x", 1, "P2")]
    assert refresh(root).removed == 1 and len(objects.read_all(root, "regions", [])) == 1
    assert drop_regions(root, first) == 2 and not storage.list_files(f"{root}/region_cells")


def test_damaged_objects_are_passed_over_and_told(anywhere, tmp_path):
    root = anywhere
    names = [brought(root, tmp_path, S_1=LEFT), brought(root, tmp_path, S_2=ALL)]
    storage.write_bytes(f"{root}/regions/{names[0]}.parquet", b"PAR1 nothing PAR1")
    storage.write_bytes(f"{root}/region_cells/{names[1]}.parquet", b"")
    storage.write_bytes(f"{root}/regions/notes.txt", b"by hand")
    storage.write_bytes(f"{root}/regions/copy.parquet", b"by hand")
    rows, found = counted(root)
    assert rows == [("S-2", "S_2-x", 1, "P2")]
    assert {(d.kind, d.object.partition("/")[2]) for d in found.damaged} == {
        ("regions", f"{names[0]}.parquet"),
        ("region_cells", f"{names[1]}.parquet"),
    }
    assert all("import the file again" in d.problem or "refresh" in d.problem for d in found.damaged)
    wrong = {finding.object for finding in verify(root).findings}
    assert {f"regions/{names[0]}.parquet", f"region_cells/{names[1]}.parquet"} <= wrong
    assert refresh(root).regions == ["S-2"]
    assert [d.kind for d in counted(root)[1].damaged] == ["regions"]
    mended = verify(root, repair=True)
    assert any("import their file again" in (f.mended or "") for f in mended.findings)
    assert not attach(root, slides(root)).damaged and verify(root).is_sound
    assert f"{root}/_damaged/regions/{names[0]}.parquet" in listing(root)


def test_check_counts_rows_of_regions(root, tmp_path):
    first, second = brought(root, tmp_path, S_1=LEFT), brought(root, tmp_path, S_2=ALL)
    there = storage.read_bytes(f"{root}/region_cells/{second}.parquet")
    storage.write_bytes(f"{root}/region_cells/{first}.parquet", there)
    storage.remove(f"{root}/region_cells/{second}.parquet")
    problems = sorted(finding.problem for finding in verify(root).findings)
    assert "1 rows, its regions have 2 cells" in problems[0] and "it is gone" in problems[1]


def test_optimize_leaves_annotations_alone(root, tmp_path):
    brought(root, tmp_path, S_1=LEFT)
    import_corrections(root, [table_of(tmp_path, "S-2,50,50,negative")], author="me")
    kinds = ("/regions/", "/region_cells/", "/corrections/")
    mine = {url: content for url, content in listing(root).items() if any(kind in url for kind in kinds)}
    assert len(mine) == 3
    before = counted(root)[0]
    optimize(root, keep_minutes=0, drop_superseded=True)
    assert mine.items() <= listing(root).items() and counted(root)[0] == before
    rescored(root)
    assert counted(root)[0] == [("S-1", "S_1-x", 3, "P9")]
    checked = verify(root).checked
    assert (checked["regions"], checked["region_cells"], checked["corrections"]) == (1, 1, 1)


def table_of(folder, *lines, name="c.csv", head="slide_id,x,y,call"):
    (folder / name).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return str(folder / name)


def test_corrections_follow_a_rescored_slide(root, tmp_path, caplog):
    path = table_of(tmp_path, "S-1,301,100,negative", "S-1,500,100,not a cell", "S-2,50,50,positive")
    report = import_corrections(root, [path], author="me")
    assert not report.unmatched
    rescored(root)
    expected = [(None, None, False), (None, None, False), (0, 0.0, True)]
    names = ["cell_id", "distance_um", "is_current"]
    table = attach(root, slides(root)).corrections
    assert [tuple(row.values()) for row in table.select(names).to_pylist()] == expected
    assert (
        table["patient_id"].to_pylist() == ["P9", "P9", "P2"] and "of 1 slides measured anew" in caplog.text
    )
    caplog.clear()
    assert refresh(root).corrections == ["S-1"]
    table = attach(root, slides(root)).corrections
    assert [tuple(row.values()) for row in table.select(names).to_pylist()] == expected and not caplog.records
    assert table["import_id"].to_pylist() == [report.import_id] * 3
    # The first slide is scored again as before: its corrections find their cells.
    fake.commit(root, "S-1", cells_at((100, 100), (300, 100), (500, 100)), second=9, attempt="a3")
    table = attach(root, slides(root)).corrections
    assert table["cell_id"].to_pylist() == [1, 2, 0] and table["is_current"].to_pylist() == [True] * 3


def test_objects_of_a_newer_version_are_refused(root, tmp_path, monkeypatch):
    brought(root, tmp_path, S_1=LEFT)
    monkeypatch.setattr("deepliif_ray.tables.records.schema_version", lambda name: 0)
    with pytest.raises(ResultsError, match="newer deepliif_ray"):
        objects.read(root, "regions", [])


@pytest.mark.parametrize("which", ["S-1", "S-2"])
def test_rows_of_a_forgotten_slide_are_taken_out_of_both_objects(root, tmp_path, which, caplog):
    name = brought(root, tmp_path, S_1=box(0, 0, 40, 40), S_2=ALL)  # the region of S-1 has no cell
    other = {"S-1": "S-2", "S-2": "S-1"}[which]
    for kind in ("regions", "region_cells"):
        url = f"{root}/{kind}/{name}.parquet"
        table = pq.read_table(pa.BufferReader(storage.read_bytes(url)))
        rest = table.filter(pc.equal(table["slide_id"], other))
        sink = pa.BufferOutputStream()
        pq.write_table(rest, sink)
        storage.remove(url)
        if rest.num_rows:
            storage.write_bytes(url, sink.getvalue().to_pybytes())
    rows, found = counted(root)
    assert [row[:3] for row in rows] == [(other, other.replace("-", "_") + "-x", int(other == "S-2"))]
    assert not found.damaged and not caplog.records and found.region_cells.num_rows == 0
    assert len(found.region_cells_paths) == (other == "S-2") and verify(root).is_sound
    assert refresh(root, read_slides=False).regions == []
    fake.commit(root, other, cells_at((10, 10), (20, 10)), second=7, attempt="new")
    assert refresh(root).regions == [other] and counted(root)[0][0][2] == 2
    assert verify(root).is_sound and not attach(root, slides(root)).damaged
