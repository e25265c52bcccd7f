"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

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
