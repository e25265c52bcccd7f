"""HTML pages that need nothing beside themselves: styles, scripts, data and pictures are in them."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from deepliif_ray.report import numbers

SUFFIXES = (".html", ".htm")
PAGE = Path(__file__).parent / "page"
VENDOR = Path(__file__).parents[1] / "vendor"
PLOTTING = ("d3/d3.min.js", "plot/plot.umd.min.js")
"""Libraries that draw plots, in the order in which they are read."""
_NOT_IN_SCRIPTS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Script:
    """A script of a page, and the hash by which its policy knows it."""

    text: Markup
    digest: str


def render(template: str, values: Mapping[str, Any], data: Any, *, scripts: list[str], plots: bool) -> str:
    """Return a page.

    Its policy lets it load nothing and run nothing but its own scripts, so that text from a manifest that
    came through as a script by some mistake would not run either.

    Parameters
    ----------
    template : str
        Its file in ``page/``.
    values : mapping
        What the template writes; texts are escaped.
    data
        What the scripts read; what JSON can hold.
    scripts : list of str
        Files in ``page/``.
    plots : bool
        Whether the libraries that plot are needed.
    """
    running = [_vendored(name) for name in PLOTTING] if plots else []
    running += [_script((PAGE / name).read_text(encoding="utf-8")) for name in scripts]
    return (
        _environment()
        .get_template(template)
        .render(
            values,
            plots=plots,
            style=Markup((PAGE / "report.css").read_text(encoding="utf-8")),
            data=embedded_json(data),
            scripts=running,
            script_sources=" ".join(f"'sha256-{script.digest}'" for script in running) or "'none'",
        )
    )


@cache
def _environment() -> Environment:
    """Return what templates are read by; texts are escaped, and a name that is not there is an error."""
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        name: getattr(numbers, name) for name in ("fixed", "whole", "percent", "between", "duration")
    }
    environment.filters["breakable"] = breakable
    return environment


def embedded_json(data: Any) -> Markup:
    """Return JSON that can stand within a ``script`` element, whatever is in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escape in _NOT_IN_SCRIPTS.items():
        text = text.replace(character, escape)
    return Markup(text)


def breakable(text: str) -> Markup:
    """Return a text that may be broken after underscores, as names of flags have them."""
    return Markup("_<wbr>").join(text.split("_"))


def _vendored(name: str) -> Script:
    """Return a library with its licence before it, as the licence asks."""
    file = VENDOR / name
    licence = (file.parent / "LICENSE").read_text(encoding="utf-8").replace("*/", "* /")
    return _script(f"/*!\n{licence}*/\n{file.read_text(encoding='utf-8')}")


def _script(text: str) -> Script:
    """Return a script as it will stand in the page.

    ``</script`` would end it, and is in none of them; a test looks.
    """
    text = f"\n{text}\n"
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), digest)
