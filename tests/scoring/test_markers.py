"""The registry of markers."""

import pytest

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.markers import markers, resolve_marker

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
