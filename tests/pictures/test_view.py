import pytest

from deepliif_ray.annotations.origin import Origin
from deepliif_ray.errors import ConfigError
from deepliif_ray.pictures.view import MOST_SIDE, view_of

ROW = {"slide_id": "S-1", "width_px": 1000, "height_px": 800, "reader": "openslide"}
ROW |= dict.fromkeys(("bounds_x", "bounds_y", "bounds_width", "bounds_height"))
BOUNDED = ROW | {"bounds_x": 100, "bounds_y": 50, "bounds_width": 500, "bounds_height": 300}


def test_all_of_the_slide_and_no_larger_than_four_times():
    view = view_of(ROW)
    assert view.area == (0, 0, 1000, 800) and (view.columns, view.rows) == (1600, 1280)
    assert view_of(ROW, (0, 0, 100, 80)).columns == 400
    assert view_of(ROW, (0, 0, 1000, 80), 500).rows == 40


def test_areas_are_cut_to_the_slide():
    assert view_of(ROW, (-10, 790, 20, 20)).area == (0, 790, 10, 10)
    assert view_of(ROW, (999, 799, 1, 1)).area == (999, 799, 1, 1)


@pytest.mark.parametrize(
    "at", [(1000, 0, 10, 10), (0, 800, 10, 10), (-10, 0, 10, 10), (5, 5, 0, 9), (5, 5, 9, -1)]
)
def test_an_area_without_the_slide(at):
    with pytest.raises(ConfigError, match=r"'S-1'.*it has 1,000 × 800 px"):
        view_of(ROW, at)


@pytest.mark.parametrize("width", [0, -5, 10, MOST_SIDE + 1])
def test_sizes_that_no_picture_has(width):
    with pytest.raises(ConfigError, match=r"S-1.*wide"):
        view_of(ROW, None, width)


def test_no_picture_is_too_high():
    tall = ROW | {"width_px": 20_000, "height_px": 100_000}
    assert view_of(tall, None, 6000).rows <= MOST_SIDE
    with pytest.raises(ConfigError, match="too narrow"):
        view_of(tall, (0, 0, 1, 100_000))


def test_where_coordinates_begin():
    assert view_of(BOUNDED).area == (100, 50, 500, 300)
    assert view_of(BOUNDED, (0, 0, 200, 100)).area == (0, 0, 200, 100)
    assert view_of(BOUNDED, (0, 0, 200, 100), origin=Origin.BOUNDS).area == (100, 50, 200, 100)
    assert view_of(BOUNDED | {"bounds_width": 5000}).area == (100, 50, 900, 300)
