from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray.cells.fragments import measure_core
from deepliif_ray.cells.nodes import SlideCells
from deepliif_ray.cells.seams import join_rows
from deepliif_ray.engine import spill as module
from deepliif_ray.engine.spill import CellSpill
from tests.cells import maps


def joined(classes, core):
    """Return the edges of rows of cores, and what joining gives row by row."""
    height, width = classes.shape
    columns, rows = (np.append(np.arange(0, length, core), length) for length in (width, height))
    cores = (
        measure_core(
            maps.colour(classes[y0:y1, x0:x1]), None, None, core=(int(x0), int(y0), int(x1), int(y1)),
            slide=(width, height), seg_thresh=120, large_noise_thresh=None,
        )
        for y0, y1 in pairwise(rows)
        for x0, x1 in pairwise(columns)
    )  # fmt: skip
    return rows, list(join_rows(cores, columns, rows, noise_thresh=0, large_noise_thresh=None))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(1, 50),
    st.sampled_from([1, 2**20]),
)
def test_gives_all_cells_back_in_order(seed, height, width, core, least, in_memory):
    """As when everything is held in memory: the oracle is one sort of all cells."""
    rng = np.random.default_rng(seed)
    classes = (maps.blobs if seed % 2 else maps.noise)(rng, height, width)
    rows, chunks = joined(classes, core)
    expected = SlideCells.merge(chunks)
    kept, module._IN_MEMORY = module._IN_MEMORY, in_memory
    try:
        with CellSpill(rows) as spill:
            for cells in chunks:
                spill.add(cells)
            pieces = list(spill.pieces(least))
            assert len(spill) == len(expected)
    finally:
        module._IN_MEMORY = kept
    assert all(len(piece) >= least for piece in pieces[:-1])
    assert all(len(piece) for piece in pieces)
    for name in ("measures", "points"):
        found = [getattr(piece, name) for piece in pieces]
        assert np.array_equal(np.concatenate([getattr(expected, name)[:0], *found]), getattr(expected, name))
    lengths = [np.diff(piece.point_ends, prepend=0) for piece in pieces]
    assert np.array_equal(
        np.concatenate([np.empty(0, int), *lengths]), np.diff(expected.point_ends, prepend=0)
    )
