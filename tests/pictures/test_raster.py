"""A pixel of a picture belongs to the cell that its centre lies in, at any scale and place."""

from fractions import Fraction

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray.exports.outlines import enclosing_outlines
from deepliif_ray.pictures.raster import borders, fill
from deepliif_ray.pictures.view import View
from tests.exports import slides


def filled(outlines, view, first=1):
    labels = np.zeros((view.rows, view.columns), np.int32)
    points, owner = shapely.get_coordinates(outlines, return_index=True)
    fill(labels, points, owner.astype(np.int64), first, view)
    return labels


@settings(max_examples=150, deadline=None)
@given(
    left=st.integers(-20, 60),
    top=st.integers(-20, 60),
    wide=st.integers(1, 30),
    high=st.integers(1, 30),
    x=st.integers(0, 40),
    y=st.integers(0, 40),
    columns=st.integers(1, 160),
)
def test_a_square_has_the_pixels_whose_centres_lie_in_it(left, top, wide, high, x, y, columns):
    view = View(x, y, 40, 30, columns, max(1, round(30 * columns / 40)))
    labels = filled(np.array([shapely.box(left, top, left + wide, top + high)]), view, 7)
    scale = Fraction(columns, 40)
    close = Fraction(1, 10**9)  # where a centre is on an edge, rounding decides
    for column in range(view.columns):
        for row in (0, view.rows // 2, view.rows - 1):
            at = x + Fraction(2 * column + 1, 2) / scale, y + Fraction(2 * row + 1, 2) / scale
            inside = left <= at[0] < left + wide and top <= at[1] < top + high
            edges = (left - at[0], left + wide - at[0], top - at[1], top + high - at[1])
            if min(map(abs, edges)) > close:
                assert labels[row, column] == (7 if inside else 0)


def test_at_the_scale_of_the_slide_a_cell_has_its_own_pixels():
    cells = slides.cells(seed=4)
    outlines = enclosing_outlines([row["boundary"] for row in cells])
    labels = filled(outlines, View(0, 0, 120, 120, 120, 120))
    counted = np.bincount(labels.ravel(), minlength=len(cells) + 1)[1:]
    assert counted.tolist() == [row["area_px"] for row in cells]
    twice = filled(outlines, View(0, 0, 120, 120, 240, 240))
    assert (twice[::2, ::2] == labels).all() and (twice[1::2, 1::2] == labels).mean() > 0.999


def test_squares_that_share_an_edge_leave_no_gap_and_share_no_pixel():
    boxes = [shapely.box(10 * n, 10 * m, 10 * n + 10, 10 * m + 10) for m in range(4) for n in range(4)]
    for columns in (7, 13, 40, 57, 160):
        view = View(0, 0, 40, 40, columns, columns)
        labels = filled(np.array(boxes), view)
        alone = [filled(np.array([one]), view, n) for n, one in enumerate(boxes, start=1)]
        assert (labels > 0).all() and (np.sum(alone, axis=0) == labels).all()


def test_borders_lie_within_and_stay_open_at_the_edge_of_the_picture():
    labels = np.zeros((12, 12), np.int32)
    labels[2:9, 0:6] = 1
    labels[2:9, 6:12] = 2
    edge = borders(labels, 1)
    assert not edge[labels == 0].any()
    assert edge[2, :].all() and edge[8, :].all() and edge[3:8, 5:7].all()
    assert not edge[3:8, 0:5].any()
    wider = borders(labels, 2)
    assert wider[3, 1] and wider[5, 4] and wider[5, 7] and not wider[5, 3] and not wider[labels == 0].any()


def test_nothing_to_fill():
    assert not filled(np.empty(0, object), View(0, 0, 9, 9, 9, 9)).any()
