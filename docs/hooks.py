"""What mkdocs does not do by itself: pages that lie outside docs/, and links to files of the repository.

A link means the same in the repository and on the site. What a page links to becomes part of the site below
``project/``: pages as they are, notebooks as text, other files as their content, folders as lists.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")
_FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.DOTALL | re.MULTILINE)
_LANGUAGES = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".py": "python",
    ".sh": "bash",
    ".toml": "toml",
}
_pages: dict[str, str] = {}


def place(path: str) -> str:
    """Return where a file or folder of the repository stands on the site."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"project/{path}" + ("" if path.endswith(".md") else ".md")


def text(path: str) -> str:
    """Return a file or folder of the repository as Markdown."""
    here = ROOT / path
    if here.is_dir():
        names = sorted(f.name + "/" * f.is_dir() for f in here.iterdir() if not f.name.startswith(("_", ".")))
        return f"# {path}\n\n" + "".join(f"- `{name}`\n" for name in names)
    content = here.read_text(encoding="utf-8")
    if here.suffix == ".md":
        return content
    if here.suffix == ".ipynb":
        return "\n\n".join(map(cell, json.loads(content)["cells"]))
    return f"# {path}\n\n````{_LANGUAGES.get(here.suffix, 'text')}\n{content}\n````\n"


def cell(cell: dict[str, Any]) -> str:
    """Return a cell of a notebook, with what it printed."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        shown = output.get("text") or output.get("data", {}).get("text/plain")
        if shown:
            parts.append(f"```text\n{''.join(shown)}\n```")
    return "\n\n".join(parts)


def targets(path: str, content: str) -> list[str]:
    """Return the files and folders of the repository that a page links to."""
    outside_code = _FENCE.sub("", content)
    return [
        posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(match[2])))
        for match in _LINK.finditer(outside_code)
        if match[2] and "://" not in match[2]
    ]


def on_files(files: Any, config: Any) -> Any:
    """Add to the site what its pages link to."""
    waiting = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    while waiting:
        path = waiting.pop()
        if place(path) in _pages:
            continue
        _pages[place(path)] = path
        if not path.startswith("docs/"):
            files.append(File.generated(config, place(path), content=text(path)))
        if path.endswith((".md", ".ipynb")):
            waiting += targets(path, text(path))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links lead to where files stand on the site."""
    here = page.file.src_uri
    source = posixpath.dirname(_pages[here])

    def moved(match: re.Match[str]) -> str:
        target, anchor = match[2], match[3] or ""
        if not target or "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(source, unquote(target)))
        return f"]({posixpath.relpath(place(path), posixpath.dirname(here) or '.')}{anchor})"

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(moved, part) for part in parts)
