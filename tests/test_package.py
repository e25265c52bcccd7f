"""What is packaged and told of the package: one version, types, quick to import, names that can be found."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import deepliif_ray

ROOT = Path(__file__).parents[1]


def test_the_version_has_one_source():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "deepliif_ray/__init__.py"
    label = re.search(
        r'image\.version="(.*?)-\$', (ROOT / "infra" / "image" / "Dockerfile").read_text(encoding="utf-8")
    )
    assert label is not None and label[1] == deepliif_ray.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == deepliif_ray.__version__


def test_the_public_names_can_be_seen_and_used():
    assert set(deepliif_ray.__all__) <= set(dir(deepliif_ray))
    assert "import_module" not in dir(deepliif_ray)
    for name in deepliif_ray.__all__:
        assert getattr(deepliif_ray, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = deepliif_ray.nothing


def test_types_are_packaged():
    assert (Path(deepliif_ray.__file__).parent / "py.typed").exists()


def seconds(*arguments: str) -> float:
    """Return the time of the processor that a fresh interpreter takes: others may keep the machine busy."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def surplus(ours: tuple[str, ...], theirs: tuple[str, ...]) -> float:
    """Return how much longer ``ours`` takes than ``theirs``: least times, taken in turn on the same machine.

    One after the other, not all of one first: what else the machine does changes from second to second.
    """
    pairs = [(seconds(*ours), seconds(*theirs)) for _ in range(8)]
    return min(pair[0] for pair in pairs) - min(pair[1] for pair in pairs)


def loaded(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after ``code``."""
    say = "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + say], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


HEAVY = {"duckdb", "numba", "numpy", "openslide", "pandas", "polars", "pyarrow", "pydantic", "ray", "scipy"}
HEAVY |= {"skimage", "torch", "zarr", "fsspec"}


def test_importing_the_package_loads_nothing():
    assert not loaded("import deepliif_ray") & HEAVY
    assert surplus(("-c", "import deepliif_ray"), ("-c", "")) < 0.05


@pytest.mark.slow
def test_the_commands_are_there_at_once():
    assert not loaded("import deepliif_ray.cli") & HEAVY
    # Of half a second, Python and the library that draws help take 0.25 s on a quiet machine. The rest is
    # ours: taken beside theirs, it is not spoilt by programs that share the processor's caches.
    assert surplus(("-m", "deepliif_ray.cli", "--help"), ("-c", "import typer, typer.rich_utils")) < 0.25
