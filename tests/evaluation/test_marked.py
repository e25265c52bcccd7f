"""The nuclei that are marked on tissue of other cameras, and how models are measured by them."""

import numpy as np
import pytest

from benchmarks.marked import MARKS, SIDE, Square, Tally, compare, measure, squares
from deepliif_ray.evaluation.detection import Counts
from deepliif_ray.models import load_model


def square(*marks):
    return Square("field.png", 0, 0, [(x, y) for x, y, _ in marks], [kind for *_, kind in marks])


def cells(*found):
    xy = np.array([(x, y) for x, y, _ in found], float).reshape(-1, 2)
    return xy, np.array([positive for *_, positive in found], bool)


def test_each_mark_and_each_cell_counts_once():
    marks = square((50, 50, "positive"), (90, 50, "negative"), (130, 50, "either"), (170, 50, "positive"))
    found = cells((52, 50, True), (90, 58, True), (131, 50, False), (52, 52, False))
    tally = compare(marks, *found)
    assert tally.any == Counts(3, 1, 1)  # a second cell at one mark, a mark without a cell
    assert tally.positive == Counts(1, 1, 1)  # the negative one was called positive
    assert tally.negative == Counts(0, 1, 1)  # either may be called what it will


def test_what_is_unclear_or_cut_is_neither_right_nor_wrong():
    marks = square((50, 50, "unclear"), (2, 100, "positive"))
    assert compare(marks, *cells((50, 50, True), (60, 52, False), (3, 100, False))) == Tally()
    assert compare(marks, *cells((80, 50, True))).any == Counts(0, 1, 0)


def test_nothing_found_and_nothing_marked():
    assert compare(square((50, 50, "negative")), *cells()).any == Counts(0, 0, 1)


def test_marks_lie_in_squares_of_images_that_may_train():
    found = squares()
    assert len(found) == len({(s.image, s.left, s.top) for s in found}) == 44
    for each in found:
        assert each.image.startswith(("unlabelled/", "endonuke/", "deepliif/large/"))
        assert set(each.kinds) <= {"positive", "negative", "either", "unclear"}
        assert all(0 <= x < SIDE and 0 <= y < SIDE for x, y in each.xy)
    lines = MARKS.read_text().splitlines()
    assert len(set(lines)) == len(lines)


@pytest.mark.slow
def test_compact_finds_nuclei_of_other_cameras(shared_data):
    found = sum(measure(load_model("compact"), shared_data).values(), Tally())
    assert found.any.f1 > 0.87  # 0.883
    assert found.any.precision > 0.93  # 0.949
    assert found.positive.f1 > 0.82  # 0.832
    assert found.negative.f1 > 0.87  # 0.884
