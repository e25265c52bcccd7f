"""The registry of markers."""

import pytest

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.marker_entries import SCORES, Scoring, parse_markers
from deepliif_ray.scoring.markers import builtin, intensity, markers, resolve_marker

ASKED_FOR = ["Ki67", "CD3", "CD8", "CD10", "BCL2", "BCL6", "MYC", "MUM1", "TP53", "PDL1"]


def test_registry():
    assert list(markers())[:10] == ASKED_FOR
    assert len({name.casefold() for name in markers()}) == len(markers())  # folders of careless disks
    for name, marker in markers().items():
        assert name == marker.name
        assert name.isascii() and name.isalnum()  # it becomes part of a path
        assert marker.localisation and set(marker.localisation) <= {"nuclear", "membranous", "cytoplasmic"}
        assert marker.note
        for alias in (name, *marker.aliases):
            assert resolve_marker(alias) is marker
        if "nuclear" not in marker.localisation:
            assert "nucleus" in marker.caution


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ki-67", "Ki67"),
        (" KI 67\n", "Ki67"),
        ("Ki\u201167", "Ki67"),
        ("Ｋｉ６７", "Ki67"),
        ("MIB1", "Ki67"),
        ("mib_1", "Ki67"),
        ("P53", "TP53"),
        ("pd\u2013l1", "PDL1"),
        ("cd274", "PDL1"),
        ("cMyc", "MYC"),
        ("irf-4", "MUM1"),
        ("Bcl 2", "BCL2"),
    ],
)
def test_spelling_does_not_matter(text, name):
    assert resolve_marker(text).name == name


@pytest.mark.parametrize("text", ["", "-", "CD", "CD33", "BCL", "Ki", "67", "CD1", "Ki67+", "x" * 100_000])
def test_unknown(text):
    with pytest.raises(ConfigError) as caught:
        resolve_marker(text)
    assert len(str(caught.value)) < 250


def test_suggestions():
    with pytest.raises(ConfigError, match="did you mean Ki67"):
        resolve_marker("Kl67")
    with pytest.raises(ConfigError, match="known markers: Ki67, CD3"):
        resolve_marker("XYZZY-9")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ER", "ER"),
        ("estrogen receptor", "ER"),
        ("ERα", "ER"),
        ("PR", "PR"),
        ("PgR", "PR"),
        ("AR", "AR"),
        ("HER2/neu", "HER2"),
        ("c-erbB-2", "HER2"),
        ("ERG", "ERG"),
        ("CD4", "CD4"),
        ("CD45", "CD45"),
        ("CD45RO", "CD45RO"),
        ("L26", "CD20"),
        ("cyclin D1", "CyclinD1"),
        ("p16INK4a", "p16"),
        ("ΔNp63", "p40"),
        ("TTF-1", "TTF1"),
        ("AE1/AE3", "PanCK"),
        ("α-SMA", "SMA"),
        ("GZMB", "GranzymeB"),
        ("E-cadherin", "ECadherin"),
    ],
)
def test_markers_in_common_use(text, name):
    assert builtin().read(text) == (markers()[name], None)


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (["HER3", "her-3", "Her 3", "HER_3"], "HER3"),
        (["γH2AX", "gamma-H2AX"], "GAMMAH2AX"),
        (["Foo.1/a", "foo1a"], "FOO1A"),
    ],
)
def test_a_marker_that_nobody_knows_has_one_name(spellings, name):
    for text in spellings:
        marker, note = builtin().read(text)
        assert marker.name == name and "generic rule" in note
        assert marker.brief == "marker not in the registry"


def test_names_by_rule_are_safe_and_differ():
    names = [builtin().read(text)[0].name for text in ("抗体", "抗体二", "x" * 100, "x" * 101, "Ж1", "1")]
    assert len(set(names)) == len(names)
    assert all(name.isascii() and name.isalnum() and len(name) <= 40 for name in names)


@pytest.mark.parametrize("text", ["Ki67+", "Ki-67 (30-9)", "KI67 [MIB-1]"])
def test_a_clone_or_a_result_beside_the_name(text):
    marker, note = builtin().read(text)
    assert marker.name == "Ki67" and note.endswith("is read as Ki67")


@pytest.mark.parametrize("text", ["HE", "H&E", "h & e", "PAS", "Masson-Trichrome", "+/-"])
def test_stains_are_no_markers(text):
    with pytest.raises(ConfigError):
        builtin().read(text)


def test_two_markers_on_one_slide_are_told():
    marker, note = builtin().read("CD3/CD8")
    assert marker.name == "CD3CD8" and "names several markers (CD3, CD8)" in note


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "expected a list 'markers'"),
        ({"markers": []}, "expected a list 'markers'"),
        ({"markers": ["HER3"]}, "entry 1 is no mapping"),
        ({"markers": [{"name": "HER-3", "localisation": ["nuclear"]}]}, "ASCII letters and digits"),
        ({"markers": [{"name": 3, "localisation": ["nuclear"]}]}, "ASCII letters and digits"),
        ({"markers": [{"name": "HER3"}]}, "localisation is a list"),
        ({"markers": [{"name": "HER3", "localisation": ["golgi"]}]}, "localisation is a list"),
        ({"markers": [{"name": "HER3", "localisation": ["nuclear"], "alias": []}]}, "unknown key 'alias'"),
        (
            {"markers": [{"name": "HER3", "localisation": ["nuclear"], "aliases": [3]}]},
            "aliases is a list of texts",
        ),
        (
            {"markers": [{"name": n, "localisation": ["nuclear"]} for n in ("a", "A")]},
            "marker a is there twice",
        ),
    ],
)
def test_a_file_of_markers_that_cannot_be_used(document, said):
    with pytest.raises(ConfigError, match=said):
        parse_markers(document, "own.yaml")


def test_own_markers_replace_those_of_their_name_and_nothing_else():
    own = parse_markers(
        {"markers": [{"name": "ER", "aliases": ["mine"], "localisation": ["nuclear"]}]}, "own.yaml"
    )
    registry = builtin().extended(own)
    assert registry.resolve("mine").name == "ER" and registry.resolve("PR") is markers()["PR"]
    assert registry.find("estrogen receptor") is None
    assert parse_markers(registry.document(), "kept")[0] == own[0]
    with pytest.raises(ConfigError, match="names both"):
        builtin().extended(
            parse_markers({"markers": [{"name": "PgR", "localisation": ["nuclear"]}]}, "own.yaml")
        )


def test_how_markers_are_read():
    """Each says its paper where it has numbers; what a registry writes down it reads again."""
    for marker in markers().values():
        scoring = marker.scoring
        assert scoring.score in SCORES and scoring.min_cells >= 100
        if scoring.categories or scoring.positive_from_percent is not None:
            assert scoring.source
    found = {name: markers()[name].scoring for name in ("Ki67", "BCL2", "MYC", "CD10", "AR")}
    assert found["Ki67"].min_cells == 500 and found["AR"] == Scoring()
    assert [found[name].positive_from_percent for name in ("BCL2", "MYC", "CD10")] == [50, 40, 30]
    again = parse_markers(builtin().document(), "kept")
    assert {marker.name: marker.scoring for marker in again} == {
        m.name: m.scoring for m in markers().values()
    }
    strengths = intensity()
    assert 0 < strengths["weak"] <= strengths["moderate"] <= strengths["strong"] and strengths["source"]


ENDS_AT_9 = [{"name": "a", "to_percent": 9}]


@pytest.mark.parametrize(
    ("scoring", "problem"),
    [
        ("index", "scoring is a mapping"),
        ({"scor": "index"}, "unknown key 'scor'"),
        ({"score": "share"}, "score is one of index"),
        ({"min_cells": 99.5}, "min_cells is a whole number"),
        ({"min_cells": -1}, "min_cells is a whole number"),
        ({"min_cells": True}, "min_cells is a whole number"),
        ({"positive_from_percent": 101}, "from 0 to 100"),
        ({"positive_from_percent": "30"}, "from 0 to 100"),
        ({"positive_from_percent": float("nan")}, "from 0 to 100"),
        ({"source": 2020}, "source is a text"),
        ({"categories": {"name": "low"}}, "categories is a list"),
        ({"categories": [{"name": "low", "to": 5}]}, "categories is a list"),
        ({"categories": [{"name": "low", "to_percent": 5}]}, "rise"),
        (
            {"categories": [{"name": "a", "to_percent": 9}, {"name": "b", "to_percent": 9}, {"name": "c"}]},
            "rise",
        ),
        (
            {"categories": [{"name": "a", "to_percent": 9}, {"name": "b", "to_percent": 5}, {"name": "c"}]},
            "rise",
        ),
    ],
)
def test_a_marker_that_says_wrongly_how_it_is_read(scoring, problem):
    entry = {"name": "Own", "localisation": ["nuclear"], "scoring": scoring}
    with pytest.raises(ConfigError, match=problem):
        parse_markers({"markers": [entry]}, "own.yaml")
