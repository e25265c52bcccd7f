"""The contracts and the Arrow schemas made from them."""

import json

import pyarrow as pa
import pytest

from deepliif_ray import contracts
from deepliif_ray.tables.schema import column_names, schema_version, table_schema

TABLES = ["cells", "slides", "failures", "runs", "patients"]


@pytest.mark.parametrize("name", TABLES)
def test_contract(name):
    contract = contracts.load(name)
    schema = table_schema(name)
    assert contract["name"] == name
    assert schema.metadata[b"deepliif_ray.table"] == name.encode()
    assert schema.metadata[b"deepliif_ray.schema_version"] == str(schema_version(name)).encode()
    assert len(set(column_names(name))) == len(column_names(name))
    for column in contract["columns"]:
        known = {"name", "type", "nullable", "unit", "description", "source", "partition", "since", "measure"}
        assert set(column) <= known
        assert 1 <= column.get("since", 1) <= contract["version"]
        assert column["nullable"] or "since" not in column
        assert column["description"] and column["source"], column["name"]
    for field in schema:
        assert field.metadata[b"description"]


def test_cells():
    schema = table_schema("cells")
    assert column_names("cells")[:3] == ("slide_id", "patient_id", "marker")
    assert "marker" not in schema.names
    assert schema.field("marker_max").type == pa.uint8()
    rows = contracts.load("cells")["columns"]
    later = {row["name"] for row in rows if "since" in row}
    without_marker = {row["name"] for row in rows if row.get("measure", {}).get("needs") == "marker"}
    assert {field.name for field in schema if field.nullable} == later | without_marker
    assert {"attempt", "marker_max"} <= later | without_marker
    assert schema.field("x_um").metadata[b"unit"] == b"um"
    geo = json.loads(schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"][geo["primary_column"]] == {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": None,
        "edges": "planar",
    }


def test_nested_types():
    schema = table_schema("slides")
    assert schema.field("warnings").type == pa.list_(pa.string())
    assert schema.field("attributes").type == pa.map_(pa.string(), pa.string())
    assert schema.field("committed_at").type == pa.timestamp("us", "UTC")
    assert [member.name for member in schema.field("timings").type] == [
        "read_s",
        "infer_s",
        "measure_s",
        "finalize_s",
    ]


def test_unknown_table():
    with pytest.raises(FileNotFoundError):
        table_schema("tiles")
