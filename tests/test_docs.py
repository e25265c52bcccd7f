import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_data_dictionary_is_that_of_the_schemas():
    page = runpy.run_path(str(ROOT / "docs" / "make_data_dictionary.py"))
    assert page["TARGET"].read_text(encoding="utf-8") == page["text"]()


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_within_the_repository_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
