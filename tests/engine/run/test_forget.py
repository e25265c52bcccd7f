"""Forgetting beside runs, in results of a real run, in the cache of slides, and by the command."""

import json
import shutil
import sys
import threading

import pytest

from deepliif_ray import Execution, cli, connect, forget, score, storage
from deepliif_ray.engine.run import lease as lease_module
from deepliif_ray.engine.run.lease import Lease, read_lease
from deepliif_ray.errors import LeaseLostError, ResultsInUseError
from deepliif_ray.storage import cache as cache_module
from deepliif_ray.synthetic import write_cohort
from tests.query import fake_results as fake
from tests.tables.test_forget import content, traces


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A manifest of a slide of each of two patients, and their results."""
    folder = tmp_path_factory.mktemp("forget")
    manifest = write_cohort(folder / "cohort", patients=2, markers=("Ki67",), side=200)
    score(str(manifest), str(folder / "results"), model="toy", execution=Execution(engine="local"))
    return manifest, folder / "results"


@pytest.fixture
def results(cohort, tmp_path):
    shutil.copytree(cohort[1], tmp_path / "results")
    return tmp_path / "results"


def slides(results):
    with connect(results) as connection:
        return [row[0] for row in connection.execute("SELECT slide_id FROM slides ORDER BY 1").fetchall()]


@pytest.mark.slow
def test_it_is_refused_beside_a_run_and_holds_the_lease_itself(results, monkeypatch):
    with Lease(str(results), "run", dict):
        before = content(str(results))
        with pytest.raises(ResultsInUseError):
            forget(str(results), patients=["P01"])
        assert forget(str(results), patients=["P01"], dry_run=True).slides == ("P01-Ki67",)
        after = content(str(results))
        assert {path for path in after if before.get(path) != after[path]} <= {"/_lease/0000000002.beat"}
    holders = set()
    forget(str(results), patients="P01", watch=lambda _: holders.add(read_lease(str(results))["run_id"]))
    assert len(holders) == 1 and holders.pop().startswith("forget-")
    assert read_lease(str(results)) is None
    assert slides(results) == ["P02-Ki67"] and traces(str(results), "P01") == []


def test_it_ends_when_another_takes_over(results, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT_S", 0.01)
    taken = threading.Event()

    def take(_):
        if not taken.is_set():
            Lease(str(results), "other", dict, take_over=True).take()
            taken.set()
        threading.Event().wait(0.1)

    with pytest.raises(LeaseLostError):
        forget(str(results), patients=["P01"], watch=take)


def test_a_slide_that_the_manifest_lists_still_is_scored_again(cohort, results, tmp_path):
    manifest = cohort[0]
    forget(str(results), slides=["P01-Ki67"])
    options = {"model": "toy", "execution": Execution(engine="local")}
    summary = score(str(manifest), str(results), **options)
    assert (summary.scored, summary.skipped, summary.leftovers) == (1, 1, ())
    forget(str(results), slides=["P01-Ki67"])
    rows = manifest.read_text().splitlines(keepends=True)
    other = manifest.with_name("without.csv")
    other.write_text("".join(row for row in rows if "P01-Ki67" not in row))
    summary = score(str(other), str(results), **options)
    assert (summary.scored, summary.skipped, summary.leftovers) == (0, 1, ())
    assert traces(str(results), "P01-Ki67") == []


def test_copies_in_the_cache_go_too(memory, tmp_path, monkeypatch):
    cache, root = tmp_path / "cache", f"memory://{tmp_path.name}/results"
    monkeypatch.setenv("DEEPLIIF_RAY_CACHE", str(cache))
    urls = {"alpha": "memory://in/one.svs", "beta": "memory://in/two.svs"}
    urls["same"] = "memory://in/deep/one.svs"  # called the same, and another slide's
    held = {}
    for name, url in urls.items():
        storage.write_bytes(url, name.encode())
        held[name] = storage.localize(url, cache)
        said = {"uri": url, "slide_version": storage.version(url)}
        fake.commit(root, name, [fake.cell()], f"P-{name}", **said)
    storage.write_bytes(urls["alpha"], b"another version, of which no record tells")
    newer = storage.localize(urls["alpha"], cache)
    summary = forget(root, slides=["alpha"], dry_run=True)
    assert (summary.erased[0].kind, summary.erased[0].removed) == ("cache", 2) and newer.exists()
    reader = storage.pin(newer)
    summary = forget(root, slides=["alpha"])
    assert [left.kind for left in summary.left] == ["cache"] and newer.exists()
    assert not held["alpha"].exists() and held["beta"].exists() and held["same"].exists()
    reader.release()
    cache_module._latest.pin = None
    fake.commit(root, "alpha", [fake.cell()], "P-a", uri=urls["alpha"], slide_version="?0")
    assert forget(root, slides=["alpha"]).is_complete and not newer.exists()
    assert sorted(path.name for path in cache.rglob("*.svs")) == ["one.svs", "two.svs"]


def run(*arguments):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["deepliif-ray", *map(str, arguments)])
        cli.main()
    return exit_.value.code or 0


def test_the_command(results, capsys):
    assert run("forget", results, "--patient", "P01", "--dry-run", "--format", "json") == 0
    said = capsys.readouterr()
    planned = json.loads(said.out)
    assert "1 slide would be forgotten: 'P01-Ki67'" in said.err and "the manifest" in said.err
    assert len(slides(results)) == 2
    assert run("forget", results, "--patient", "P1") == run("forget", results) == 2
    assert "did you mean 'P01'" in capsys.readouterr().err
    (results / "regions").mkdir()
    (results / "regions" / "x.parquet").write_bytes(b"half")
    assert run("forget", results, "--patient", "P01", "--format", "json") == 3
    said = capsys.readouterr()
    assert json.loads(said.out) == planned and "left: regions/x.parquet: it may hold them" in said.err
    (results / "regions" / "x.parquet").unlink()
    assert run("forget", results, "--slide", "P02-Ki67") == 0
    assert slides(results) == []
