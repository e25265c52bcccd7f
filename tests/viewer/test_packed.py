import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray import connect
from deepliif_ray.annotations.corrections import import_corrections
from deepliif_ray.errors import QueryError
from deepliif_ray.exports.cells import Calls
from deepliif_ray.query import scored as sql_of
from deepliif_ray.viewer import packed
from deepliif_ray.viewer.answers import Answers, Asked
from deepliif_ray.viewer.slide_cells import SlideCells
from tests.pictures import scored
from tests.query import fake_results as fake
from tests.viewer import served


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("packed") / "results"
    scored.commit(root, served.cells(), "S-1", width_px=served.WIDTH, height_px=served.HEIGHT)
    said = root.parent / "said.csv"
    rows = [
        f"S-1,{x},{y},{call}"
        for (x, y, call) in [(20, 20, "positive"), (45, 20, "negative"), (70, 20, "not a cell")]
    ]
    said.write_text("slide_id,x,y,call\n" + "\n".join(rows))
    import_corrections(str(root), [str(said)], author="A")
    return str(root)


@pytest.fixture(scope="module")
def answers(results):
    made = Answers(results)
    yield SlideCells(made)
    made.close()


@pytest.fixture(scope="module")
def connection(results):
    with connect(results) as made:
        yield made


def called(cells, cutoffs):
    """Return who counts, who is positive and how strong each is, as the page works it out."""
    said = (cells["flags"] >> 1) & 3
    upper = cutoffs.get("size_thresh_upper")
    sized = (cells["area"] > np.floor(cutoffs["size_thresh"])) & (
        cells["area"] < (1e9 if upper is None else np.ceil(upper))
    )
    marker = cutoffs.get("marker_thresh")
    major = (cells["flags"] & 1) != 0
    if marker is not None:
        major |= ((cells["flags"] & 8) != 0) & (cells["marker"] > marker)
    dense = (cells["od"] >= cutoffs.get("od_thresh_lower", -1)) & (
        cells["od"] <= cutoffs.get("od_thresh_upper", 1e9)
    )
    steps = [round(cutoffs[name] * packed.DAB_STEPS) + 1 for name in ("weak", "moderate", "strong")]
    strength = sum((cells["dab"] >= step).astype(int) for step in steps)
    counts = (said != 3) & (sized | (said != 0))
    positive = np.where(said == 0, dense & major, said == 1)
    strength = np.where(said == 1, np.maximum(strength, 1), np.where(said == 2, 0, strength))
    return counts, counts & positive, strength


steps = st.lists(st.integers(0, 1300), min_size=3, max_size=3).map(sorted)
optional = st.none() | st.integers(0, 255)


@settings(max_examples=40, deadline=None)
@given(
    steps, st.integers(0, 300), st.none() | st.integers(0, 400), optional, st.none() | st.integers(0, 80),
    st.none() | st.integers(80, 200), st.booleans(),
)  # fmt: skip
def test_any_cut_offs_give_what_sql_gives(
    answers, connection, dab, size, upper, marker, low, high, corrections
):
    names = ("size_thresh_upper", "marker_thresh", "od_thresh_lower", "od_thresh_upper")
    given = {
        name: value
        for name, value in zip(names, (upper, marker, low, high), strict=True)
        if value is not None
    }
    if upper is not None and upper < size:
        given["size_thresh_upper"] = size + 1
    given |= {
        "size_thresh": size,
        **{n: v / 1000 for n, v in zip(("weak", "moderate", "strong"), dab, strict=True)},
    }
    cells = answers.packed(Asked("S-1", Calls(corrections=corrections))).columns
    counts, positive, strength = called(cells, given)
    whats = ("positive", *(f"strength = {n}" for n in range(4)))
    source = sql_of("called_cells", cutoffs=given, corrections=corrections)
    wanted = connection.sql(
        f"SELECT count(*), {', '.join(f'coalesce(count_if({what}), 0)' for what in whats)} "
        f"FROM {source} WHERE slide_id = 'S-1'"
    ).fetchall()
    assert wanted[0] == (
        counts.sum(),
        positive.sum(),
        *(int((strength[counts] == n).sum()) for n in range(4)),
    )


def test_cells_lie_where_they_were_found(answers, connection):
    made = answers.packed(Asked("S-1"))
    found = []
    for column, line, first, last in made.tiles.tolist():
        x, y = (made.columns[name][first:last] / packed.PART for name in "xy")
        found += list(zip(x + column * packed.TILE, y + line * packed.TILE, strict=True))
    wanted = connection.execute("SELECT x + 0.5, y + 0.5 FROM cells").fetchall()
    assert len(found) == len(wanted) == made.n_cells
    assert np.abs(np.array(sorted(found)) - np.array(sorted(wanted))).max() <= 1 / packed.PART


def test_the_message_holds_the_arrays(answers):
    made = answers.packed(Asked("S-1"))
    content = b"".join(bytes(part) for part in made.parts())
    length = int.from_bytes(content[:4], "little")
    heading = json.loads(content[4 : 4 + length])
    assert (4 + length) % 8 == 0
    for name, wanted in {"tiles": made.tiles.ravel(), **made.columns}.items():
        said = heading["arrays"][name]
        read = np.frombuffer(content, said["type"], said["length"], 4 + length + said["at"])
        assert (read == wanted).all(), name
    assert made.nbytes <= 12 * made.n_cells + made.tiles.nbytes


def test_far_tiles_and_large_cells(tmp_path):
    places = [(70_000, 90_000), (3, 5), (70_001.25, 90_000), (2047.5, 10)]
    cells = [
        fake.cell(n, x=x, y=y, area_px=60_000 + 5_000 * n, dab_od_mean=3 * n)
        for n, (x, y) in enumerate(places)
    ]
    fake.commit(str(tmp_path), "S-1", cells, width_px=100_000, height_px=100_000)
    answers = Answers(str(tmp_path))
    made = SlideCells(answers).packed(Asked("S-1"))
    answers.close()
    assert [tuple(tile) for tile in made.tiles.tolist()] == [(0, 0, 0, 1), (2, 0, 1, 2), (68, 87, 2, 4)]
    assert made.columns["area"].tolist() == [65_000, packed.MAX_AREA + 1, 60_000, packed.MAX_AREA + 1]
    assert made.columns["dab"].tolist() == [3001, 4001, 1, 4001]


@pytest.mark.parametrize("told", [0, 3, 5000])
def test_cells_are_packed_whatever_the_record_tells_of_their_number(tmp_path, told):
    cells = served.cells()
    size = {"width_px": served.WIDTH, "height_px": served.HEIGHT}
    scored.commit(tmp_path, cells, "S-1", n_cells=told, **size)
    answers = Answers(str(tmp_path))
    row = answers.record("S-1")
    made = answers.made_of(*packed.query_of(row, packed.Which()), partial(packed.pack, row))
    answers.close()
    assert row["n_cells"] == told and made.n_cells == len(cells)
    assert sorted(made.columns["area"].tolist()) == sorted(cell["area_px"] for cell in cells)


def test_cells_are_packed_again_only_where_something_of_them_changed(tmp_path):
    root, said = tmp_path / "results", tmp_path / "said.csv"
    for slide in ("S-1", "S-2"):
        scored.commit(root, served.cells(), slide, width_px=served.WIDTH, height_px=served.HEIGHT)
    answers = Answers(str(root))
    kept = SlideCells(answers)
    first, other = (kept.packed(Asked(slide)) for slide in ("S-1", "S-2"))
    bare = kept.packed(Asked("S-1", Calls(corrections=False)))
    for call in ("positive", "negative"):  # of the same cell: its number alone does not tell
        said.write_text(f"slide_id,x,y,call\nS-1,20,20,{call}")
        import_corrections(str(root), [str(said)], author="A")
        assert kept.packed(Asked("S-1")) is first  # results are those of the moment they were opened
        answers.reopen()
        second = kept.packed(Asked("S-1"))
        assert second is not first and (second.columns["flags"] != first.columns["flags"]).sum() == 1
        assert kept.packed(Asked("S-2")) is other
        assert kept.packed(Asked("S-1", Calls(corrections=False))) is bare
        first = second
    answers.close()


def test_a_region_restricts_and_an_unknown_one_is_refused(answers):
    with pytest.raises(QueryError, match="Tumor"):
        answers.packed(Asked("S-1", Calls(region="Tumor")))
