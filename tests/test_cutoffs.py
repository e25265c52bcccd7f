"""Cut-offs of a cohort's own: proposed from measurements, kept with a name, refused if they make no sense."""

import json
from pathlib import Path

import pytest

from deepliif_ray.cli.common import _guarded, app
from deepliif_ray.cutoffs import propose_cutoffs
from deepliif_ray.errors import ConfigError, QueryError, ResultsError
from deepliif_ray.query import connect
from deepliif_ray.tables.cutoffs import read_cutoffs, write_cutoffs
from tests.query import fake_results as fake

ROW = {"marker": "ER", "weak": 0.1, "moderate": 0.2, "strong": 0.3}


@pytest.fixture
def root(tmp_path):
    """ER on two sites, 0.01 to 1.00 and twice that; a control, 0.001 to 0.100; and one slide of PR."""
    root = str(tmp_path / "results")

    def ramp(slide, step, site, marker="ER"):
        cells = [fake.cell(i, dab_od_mean=step * (i + 1)) for i in range(100)]
        fake.commit(root, slide, cells, marker=marker, patient_id=slide, attributes=[("site", site)])

    ramp("a", 0.01, "A")
    ramp("b", 0.02, "B")
    ramp("none", 0.001, "A")
    ramp("pr", 0.01, "A", marker="PR")
    return root


def test_quantiles_of_all_cells(root):
    found = propose_cutoffs(root, marker="ER", by="site", quantiles=(0.5, 0.5, 0.9)).table.to_pylist()
    assert [(row["site"], row["slides"], row["cells"]) for row in found] == [("A", 2, 200), ("B", 1, 100)]
    assert (found[1]["p50"], found[1]["weak"], found[1]["moderate"]) == pytest.approx((1.01, 1.01, 1.01))
    assert found[1]["strong"] == pytest.approx(0.02 * 90.1)


def test_controls_tell_what_is_not_stained(root):
    proposal = propose_cutoffs(root, marker="ER", controls=["none"], save="own", author="me")
    (row,) = proposal.table.to_pylist()
    assert row["weak"] == pytest.approx(0.09901)  # where 99 % of the control lie below
    assert 0.09901 < row["moderate"] < row["strong"] and row["slides"] == 2
    (kept,) = read_cutoffs(root)
    assert (kept["name"], kept["author"], kept["marker"]) == ("own", "me", "ER")
    assert json.loads(Path(proposal.url).read_text())["controls"] == ["none"]
    with connect(root) as connection:
        said = "SELECT DISTINCT intensity_cutoffs FROM slide_h_scores(cutoffs := 'own') WHERE marker = 'ER'"
        assert connection.execute(said).fetchall() == [(f"own: 0.099, {kept['moderate']}, {kept['strong']}",)]
        query = "SELECT h_score FROM slide_h_scores('own') WHERE slide_id = 'none'"
        assert connection.execute(query).fetchall()[0][0] < 5


def test_cutoffs_of_a_site_hold_for_it(root):
    propose_cutoffs(root, marker="ER", by="site", save="sites", author="me")
    with connect(root) as connection:
        weak = "SELECT slide_id, weak FROM slide_cutoffs('sites') ORDER BY 1"
        found = dict(connection.execute(weak).fetchall())
    assert found["b"] == pytest.approx(1.01) and found["a"] == found["none"] < 0.6 and found["pr"] is None


WRONG = {
    "unknown": {"weka": 0.1},
    "no value": {"marker": "ER"},
    "come together and rise": {"weak": 0.1, "moderate": 0.2},
    "and rise": ROW | {"moderate": 0.05},
    "is a number": {"size_thresh": "50"},
    "attribute and value": ROW | {"attribute": "site"},
    "size_thresh is below": {"size_thresh": 9, "size_thresh_upper": 9},
    "not negative": {"size_thresh": -1},
}


@pytest.mark.parametrize("problem", WRONG)
def test_rows_that_make_no_sense_are_refused_written_and_read(tmp_path, problem):
    root = str(tmp_path)
    with pytest.raises(ConfigError, match=problem):
        write_cutoffs(root, "own", [WRONG[problem]], author="a", note="n")
    assert read_cutoffs(root) == []
    (tmp_path / "_cutoffs").mkdir()
    document = {"name": "own", "rows": [WRONG[problem]]}
    (tmp_path / "_cutoffs" / "own.json").write_text(json.dumps(document))
    with pytest.raises(ResultsError, match=problem):
        read_cutoffs(root)


@pytest.mark.parametrize("name", ["QuPath", "qupath", "", "a b", "../x", "x" * 61, "-x"])
def test_names(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot name a set"):
        write_cutoffs(str(tmp_path), name, [ROW], author="a", note="n")


def test_a_name_is_taken_once(tmp_path):
    root = str(tmp_path)
    write_cutoffs(root, "own", [ROW], author="a", note="n")
    with pytest.raises(ConfigError, match="there is a set of this name"):
        write_cutoffs(root, "own", [ROW | {"weak": 0.05}], author="a", note="n")
    write_cutoffs(root, "own", [ROW | {"weak": 0.05}], author="a", note="n", overwrite=True)
    assert read_cutoffs(root)[0]["weak"] == 0.05


def test_what_is_not_there_is_named(root):
    for options, problem in (
        ({"controls": ["nobody"]}, "no slide nobody"),
        ({"by": "lab"}, "no slide has a column 'lab'; there are site"),
        ({"marker": "CD3"}, "no counted cell of CD3"),
        ({"controls": ["none"], "save": "own"}, "no cut-offs for PR"),
    ):
        with pytest.raises(QueryError, match=problem):
            propose_cutoffs(root, **options)
    with pytest.raises(ConfigError, match="that rise"):
        propose_cutoffs(root, quantiles=(0.9, 0.5, 0.7))
    assert read_cutoffs(root) == []


def test_the_command(root, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["deepliif-ray", "cutoffs", root, "--marker", "er", "--save", "own"])
    with pytest.raises(SystemExit) as ended:
        _guarded(app)
    assert ended.value.code in (0, None)
    said = capsys.readouterr()
    assert "ER" in said.out and "cutoffs := 'own'" in said.err and "quantiles 0.5, 0.75, 0.9" in said.err
