"""The contract of the cells says what is measured, and the kernel measures that."""

import numpy as np
import pytest

from deepliif_ray import contracts
from deepliif_ray.cells import extract_cells, measures
from deepliif_ray.cells.densities import STAIN_SCALE
from deepliif_ray.cells.measures import AT, MAXIMA, MEASUREMENTS, MINIMA, NUMBERS, M, Measurement
from tests.cells import maps


def test_every_measured_column_is_in_the_table_in_the_contracts_order_and_type():
    classes = maps.noise(np.random.default_rng(0), 96, 96, 0.2)
    rgb = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    table = extract_cells(maps.colour(classes), rgb[..., 0], rgb, mpp=0.5, noise_thresh=0).table
    assert table.num_rows > 3
    order = [row["name"] for row in contracts.load("cells")["columns"] if row["name"] in table.column_names]
    assert table.column_names == order
    assert {row.column for row in MEASUREMENTS} <= set(order)
    assert all(table.schema.field(row.column).type == row.type for row in MEASUREMENTS)
    assert all(table[row.column].null_count == 0 for row in MEASUREMENTS)


def test_what_needs_an_image_is_null_without_it():
    classes = maps.noise(np.random.default_rng(0), 96, 96, 0.2)
    table = extract_cells(maps.colour(classes), mpp=0.5, noise_thresh=0).table
    without = {row.column for row in MEASUREMENTS if row.needs}
    assert without == {name for name in table.column_names if table[name].null_count}
    assert all(table[name].null_count == table.num_rows for name in without)


def test_stains_are_divided_by_what_they_are_counted_in():
    scales = {row.number: row.scale for row in MEASUREMENTS}
    assert scales["dab"] == scales["hematoxylin"] == STAIN_SCALE


def test_where_a_number_is_does_not_follow_from_where_kernels_have_it():
    """Compiled kernels stay on disk when rows of the contract are moved."""
    assert AT._fields == tuple(sorted(NUMBERS))
    assert AT._asdict() == {name: M[name] for name in sorted(NUMBERS)}
    assert {NUMBERS[i] for i in MINIMA} == {"kind", "x0", "y0"}
    assert {NUMBERS[i] for i in MAXIMA} == {"marker", "x1", "y1"}


@pytest.mark.parametrize("said", [{}, {"sum": "a", "max": "b"}, {"sum": "a", "under": "b"}])
def test_a_row_that_says_no_measurement_is_refused(said):
    with pytest.raises((ValueError, TypeError)):
        Measurement.of_row({"name": "x", "type": "int64", "measure": said})


def test_a_number_joins_in_one_way():
    rows = [{"name": n, "type": "int64", "measure": {how: "area"}} for n, how in (("a", "sum"), ("b", "max"))]
    with pytest.raises(ValueError, match="b joins area by max"):
        measures.reducers(map(Measurement.of_row, rows))
