"""The report of a slide: numbers of SQL, pictures, and what it refuses."""

import pytest

from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.exports.cells import Calls
from deepliif_ray.query import ask
from deepliif_ray.report.choice import Choice
from deepliif_ray.report.slide import write_slide_report
from tests.pictures import scored
from tests.query import fake_results as fake
from tests.report.cohorts import GOOD, HOSTILE, NOW, Read, cells


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    path = scored.slide(root, scored.gradient(600, 800))
    size = {"width_px": 800, "height_px": 600, "patient_id": f"P{HOSTILE}", "warnings": [HOSTILE]}
    scored.commit(root, cells(400, 60), path=path, **GOOD, **size)
    scored.commit(root, cells(50, 5), "S-2", **GOOD | {"stain_residual": 0.5}, slide_version="v")
    scored.commit(root, [], "S-3", **GOOD)
    fake.fail(str(root), "S-4", message="torn")
    return str(root)


def read(root, folder, slide="S-1", **choice):
    path = folder / "slide.html"
    done = write_slide_report(root, slide, path, choice=Choice(**choice), now=NOW, overwrite=True)
    return done, Read(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("calls", "of"),
    [(Calls(), ""), (Calls(cutoffs={"size_thresh": 200}), "(cutoffs := {'size_thresh': 200})")],
)
def test_numbers_are_those_of_sql(root, tmp_path, calls, of):
    _, told = read(root, tmp_path, calls=calls, pictures=0)
    (row,) = ask(root, f"SELECT * FROM slide_indices{of} WHERE slide_id = 'S-1'").to_pylist()
    shown = told.data["index"]
    assert shown == {name: row[name] for name in shown} and len(shown) == 13
    (h,) = ask(root, f"SELECT * FROM slide_h_scores{of or '()'} WHERE slide_id = 'S-1'").to_pylist()
    assert told.data["h_score"] == h["h_score"]
    if row["n_called"]:
        assert told.tiles["Cells counted"] == ["400", "60 positive"]
        assert told.tiles["Index, intermediate"] == ["15.0 %"]
        (line,) = [rows[1] for name, rows in told.tables.items() if name.startswith("Counted cells")]
        parts = [h[f"percent_{n}"] for n in range(4)] + [h["h_score"]]
        assert line == [f"{value:.1f}" for value in parts]
    else:
        assert told.tiles["Index"] == ["unknown", "no cell was counted"]
    cutoff = told.tables["What this slide was scored with"][-1]
    assert cutoff == ["Cells larger than this count, px", "200.0" if of else "3.0"]


def test_pictures_of_the_slide_and_of_fields(root, tmp_path):
    done, told = read(root, tmp_path)
    pictures = [a for tag, a in told.elements if tag == "img"]
    assert done.n_pictures == len(pictures) >= 2 and done.remarks == ()
    assert all(a["alt"].startswith(("Ki67, slide S-1", "Flag")) for a in pictures)
    assert "Field with the most positive cells: x" in told.text
    one, _ = read(root, tmp_path, pictures=1)
    assert one.n_pictures == 1


def test_flags_stand_at_the_top_and_a_slide_that_is_gone_is_said(root, tmp_path):
    done, told = read(root, tmp_path, "S-2")
    assert done.remarks == ("Without the slide, cells on white: its file is not where it was",)
    assert told.text.index("Flag not_hematoxylin_dab: colours that") < told.text.index("<h2")
    assert "too_few_cells" in told.data["flags"]
    _, nothing = read(root, tmp_path, "S-3")
    assert "No cell was counted, so there is nothing to draw." in nothing.text
    assert nothing.tiles["Index"] == ["unknown", "no cell was counted"]


def test_texts_stay_texts(root, tmp_path):
    _, told = read(root, tmp_path, pictures=0)
    assert HOSTILE not in told.text and told.data["index"]["patient_id"] == f"P{HOSTILE}"
    assert not [tag for tag, _ in told.elements if tag == "img"]


def test_what_is_refused(root, tmp_path):
    with pytest.raises(ConfigError, match=r"'S-4' was not scored, .* failed with missing: torn"):
        read(root, tmp_path, "S-4")
    with pytest.raises(ConfigError, match="there is no slide 'S-9'"):
        read(root, tmp_path, "S-9")
    with pytest.raises(QueryError, match="no slide has a region of class"):
        read(root, tmp_path, calls=Calls(region="Tumor"))
    assert list(tmp_path.iterdir()) == []
