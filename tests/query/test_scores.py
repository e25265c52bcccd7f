"""Clinical scores in SQL, against cases computed by hand and against plain Python."""

import json
import math
import struct
from collections import Counter
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray import scan_cells
from deepliif_ray.annotations.corrections import import_corrections
from deepliif_ray.annotations.regions import import_regions
from deepliif_ray.query import connect
from deepliif_ray.tables.cutoffs import write_cutoffs
from tests.query import fake_results as fake


def cells(count, positive=0, dab=0.1, first=0, **more):
    """Cells of which the first ``positive`` are; ``dab`` is one value, or one a cell."""
    values = dab if isinstance(dab, list) else [dab] * count
    return [fake.cell(first + i, positive=i < positive, dab_od_mean=values[i], **more) for i in range(count)]


def rows(connection, query):
    answer = connection.execute(query)
    names = [column[0] for column in answer.description]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """ER of three patients by strength; P53; lymphomas; T cells."""
    root = str(tmp_path_factory.mktemp("scores"))
    # 100 cells: 40 of 0, 30 of 1+, 20 of 2+, 10 of 3+, edges inclusive
    graded = [0.19] * 40 + [0.2] * 30 + [0.4] * 20 + [0.6] * 10
    fake.commit(root, "er1", cells(100, 60, graded), marker="ER", patient_id="A")
    # exactly 10 % stained, all weakly; 10 % positive by the model
    fake.commit(root, "er2", cells(100, 10, [0.3] * 10 + [0.0] * 90), marker="ER", patient_id="B")
    fake.commit(root, "er3", cells(1000, 9), marker="ER", patient_id="C")
    fake.commit(root, "pr", cells(100, 5), marker="PR", patient_id="B")
    fake.commit(root, "er4", cells(50, 50, 0.9), marker="ER", patient_id="D")
    over, wild, null = [0.7] * 80 + [0.1] * 20, [0.3] * 40 + [0.1] * 60, [0.1] * 100
    for name, dab in (("over", over), ("wild", wild), ("null", null)):
        fake.commit(root, name, cells(100, 0, dab), marker="TP53", patient_id=name)
    status = {  # patient: CD10, BCL6, MUM1, percent positive of 100; None: no slide
        "gcb": (30, 0, 90),
        "non1": (29, 29, 90),
        "non2": (0, 80, 30),
        "gcb2": (0, 30, 29),
        "no10": (None, 90, 90),
        "nomum": (0, 90, None),
    }
    for patient, values in status.items():
        for marker, value in zip(("CD10", "BCL6", "MUM1"), values, strict=True):
            if value is not None:
                fake.commit(root, f"{patient}-{marker}", cells(100, value), marker=marker, patient_id=patient)
    fake.commit(root, "few-CD10", cells(99, 99), marker="CD10", patient_id="few")
    fake.commit(root, "split-CD10", cells(100, 90), marker="CD10", patient_id="split")
    fake.commit(root, "split-CD10-b", cells(100, 10), marker="CD10", patient_id="split")
    double = {"yes": (40, 50), "edge": (40, 49), "nomyc": (39, None), "unknown": (None, 90)}
    for patient, values in double.items():
        for marker, value in zip(("MYC", "BCL2"), values, strict=True):
            if value is not None:
                fake.commit(root, f"{patient}-{marker}", cells(100, value), marker=marker, patient_id=patient)
    for patient, cd3, cd8, mm2 in (("T1", 80, 20, 0.5), ("T2", 40, 10, 0.5), ("T3", 40, None, 0.0)):
        fake.commit(root, f"{patient}-3", cells(100, cd3), marker="CD3", patient_id=patient, tissue_mm2=mm2)
        if cd8 is not None:
            fake.commit(
                root, f"{patient}-8", cells(100, cd8), marker="CD8", patient_id=patient, tissue_mm2=mm2
            )
    write_cutoffs(
        root, "own", [{"marker": "ER", "weak": 0.1, "moderate": 0.25, "strong": 0.5}], author="a", note="n"
    )
    with connect(root) as connection:
        yield connection


def test_h_score(cohort):
    (found,) = rows(cohort, "FROM slide_h_scores() WHERE slide_id = 'er1'")
    assert [found[f"percent_{n}"] for n in range(4)] == [40, 30, 20, 10]
    assert found["h_score"] == 30 + 2 * 20 + 3 * 10 == 100  # QuPath: 100 (n1 + 2 n2 + 3 n3) / n
    assert found["intensity_cutoffs"] == "QuPath: 0.2, 0.4, 0.6"
    assert rows(cohort, "FROM patient_h_scores() WHERE patient_id = 'A'")[0]["h_score"] == 100
    given_ones = "cutoffs := {'weak': 0.15, 'strong': 0.4}"
    (found,) = rows(cohort, f"FROM slide_h_scores({given_ones}) WHERE slide_id = 'er1'")
    assert (found["h_score"], found["intensity_cutoffs"]) == (
        40 + 30 + 3 * 20 + 3 * 10,
        "given: 0.15, 0.4, 0.4",
    )


def test_a_set_of_cutoffs_names_itself_and_holds_for_its_markers_alone(cohort):
    found = {row["slide_id"]: row for row in rows(cohort, "FROM slide_h_scores(cutoffs := 'own')")}
    assert found["er1"]["h_score"] == 100 * (40 + 30 + 2 * 20 + 3 * 10) / 100
    assert found["er1"]["intensity_cutoffs"] == "own: 0.1, 0.25, 0.5"
    assert (found["over"]["h_score"], found["over"]["intensity_cutoffs"]) == (None, None)
    with pytest.raises(duckdb.Error, match="no set of cut-offs 'owm'; there are QuPath, own"):
        rows(cohort, "FROM slide_h_scores(cutoffs := 'owm')")


def test_allred(cohort):
    def scores(patient, edges):
        (found,) = rows(
            cohort,
            f"FROM patient_allred(edges := '{edges}') WHERE patient_id = '{patient}' AND marker = 'ER'",
        )
        return found["proportion"], found["intensity"], found["allred"]

    assert scores("A", "qupath") == (4, 1, 5)  # mean of 1, 2, 3 is 100 / 60 = 5 / 3, which is not above 5 / 3
    assert scores("A", "cap") == (4, 1, 5)  # most stained cells are weak
    assert scores("B", "qupath") == (3, 1, 4)
    assert scores("B", "cap") == (2, 1, 3)  # exactly 10 %
    assert scores("C", "qupath") == (0, 0, 0)
    assert scores("D", "qupath") == (5, 3, 8)
    with pytest.raises(duckdb.Error, match="'qupath' or 'cap', not 'who'"):
        rows(cohort, "FROM patient_allred(edges := 'who')")


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_allred_is_qupaths(cohort, weak, moderate, strong, negative):
    total, stained = weak + moderate + strong + negative, weak + moderate + strong
    (found,) = cohort.sql(
        f"SELECT allred_proportion({stained}, {total}, 'qupath'), "
        f"allred_intensity({weak}, {moderate}, {strong}, 'qupath')"
    ).fetchall()
    if total == 0:
        assert found[0] is None
        return
    share = stained / total
    edges = [share > 0, share >= 0.01, share >= 0.1, share >= 1 / 3, share >= 2 / 3]
    mean = (weak + 2 * moderate + 3 * strong) / stained if stained else 0
    assert found == (sum(edges), 0 if not stained else 1 + (mean > 5 / 3) + (mean > 7 / 3))


def test_er_and_pr(cohort):
    found = {(r["patient_id"], r["marker"]): r for r in rows(cohort, "FROM er_pr_status()")}
    status = {key: row["status"] for key, row in found.items()}
    assert status == {
        ("A", "ER"): "positive",
        ("B", "ER"): "low_positive",
        ("B", "PR"): "positive",
        ("C", "ER"): "negative",
        ("D", "ER"): "positive",
    }
    assert [key for key, row in found.items() if row["too_few_cells"]] == [("D", "ER")]
    assert "too few cells (under 100)" in found["D", "ER"]["notes"]
    moved = {r["patient_id"]: r["status"] for r in rows(cohort, "FROM er_pr_status(low_percent := 0.5)")}
    assert moved["C"] == "low_positive"
    categories = {
        r["patient_id"]: r["category"] for r in rows(cohort, "FROM patient_indices WHERE marker = 'ER'")
    }
    assert categories == {"A": "positive", "B": "low_positive", "C": "negative", "D": "positive"}


def test_categories_of_ki67(cohort):
    edges = {0: "low", 5: "low", 5.01: "intermediate", 29.99: "intermediate", 30: "high", 100: "high"}
    for percent, name in edges.items():
        found = cohort.sql(
            f"SELECT category_of({percent}, categories) FROM markers WHERE name = 'Ki67'"
        ).fetchall()
        assert found == [(name,)], percent
    grades = cohort.sql(
        "SELECT net_grade(2.9), net_grade(3), net_grade(20), net_grade(20.1), net_grade(NULL)"
    )
    assert grades.fetchall() == [("G1", "G2", "G2", "G3", None)]


def test_p53(cohort):
    found = {row["slide_id"]: row for row in rows(cohort, "FROM tp53_patterns()")}
    assert {key: row["pattern"] for key, row in found.items()} == {
        "over": "overexpression_candidate",
        "wild": "wild_type_range",
        "null": "unknown",
    }
    assert "draw a region of class 'Control'" in found["null"]["reason"]
    found = {
        r["slide_id"]: r["pattern"] for r in rows(cohort, "FROM tp53_patterns(overexpression_percent := 81)")
    }
    assert found["over"] == "wild_type_range"


def test_hans(cohort):
    found = {row["patient_id"]: row for row in rows(cohort, "FROM hans()")}
    assert {key: row["subtype"] for key, row in found.items()} == {
        "gcb": "GCB",
        "non1": "non-GCB",
        "non2": "non-GCB",
        "gcb2": "GCB",
        "no10": "unknown",
        "nomum": "unknown",
        "few": "unknown",
        "split": "unknown",
    }
    reasons = {key: row["reason"] for key, row in found.items() if row["reason"]}
    assert reasons == {
        "no10": "no slide of CD10",
        "nomum": "no slide of MUM1",
        "few": "CD10 has too few cells (99 of 100)",
        "split": "CD10: slides disagree (1 from 30.0 % on, 1 below)",
    }
    found = {r["patient_id"]: r["subtype"] for r in rows(cohort, "FROM hans(cd10_percent := 29)")}
    assert found["non1"] == "GCB"


def test_double_expressors(cohort):
    found = {row["patient_id"]: row for row in rows(cohort, "FROM double_expressors()")}
    assert {key: row["double_expressor"] for key, row in found.items()} == {
        "yes": "yes",
        "edge": "no",
        "nomyc": "no",
        "unknown": "unknown",
    }
    assert found["unknown"]["reason"] == "no slide of MYC"
    assert rows(cohort, "FROM double_expressors(bcl2_percent := 51)")[-1]["double_expressor"] == "no"


def test_densities(cohort):
    found = {r["patient_id"]: r for r in rows(cohort, "FROM patient_densities() WHERE marker = 'CD3'")}
    assert {key: row["positive_density_per_mm2"] for key, row in found.items()} == {
        "T1": 160,
        "T2": 80,
        "T3": None,
    }
    assert [found[key]["percentile_percent"] for key in ("T1", "T2", "T3")] == [100, 50, None]
    assert rows(cohort, "FROM cd8_cd3_ratios()") == [
        {"patient_id": "T1", "cd8_per_mm2": 40, "cd3_per_mm2": 160, "cd8_cd3_ratio": 0.25},
        {"patient_id": "T2", "cd8_per_mm2": 20, "cd3_per_mm2": 80, "cd8_cd3_ratio": 0.25},
    ]


def test_pd_l1_is_refused_without_classes(tmp_path):
    fake.commit(str(tmp_path), "s", cells(200, 100), marker="PDL1")
    with connect(tmp_path) as connection:
        (found,) = rows(connection, "FROM pd_l1_scores()")
    assert (found["tps_percent"], found["cps"]) == (None, None)
    assert "which cells are tumour is not known" in found["reason"]


def square(name, x0, y0, x1, y1):
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": shape, "properties": {"classification": {"name": name}}}


def annotate(root, slide, *regions, corrections=()):
    """Bring regions (class and edges in px) and corrections (x, y, call) in, as people do."""
    file = Path(root) / "drawn.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [square(*r) for r in regions]}))
    import_regions(root, [str(file)], slide=slide, read_slides=False)
    if corrections:
        table = Path(root) / "said.csv"
        lines = [f"{slide},{x},{y},{call}" for x, y, call in corrections]
        table.write_text("\n".join(["slide_id,x,y,call", *lines]) + "\n")
        import_corrections(root, [str(table)])


def placed(x, y, cell_id, **more):
    """A cell of ten pixels around a place of the slide."""
    edges = {"bbox_x0": x - 5, "bbox_y0": y - 5, "bbox_x1": x + 5, "bbox_y1": y + 5}
    ring = [(x - 5, y - 5), (x + 5, y - 5), (x + 5, y + 5), (x - 5, y + 5), (x - 5, y - 5)]
    outline = struct.pack("<BIII10d", 1, 3, 1, 5, *(value for point in ring for value in point))
    return fake.cell(
        cell_id, x=float(x), y=float(y), x_um=x / 4, y_um=y / 4, boundary=outline, **edges, **more
    )


def test_regions_and_corrections_count_in_every_score(tmp_path):
    """A row of ten cells, the first five positive: Tumor holds eight, Exclude two of these."""
    root = str(tmp_path)
    row = [placed(20 + 40 * i, 100, i, positive=i < 5, dab_od_mean=0.3 * (i < 5)) for i in range(10)]
    fake.commit(root, "s", row, tissue_mm2=0.5)
    fake.commit(root, "other", [fake.cell()], patient_id="P2")
    drawn = ("Tumor", 0, 0, 325, 200), ("Exclude", 0, 0, 85, 200)
    said = [(140, 100, "negative"), (180, 100, "not a cell"), (220, 100, "positive")]
    annotate(root, "s", *drawn, corrections=said)
    key = "WHERE slide_id = 's'"
    expected = {  # counted and positive cells
        "": (7, 2),  # ten, less two excluded and one that is none; 2 stays, 3 is negative now, 5 is positive
        "region := 'tumor'": (5, 2),
        "corrections := false": (8, 3),
        "region := 'Tumor', corrections := false": (6, 3),
        "{'size_thresh': 1000}": (2, 1),  # what a person called counts whatever its size
        "{'size_thresh': 1000}, corrections := false": (0, 0),
    }
    with connect(root) as connection:
        for given, counts in expected.items():
            for source in ("slide_indices", "slide_counts"):
                (found,) = rows(connection, f"SELECT n_called, n_positive FROM {source}({given}) {key}")
                assert tuple(found.values()) == counts, (source, given)
            strong = f"count(*), coalesce(count_if(positive), 0) FROM called_cells({given}) {key}"
            assert connection.execute(f"SELECT {strong}").fetchall() == [counts]
        assert rows(connection, f"SELECT n_called, n_positive FROM slide_indices {key}")[0]["n_called"] == 7
        (found,) = rows(connection, f"FROM slide_h_scores(region := 'Tumor') {key}")
        assert (found["n_called"], found["percent_1"], found["h_score"]) == (5, 40, 40)
        (other,) = rows(connection, "FROM slide_indices(region := 'Tumor') WHERE slide_id = 'other'")
        assert (other["n_called"], other["index_percent"]) == (None, None)
        assert "no region 'Tumor'" in other["notes"]
        (density,) = rows(connection, f"FROM slide_densities() {key}")
        assert density["positive_density_per_mm2"] is None  # tissue less what is excluded was not measured
    for given in ({}, {"region": "tumor"}, {"corrections": False}):
        text = ", ".join(f"{name} := {value!r}" for name, value in given.items())
        frame = scan_cells(
            root, slides="s", called=True, columns=["cell_id", "positive", "strength"], **given
        )
        with connect(root) as connection:
            query = f"SELECT cell_id, positive, strength FROM called_cells({text}) {key} ORDER BY ALL"
            assert sorted(frame.collect().rows()) == connection.execute(query).fetchall()


def test_pd_l1_by_hand(tmp_path):
    root = str(tmp_path)
    row = [placed(10 + i, 100, i, positive=i % 4 == 0) for i in range(400)]
    fake.commit(root, "s", row, marker="PDL1")
    annotate(root, "s", ("Tumor", 0, 0, 210, 200), ("Immune cells", 210, 0, 1000, 200))
    with connect(root) as connection:
        (found,) = rows(connection, "FROM pd_l1_scores()")
        assert (found["n_tumour"], found["n_tumour_positive"], found["n_immune_positive"]) == (200, 50, 50)
        assert (found["tps_percent"], found["cps"], found["reason"]) == (25, 50, None)
        (found,) = rows(connection, "FROM pd_l1_scores(least := 201)")
        assert (found["tps_percent"], found["reason"]) == (None, "too few tumour cells (200 of 201)")
        (found,) = rows(connection, "FROM pd_l1_scores(immune := 'Lymphocytes')")
        assert (found["tps_percent"], found["cps"]) == (25, None)


@pytest.mark.parametrize(("stained", "pattern"), [(0.3, "null_candidate"), (0.0, "unknown")])
def test_p53_is_absent_only_beside_controls_that_stain(tmp_path, stained, pattern):
    """Controls are not taken for cells of the tumour: ten of two hundred would make it look normal."""
    root = str(tmp_path)
    row = [placed(10 + i, 100, i, dab_od_mean=stained if i >= 200 else 0.0) for i in range(210)]
    fake.commit(root, "s", row, marker="TP53")
    annotate(root, "s", ("Control", 210, 0, 1000, 200))
    with connect(root) as connection:
        (found,) = rows(connection, "FROM tp53_patterns()")
    assert (found["n_called"], found["stained_percent"], found["n_controls"]) == (200, 0, 10)
    assert found["pattern"] == pattern
    assert (found["reason"] is None) == (pattern != "unknown")


def test_ki67_global_by_hand(tmp_path):
    """Ten fields of 100 cells: six with 0 positive, three with 20, one with 60; and one that is too small."""
    positives = [0, 0, 0, 20, 20, 20, 60, 0, 0, 0]
    field = [
        cell
        for number, positive in enumerate(positives)
        for cell in cells(
            100, positive, first=100 * number, x_um=500.0 * (number % 4) + 1, y_um=500.0 * (number // 4)
        )
    ]
    field += cells(99, 99, first=1000, x_um=5000.0, y_um=0.0)
    fake.commit(str(tmp_path), "s", field)
    with connect(tmp_path) as connection:
        (four,) = rows(connection, "FROM ki67_global()")
        (whole,) = rows(connection, "FROM ki67_global(n_fields := NULL)")
        fields = rows(connection, "FROM ki67_fields()")
        (two,) = rows(connection, "FROM ki67_global(n_fields := 2)")
        with pytest.raises(duckdb.Error, match="no slide has a region of class 'Tumor'"):
            rows(connection, "FROM ki67_global(region := 'Tumor')")
        with pytest.raises(duckdb.Error, match="percentages that rise"):
            rows(connection, "FROM ki67_global(kinds := [30, 10, 1])")
    # negligible 60 %, medium 30 %, high 10 % of the area: one field each, the fourth to the negligible ones
    sampled = [row["kind"] for row in fields if row["is_sampled"]]
    assert Counter(sampled) == {"negligible": 2, "medium": 1, "high": 1}
    assert (four["n_fields"], four["n_called"]) == (4, 400)
    assert four["unweighted_percent"] == pytest.approx((0 + 0 + 20 + 60) / 4)
    assert four["weighted_percent"] == pytest.approx(0.6 * 0 + 0.3 * 20 + 0.1 * 60)
    assert (four["pooled_percent"], four["category"]) == (20, "intermediate")
    assert whole["unweighted_percent"] == pytest.approx(12) and whole["n_fields"] == 10
    assert {row["kind"] for row in fields if row["is_sampled"]} >= {"negligible", "medium"} and two[
        "n_fields"
    ] == 2


def test_counts_of_blocks_in_records_are_those_of_the_cells(tmp_path):
    spread = [
        fake.cell(i, positive=i % 3 == 0, area_px=20 + i % 40, x_um=37.0 * i, y_um=499.99 * (i % 5))
        for i in range(200)
    ]
    fake.commit(str(tmp_path), "s", spread)
    with connect(tmp_path) as connection:
        recorded = connection.execute("FROM slide_blocks()").fetchall()
        assert recorded == connection.execute("FROM slide_blocks({'size_thresh': 30})").fetchall()
        assert recorded[0][1] > 5


BAD = {
    "{'weak': 0.5}": "out of order",
    "{'weak': 0.3, 'moderate': 0.2}": "out of order",
    "{'size_thresh': 50, 'size_thresh_upper': 40}": "out of order",
    "{'od_thresh_lower': 2, 'od_thresh_upper': 1}": "out of order",
    "{'size_thresh': -1}": "not negative",
    "{'size_tresh': 5}": "unknown cut-offs",
    "{'weak': 'dark'}": "are numbers",
    "{'weak': 'nan'}": "are numbers",
    "{'size_thresh': 'inf'}": "are numbers",
    "5": "cutoffs are values",
    "[1]": "cutoffs are values",
    "'nobody'": "no set of cut-offs 'nobody'",
}


@pytest.mark.parametrize("given_ones", BAD)
def test_cutoffs_that_make_no_sense_are_refused(cohort, given_ones):
    for name in ("called_cells", "slide_indices", "patient_h_scores", "hans"):
        with pytest.raises(duckdb.Error, match=BAD[given_ones]):
            rows(cohort, f"FROM {name}(cutoffs := {given_ones})")


def test_a_region_that_nobody_drew_is_refused(cohort):
    for name in ("called_cells", "slide_indices", "patient_h_scores", "slide_densities"):
        with pytest.raises(duckdb.Error, match=r"no slide has a region of class 'Tumor'; there are none"):
            rows(cohort, f"FROM {name}(region := 'Tumor')")


strengths = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]), min_size=1, max_size=40)


@given(strengths, st.lists(st.sampled_from([0.05, 0.2, 0.35, 0.6]), min_size=3, max_size=3).map(sorted))
@settings(max_examples=40, deadline=None)
def test_strengths_are_those_of_plain_python(cohort, drawn, limits):
    weak, moderate, strong = limits
    listed = ", ".join(f"({value})" for value in drawn)
    found = cohort.sql(
        f"SELECT strength_of(v, {weak}, {moderate}, {strong}) FROM (VALUES {listed}) AS t(v)"
    ).fetchall()
    assert [n for (n,) in found] == [sum(value >= limit for limit in limits) for value in drawn]
    assert not any(math.isnan(n) for (n,) in found)


@pytest.mark.slow
def test_types_do_not_depend_on_what_people_said(tmp_path):
    # A sum of a larger type is a decimal in Arrow and Python, and text where JSON cannot hold it.
    root = str(tmp_path)
    fake.commit(root, "s", [placed(20 + 15 * n, 30, n, positive=n % 3 == 0) for n in range(12)])
    views = [
        *(
            "called_cells",
            "slide_counts",
            "slide_indices",
            "patient_counts",
            "patient_indices",
            "slide_quality",
        ),
        *(
            "slide_h_scores()",
            "patient_h_scores()",
            "slide_allred()",
            "patient_allred()",
            "slide_densities()",
        ),
        *("patient_densities()", "ki67_global()", "ki67_fields()", "tp53_patterns()", "er_pr_status()"),
        *("slide_indices(cutoffs := {size_thresh: 60})", "patient_indices(cutoffs := {size_thresh: 60})"),
    ]

    def types():
        with connect(root) as connection:
            return {view: connection.execute(f"DESCRIBE FROM {view}").fetchall() for view in views}

    before = types()
    annotate(root, "s", ("Exclude", 0, 0, 60, 60))
    assert types() == before
    annotate(root, "s", ("Tumor", 0, 0, 60, 60), corrections=[(65, 30, "positive")])
    assert types() == before
