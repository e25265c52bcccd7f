"""Numbers of a map are those of SQL, and its colours tell them."""

import numpy as np
import pytest

from deepliif_ray.errors import ConfigError
from deepliif_ray.exports.cells import Calls, slide_record
from deepliif_ray.pictures import heat_map
from deepliif_ray.pictures.colours import heat, oklab
from deepliif_ray.pictures.view import view_of
from deepliif_ray.query import ask
from deepliif_ray.query.streaming import streaming
from deepliif_ray.slides import TissueMask
from tests.few import few
from tests.pictures import scored


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(1)
    places = rng.uniform(10, (990, 790), (600, 2))
    places = places[rng.random(600) < places[:, 0] / 1000]  # fewer to the left
    cells = [
        scored.cell(n, x, y, 2, positive=bool(rng.random() < y / 800))
        for n, (x, y) in enumerate(places.tolist())
    ]
    scored.commit(root, cells)
    return str(root)


def counted(root, at=None, side_um=25.0):
    with streaming(root) as stream:
        row = slide_record(stream, root, "S-1")
        view = view_of(row, at, 500)
        return heat_map.count_squares(stream, row, view, Calls(), side_um), view


@pytest.mark.parametrize("at", [None, (130, 270, 440, 301), (900, 700, 100, 100)])
@pytest.mark.parametrize("side_um", few([25.0, 33.3], 1))
def test_numbers_are_those_of_sql(root, at, side_um):
    squares, view = counted(root, at, side_um)
    rows = ask(
        root,
        f"SELECT floor((y + 0.5) * 0.25 / {side_um})::INT AS r, "
        f"floor((x + 0.5) * 0.25 / {side_um})::INT AS c, count(*) AS n, "
        "count_if(positive)::INT AS p, 100 * avg(positive::INT) AS percent "
        "FROM called_cells GROUP BY ALL",
    ).to_pylist()
    shape = squares.n_called.shape
    inside = 0
    index, density = (heat_map.values_of(squares, what, 5) for what in ("index", "density"))
    for row in rows:
        at_row, at_column = row["r"] - squares.first_row, row["c"] - squares.first_column
        if not (0 <= at_row < shape[0] and 0 <= at_column < shape[1]):
            continue
        inside += row["n"]
        assert squares.n_called[at_row, at_column] == row["n"]
        assert squares.n_positive[at_row, at_column] == row["p"]
        if row["n"] >= 5:
            assert index[at_row, at_column] == pytest.approx(row["percent"])
        else:
            assert np.isnan(index[at_row, at_column])
        x0, y0 = row["c"] * side_um, row["r"] * side_um
        area = (min(x0 + side_um, 250) - x0) * (min(y0 + side_um, 200) - y0) / 1e6
        assert density[at_row, at_column] == pytest.approx(row["p"] / area)
    assert inside == squares.n_called.sum() > 0
    assert np.isnan(density[squares.n_called == 0]).all()
    # The squares cover the area.
    assert squares.first_column * side_um <= view.x * 0.25
    assert (squares.first_column + shape[1]) * side_um >= (view.x + view.width) * 0.25


def test_colours_are_those_of_their_squares(root):
    squares, view = counted(root)
    values = heat_map.values_of(squares, "index", 5)
    pixels = np.full((view.rows, view.columns, 3), 255, np.uint8)
    heat_map.draw_squares(pixels, view, 0.25, squares, values, 100.0)
    for row, column in np.ndindex(values.shape):
        # 25 µm are 100 pixels of the slide and 50 of the picture.
        block = pixels[50 * row : 50 * row + 50, 50 * column : 50 * column + 50]
        value = values[row, column]
        if not np.isnan(value):
            step = int(np.rint(255 * value / 100))  # halves may be rounded to the next colour
            assert np.abs(block - (0.8 * heat()[step] + 51)).max() < 3
            assert (block == block[0, 0]).all()
        elif squares.n_called[row, column]:
            assert 0.1 < (block == 110).mean() < 0.25
        else:
            assert (block == 255).all()


def test_the_map_is_even_and_becomes_lighter():
    lab = oklab(heat())
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert (np.diff(lab[:, 0]) > -0.002).all() and steps.max() < 3 * np.median(steps)
    # Told apart also in grey.
    grey = heat() @ np.array([0.299, 0.587, 0.114])
    assert grey[-1] - grey[0] > 150


@pytest.mark.parametrize(
    ("what", "most", "end"),
    [
        ("index", 7.2, 10),
        ("index", 10, 10),
        ("index", 10.1, 25),
        ("index", 100, 100),
        ("density", 3200, 5000),
        ("density", 1000, 1000),
        ("density", 0.0, 100),
    ],
)
def test_the_last_colour_is_a_round_number(what, most, end):
    assert heat_map.end_of(np.array([[0.0, most, np.nan]]), what) == end
    assert heat_map.end_of(np.array([[np.nan]]), what) == (10 if what == "index" else 100)


def test_squares_are_large_enough_to_be_seen():
    huge = {"slide_id": "S-1", "width_px": 100_000, "height_px": 100_000, "reader": None}
    huge |= dict.fromkeys(("bounds_x", "bounds_y", "bounds_width", "bounds_height"))
    assert heat_map.side_of(view_of(huge), 0.25, None, "S-1") == 100
    assert heat_map.side_of(view_of(huge, width=200), 0.25, None, "S-1") == 1000
    assert heat_map.side_of(view_of(huge), 0.25, 40, "S-1") == 40
    for wanted in (10, 0, -3, float("nan"), float("inf") * 0):
        with pytest.raises(ConfigError, match=r"'S-1'.*--square-um 32 or more"):
            heat_map.side_of(view_of(huge), 0.25, wanted, "S-1")


def test_the_outline_of_tissue(root):
    _, view = counted(root)
    mask = np.zeros((20, 25), bool)
    mask[5:10, 5:15] = True
    some = np.zeros((20, 25, 3), np.float32)
    tissue = TissueMask(mask, 40, (40.0, 40.0), 1.0, some, np.full(3, 250.0), ~mask, 1.0)
    pixels = np.full((view.rows, view.columns, 3), 255, np.uint8)
    heat_map.draw_tissue(pixels, view, tissue)
    # A square of 40 pixels of the slide is 20 of the picture.
    black = (pixels == 0).all(axis=2)
    assert black[99:101, 101:299].all() and black[101:199, 99:101].all()
    assert not black[102:198, 102:298].any() and not black[:99].any()


def test_pale_pictures_are_light():
    pixels = scored.gradient(300, 20)
    grey = heat_map.pale(pixels)
    assert grey.min() >= 200 and (grey[..., 0] == grey[..., 2]).all() and grey.std() > 3
