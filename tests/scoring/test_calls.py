"""The published calling rule, against recordings of the published software."""

import json

import numpy as np
import pytest

from deepliif_ray.errors import ConfigError
from deepliif_ray.scoring.calls import call_cells, index

RECORDINGS = ["34_3-40x", "6_2-40x", "mosaic-10x", "mosaic-20x", "mosaic-40x"]
CHOICES = {"od": {"od_thresh_lower": 40}}


@pytest.mark.parametrize("recording", RECORDINGS)
def test_recordings(shared_reference, recording):
    record = json.loads((shared_reference / "postprocess" / f"{recording}.json").read_text())
    columns = {key: [cell[key] for cell in record["cells"]] for key in ("size", "positive", "marker", "od")}
    assert len(record["scoring"]) == 5
    for choice, expected in record["scoring"].items():
        counted, positive = call_cells(
            columns["size"],
            columns["positive"],
            columns["marker"],
            columns["od"],
            size_thresh=expected["size_thresh"],
            size_thresh_upper=expected["size_thresh_upper"],
            marker_thresh=expected["marker_thresh"],
            **CHOICES.get(choice, {}),
        )
        found = index(counted, positive)
        assert found == {key: expected[key] for key in found}, choice


def test_limits_are_as_published():
    """Sizes are exclusive on both sides, densities inclusive, and density has the last word."""
    counted, _ = call_cells([9, 10, 11, 19, 20], [True] * 5, size_thresh=10, size_thresh_upper=20)
    assert counted.tolist() == [False, False, True, True, False]
    _, positive = call_cells(
        [9] * 4, [False] * 3 + [True], [167, 168, 169, 0], size_thresh=0, marker_thresh=168
    )
    assert positive.tolist() == [False, False, True, True]
    od = [39, 39.5, 40.4, 40.5, 41, 60, 60.5, 61]  # 39.5 and 40.5 both round to 40, 60.5 to 60
    _, positive = call_cells(
        [9] * 8,
        [False] * 8,
        [255] * 8,
        od,
        size_thresh=0,
        marker_thresh=1,
        od_thresh_lower=40,
        od_thresh_upper=60,
    )
    assert positive.tolist() == [False, True, True, True, True, True, True, False]


def test_uncounted_is_never_positive_and_input_is_left_alone():
    majority = np.array([True, True])
    counted, positive = call_cells([5, 50], majority, [0, 0], [9, 9], size_thresh=10, od_thresh_lower=40)
    assert (counted.tolist(), positive.tolist()) == ([False, True], [False, False])
    assert majority.all()


def test_without_marker_image_the_marker_threshold_has_no_effect():
    _, positive = call_cells([9], [False], None, size_thresh=0, marker_thresh=0)
    assert not positive.any()


def test_nothing_and_missing_density():
    assert index(*call_cells([], [], size_thresh=0)) == {
        "num_total": 0,
        "num_pos": 0,
        "num_neg": 0,
        "percent_pos": 0.0,
    }
    with pytest.raises(ConfigError):
        call_cells([1], [True], size_thresh=0, od_thresh_upper=9)
