import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepliif_ray.evaluation.segmentation import aggregated_jaccard, panoptic_quality, region_score

masks = hnp.arrays(bool, (6, 6))
labels = hnp.arrays(np.int32, (6, 6), elements=st.integers(0, 4))


def row(*runs):
    """Labels in one row of pixels, as (label, pixels) runs."""
    return np.array([[label for label, length in runs for _ in range(length)]], dtype=np.int32)


# Truth: cell 1 of 4 px, cell 2 of 6 px, cell 3 of 2 px. Found: cell 5 covers 3 px of cell 1 and nothing else;
# cell 6 covers 3 px of cell 2 and 3 px of background; cell 7, 2 px, covers nothing; cell 3 is missed.
TRUTH = row((1, 4), (0, 2), (2, 6), (0, 5), (3, 2), (0, 3))
FOUND = row((5, 3), (0, 6), (6, 6), (0, 2), (0, 2), (7, 2), (0, 1))


def test_region_by_hand():
    # Found 11 px, true 12, both 3 + 3 = 6; of 22 px: TP 6, FP 5, FN 6, TN 5.
    score = region_score(FOUND > 0, TRUTH > 0)
    assert score.pixel_accuracy == pytest.approx((6 + 5) / 22)
    assert score.dice == pytest.approx(12 / (12 + 5 + 6))
    assert score.iou == pytest.approx(6 / (6 + 5 + 6))


def test_aji_by_hand():
    # Cell 1: ∩ 3, ∪ 4. Cell 2: ∩ 3, ∪ 6 + 6 − 3 = 9. Cell 3 alone: ∪ 2. Found 7 unused: 2.
    assert aggregated_jaccard(FOUND, TRUTH) == pytest.approx((3 + 3) / (4 + 9 + 2 + 2))
    # The other way round the same, as every cell has one partner at most.
    assert aggregated_jaccard(TRUTH, FOUND) == pytest.approx(6 / 17)


def test_aji_takes_the_largest_iou_and_may_use_a_cell_twice():
    # Truth 1 (4 px) and 2 (4 px) are one found cell 8 of 8 px: twice ∩ 4, ∪ 8.
    merged = row((8, 8))
    assert aggregated_jaccard(merged, row((1, 4), (2, 4))) == pytest.approx((4 + 4) / (8 + 8))
    # Split in two, the truth of 8 px takes one half (∩ 4, ∪ 8), the other counts as unused: 4 / (8 + 4).
    assert aggregated_jaccard(row((1, 4), (2, 4)), merged) == pytest.approx(4 / 12)
    # Cell 1 of 3 px: found 1 shares 2 px but is 10 px large (IoU 2/11), found 2 shares 1 px of 1 (IoU 1/3).
    # ∩ 1, ∪ 3; found 1 is unused: 10.
    truth, found = row((0, 8), (1, 3)), row((1, 10), (2, 1))
    assert aggregated_jaccard(found, truth) == pytest.approx(1 / (3 + 10))


def test_panoptic_by_hand():
    # IoU of cells 1 and 5: 3/4, a match. Of 2 and 6: 3/9, none. So TP 1, FP 2 (6, 7), FN 2 (2, 3).
    result = panoptic_quality(FOUND, TRUTH)
    assert result.dq == pytest.approx(1 / (1 + 2 / 2 + 2 / 2))
    assert result.sq == pytest.approx(3 / 4)
    assert result.pq == pytest.approx(1 / 3 * 3 / 4)
    assert (result.found.tolist(), result.truth.tolist()) == ([0], [0])


def test_an_iou_of_one_half_is_no_match():
    assert panoptic_quality(row((1, 2), (0, 2)), row((1, 4))).pq == 0
    assert panoptic_quality(row((1, 3), (0, 2)), row((1, 5))).pq == pytest.approx(3 / 5)


def test_nothing_there_or_nothing_found():
    nothing, something = np.zeros((3, 3), np.int32), np.eye(3, dtype=np.int32)
    one = region_score(nothing > 0, nothing > 0)
    assert (one.pixel_accuracy, one.dice, one.iou) == (1, 1, 1)
    assert aggregated_jaccard(nothing, nothing) == panoptic_quality(nothing, nothing).pq == 1
    for found, truth in ((nothing, something), (something, nothing)):
        score = region_score(found > 0, truth > 0)
        assert (score.dice, score.iou) == (0, 0)
        assert score.pixel_accuracy == pytest.approx(6 / 9)
        assert aggregated_jaccard(found, truth) == panoptic_quality(found, truth).pq == 0


@given(masks, masks)
def test_regions(found, truth):
    score = region_score(found, truth)
    assert score == region_score(truth, found)
    assert 0 <= score.iou <= score.dice <= 1
    assert score.dice == pytest.approx(2 * score.iou / (1 + score.iou))
    assert score.pixel_accuracy == pytest.approx((found == truth).mean())
    assert region_score(truth, truth).dice == 1


@given(labels, labels, st.permutations([11, 3, 70, 5]))
def test_instances(found, truth, names):
    renamed = np.array([0, *names], np.int32)[found]
    aji, panoptic = aggregated_jaccard(found, truth), panoptic_quality(found, truth)
    assert aggregated_jaccard(renamed, truth) == pytest.approx(aji)
    assert panoptic_quality(renamed, truth).pq == pytest.approx(panoptic.pq)
    assert 0 <= aji <= region_score(found > 0, truth > 0).iou + 1e-12
    assert panoptic_quality(truth, found).pq == pytest.approx(panoptic.pq)
    assert 0 <= panoptic.pq <= min(panoptic.dq, 1)
    assert aggregated_jaccard(truth, truth) == panoptic_quality(truth, truth).pq == 1
