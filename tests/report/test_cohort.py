"""Every number of a report is what SQL gives, what is unknown says why, and nothing in it can run or load."""

import json
import re
import shutil
from itertools import pairwise

import pytest

from deepliif_ray import storage
from deepliif_ray.annotations.corrections import import_corrections
from deepliif_ray.annotations.regions import import_regions
from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.exports.cells import Calls
from deepliif_ray.query import connect, scored
from deepliif_ray.report import page
from deepliif_ray.report.choice import Choice
from deepliif_ray.report.cohort import write_report
from deepliif_ray.report.quality import MEASURES
from deepliif_ray.tables.cutoffs import write_cutoffs
from tests.annotations.files import box, feature, write
from tests.query import fake_results as fake
from tests.report.cohorts import HOSTILE, NO_PICTURES, NOW, commit, report, write_cohort


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("results"))
    write_cohort(root)
    values = {"size_thresh": 130, "marker_thresh": 100}
    write_cutoffs(root, "large", [values], author="A", note="none that is smaller")
    folder = tmp_path_factory.mktemp("regions")
    for slide in ("K03a", "C04"):
        path = write(folder, f"{slide}.geojson", [feature(box(0, 0, 400, 300), "Tumor")])
        import_regions(root, [path], slide=slide, read_slides=False)
    table = folder / "corrections.csv"
    table.write_text("slide_id,x,y,call\nK03a,20,20,negative\n")
    import_corrections(root, [str(table)])
    return root


@pytest.fixture(scope="module")
def read(root, tmp_path_factory):
    return report(root, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def sql(root):
    """Return a function that asks SQL of a user's own connection."""
    with connect(root) as connection:
        yield lambda query: connection.sql(query).to_arrow_table().to_pylist()


CALLS = {
    "published defaults": Calls(),
    "size_thresh = 125": Calls(cutoffs={"size_thresh": 125}),
    "set 'large'": Calls(cutoffs="large"),
    "class 'Tumor' only": Calls(region="Tumor"),
    "calls as measured": Calls(corrections=False),
}


QUICK = ("published defaults",)


@pytest.mark.parametrize(
    "said", [said if said in QUICK else pytest.param(said, marks=pytest.mark.slow) for said in CALLS]
)
def test_indices_are_those_of_sql(root, sql, read, tmp_path, said):
    calls = CALLS[said]
    shown_page = read if calls == Calls() else report(root, tmp_path, Choice(calls, pictures=0))
    told = shown_page.indices()
    assert said in json.dumps(shown_page.tiles) and (told == read.indices()) == (calls == Calls())
    source = scored(
        "patient_indices", cutoffs=calls.cutoffs, region=calls.region, corrections=calls.corrections
    )
    rows = sql(f"FROM {source}")
    assert len(rows) >= 25
    names = ("n_slides", "n_called", "n_positive", "index_percent", "ci_lower_percent", "ci_upper_percent")
    for row in rows:
        shown = told.pop((row["patient_id"], row["marker"]))
        assert {name: shown[name] for name in names} == {name: row[name] for name in names}
        assert shown["category"] == row["category"]
        assert (shown["unknown"] is None) == (row["index_percent"] is not None)
        assert ("too_few_cells" in shown["flags"]) == bool(row["too_few_cells"] and row["n_called"])
    assert list(told) == [("P-lost", "ER")] and told["P-lost", "ER"]["unknown"] == "failed: missing"


@pytest.mark.slow
def test_slides_without_the_region_are_named(root, tmp_path):
    of_region = report(root, tmp_path, Choice(Calls(region="tumor"), pictures=0)).indices()
    assert of_region["P01", "Ki67"]["unknown"] == "no region of class tumor"
    assert "no_region (1 of 2 slides)" in of_region["P03", "Ki67"]["flags"]


def figures(values, digits=1):
    """Return numbers as they are to be shown; Python rounds them here, and no case lies between two."""
    return ["unknown" if value is None else f"{value:,.{digits}f}" for value in values]


FLAGGED = {"CD3": "1", "ER": "0", "Ki67": "3"}  # P-out; P-few, P-he, and P00, of whom one slide failed


def test_the_table_of_markers(sql, read):
    rows = sql(
        "SELECT marker, count(*) AS patients, count(index_percent) AS known, "
        "count(*) FILTER (too_few_cells) AS few, sum(n_slides) AS slides, sum(n_called) AS cells, "
        "min(index_percent) AS a, quantile_cont(index_percent, 0.25) AS b, median(index_percent) AS c, "
        "quantile_cont(index_percent, 0.75) AS d, max(index_percent) AS e "
        "FROM patient_indices GROUP BY marker ORDER BY marker",
    )
    shown = read.tables["Patients' indices by marker, % of counted cells; known: patients with an index"][1:]
    assert len(rows) == len(shown) == 3
    for row, line in zip(rows, shown, strict=True):
        whole = [f"{row[name]:,}" for name in ("patients", "known", "few", "slides", "cells")]
        whole.insert(3, FLAGGED[row["marker"]])
        assert line == [row["marker"], *whole, *figures([row[name] for name in "abcde"])]


def test_distributions_and_categories(sql, read):
    for summary in read.data["summaries"]:
        rows = sql(
            f"SELECT index_percent AS i, category FROM patient_indices WHERE marker = '{summary['name']}'"
        )
        known = [row["i"] for row in rows if row["i"] is not None]
        for at, n in enumerate(summary["bins"]):
            assert n == sum(5 * at <= i < 5 * at + 5 or (at == 19 and i == 100) for i in known)
        for category in summary["categories"]:
            assert category["n_patients"] == sum(row["category"] == category["name"] for row in rows)
    assert sum(len(summary["categories"]) for summary in read.data["summaries"]) >= 6


def test_the_headline(sql, read):
    (row,) = sql(
        "SELECT (SELECT count(*) FROM slides) AS slides, (SELECT count(*) FROM failures) AS failed, "
        "(SELECT sum(n_called) FROM slide_indices) AS cells, "
        "(SELECT count(*) FROM (SELECT patient_id FROM slides UNION SELECT patient_id FROM failures)) "
        "AS patients, "
        "(SELECT count(index_percent) FROM patient_indices) AS known, "
        "(SELECT count(*) FROM slide_indices JOIN slide_quality USING (slide_id) JOIN slides "
        "USING (slide_id) WHERE len(flags) > 0 OR (too_few_cells AND slide_indices.n_called > 0) "
        "OR len(warnings) > 0) AS flagged",
    )
    tiles = {name: parts[0] for name, parts in read.tiles.items()}
    assert tiles["Patients"] == f"{row['patients']}" and tiles["Slides scored"] == f"{row['slides']}"
    assert tiles["Slides failed"] == f"{row['failed']}" == "2"
    assert tiles["Cells counted"] == f"{row['cells']:,}"
    assert tiles["Indices"] == f"{row['known']}" and "2 unknown" in read.tiles["Indices"][1]
    assert tiles["Slides with flags"] == f"{row['flagged']}"
    assert read.tiles["Made"] == ["2026-03-01 10:15:00 UTC"]


def test_flags_and_failures(sql, read):
    shown = {line[0].replace("\n", ""): line[2] for line in read.tables["Flags of scored slides"][1:]}
    rows = sql(
        "SELECT flag, count(*) AS n FROM (SELECT unnest(flags) AS flag FROM slide_quality) GROUP BY ALL"
    )
    assert len(rows) >= 3
    for row in rows:
        assert shown[row["flag"]] == str(row["n"])
    assert read.tables["Slides that failed, by reason"][1:] == [
        ["corrupt", "read", "1"],
        ["missing", "open", "1"],
    ]
    assert sorted(read.data["failures"]["slide_id"]) == ["K99", "lost"]
    told = read.indices()
    assert told["P-he", "Ki67"]["flags"] == ["has_warnings", "not_hematoxylin_dab"]
    assert told["P-none", "Ki67"]["unknown"] == "no cell was counted"
    assert "too_few_cells" in told["P-few", "Ki67"]["flags"] and "pen" in told["P-few", "Ki67"]["flags"]
    assert told["P00", "Ki67"]["flags"] == ["failed: corrupt (1 slide more)"]
    assert "Their indices mean nothing" in read.text or "not_hematoxylin_dab wherever" in read.text


def test_drift_is_that_of_sql(sql, read):
    rows = read.data["drift"]["rows"]
    assert read.data["drift"]["by"] == "site" and {row["measure"] for row in rows} == set(MEASURES)
    checked = 0
    for row in rows:
        of = "" if row["marker"] is None else f"AND marker = '{row['marker']}'"
        site = row["value"].replace("'", "''")
        name = row["measure"]
        (theirs,) = sql(
            f"SELECT count(*) AS n_slides, count({name}) FILTER (isfinite({name})) AS n, "
            f"median({name}) FILTER (isfinite({name})) AS median, "
            f"max({name}) FILTER (isfinite({name})) AS most "
            f"FROM slides WHERE attributes['site'] = '{site}' {of}",
        )
        assert {key: row[key] for key in theirs} == theirs
        checked += theirs["n"] > 0
    assert checked > 15 and any(row["n"] < row["n_slides"] for row in rows)


def test_agreement_is_that_of_the_command(root, read):
    from deepliif_ray.agreement import agreement

    (row,) = agreement(root, marker="Ki67").table.to_pylist()
    shown = {line[0]: line for line in read.tables["Agreement of 2 slides of a patient, with 95 % intervals"]}
    assert shown["Ki67"][1:3] == ["10", *figures([row["icc"]], 2)]
    assert shown["Ki67"][6] == figures([row["bias_percent"]])[0].replace("-", "−")
    (pairs,) = read.data["agreement"]
    assert pairs["n"] == 10 and len(pairs["pairs"]) == 10
    # At other cut-offs it is that of these.
    assert "CD3: nothing to compare" in read.text


def test_runs_and_models(root, read, tmp_path):
    lines = read.tables["Runs, newest first; steps in seconds, summed over workers"]
    assert lines[1][:5] == ["r1", "finished", "local", "2026-01-01 00:00", "1 min 30 s"]
    assert lines[1][5:10] == ["37", "35", "2", "140", "9,000"] and lines[1][-1] == "1.5"
    (model,) = read.tables["Models that scored the slides which count"][1:]
    assert model[1:4] == ["m1", "float32", "c1"] and model[5] == "35"
    assert read.tables["Options of scoring"][1:] == [["seg_thresh", "120"]]
    priced = report(root, tmp_path, Choice(pictures=0, price_per_hour=8.0))
    assert "0.20 at 8.00 an hour" in priced.text


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(root, tmp_path, read):
    assert report(root, tmp_path).text == read.text
    with_picture = Choice(pictures=1, without_slides=True)
    assert report(root, tmp_path, with_picture).text == report(root, tmp_path, with_picture).text


def test_texts_stay_texts(root, read):
    assert HOSTILE not in read.text and "alert(1)</script>" not in read.text
    assert not [a for tag, a in read.elements if any(name.startswith("on") for name in a)]
    assert not [tag for tag, a in read.elements if tag == "img" and a.get("src") == "x"]
    told = f"P{HOSTILE}"
    assert told in read.data["patients"]
    assert read.data["failures"]["message"].count(f"gone {HOSTILE}") == 1
    assert "{{7*7}}" in read.text and "an <b>odd" not in read.text


def test_nothing_is_loaded(read):
    (policy,) = [a["content"] for tag, a in read.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;") and "'unsafe-eval'" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", read.text, re.S)
    assert len(scripts) == 5 and policy.count("sha256-") == 5
    for tag, attributes in read.elements:
        for name in ("src", "href"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes)


def test_scripts_do_not_end_early():
    files = [*page.PAGE.glob("*.js"), *(page.VENDOR / name for name in page.PLOTTING)]
    assert len(files) == 5
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "</script" not in text.lower() and "<!--" not in text and "\r" not in text


def test_tables_are_told_to_who_cannot_see_them(read):
    tables = sum(tag == "table" for tag, _ in read.elements)
    assert tables == sum(tag == "caption" for tag, _ in read.elements) >= 7
    assert all(a.get("scope") in ("col", "row") for tag, a in read.elements if tag == "th")
    heads = [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h\d", tag)]
    assert heads[0] == 1 and heads.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(heads))


@pytest.mark.slow
def test_one_marker(root, tmp_path):
    told = report(root, tmp_path, Choice(marker="MIB-1", pictures=0))
    assert told.data["markers"] == ["Ki67"] and "CD3" not in told.text.split("<script>")[0]
    assert told.tiles["Slides failed"][0] == "1"
    with pytest.raises(ConfigError, match="no slides of marker 'CD8'; there are CD3, ER, Ki67"):
        report(root, tmp_path, Choice(marker="CD8", pictures=0))


@pytest.mark.slow
def test_groups_by_another_column_or_by_day(root, tmp_path):
    with pytest.raises(QueryError, match="no slide has a column 'scanner'; there are site"):
        report(root, tmp_path, Choice(by="scanner", pictures=0))
    other = str(tmp_path / "other")
    commit(other, "a", "P1", "Ki67", 50, 5, attributes=[])
    commit(other, "b", "P2", "Ki67", 50, 5, attributes=[], second=200_000)
    told = report(other, tmp_path)
    assert told.data["drift"]["values"] == ["2026-01-01", "2026-01-03"]


def test_wrong_options_are_refused(root, tmp_path):
    with pytest.raises(QueryError, match="no slide has a region of class 'Stroma'"):
        report(root, tmp_path, Choice(Calls(region="Stroma"), pictures=0))
    with pytest.raises(QueryError, match="nothing_such"):
        report(root, tmp_path, Choice(Calls(cutoffs="nothing_such"), pictures=0))
    with pytest.raises(ConfigError, match=r"report\.txt: the name of such a file ends in \.html"):
        report(root, tmp_path, name="report.txt")
    (tmp_path / "there.html").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_report(root, tmp_path / "there.html", choice=NO_PICTURES)
    assert (tmp_path / "there.html").read_text() == "mine"
    for wrong in ({"pictures": -1}, {"price_per_hour": float("nan")}):
        with pytest.raises(ConfigError):
            Choice(**wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["there.html"]


def test_results_with_little_in_them(tmp_path):
    one, failed, empty = (str(tmp_path / name) for name in ("one", "failed", "empty"))
    commit(one, "a", "P1", "Ki67", 0, 0)
    told = report(one, tmp_path)
    assert told.tiles["Cells counted"][0] == "0" and told.tiles["Indices"][0] == "0"
    assert "No patient has an index of this marker." in told.text and "No run is recorded." in told.text
    fake.fail(failed, "a")
    told = report(failed, tmp_path)
    assert told.tiles["Slides scored"][0] == "0" and told.tiles["Slides failed"][0] == "1"
    assert "d3" not in told.text.split("<script>")[1] and len(told.text) < 60_000
    assert told.tiles["Cells counted"][0] == "unknown"
    fake.run(empty, "r1")
    with pytest.raises(ConfigError, match="no slide was scored yet"):
        report(empty, tmp_path)


def test_damage_models_and_open_runs_are_said(tmp_path):
    root = str(tmp_path / "results")
    record = commit(root, "a", "P1", "Ki67", 60, 6)
    commit(root, "b", "P2", "Ki67", 60, 6, model_digest="m2", config_fingerprint="c2")
    fake.run(root, "r1")
    (tmp_path / "results" / record["cells_path"]).write_bytes(b"torn")
    told = report(root, tmp_path, Choice(Calls(cutoffs={"size_thresh": 100}), pictures=0))
    assert told.indices()["P1", "Ki67"]["unknown"] == "cells are damaged"
    assert "cells_lost" in told.indices()["P1", "Ki67"]["flags"]
    for said in (
        "1 stored objects are damaged",
        "2 different models",
        "2 different configurations",
        "recorded as running",
    ):
        assert said in told.text
    assert "Stored objects that were passed over" in told.tables
    # At the published thresholds its record still tells.
    assert report(root, tmp_path).indices()["P1", "Ki67"]["index_percent"] == 10


@pytest.mark.slow
def test_results_that_cannot_be_written_and_those_of_a_store(root, tmp_path):
    local = tmp_path / "results"
    shutil.copytree(root, local)
    for path in [local, *local.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    before = sorted(local.rglob("*"))
    try:
        told = report(local, tmp_path)
        assert sorted(local.rglob("*")) == before
    finally:
        for path in [local, *local.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)
    remote = f"memory://report-{tmp_path.name}"
    for path in local.rglob("*"):
        if path.is_file():
            storage.write_bytes(storage.join(remote, str(path.relative_to(local))), path.read_bytes())
    assert report(remote, tmp_path).data == told.data


def test_slides_to_look_at(root, sql, tmp_path):
    done = write_report(root, tmp_path / "a.html", choice=Choice(pictures=2, without_slides=True), now=NOW)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert done.n_pictures == 2 and text.count('src="data:image/webp;base64,') == 2
    (found,) = sql(
        "WITH f AS (SELECT marker, count(index_percent) AS n, quantile_cont(index_percent, 0.25) AS q1, "
        "quantile_cont(index_percent, 0.75) AS q3 FROM slide_indices GROUP BY marker) "
        "SELECT count(*) AS n FROM slide_indices JOIN f USING (marker) JOIN slide_quality USING (slide_id) "
        "WHERE slide_indices.n_called > 0 AND (len(flags) > 0 OR f.n >= 8 AND "
        "(index_percent > q3 + 1.5 * (q3 - q1) OR index_percent < q1 - 1.5 * (q3 - q1)))"
    )
    n = found["n"]
    assert f"2 of {n} are shown." in text and n >= 3
    assert "index above" in text and "the fence of Ki67 in this cohort" in text


@pytest.mark.slow
def test_a_slide_that_is_gone_is_said(root, tmp_path):
    done = write_report(root, tmp_path / "a.html", choice=Choice(pictures=1))
    assert done.n_pictures == 1
    (remark,) = done.remarks
    assert "cells on white: its file is not where it was" in remark and "/slides/a.tif" not in remark
    assert "its file is not where it was" in (tmp_path / "a.html").read_text(encoding="utf-8")
