"""Calls and indices in SQL: by hand, against Python, and against recordings of the published software."""

import json
import math

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray.query import connect
from deepliif_ray.scoring.calls import call_cells, index
from deepliif_ray.tables.ledger import Ledger
from tests.few import few
from tests.query import fake_results as fake
from tests.scoring.wilson import wilson


def row(connection, query):
    relation = connection.sql(query)
    return dict(zip(relation.columns, relation.fetchall()[0], strict=True))


def macro(name, **thresholds):
    given_ones = ", ".join(f"'{key}': {value!r}" for key, value in thresholds.items() if value is not None)
    return f"{name}({{{given_ones}}})" if given_ones else f"{name}()"


@pytest.fixture
def cohort(tmp_path):
    """P1: two Ki67 slides with 3 of 4 and 1 of 6 positive, one without cells, one CD3; P2: no cell at all."""
    root = str(tmp_path)
    fake.commit(root, "a", [fake.cell(i, positive=i < 3, marker_max=200) for i in range(4)], tissue_mm2=0.5)
    small = [fake.cell(10 + i, area_px=30, positive=True) for i in range(5)]
    fake.commit(root, "b", [*(fake.cell(i, positive=i < 1) for i in range(6)), *small], tissue_mm2=1.0)
    fake.commit(root, "c", [], tissue_mm2=0.5)
    fake.commit(root, "d", [fake.cell(0, positive=True)], marker="CD3", tissue_mm2=0.0)
    fake.commit(root, "e", [], patient_id="P2", tissue_mm2=0.25)
    return connect(root)


def test_patient_indices_by_hand(cohort):
    found = row(cohort, "FROM patient_indices WHERE patient_id = 'P1' AND marker = 'Ki67'")
    assert (found["n_slides"], found["n_called"], found["n_positive"]) == (3, 10, 4)
    assert (found["index_percent"], found["density_per_mm2"]) == (40.0, 5.0)
    assert (found["tissue_mm2"], found["positive_density_per_mm2"]) == (2.0, 2.0)
    # Wilson by hand: (0.4 + z²/20 ± z √(0.024 + z²/400)) / (1 + z²/10), z = 1.96
    assert found["wilson_lower_percent"] == pytest.approx(16.82, abs=0.005)
    assert found["wilson_upper_percent"] == pytest.approx(68.73, abs=0.005)
    # Two slides of 3 in 4 and 1 in 6, each of one block: they tell almost nothing of the patient.
    assert found["ci_lower_percent"] < 1 and found["ci_upper_percent"] > 99
    assert (found["mean_of_slides_percent"], found["too_few_cells"]) == (
        pytest.approx((75 + 100 / 6) / 2),
        True,
    )
    assert found["notes"].startswith("all nuclei count, not tumour alone; too few cells (under 500)")


def test_nothing_to_divide_by(cohort):
    without_cells = row(cohort, "FROM patient_indices WHERE patient_id = 'P2'")
    assert (without_cells["n_slides"], without_cells["n_called"], without_cells["density_per_mm2"]) == (
        1,
        0,
        0.0,
    )
    ends = ("ci_lower_percent", "ci_upper_percent", "wilson_lower_percent", "wilson_upper_percent")
    assert [without_cells[key] for key in ("index_percent", *ends)] == [None] * 5
    without_tissue = row(cohort, "FROM patient_indices WHERE marker = 'CD3'")
    assert (without_tissue["index_percent"], without_tissue["density_per_mm2"]) == (100.0, None)


def test_slide_indices(cohort):
    found = row(cohort, "FROM slide_indices WHERE slide_id = 'b'")
    assert (found["n_called"], found["n_positive"], found["n_negative"]) == (6, 1, 5)
    assert found["index_percent"] == pytest.approx(100 / 6)
    assert (found["density_per_mm2"], found["positive_density_per_mm2"]) == (6.0, 1.0)
    assert (found["wilson_lower_percent"], found["wilson_upper_percent"]) == pytest.approx(wilson(1, 6))
    assert (found["ci_lower_percent"], found["ci_upper_percent"]) == (None, None)  # one block tells no spread


def test_thresholds_of_ones_own(cohort):
    key = "WHERE patient_id = 'P1' AND marker = 'Ki67'"
    counts = {
        "patient_indices()": (10, 4),
        "patient_indices({'size_thresh': 0})": (15, 9),
        "patient_indices({'size_thresh': 30})": (10, 4),
        "patient_indices({'size_thresh': 0, 'size_thresh_upper': 100})": (5, 5),
        "patient_indices({'marker_thresh': 'default'})": (10, 5),
        "patient_indices({'marker_thresh': 200})": (10, 4),
        "patient_indices({'marker_thresh': 49.5})": (10, 10),
        "patient_indices({'od_thresh_lower': 61})": (10, 0),
        "patient_indices({'od_thresh_upper': 60})": (10, 4),
        "patient_indices({'size_thresh': 1000})": (0, 0),
    }
    for source, expected in counts.items():
        found = row(cohort, f"FROM {source} {key}")
        assert (found["n_slides"], found["n_called"], found["n_positive"]) == (3, *expected), source


def test_defaults_come_from_the_commit_records_and_agree_with_the_cells(cohort):
    for name in ("slide_indices", "patient_indices"):
        from_records = cohort.execute(f"FROM {name}").fetchall()
        assert from_records == cohort.execute(f"FROM {name}({{'size_thresh_upper': 1e9}})").fetchall()
        plans = {
            source: str(cohort.execute(f"EXPLAIN FROM {source}").fetchall()).lower()
            for source in (name, f"{name}({{'size_thresh': 1}})")
        }
        assert ["parquet" in plan for plan in plans.values()] == [False, True]


def test_a_misspelt_default_is_an_error(cohort):
    with pytest.raises(Exception, match="defualt"):
        cohort.execute("FROM called_cells({'marker_thresh': 'defualt'})").fetchall()


thresholds = st.none() | st.integers(0, 12)
LIMITS = ("size_thresh_upper", "marker_thresh", "od_thresh_lower", "od_thresh_upper")
some_cells = st.lists(
    st.tuples(
        st.integers(0, 12), st.booleans(), st.integers(0, 12), st.integers(0, 24).map(lambda half: half / 2)
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def bench():
    """A connection whose cells are replaced for each example."""
    root = "memory://sql-and-python/r"
    fake.commit(root, "s", [fake.cell()], size_thresh=5)
    return connect(root)


@settings(max_examples=60, deadline=None)
@given(
    some_cells,
    st.integers(0, 12),
    st.fixed_dictionaries(
        dict.fromkeys(
            ("size_thresh_upper", "marker_thresh", "od_thresh_lower", "od_thresh_upper"), thresholds
        )
    ),
)
def test_sql_and_python_call_alike(bench, cells, size_thresh, limits):
    bench.execute(
        "CREATE OR REPLACE TEMP TABLE drawn (slide_id TEXT, cell_id INT, area_px BIGINT,"
        " majority_positive BOOL, marker_max UTINYINT, od_mean DOUBLE, dab_od_mean DOUBLE)"
    )
    if cells:
        bench.executemany(
            "INSERT INTO drawn VALUES ('s', ?, ?, ?, ?, ?, 0.1)", [[i, *c] for i, c in enumerate(cells)]
        )
    bench.execute("CREATE OR REPLACE VIEW cells AS SELECT * FROM temp.drawn")
    columns = list(zip(*cells, strict=True)) or [[], [], [], []]
    source = macro("called_cells", size_thresh=size_thresh, **limits)
    pairs = (
        (size_thresh, limits["size_thresh_upper"]),
        (limits["od_thresh_lower"], limits["od_thresh_upper"]),
    )
    if cells and any(None not in pair and pair[0] > pair[1] for pair in pairs):
        with pytest.raises(duckdb.Error, match="out of order"):
            bench.execute(f"FROM {source}").fetchall()
        return
    counted, positive = call_cells(*columns, size_thresh=size_thresh, **limits)
    expected = [(i, bool(positive[i])) for i in range(len(cells)) if counted[i]]
    assert bench.execute(f"SELECT cell_id, positive FROM {source} ORDER BY cell_id").fetchall() == expected


@given(st.integers(0, 10**9), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_sql_and_python_intervals_agree(bench, total, share):
    positive = round(total * share)
    select = "SELECT wilson_lower_percent(?::BIGINT, ?::BIGINT), wilson_upper_percent(?::BIGINT, ?::BIGINT)"
    found = bench.execute(select, [positive, total] * 2).fetchone()
    expected = wilson(positive, total)
    if total == 0:
        assert found == (None, None)
        assert all(math.isnan(end) for end in expected)
    else:
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    "recording", few(["34_3-40x", "6_2-40x", "mosaic-10x", "mosaic-20x", "mosaic-40x"], 3)
)
def test_recordings(shared_reference, tmp_path, recording):
    record = json.loads((shared_reference / "postprocess" / f"{recording}.json").read_text())
    cells = [
        fake.cell(i, c["size"], c["positive"], c["marker"], float(c["od"]))
        for i, c in enumerate(record["cells"])
    ]
    made = record["settings"]
    fake.commit(
        str(tmp_path),
        "s",
        cells,
        size_thresh=made["default_size_thresh"],
        marker_thresh=made["default_marker_thresh"],
    )
    choices = {
        "default": {},
        "marker-default": {"marker_thresh": "default"},
        "no-size": {"size_thresh": 0},
        "upper": {"size_thresh": 50, "size_thresh_upper": 900},
        "od": {"od_thresh_lower": 40},
    }
    connection = connect(tmp_path)
    for choice, expected in record["scoring"].items():
        found = row(connection, f"FROM {macro('slide_indices', **choices[choice])}")
        counts = (found["n_called"], found["n_positive"], found["n_negative"])
        assert counts == (expected["num_total"], expected["num_pos"], expected["num_neg"]), choice
        assert round(found["index_percent"], 1) == expected["percent_pos"]


def test_called_cells_add_only_the_call(cohort):
    called = cohort.sql("FROM called_cells").columns
    assert called == [*cohort.sql("FROM cells").columns, "positive", "strength"]


def test_commit_records_hold_what_the_calling_rule_gives(tmp_path):
    """The helper that writes these results keeps the contract that the default views rely on."""
    fake.commit(str(tmp_path), "s", [fake.cell(i, area_px=29 + i, positive=i % 2 == 0) for i in range(5)])
    slide = Ledger(str(tmp_path)).slides().to_pylist()[0]
    found = index(*call_cells(range(29, 34), [True, False, True, False, True], size_thresh=30))
    assert [slide[key] for key in ("n_called", "n_positive", "n_negative")] == [
        found[key] for key in ("num_total", "num_pos", "num_neg")
    ]
