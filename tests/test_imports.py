"""Who may import whom (docs/architecture.md), read from the source."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

from deepliif_ray import storage

ROOT = Path(__file__).parents[1]
PACKAGE = "deepliif_ray"
SOURCES = sorted(ROOT.glob(f"{PACKAGE}/**/*.py")) + sorted(ROOT.glob("jobs/**/*.py"))

PURE = {"cells", "scoring", "slides.grid", "stains", "published", "native"}
OUTSIDE_WORLD = {"storage", "manifest", "slides", "models", "tables"}
COMPOSING = {
    "cells",
    "scoring",
    "stains",
    "published",
    "native",
    "config",
    "contracts",
    "errors",
    "logs",
    "slide_access",
} | OUTSIDE_WORLD

# What of this package each area may import, itself aside. Modules directly in the package that are not named
# here, and jobs, are glue and may import any area.
INSIDE = {
    "errors": set(),
    "extras": {"errors"},
    "confine": set(),
    "contracts": {"errors"},
    "validation": {"errors", "storage"},
    "config": {"published", "validation"},
    "cluster": {"errors"},
    "stains": set(),
    "published": set(),
    "native": set(),
    "plain": set(),
    "logs": {"errors", "storage"},
    "storage": {"errors", "extras"},
    "cells": {"errors", "contracts", "stains", "published"},
    "scoring": {"errors", "contracts"},
    "slides.grid": {"errors"},
    "slides": {"errors", "storage", "confine", "stains", "native"},
    "synthetic": {"errors", "slides", "stains", "training"},
    "models": {"config", "errors", "storage", "stains", "native"},
    "slide_access": {"errors", "storage", "manifest", "slides"},
    "tables": {"errors", "storage", "contracts"},
    "manifest": {"errors", "storage", "contracts", "scoring"},
    "annotations": {
        "errors",
        "extras",
        "storage",
        "contracts",
        "tables",
        "manifest",
        "slides",
        "slide_access",
    },
    "query": {"errors", "storage", "contracts", "scoring", "tables", "confine", "annotations"},
    "exports": {
        "errors",
        "storage",
        "contracts",
        "scoring",
        "tables",
        "query",
        "annotations",
        "slide_access",
    },
    "places": {"errors", "scoring", "tables", "query"},
    "pictures": {
        "errors",
        "storage",
        "contracts",
        "scoring",
        "tables",
        "slides",
        "slide_access",
        "query",
        "annotations",
        "places",
        "exports",
    },
    "viewer": {
        "errors",
        "storage",
        "tables",
        "slides",
        "slide_access",
        "query",
        "annotations",
        "places",
        "exports",
        "pictures",
        "plain",
    },
    "reader_table": {"errors", "storage", "scoring", "manifest"},
    "agreement": {"errors", "storage", "scoring", "tables", "query", "reader_table"},
    "report": {
        "errors",
        "extras",
        "storage",
        "scoring",
        "tables",
        "query",
        "exports",
        "pictures",
        "agreement",
    },
    "engine": COMPOSING | {"cluster"},
    "training": COMPOSING | {"cluster", "evaluation", "validation"},
    "evaluation": COMPOSING,
    "jobs": COMPOSING | {"validation", "cluster", "engine", "training", "evaluation"},
}
# Libraries that only some areas may import. Arrow tables in memory are what the areas hand one another;
# reading and writing files with Arrow is for those who talk to the outside world, and for output asked for.
OWNERS = {
    "duckdb": {"query"},
    "fsspec": {"storage", "query"},
    "s3fs": {"storage"},
    "botocore": {"storage"},
    "aiobotocore": {"storage"},
    "openslide": {"slides"},
    "pyarrow.dataset": OUTSIDE_WORLD | {"query"},
    "pyarrow.fs": OUTSIDE_WORLD | {"query"},
    "pyarrow.parquet": OUTSIDE_WORLD | {"annotations", "exports", "glue"},
    "pydantic": {"validation", "config", "jobs", "training"},
    "ray": {"cluster", "engine", "jobs", "training"},
    "torch": {"models", "training"},
    "safetensors": {"models", "training"},
    "optuna": {"training"},
    "shapely": {"annotations", "exports", "pictures", "viewer"},
    "tensorboardX": {"training"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
}
# What others may take from storage: nothing that leads to a file system whose trouble nobody tries again.
STORAGE_OFFERS = [[], *([name] for name in storage.__all__)]
NUMERIC = {"numba", "numpy", "pyarrow", "scipy", "skimage"}
FILES_AND_PROCESSES = {
    "glob",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
}


def area_of(module):
    """Return the area of a dotted name inside the package."""
    parts = module.split(".")
    if parts[1:] == ["slides", "grid"]:
        return "slides.grid"
    name = parts[1] if len(parts) > 1 and parts[1] != "cli" else "glue"
    is_area = name in INSIDE or (ROOT / PACKAGE / name).is_dir()
    return name if is_area else "glue"


def used_of_storage(tree):
    """Yield the names that the file takes from the storage area by ``storage.<name>``."""
    if f"{PACKAGE}.storage" in imported(tree):
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "storage"
            ):
                yield node.attr


def imported(tree):
    """Yield the dotted name of everything imported anywhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def problems(module, source):
    """Return what ``source`` imports that ``module`` may not."""
    area = area_of(module)
    found = []
    for name in imported(ast.parse(source)):
        top = name.split(".")[0]
        if name == f"{PACKAGE}.__version__":
            continue
        if top == PACKAGE:
            target = area_of(name)
            if target == "storage" and area != "storage" and name.split(".")[2:] not in STORAGE_OFFERS:
                found.append(f"{area} may not import {name}: storage does not offer it")
            if (
                area != "glue"
                and target not in INSIDE[area] | {area}
                and not (target == "slides.grid" and "slides" in INSIDE[area] | {area})
            ):
                found.append(f"{area} may not import {name}")
            continue
        owners = [areas for library, areas in OWNERS.items() if f"{name}.".startswith(f"{library}.")]
        if any(area not in areas for areas in owners):
            found.append(f"{area} may not import {name}")
        standard = top in sys.stdlib_module_names
        if area in PURE and (top in FILES_AND_PROCESSES or not (standard or top in NUMERIC)):
            found.append(f"{area} is pure and may not import {name}")
        if area in {"errors", "config"} and not (standard or top == "pydantic"):
            found.append(f"{area} may not import {name}")
    if area != "storage":
        used = {name for name in used_of_storage(ast.parse(source)) if [name] not in STORAGE_OFFERS}
        found += [f"storage does not offer {name}" for name in sorted(used)]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    assert problems(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("area", sorted({p.parent.name for p in ROOT.glob(f"{PACKAGE}/*/__init__.py")}))
def test_every_area_has_its_rule(area):
    assert area in INSIDE or area == "cli"


@cache
def imported_at_once(path):
    """Return what a file imports when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tops = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return set(imported(ast.Module(tops, [])))


def at_import(path):
    """Return the names of the package that a file imports when it is imported, and that these import then."""
    waiting, seen = [path], set()
    while waiting:
        for name in imported_at_once(waiting.pop()) - seen:
            seen.add(name)
            if name.startswith(f"{PACKAGE}."):
                place = ROOT / Path(*name.split("."))
                files = (place.with_suffix(".py"), place / "__init__.py", place.parent.with_suffix(".py"))
                waiting += [file for file in files if file.is_file()]
    return seen


def test_questions_need_nothing_that_reads_slides():
    found = at_import(ROOT / PACKAGE / "annotations" / "current.py")
    heavy = ("slides", "slide_access", "slides.grid")
    assert f"{PACKAGE}.tables.records.Damage" in found and "shapely" not in found
    assert not [name for name in found if name.startswith(PACKAGE) and area_of(name) in heavy]
    assert f"{PACKAGE}.slide_access.open_entry" in at_import(ROOT / PACKAGE / "annotations" / "tissue.py")
    for path in (ROOT / PACKAGE / "query").glob("*.py"):
        assert not [name for name in at_import(path) if name.startswith(f"{PACKAGE}.slide_access")]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("annotations.current", "from deepliif_ray.query import connect"),
        ("query.views", "import shapely"),
        ("cells.labels", "import torch"),
        ("cells.labels", "from pathlib import Path"),
        ("cells.labels", "from deepliif_ray import storage"),
        ("scoring.calls", "import pyarrow.parquet as pq"),
        ("slides.grid", "from PIL import Image"),
        ("slides.grid", "from deepliif_ray.slides.reader import Slide"),
        ("slides.reader", "def f():\n    import torch.nn"),
        ("slides.reader", "from deepliif_ray.models import base"),
        ("tables.ledger", "from deepliif_ray.manifest import read_manifest"),
        ("tables.ledger", "from ray import data"),
        ("engine.local", "from deepliif_ray.query import connect"),
        ("engine.local", "import fsspec"),
        ("models.bundle", "import fsspec"),
        ("slides.reader", "from botocore.exceptions import ClientError"),
        ("tables.retire", "from deepliif_ray.storage.client import filesystem"),
        ("tables.retire", "from deepliif_ray import storage\nfs = storage.filesystem('s3://a')"),
        ("cli", "from deepliif_ray import storage\nstorage.client.filesystem('s3://a')"),
        ("report.cohort", "import duckdb"),
        ("report.cohort", "from deepliif_ray.slides import open_slide"),
        ("query.views", "import jinja2"),
        ("errors", "import numpy"),
        ("cli", "import torch"),
        ("cli", "from ray.data import Dataset"),
    ],
)
def test_the_rules_bite(module, source):
    assert problems(f"{PACKAGE}.{module}", source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "cells.extract",
            "import numpy as np\nimport pyarrow as pa\nfrom deepliif_ray.errors import ConfigError",
        ),
        ("slides.plan", "from deepliif_ray.slides.grid import Grid\nimport openslide"),
        ("engine.local", "from deepliif_ray.slides.grid import Grid\nfrom deepliif_ray import storage"),
        (
            "cli",
            "from deepliif_ray.engine.score import score\nfrom deepliif_ray.query import connect\nimport os",
        ),
    ],
)
def test_the_rules_allow_what_they_should(module, source):
    assert problems(f"{PACKAGE}.{module}", source) == []
