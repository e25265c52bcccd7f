"""`deepliif-ray report` as people type it."""

import sys

import pytest

from deepliif_ray import cli
from tests.report.cohorts import write_cohort


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("results"))
    write_cohort(root)
    return root


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["deepliif-ray", "report", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def test_a_cohort(root, tmp_path, monkeypatch, capsys):
    target = tmp_path / "a.html"
    chosen = ("--marker", "mib-1", "--by", "site", "--pictures", "1", "--price-per-hour", "3.2")
    assert run(monkeypatch, root, target, *chosen, "--without-corrections") == 0
    said = capsys.readouterr().err
    assert "a.html: 13 patients, 24 slides, 1 pictures" in said
    assert "warning: slide 'eosin': Without the slide, cells on white" in said
    text = target.read_text(encoding="utf-8")
    assert "left out: calls as measured" in text and "at 3.20 an hour" in text
    assert run(monkeypatch, root, target) == 2 and "--overwrite replaces it" in capsys.readouterr().err
    assert run(monkeypatch, root, target, "--overwrite", "--pictures", "0") == 0


@pytest.mark.slow
def test_a_slide(root, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, root, tmp_path / "s.html", "--slide", "K00a", "--without-slides") == 0
    assert "s.html: slide K00a, " in capsys.readouterr().err
    assert "Drawn without the slide, as asked" in (tmp_path / "s.html").read_text(encoding="utf-8")
    assert run(monkeypatch, root, tmp_path / "t.html", "--slide", "K00a", "--marker", "Ki67") == 2
    assert "--marker is about cohorts" in capsys.readouterr().err
    assert not (tmp_path / "t.html").exists()


def test_pictures_need_what_an_extra_brings(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert run(monkeypatch, root, tmp_path / "a.html") == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert "--pictures 0 leaves them out" in said and "pip install 'deepliif-ray[score]'" in said
    assert not list(tmp_path.iterdir())
    assert run(monkeypatch, root, tmp_path / "a.html", "--pictures", "0") == 0
