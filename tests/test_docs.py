import importlib.util
import json
import re
import runpy
import shutil
from pathlib import Path

import duckdb
import pytest

from deepliif_ray import connect, optimize
from deepliif_ray.annotations.regions import import_regions
from deepliif_ray.query.reading import check_reads, reading
from deepliif_ray.tables.cutoffs import write_cutoffs
from tests.query import fake_results as fake

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]


def test_data_dictionary_is_that_of_the_schemas():
    page = runpy.run_path(str(ROOT / "docs" / "make_data_dictionary.py"))
    assert page["TARGET"].read_text(encoding="utf-8") == page["text"]()


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def named_in_the_tree():
    """Yield what `docs/architecture.md` names in its tree, by the folder of the package it stands under."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text[text.index("```\ndeepliif_ray/\n") :].split("\njobs/ ")[0]
    folder, lines = "", {}
    for line in tree.splitlines()[2:]:
        begins = re.match(r"  (  )?(\w+)/  ", line)
        if begins:
            outer = folder.split("/", maxsplit=1)[0] + "/" if begins[1] else ""
            folder = outer + begins[2]
        elif re.match(r"  \w", line):
            folder = ""
        lines.setdefault(folder, []).append(line)
    for folder, its in lines.items():
        yield folder, set(re.findall(r"\w+", " ".join(its)))


def test_the_tree_in_the_architecture_is_the_tree():
    package = ROOT / "deepliif_ray"
    named = dict(named_in_the_tree())
    for path in package.rglob("*.py"):
        if path.name == "__init__.py":
            continue
        folder = path.parent.relative_to(package).as_posix().replace(".", "")
        words = named.get(folder) or named[folder.rpartition("/")[0]]  # a small one is told with its parent
        assert path.stem in words, f"{path.relative_to(package)} is not in the tree of docs/architecture.md"
    for folder in named:
        assert (package / folder).is_dir()


def shown_imports():
    """Yield what pages, notebooks and scripts import of the package, and where."""
    listed = [*map(ROOT.joinpath, PAGES), ROOT / "CONTRIBUTING.md"]
    for folder, kind in (("examples", "ipynb"), ("infra", "sh"), ("jobs", "sh"), ("jobs", "py")):
        listed += (ROOT / folder).rglob(f"*.{kind}")
    for path in listed:
        text = path.read_text(encoding="utf-8")
        for module, names in re.findall(r"from (deepliif_ray[\w.]*) import ([\w, ]+)", text):
            yield from ((path.name, module, name.split()[0]) for name in names.split(",") if name.strip())


def test_what_is_shown_can_be_imported():
    found = list(shown_imports())
    assert len(found) >= 5
    for where, module, name in found:
        home = importlib.import_module(module)
        assert hasattr(home, name) or importlib.util.find_spec(f"{module}.{name}"), (where, module, name)


def statements():
    """Yield the SQL that pages and comments show, by where it is shown."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL):
            yield from ((page, part) for part in block.split(";") if part.strip())
        # Typed at a prompt; what a page quotes from a run, after "SQL>", is of that run's own results.
        yield from ((page, q) for q in re.findall(r'deepliif-ray sql \S+ (?:--sandbox )?"([^"…]+)"', text))
    for path in (ROOT / "deepliif_ray" / "query" / "sql").glob("*.sql"):
        text = path.read_text(encoding="utf-8").replace("\n--  ", " ")
        yield from ((path.name, q) for q in re.findall(r"^-- .*?(SELECT [^;\n]+);", text, re.MULTILINE))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results with two generations of a slide, an attempt that never committed, and cells of version 1."""
    root = tmp_path_factory.mktemp("docs") / "results"
    shutil.copytree(ROOT / "tests" / "tables" / "data" / "v1", root)
    for second in (1, 2):
        fake.commit(str(root), "a", [fake.cell(k) for k in range(4 - second)], second=second)
    fake.commit(str(root), "b", [fake.cell(0)], marker="CD3")
    strengths = {"marker": "ER", "weak": 0.1, "moderate": 0.2, "strong": 0.3}
    write_cutoffs(str(root), "er-2026", [strengths], author="a", note="n")
    square = {"type": "Polygon", "coordinates": [[[0, 0], [90, 0], [90, 90], [0, 90], [0, 0]]]}
    tumour = {"type": "Feature", "geometry": square, "properties": {"classification": {"name": "Tumor"}}}
    (root.parent / "a.geojson").write_text(json.dumps(tumour))
    import_regions(str(root), [str(root.parent / "a.geojson")], slide="a", read_slides=False)
    fake.write(
        str(root / "cells/marker=CD3/x-0.parquet"),
        "cells",
        [{"slide_id": "x", "patient_id": "P", **fake.cell()}],
    )
    return root


def test_enough_statements_are_found():
    assert len(list(statements())) > 8


@pytest.fixture(scope="module")
def opened(results):
    with connect(results) as connection:
        yield connection


@pytest.mark.parametrize(("shown_in", "query"), list(statements()))
def test_shown_sql_runs(shown_in, query, results, opened, monkeypatch):
    monkeypatch.chdir(results.parent)
    if "read_parquet('results" in query:
        duckdb.sql(query).fetchall()
    else:
        check_reads(opened, query)
        with reading(opened):
            opened.execute(query).fetchall()


def test_the_join_for_other_tools_counts_what_the_views_count(results, tmp_path, monkeypatch):
    (query,) = (query for _, query in statements() if "read_parquet('results" in query)
    shutil.copytree(results, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    expected = [("CD3", "b", 1), ("Ki67", "a", 2), ("Ki67", "s00002", 4)]
    for _ in range(2):  # as scored, and joined while what was replaced is still there
        with connect("results") as connection:
            views = "SELECT marker, slide_id, count(*) FROM cells GROUP BY ALL ORDER BY ALL"
            assert connection.execute(views).fetchall() == duckdb.sql(query).fetchall() == expected
        optimize("results")
