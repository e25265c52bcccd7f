"""Cells and index do not depend on the scale of a slide, nor on black around the tissue."""

import numpy as np
import pytest

from benchmarks.inputs import PICTURE, is_right, score_kinds
from benchmarks.odd import ODD_FILES
from deepliif_ray.synthetic import SyntheticTissue

NAMES = ("at_0.18_µm", "at_0.36_µm", "at_0.72_µm", "black_frame", "claims_0.5_for_0.25_µm")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    picture = np.asarray(SyntheticTissue(560, 560, seed=4, mpp=0.25, coverage=0.9)[:, :])
    kinds = [ODD_FILES[name] for name in NAMES]
    found, failed = score_kinds(tmp_path_factory.mktemp("scale"), kinds, picture)
    assert found[PICTURE].cells > 120
    return found, failed


@pytest.mark.parametrize("name", NAMES)
def test_cells_and_index_at_other_scales_and_in_black(outcomes, name):
    found, failed = outcomes
    assert is_right(ODD_FILES[name], found, failed), (found.get(name), found[PICTURE], failed)
