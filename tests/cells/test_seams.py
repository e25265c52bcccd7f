"""Joining row by row: what is carried, what is given out when."""

import tracemalloc

import numpy as np

from deepliif_ray.cells.fragments import measure_core
from deepliif_ray.cells.measures import M
from deepliif_ray.cells.nodes import SlideCells
from deepliif_ray.cells.seams import SeamJoiner, join_rows
from tests.cells import maps

CORE = 32


def cores(classes, rows=None):
    """Yield the cores of a map, row by row; of the map repeated downwards if ``rows`` asks for more."""
    height, width = classes.shape
    rows = height // CORE if rows is None else rows
    for y in range(0, rows * CORE, CORE):
        for x in range(0, width, CORE):
            at = y % height
            yield measure_core(
                maps.colour(classes[at : at + CORE, x : x + CORE]),
                None,
                None,
                core=(x, y, x + CORE, y + CORE),
                slide=(width, rows * CORE),
                seg_thresh=120,
                large_noise_thresh=300,
            )


def edges(pixels):
    return np.arange(0, pixels + 1, CORE)


def test_memory_does_not_follow_the_height():
    """Sixteen times the rows, the same peak, though every row gives out cells."""
    classes = maps.noise(np.random.default_rng(1), 4 * CORE, 4 * CORE, 0.2)
    peaks, counts = [], []
    for rows in (8, 8, 128):  # once to compile
        joined = join_rows(
            cores(classes, rows), edges(4 * CORE), edges(rows * CORE), noise_thresh=4, large_noise_thresh=300
        )
        tracemalloc.start()
        counts.append(sum(len(cells) for cells in joined))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert counts[2] > 12 * counts[1] > 1000
    assert peaks[2] < 1.2 * peaks[1]


def test_cells_around_a_region_wait_until_it_ends():
    """Cells that line an enclosed region are final only when the region is: it may be a hole of theirs."""
    size = 4 * CORE
    classes = np.zeros((size, size), dtype=int)
    classes[4, 4:-4] = classes[-5, 4:-4] = 1
    classes[4:-4, 4] = classes[4:-4, -5] = 1
    for y in range(10, size - 10, 10):
        classes[y : y + 3, 20:23] = 2  # islets in the ring, each touching the region alone
    joiner = SeamJoiner(edges(size), noise_thresh=0, large_noise_thresh=None)
    pieces = list(cores(classes))
    given = []
    for row in range(4):
        given.append(len(joiner.add(pieces[4 * row : 4 * row + 4], CORE, last=row == 3)))
    assert given == [0, 0, 0, 1]
    assert joiner.carried == 0
    broken = classes.copy()
    broken[-5, 60] = 0  # the region leaks out in the very last row: no hole, every islet a cell
    joined = join_rows(cores(broken), edges(size), edges(size), noise_thresh=0, large_noise_thresh=None)
    assert [len(cells) for cells in joined] == [0, 0, 0, 1 + len(range(10, size - 10, 10))]


def test_what_is_too_large_is_carried_without_its_pixels():
    classes = np.ones((8 * CORE, 2 * CORE), dtype=int)
    joiner = SeamJoiner(edges(2 * CORE), noise_thresh=4, large_noise_thresh=300)
    pieces = list(cores(classes))
    for row in range(7):
        assert len(joiner.add(pieces[2 * row : 2 * row + 2], CORE, last=False)) == 0
        assert (joiner.carried, len(joiner._carried.runs)) == (1, 0)
    assert len(joiner.add(pieces[14:], CORE, last=True)) == 0


def test_slices_and_merges_of_cells():
    classes = maps.blobs(np.random.default_rng(2), 2 * CORE, 2 * CORE, 30)
    options = {"noise_thresh": 0, "large_noise_thresh": None}
    whole = SlideCells.merge(list(join_rows(cores(classes), edges(64), edges(64), **options)))
    cut = len(whole) // 2
    for pieces in ([whole[:cut], whole[cut:]], [whole[cut:], whole[:cut]], [whole[:0], whole]):
        again = SlideCells.merge(pieces)
        assert np.array_equal(again.measures, whole.measures)
        assert np.array_equal(again.points, whole.points)
        assert np.array_equal(again.point_ends, whole.point_ends)
    first = whole.measures[:, M["first_y"]] * 64 + whole.measures[:, M["first_x"]]
    assert (np.diff(first) > 0).all()
    assert len(SlideCells.merge([])) == 0
