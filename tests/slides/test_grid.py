import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepliif_ray.errors import ConfigError
from deepliif_ray.slides.grid import TileGrid, default_overlap, published_positions

sizes = st.tuples(st.integers(1, 1500), st.integers(1, 1500))
tilings = st.integers(1, 300).flatmap(lambda tile: st.tuples(st.just(tile), st.integers(0, (tile - 1) // 2)))


def recorded(shared_reference):
    return json.loads((shared_reference / "tiles.json").read_text())


def test_positions_and_cores_are_the_published_ones(shared_reference):
    for case in recorded(shared_reference):
        grid = TileGrid(case["width"], case["height"], case["tile"], case["overlap"])
        xs = published_positions(grid.width, grid.tile, grid.overlap)
        ys = published_positions(grid.height, grid.tile, grid.overlap)
        assert [[x, y] for y in ys for x in xs] == case["positions"]
        owned = [
            (tuple(position), tuple(core[:4]))
            for position, core in zip(case["positions"], case["cores"], strict=True)
            if core is not None
        ]
        assert [((tile.x, tile.y), tile.core) for tile in grid] == owned


@given(sizes, tilings)
def test_cores_partition_the_image_and_lie_in_their_tiles(size, tiling):
    (width, height), (tile, overlap) = size, tiling
    if width * height > 400 * tile * max(1, tile - 2 * overlap):
        return  # thousands of tiles say nothing more
    owners = np.zeros((height, width), np.int32)
    grid = TileGrid(width, height, tile, overlap)
    for index, item in enumerate(grid):
        x0, y0, x1, y1 = item.core
        assert item.index == index == item.row * grid.n_columns + item.column
        assert item.x <= x0 < x1 <= min(item.x + tile, width)
        assert item.y <= y0 < y1 <= min(item.y + tile, height)
        owners[y0:y1, x0:x1] += 1
    assert (owners == 1).all()


@given(sizes, tilings)
def test_cores_are_what_overwriting_leaves(size, tiling):
    # Published software pastes centres, and margins at the image's edges, one tile after another.
    length, (tile, overlap) = size[0], tiling
    if length <= tile:
        return
    written = np.full(length, -1)
    positions = published_positions(length, tile, overlap)
    for number, start in enumerate(positions):
        first = start if start == 0 else start + overlap
        last = start + tile if start == length - tile else start + tile - overlap
        written[first:last] = number
    grid = TileGrid(length, 1, tile, overlap)
    winners = np.unique(written)
    assert [positions[n] for n in winners] == list(grid.column_starts)
    assert [*(int(np.argmax(written == n)) for n in winners), length] == list(grid.column_edges)


def test_sides_on_the_border():
    grid = TileGrid(1000, 500, 512, 32)
    assert (grid.n_columns, grid.n_rows, len(grid)) == (3, 1, 3)
    assert [grid.outer_sides(i) for i in range(3)] == [
        (True, True, False, True),
        (False, True, False, True),
        (False, True, True, True),
    ]
    with pytest.raises(IndexError):
        grid[3]


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (-1, 0), (512, 256), (512, 300), (512, -1)])
def test_impossible_tilings(tile, overlap):
    with pytest.raises(ConfigError):
        TileGrid(600, 600, tile, overlap)
    with pytest.raises(ConfigError):
        published_positions(100, tile, overlap)


def test_empty_image():
    with pytest.raises(ConfigError):
        TileGrid(0, 10, 512, 32)


def test_default_overlap():
    assert [default_overlap(tile) for tile in (512, 256, 128)] == [32, 16, 8]
