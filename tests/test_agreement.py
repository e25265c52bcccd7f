"""Agreement of results: between slides of a patient, with other results, with a reader; and the command."""

import json
import sys

import numpy as np
import pyarrow.csv
import pytest

from deepliif_ray import cli
from deepliif_ray.agreement import agreement
from deepliif_ray.errors import ConfigError
from deepliif_ray.query import ask_all
from deepliif_ray.reader_table import with_reader
from deepliif_ray.scoring.agreement import bland_altman, concordance, icc_a1
from deepliif_ray.scoring.kappa import categories, weighted_kappa
from deepliif_ray.scoring.markers import builtin
from tests.query import fake_results as fake

# Percent positive of each slide, of 20 cells.
KI67 = {"P1": (5, 10), "P2": (20, 25), "P'3": (60, 45), "P4 é": (80, 85), "P5": (35, 30)}


def commit(root, slide, percent, patient, marker="Ki67", **more):
    cells = [fake.cell(i, positive=i < percent / 5) for i in range(20)] if percent is not None else []
    fake.commit(root, slide, cells, patient_id=patient, marker=marker, **more)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("agreement") / "results")
    for patient, percents in KI67.items():
        for number, percent in enumerate(percents):
            commit(root, f"{patient}-{number}", percent, patient)
    commit(root, "one", 5, "P6")
    for number in range(3):
        commit(root, f"three-{number}", 5 * number, "P7")
    commit(root, "empty", None, "P8")
    commit(root, "full", 50, "P8")
    for patient, percent in (("P1", 40), ("P2", 50)):
        commit(root, f"{patient}-cd3", percent, patient, marker="CD3")
    return root


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("agreement") / "other")
    for patient, percents in KI67.items():
        commit(root, f"{patient}-0", percents[0] + 5, patient)
    commit(root, "P1-1", 50, "P1", marker="CD8")
    commit(root, "new", 50, "P9")
    commit(root, "empty", 50, "P8")
    return root


def figures(pairs):
    one, two = np.transpose(pairs).astype(float)
    icc, ccc, limits = icc_a1(np.transpose([one, two])), concordance(one, two), bland_altman(one, two)
    kappa = weighted_kappa(*(categories(side, (5, 30), (True, False)) for side in (one, two)), 3)
    return {
        "n": len(pairs), "k": 2,
        "icc": icc.icc, "icc_lower": icc.lower, "icc_upper": icc.upper,
        "ccc": ccc.ccc, "ccc_lower": ccc.lower, "ccc_upper": ccc.upper,
        "bias_percent": limits.bias, "bias_lower_percent": limits.bias_lower,
        "bias_upper_percent": limits.bias_upper,
        "limit_lower_percent": limits.limit_lower, "limit_upper_percent": limits.limit_upper,
        "kappa": kappa.kappa,
        "kappa_lower": None if np.isnan(kappa.lower) else kappa.lower,
        "kappa_upper": None if np.isnan(kappa.upper) else kappa.upper,
    }  # fmt: skip


def of_marker(found, marker="Ki67"):
    (row,) = [row for row in found.table.to_pylist() if row["marker"] == marker]
    return row


def left(found):
    return {(one.marker, one.name): one.why for one in found.left_out}


def test_slides_of_a_patient(results):
    found = agreement(results)
    assert of_marker(found) == pytest.approx({"marker": "Ki67", **figures(list(KI67.values()))})
    assert left(found) == {
        ("Ki67", "P6"): "a patient with 1 slide with an index where 2 are compared",
        ("Ki67", "P7"): "a patient with 3 slides with an index where 2 are compared",
        ("Ki67", "P8"): "a patient with 1 slide with an index where 2 are compared",
        ("Ki67", "empty"): "a slide without an index",
        ("CD3", "P1"): "a patient with 1 slide with an index where 2 are compared",
        ("CD3", "P2"): "a patient with 1 slide with an index where 2 are compared",
    }
    assert {k: v for k, v in of_marker(found, "CD3").items() if v is not None} == {
        "marker": "CD3",
        "n": 0,
        "k": 2,
    }
    assert found.notes == ["CD3: nothing to compare"]
    named = {row["name"]: tuple(row["indices_percent"]) for row in found.pairs.to_pylist()}
    assert named == KI67


def test_three_slides_of_a_patient(tmp_path):
    rows = [(10, 15, 20), (40, 45, 35), (80, 70, 75)]
    for patient, percents in enumerate(rows):
        for number, percent in enumerate(percents):
            commit(str(tmp_path), f"{patient}-{number}", percent, f"P{patient}")
    row = of_marker(agreement(str(tmp_path), per_patient=3))
    assert row["icc"] == pytest.approx(icc_a1(rows).icc)
    assert row["k"] == 3 and row["ccc"] is None and row["kappa"] is None


def test_other_results(results, other):
    found = agreement(results, other=other, marker="MIB-1")
    assert of_marker(found) == pytest.approx(
        {"marker": "Ki67", **figures([(first, first + 5) for first, _ in KI67.values()])}
    )
    why = left(found)
    assert why["Ki67", "one"] == "a slide of these results alone"
    assert why["Ki67", "new"] == "a slide of the other results alone"
    assert why["Ki67", "empty"] == "a slide without an index in these or the other results"
    everything = left(agreement(results, other=other))
    assert everything["Ki67", "P1-1"] == "a slide of marker CD8 in the other results"


def write(tmp_path, text, name="reader.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_reader_by_slide(results, tmp_path):
    values = {"P1-0": 4, "P2-0": 22.5, "P'3-0": 50, "P4 é-0": 90, "P5-0": 31}
    rows = "".join(f"{slide};{value}\n" for slide, value in values.items())
    found = agreement(
        results, reader=write(tmp_path, f"slide_id;index_percent\n{rows}P1-1;NA\nempty;3\nnobody;3\n")
    )
    expected = [(KI67[slide[:-2]][0], value) for slide, value in values.items()]
    assert of_marker(found) == pytest.approx({"marker": "Ki67", **figures(expected)})
    why = left(found)
    assert why["Ki67", "P1-1"] == "the reader gives no value"
    assert why["Ki67", "empty"] == "no index in these results"
    assert why[None, "nobody"] == "a slide of the reader that these results do not have"
    assert why["Ki67", "P2-1"] == why["CD3", "P1-cd3"] == "not in the reader's table"


def test_a_reader_by_patient(results, tmp_path):
    table = "patient_id,marker,index_percent\nP1,MIB-1,8\nP1,CD3,45\nP2,Ki-67,20\nP'3,Ki67,55\nP6,,5\n"
    found = agreement(results, reader=write(tmp_path, table))
    assert of_marker(found)["n"] == 4  # P6 has one marker, so that none need be said
    assert of_marker(found)["bias_percent"] == pytest.approx(np.mean([7.5 - 8, 22.5 - 20, 52.5 - 55, 0]))
    assert of_marker(found, "CD3")["n"] == 1
    assert [note for note in found.notes if note.startswith("CD3: no ICC, concordance and limits")]
    assert "CD3: no kappa: no ranges of this marker's index have a name; give cut-offs" in found.notes
    only = agreement(results, reader=write(tmp_path, table), marker="CD3")
    assert only.table["marker"].to_pylist() == ["CD3"] and only.table["n"].to_pylist() == [1]


@pytest.fixture(scope="module")
def indices(results):
    """What a reader's table is held against, asked once."""
    found = ask_all(results, {name: f"FROM {name}_indices" for name in ("slide", "patient")})
    return found["slide"].to_pylist(), found["patient"].to_pylist(), builtin()


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("slide_id,index_percent\nP1-0,12%\n", "row 2: index_percent '12%' is no number"),
        ("slide_id,index_percent\nP1-0,low\n", "row 2: index_percent 'low' is no number"),
        ('slide_id,index_percent\nP1-0,"12,5"\n', "row 2: index_percent '12,5' is no number"),
        ("slide_id,index_percent\nP1-0,1_0\n", "row 2: index_percent '1_0' is no number"),
        ("slide_id,index_percent\nP1-0,inf\n", "row 2: index_percent 'inf' is no number"),
        ("slide_id,index_percent\nP1-0,100.1\n", "row 2: index_percent 100.1 is no percentage"),
        ("slide_id,index_percent\nP1-0,-1\n", "row 2: index_percent -1 is no percentage"),
        ("slide_id,index_percent\nP1-0,1\nP1-0,1\n", "row 3: 'P1-0' was read in row 2 already"),
        ("slide_id,index_percent\nx,1\nx,1\n", "row 3: 'x' was read in row 2 already"),
        ("slide_id,index_percent\n-,1\n", "row 2: slide_id is '-'"),
        (
            "slide_id,marker,index_percent\nP1-0,CD3,1\n",
            "slide_id 'P1-0' is of Ki67 in these results, not of CD3",
        ),
        ("slide_id,patient_id,index_percent\nP1-0,P2,1\n", "slide 'P1-0' is of patient 'P1'"),
        ("slide_id,marker,index_percent\nP1-0,H&E,1\n", "shows no marker"),
        ("patient_id,index_percent\nP1,1\n", "patient 'P1' has slides of CD3, Ki67"),
        ("patient_id,marker,index_percent\nP1,Ki67,1\nP1,MIB1,2\n", "row 3: 'P1' was read in row 2"),
        ("slide_id,index_percent\nnobody,1\n", "none of its 1 rows names a slide"),
        ("slide_id,index_percent\n", "none of its 0 rows"),
        ("slide_id,value\nP1-0,1\n", "no column index_percent; its columns are slide_id, value"),
        ("slide,index_percent\nP1-0,1\n", "no column slide_id or patient_id"),
        ("slide_id,index_percent,index_percent\nP1-0,1,2\n", "'index_percent' is there more than once"),
        ("", "cannot be read as a reader's table: the file is empty"),
        ("PK\x03\x04", "ZIP archive"),
    ],
)
def test_a_reader_that_cannot_be_used(indices, tmp_path, table, why):
    with pytest.raises(ConfigError) as error:
        with_reader(write(tmp_path, table), *indices)
    assert why in str(error.value) and "reader.csv" in str(error.value)


def test_every_bad_row_is_named(indices, tmp_path):
    rows = "".join(f"P{number},101\n" for number in range(80))
    with pytest.raises(ConfigError, match="80 problems") as error:
        with_reader(write(tmp_path, f"slide_id,index_percent\n{rows}"), *indices)
    assert (
        "row 51" in str(error.value)
        and "row 52" not in str(error.value)
        and "and 30 more" in str(error.value)
    )


def test_shares_that_look_like_percent_are_told(results, tmp_path):
    table = "slide_id,index_percent\n" + "".join(f"{p}-0,{v[0] / 100}\n" for p, v in KI67.items())
    (note,) = [n for n in agreement(results, reader=write(tmp_path, table)).notes if "above 1" in n]
    assert note.startswith("warning:")


def test_copies_and_leftovers_are_told(tmp_path):
    for patient, percent in enumerate((10, 40, 80)):
        for number in range(2):
            commit(str(tmp_path), f"{patient}-{number}", percent, f"P{patient}", slide_version="1",
                   slide_fingerprint=f"s{patient}")  # fmt: skip
    found = agreement(str(tmp_path))
    assert of_marker(found)["icc"] == 1
    (note,) = found.notes
    assert "0-0, 0-1, 1-0" in note and "same content" in note


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"other": "x", "reader": "y"}, "one at a time"),
        ({"per_patient": 1}, "2 or more"),
        ({"per_patient": 3, "other": "x"}, "of one patient alone"),
        ({"cutoffs": ()}, "no categories"),
        ({"cutoffs": (30, 5)}, "ascend"),
        ({"cutoffs": (0, 5)}, "between 0 and 100"),
        ({"cutoffs": (5, 300)}, "between 0 and 100"),
        ({"weights": "cubic"}, "cubic"),
        ({"marker": "HER2"}, "no slides of marker 'HER2'"),
    ],
)
def test_options_that_contradict(results, options, why):
    with pytest.raises(ConfigError, match=why):
        agreement(results, **options)
    with pytest.raises(ConfigError, match="agree with themselves"):
        agreement(results, other=results + "/")


def run(*arguments):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["deepliif-ray", *map(str, arguments)])
        cli.main()
    return exit_.value.code or 0


def test_the_command(results, other, tmp_path, capsys):
    assert run("agreement", results) == 0
    said = capsys.readouterr()
    assert max(map(len, said.out.splitlines())) <= 80
    assert said.out.splitlines()[0].split() == ["marker", "n", "ICC", "CCC", "bias", "limits", "kappa"]
    assert "Ki67: 1 left out, a patient with 3 slides with an index where 2 are compared: P7" in said.err
    everything = tmp_path / "all.csv"
    assert run("agreement", results, "--other", other, "--marker", "Ki67", "--output", everything) == 0
    (row,) = pyarrow.csv.read_csv(everything).to_pylist()
    assert row == pytest.approx(of_marker(agreement(results, other=other, marker="Ki67")))
    capsys.readouterr()
    assert (
        run("agreement", results, "--weights", "quadratic", "--cutoffs", "10,20,50", "--format", "json") == 0
    )
    kappa = {row["marker"]: row["kappa"] for row in json.loads(capsys.readouterr().out)}["Ki67"]
    one, two = (categories(side, (10, 20, 50)) for side in np.transpose(list(KI67.values())))
    assert kappa == pytest.approx(weighted_kappa(one, two, 4, "quadratic").kappa)
    assert run("agreement", results, "--cutoffs", "a") == 2
    assert "'a' are no numbers" in capsys.readouterr().err
    assert run("agreement", results, "--reader", tmp_path / "none.csv") == 2
    assert "none.csv" in capsys.readouterr().err
