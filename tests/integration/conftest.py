"""A small cohort, its undisturbed results, and a cluster to disturb."""

from pathlib import Path

import pytest

from deepliif_ray import Execution, score
from deepliif_ray.synthetic import write_cohort
from tests.integration.nodes import Nodes


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """Manifest of three synthetic slides of 9 to 25 tiles, blocks of four."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), side=2000, patients=3, markers=("Ki67",))


@pytest.fixture(scope="session")
def undisturbed(cohort, tmp_path_factory) -> Path:
    """Results of the cohort by the local engine, made in one go."""
    results = tmp_path_factory.mktemp("undisturbed")
    assert score(str(cohort), str(results), model="stain", execution=Execution(engine="local")).scored == 3
    return results


@pytest.fixture
def nodes():
    """A cluster of two nodes of one CPU."""
    cluster = Nodes(2)
    yield cluster
    cluster.shutdown()
