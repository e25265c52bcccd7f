"""The base install opens, queries and mends results; what is missing for the rest is said by its extra."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from deepliif_ray.errors import MissingExtraError, StorageError
from deepliif_ray.extras import EXTRAS, missing_extra
from tests.query import fake_results as fake

ROOT = Path(__file__).parents[1]
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED_NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""
ALL = [module for modules in EXTRAS.values() for module in modules]


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names_of(requirements):
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


def without_extras(code, *arguments):
    """Run code in an interpreter that finds nothing of what the extras bring."""
    names = f"BLOCKED_NAMES = {set(ALL)!r}\n"
    return subprocess.run(
        [sys.executable, "-c", names + BLOCKED + code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


COMMANDS = """
import contextlib, io, json
from deepliif_ray.cli import main

found = []
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    out, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        try:
            main()
        except SystemExit as end:
            code = end.code
    found.append((arguments, code, out.getvalue(), told.getvalue()))
print(json.dumps(found))
"""


def commands(*told):
    """Run one command after the other, and return for each its arguments, exit code, output and errors."""
    done = without_extras(COMMANDS, json.dumps(told))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("base") / "results")
    for number in range(3):
        fake.commit(root, f"s{number}", [fake.cell(k) for k in range(4)], patient_id="P")
    return root


def test_each_module_is_of_a_package_of_its_extra():
    distributions = packages_distributions()
    extras = project()["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        for module in modules:
            for name in distributions.get(module, []):
                direct = name.lower() in names_of(extras[extra])
                behind = extra == "s3" and name in ("aiobotocore", "aiohttp", "botocore")  # what s3fs brings
                assert direct or behind, (module, name, extra)


def test_every_extra_is_part_of_all_and_says_what_it_brings():
    extras = project()["optional-dependencies"]
    (all_of_it,) = extras["all"]
    assert all_of_it == f"deepliif-ray[{','.join(EXTRAS)}]"
    assert set(extras) == {*EXTRAS, "all", "dev"}
    named = {name for extra in EXTRAS for name in names_of(extras[extra]) - {"deepliif-ray"}}
    assert not named & names_of(project()["dependencies"])


def test_results_are_asked_exported_and_mended_without_any_extra(results, tmp_path):
    found = commands(
        ["index", results],
        ["index", results, "--marker", "ki67", "--slides"],
        ["status", results],
        ["check", results],
        ["optimize", results],
        ["sql", results, "SELECT count(*) FROM cells"],
        ["sql", results, "--sandbox", "SELECT count(*) FROM cells"],
        ["--help"],
        ["export", "qupath", results, str(tmp_path / "a.geojson.gz"), "--slide", "s0"],
        ["export", "qupath-tsv", results, str(tmp_path / "a.tsv"), "--summary", "--strength"],
        ["export", "geoparquet", results, str(tmp_path / "a.parquet"), "--slide", "s0"],
        ["export", "csv", results, str(tmp_path / "a.csv"), "--slide", "s0"],
    )
    assert [(arguments, told) for arguments, code, _, told in found if code != 0] == []
    assert len(found) == 12 and all(output + told for _, _, output, told in found)
    assert "12" in found[5][2] and found[5][2] == found[6][2]


def test_what_needs_an_extra_says_which(results, tmp_path):
    needs = [
        (["infer", "a.svs", str(tmp_path / "a.ome.tiff")], "score"),
        (["export", "labels", results, str(tmp_path / "a.zarr"), "--slide", "s0"], "score"),
        (["export", "anndata", results, str(tmp_path / "a.h5ad"), "--slide", "s0"], "anndata"),
        (["export", "spatialdata", results, str(tmp_path / "a.zarr"), "--slide", "s0"], "spatialdata"),
        (["export", "dicom-annotations", results, str(tmp_path / "a.dcm"), "--slide", "s0"], "dicom"),
        (["score", "m.csv", "r"], "score"),
        (["plan", "m.csv"], "score"),
        (["doctor"], "score"),
        (["models"], "score"),
        (["sql", "s3://bucket/results", "SELECT 1"], "s3"),
        (["sql", "gs://bucket/results", "SELECT 1"], "gcs"),
        (["sql", "az://bucket/results", "SELECT 1"], "azure"),
    ]
    found = commands(*(arguments for arguments, _ in needs))
    for (arguments, code, output, told), (_, extra) in zip(found, needs, strict=True):
        assert code in (1, 2), arguments
        text = (output + told).replace("\n", " ")
        assert f"pip install 'deepliif-ray[{extra}]'" in text, (arguments, text)


def test_from_python_too():
    done = without_extras("import deepliif_ray; deepliif_ray.connect; deepliif_ray.score")
    assert done.stderr.splitlines()[-1].startswith("deepliif_ray.errors.MissingExtraError: score needs ")


def test_other_missing_modules_are_not_taken_for_extras():
    assert missing_extra(ModuleNotFoundError("No module named 'x'", name="x"), "it") is None
    assert missing_extra(ValueError(), "it") is None
    hidden = StorageError("wrapped")
    hidden.__cause__ = ModuleNotFoundError("No module named 'zarr.abc'", name="zarr.abc")
    assert isinstance(missing_extra(hidden, "it"), MissingExtraError)
