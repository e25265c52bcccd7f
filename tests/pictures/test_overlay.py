"""Cells of known place have their colour at the right pixels."""

import numpy as np
import pytest

from deepliif_ray.annotations.corrections import import_corrections
from deepliif_ray.errors import QueryError
from deepliif_ray.exports.cells import Calls, slide_record
from deepliif_ray.pictures.colours import NEGATIVE, NO_CELL, POSITIVE, STRENGTHS
from deepliif_ray.pictures.overlay import draw_cells
from deepliif_ray.pictures.view import view_of
from deepliif_ray.query.streaming import streaming
from deepliif_ray.tables.cutoffs import write_cutoffs
from tests.few import few
from tests.pictures import scored

WHITE = (255, 255, 255)
PLACES = [(100, 80, True), (130, 80, False), (200, 200, True), (5, 5, False)]


@pytest.fixture
def root(tmp_path):
    cells = [scored.cell(n, x, y, positive=positive) for n, (x, y, positive) in enumerate(PLACES)]
    scored.commit(tmp_path, cells)
    return str(tmp_path)


def drawn(root, at=None, width=1600, calls=None, **more):
    with streaming(root) as stream:
        row = slide_record(stream, root, "S-1")
        view = view_of(row, at, width)
        pixels = np.full((view.rows, view.columns, 3), 255, np.uint8)
        counts = draw_cells(pixels, stream, row, view, calls or Calls(), **more)
    return pixels, view, counts


@pytest.mark.parametrize("at", [(80, 60, 80, 60), (93, 71, 50, 33), (0, 0, 300, 300), (104, 80, 100, 130)])
@pytest.mark.parametrize("width", few([64, 100, 163, 400], 2))
def test_outlines_lie_where_cells_are(root, at, width):
    pixels, view, _ = drawn(root, at, width)
    x, y = view.centres()
    expected = np.full((view.rows, view.columns, 3), 255, np.uint8)
    solid = np.zeros((view.rows, view.columns), int)
    for n, (left, top, positive) in enumerate(PLACES, start=1):
        # Eleven pixels a side, half-open.
        inside = ((x >= left - 5) & (x < left + 6)) & ((y >= top - 5) & (y < top + 6))[:, None]
        expected[inside] = POSITIVE if positive else NEGATIVE
        solid[inside] = n
    is_line = (pixels != 255).any(axis=2)
    assert (pixels[is_line] == expected[is_line]).all()
    # All around the cell, and nothing but its rim.
    padded = np.pad(solid, 1, mode="edge")
    rim = np.zeros_like(is_line)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        rim |= padded[dy : dy + view.rows, dx : dx + view.columns] != solid
    rim &= solid > 0
    assert (is_line[rim]).all()
    assert view.scale >= 1.5 or (is_line == rim).all()


def test_areas_are_half_open(root):
    # The cell at 100, 80 has the columns 95 to 105, its centre at 100.5.
    assert drawn(root, (101, 60, 20, 40))[2].n_called == 0
    assert drawn(root, (100, 60, 20, 40))[2].n_called == 1
    assert drawn(root, (90, 60, 10, 40))[2].n_called == 0
    assert drawn(root, (90, 60, 11, 40))[2].n_called == 1
    pixels, _, _ = drawn(root, (106, 60, 19, 40))
    assert (pixels == 255).all()
    pixels, _, counts = drawn(root, (105, 60, 19, 40))
    assert (pixels != 255).any() and counts.n_called == 0


def test_counts_are_those_of_the_area(root):
    _, _, counts = drawn(root, (80, 60, 100, 100))
    assert (counts.n_called, counts.n_positive) == (2, 1)
    _, _, counts = drawn(root)
    assert (counts.n_called, counts.n_positive, counts.n_said, counts.n_no_cell) == (4, 2, 0, 0)


def test_what_people_said_is_marked(root, tmp_path):
    for said in ("100,80,not_a_cell\n130,80,positive\n", "100,80,negative\n130,80,not_a_cell\n"):
        (tmp_path / "c.csv").write_text(f"x,y,call\n{said}")
        import_corrections(root, [str(tmp_path / "c.csv")], slide="S-1", author="me")  # the newest counts
    at = (80, 60, 80, 60)
    pixels, _, counts = drawn(root, at, 320)
    assert (counts.n_called, counts.n_positive, counts.n_said, counts.n_no_cell) == (1, 0, 1, 1)
    found = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    assert found == {WHITE, NEGATIVE, NO_CELL, (0, 0, 0)}
    assert tuple(pixels[82, 82]) == NEGATIVE  # the dot in the middle of 100, 80
    assert tuple(pixels[82, 202]) == (0, 0, 0)  # the cross on 130, 80
    pixels, _, counts = drawn(root, at, 320, Calls(corrections=False))
    assert (counts.n_called, counts.n_positive, counts.n_said, counts.n_no_cell) == (2, 1, 0, 0)
    assert {tuple(c) for c in np.unique(pixels.reshape(-1, 3), axis=0).tolist()} == {
        WHITE,
        NEGATIVE,
        POSITIVE,
    }


def test_strengths(tmp_path):
    cells = [
        scored.cell(n, 20 + 30 * n, 20, dab_od_mean=value) for n, value in enumerate((0.05, 0.3, 0.5, 0.9))
    ]
    scored.commit(tmp_path, cells)
    pixels, _, counts = drawn(str(tmp_path), (0, 0, 140, 40), 560, strength=True)
    assert counts.n_strengths == (1, 1, 1, 1)
    for n, colour in enumerate(STRENGTHS):
        assert tuple(pixels[82, 4 * (15 + 30 * n)]) == colour
    write_cutoffs(
        str(tmp_path),
        "cd3",
        [{"marker": "CD3", "weak": 0.1, "moderate": 0.2, "strong": 0.3}],
        author="a",
        note="n",
    )
    with pytest.raises(QueryError, match=r"'S-1'.*strength"):
        drawn(str(tmp_path), calls=Calls("cd3"), strength=True)
