"""Scores by the stain where a marker has it, against cases computed by hand."""

import struct

import pytest

from deepliif_ray.annotations.corrections import import_corrections
from deepliif_ray.errors import QueryError
from deepliif_ray.query import ask, connect
from tests.query import fake_results as fake


def cell(number, nucleus, rim, cytoplasm=0.0, rim_px=80):
    return fake.cell(
        number,
        dab_od_mean=nucleus,
        rim_px=rim_px,
        rim_dab_od_mean=rim,
        rim_stained_percent=50.0,
        cytoplasm_px=200,
        cytoplasm_dab_od_mean=cytoplasm,
    )


def placed(x, y):
    """Where a cell of ten pixels lies that has its centre at a place of the slide."""
    ring = [(x - 5, y - 5), (x + 5, y - 5), (x + 5, y + 5), (x - 5, y + 5), (x - 5, y - 5)]
    return {
        "x": float(x), "y": float(y), "bbox_x0": x - 5, "bbox_y0": y - 5, "bbox_x1": x + 5, "bbox_y1": y + 5,
        "boundary": struct.pack("<BIII10d", 1, 3, 1, 5, *(value for point in ring for value in point)),
    }  # fmt: skip


# nucleus pale, membrane of 0, 1+, 2+, 3+, edges inclusive; and one cell without a rim
MEMBRANES = [cell(i, 0.05, rim, 0.45) for i, rim in enumerate([0.19, 0.2, 0.4, 0.6])]
MEMBRANES.append(cell(4, 0.05, None, rim_px=0))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("compartments"))
    fake.commit(root, "her2", MEMBRANES, marker="HER2")
    fake.commit(root, "ki67", [cell(0, 0.5, 0.1), cell(1, 0.1, 0.9)], marker="Ki67")
    fake.commit(root, "s100", [cell(0, 0.1, 0.3), cell(1, 0.7, 0.3), cell(2, 0.1, 0.1)], marker="S100")
    fake.commit(root, "own", [cell(0, 0.5, 0.1)], marker="NOBODYKNOWS")
    fake.commit(root, "before", [fake.cell(0, dab_od_mean=0.5)], marker="HER2")  # as older versions wrote it
    fake.commit(root, "older", [fake.cell(0, dab_od_mean=0.5)], marker="S100")
    return root


@pytest.fixture(scope="module")
def connection(root):
    with connect(root) as connection:
        yield connection


def strengths(connection, slide, arguments=""):
    query = (
        f"SELECT compartment, list(stain_strength ORDER BY cell_id) FROM stained_cells({arguments}) "
        f"WHERE slide_id = '{slide}' GROUP BY compartment"
    )
    (row,) = connection.execute(query).fetchall()
    return row


def test_where_is_looked_follows_from_the_markers_localisation(connection):
    assert strengths(connection, "her2") == ("rim", [0, 1, 2, 3, None])
    assert strengths(connection, "ki67") == ("nucleus", [2, 0])
    assert strengths(connection, "s100") == ("nucleus or rim", [1, 3, 0])
    assert strengths(connection, "own") == ("nucleus", [2])


def test_another_compartment_may_be_asked_for(connection):
    assert strengths(connection, "ki67", "compartment := 'rim'") == ("rim", [0, 3])
    assert strengths(connection, "her2", "compartment := 'nucleus'") == ("nucleus", [0, 0, 0, 0, 0])
    found = strengths(connection, "her2", "compartment := 'cytoplasm'")
    assert found == ("cytoplasm", [2, 2, 2, 2, 0])
    found = strengths(connection, "her2", "compartment := 'nucleus or rim'")
    assert found == ("nucleus or rim", [0, 1, 2, 3, 0])


def test_what_was_not_measured_is_null(connection):
    assert strengths(connection, "before") == ("rim", [None])
    assert strengths(connection, "older") == ("nucleus or rim", [None])
    assert strengths(connection, "before", "compartment := 'nucleus'") == ("nucleus", [2])


def test_cutoffs_are_those_of_the_scores(connection):
    cutoffs = "cutoffs := {'weak': 0.1, 'moderate': 0.15, 'strong': 0.5}"
    assert strengths(connection, "her2", cutoffs) == ("rim", [2, 2, 2, 3, None])


def test_scores_of_slides(connection):
    columns = "slide_id, compartment, n_called, n_measured, stained_percent, percent_1, percent_3, h_score"
    query = f"SELECT {columns} FROM slide_stain_scores() WHERE marker = 'HER2' ORDER BY slide_id"
    assert connection.execute(query).fetchall() == [
        ("before", "rim", 1, 0, None, None, None, None),
        ("her2", "rim", 5, 4, 75.0, 25.0, 25.0, 150.0),
    ]
    notes = dict(connection.execute("SELECT slide_id, notes FROM slide_stain_scores()").fetchall())
    assert "the rim was not measured by the version that scored the slide" in notes["before"]
    assert "not measured" not in notes["her2"] and "too few cells" in notes["her2"]


def test_scores_of_patients_pool_their_slides(tmp_path):
    root = str(tmp_path / "results")
    fake.commit(root, "a", [cell(0, 0.05, 0.1), cell(1, 0.05, 0.7)], patient_id="P", marker="HER2")
    fake.commit(root, "b", [cell(0, 0.05, 0.3), cell(1, 0.05, 0.7)], patient_id="P", marker="HER2")
    fake.commit(root, "c", [], patient_id="P", marker="HER2")
    fake.commit(root, "d", [cell(0, 0.05, 0.5)], patient_id="Q", marker="HER2")
    fake.commit(root, "e", [fake.cell(0, dab_od_mean=0.5)], patient_id="Q", marker="HER2")
    with connect(root) as connection:
        columns = (
            "patient_id, compartment, n_slides, n_called, n_measured, stained_percent, percent_3, h_score"
        )
        query = f"SELECT {columns} FROM patient_stain_scores()"
        assert connection.execute(query).fetchall() == [
            ("P", "rim", 3, 4, 4, 75.0, 50.0, 175.0),
            ("Q", "rim", 2, None, None, None, None, None),
        ]
        notes = dict(connection.execute("SELECT patient_id, notes FROM patient_stain_scores()").fetchall())
        assert "the rim was not measured by the version that scored 1 of its slides" in notes["Q"]
        query = "SELECT patient_id, h_score FROM {} ORDER BY patient_id"
        nuclei = connection.sql(query.format("patient_stain_scores(compartment := 'nucleus')")).fetchall()
        assert nuclei == connection.sql(query.format("patient_h_scores()")).fetchall()


def test_of_nuclei_they_are_the_h_scores(connection):
    query = "SELECT slide_id, h_score FROM {} ORDER BY slide_id"
    expected = connection.sql(query.format("slide_h_scores()")).fetchall()
    assert connection.sql(query.format("slide_stain_scores(compartment := 'nucleus')")).fetchall() == expected
    assert len(expected) == 6 and None not in dict(expected).values()


def test_the_default_index_stays_what_it_is(connection):
    """Calls are on nuclei; what is measured around them changes none."""
    query = "SELECT slide_id, n_called, n_positive FROM slide_indices ORDER BY slide_id"
    assert connection.execute(query).fetchall()[2] == ("ki67", 2, 0)


def test_an_unknown_compartment_is_refused(root):
    for macro in ("stained_cells", "slide_stain_scores"):
        with pytest.raises(QueryError, match=r"compartment is 'nucleus'.* not 'membrane'"):
            ask(root, f"FROM {macro}(compartment := 'membrane')")


def test_the_sandbox_has_them(root):
    query = "SELECT count(*) AS n FROM stained_cells() WHERE compartment = 'rim'"
    assert ask(root, query, sandbox=True).to_pylist() == [{"n": 6}]


def test_corrections_count(tmp_path):
    root = str(tmp_path / "results")
    cells = [cell(i, 0.05, rim) | placed(100 * i + 20, 20) for i, rim in enumerate([0.1, 0.7, 0.3])]
    fake.commit(root, "s", cells, marker="HER2")
    table = tmp_path / "said.csv"
    table.write_text("slide_id,x,y,call\ns,20,20,positive\ns,120,20,negative\n")
    import_corrections(root, [str(table)])
    with connect(root) as connection:
        assert strengths(connection, "s") == ("rim", [1, 0, 1])
        assert strengths(connection, "s", "corrections := false") == ("rim", [0, 3, 1])
