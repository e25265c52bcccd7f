"""A small cohort, and its undisturbed results."""

from pathlib import Path

import pytest

from deepliif_ray import Execution, score
from deepliif_ray.synthetic import write_cohort
from tests.engine.generations import Generations, make


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """Manifest of six synthetic slides of four tiles."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), side=800)


@pytest.fixture(scope="session")
def undisturbed(cohort, tmp_path_factory) -> Path:
    """Results of the cohort by the local engine, made in one go."""
    results = tmp_path_factory.mktemp("undisturbed")
    summary = score(str(cohort), str(results), model="stain", execution=Execution(engine="local"))
    assert (summary.scored, summary.failed) == (6, 0)
    return results


@pytest.fixture(scope="session")
def generations(tmp_path_factory) -> Generations:
    """Two slides of which one is scored again."""
    return make(tmp_path_factory.mktemp("generations"))
