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
