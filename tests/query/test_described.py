"""Every column of every view, and every parameter of every table macro, is explained by a contract."""

import pytest

from deepliif_ray import contracts
from deepliif_ray.errors import QueryError
from deepliif_ray.query import ask, connect
from deepliif_ray.query.described import DESCRIBED, entries, sql_type
from tests.query import fake_results as fake


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("described"))
    fake.commit(root, "a", [fake.cell()])
    return root


@pytest.fixture(scope="module")
def connection(root):
    return connect(root)


def test_every_column_of_every_view_is_described(connection):
    """A view that comes new needs an entry in schemas/views.yaml."""
    views = "SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main'"
    names = {name for (name,) in connection.execute(views).fetchall()}
    assert names == {entry.name for entry in entries() if entry.parameters is None}
    for name in names:
        real = connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = 'main' AND "
            "table_name = ? ORDER BY column_index",
            [name],
        ).fetchall()
        told = "SELECT name, type FROM described(?) WHERE kind = 'column'"
        assert connection.execute(told, [name]).fetchall() == real, name


def test_every_table_macro_is_described(connection):
    real = dict(
        connection.execute(
            "SELECT function_name, parameters FROM duckdb_functions() "
            "WHERE NOT internal AND function_type = 'table_macro'"
        ).fetchall()
    )
    for name in contracts.load("views")["internal"]:
        del real[name]
    told = {entry.name: entry for entry in entries() if entry.parameters is not None}
    assert {name: [p["name"] for p in entry.parameters] for name, entry in told.items()} == real
    for name, entry in told.items():
        call = {"described": "described('cells')", "marker_status": "marker_status('CD10', 30)"}.get(
            name, f"{name}()"
        )
        found = [row[:2] for row in connection.execute(f"DESCRIBE FROM {call}").fetchall()]
        assert found == [(column["name"], sql_type(column["type"])) for column in entry.columns], name


def test_descriptions_say_something(connection):
    rows = connection.sql("FROM described").to_arrow_table().to_pylist()
    assert connection.sql("FROM described").columns == DESCRIBED.names
    assert len(rows) > 200
    for row in rows:
        assert row["description"].endswith(".") and row["type"], row
    units = {(row["view"], row["name"]): row["unit"] for row in rows}
    assert units["cells", "area_um2"] == "um2" and units["called_cells", "x"] == "px"
    assert units["slide_indices", "tissue_mm2"] == "mm2" and units["called_cells", "positive"] == ""


@pytest.mark.parametrize("sandbox", [False, True])
def test_what_is_not_there_is_said(root, sandbox):
    with pytest.raises(QueryError, match="nothing is called 'cels'"):
        ask(root, "FROM described('cels')", sandbox=sandbox)
