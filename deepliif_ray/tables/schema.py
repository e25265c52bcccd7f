"""Arrow schemas of the stored tables, read from ``schemas/*.yaml``.

How a table changes, so that objects of every version stay readable side by side: its version is raised, and
columns are only added. They are nullable, and those of ``cells`` say with ``since`` in which version they
came. No column is removed or changes its type or meaning: one that is not filled any more stays and is null,
and one that should be named or mean something else is added beside it. A newer version is refused by name.
"""

import json
import re
from functools import cache
from typing import Any

import pyarrow as pa

from deepliif_ray import contracts

TABLE_KEY = b"deepliif_ray.table"
VERSION_KEY = b"deepliif_ray.schema_version"

_SIMPLE: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "binary": pa.binary(),
    "timestamp_us_utc": pa.timestamp("us", tz="UTC"),
}
_NESTED = re.compile(r"(list|map|struct)<(.+)>")


def _arrow_type(text: str) -> pa.DataType:
    """Return the Arrow type a contract writes as ``text``; nested types hold simple ones."""
    nested = _NESTED.fullmatch(text)
    if nested is None:
        return _SIMPLE[text]
    kind, inside = nested.groups()
    parts = [part.strip() for part in inside.split(",")]
    if kind == "list":
        return pa.list_(_SIMPLE[parts[0]])
    if kind == "map":
        return pa.map_(_SIMPLE[parts[0]], _SIMPLE[parts[1]])
    members = (part.split(":") for part in parts)
    return pa.struct([(name.strip(), _SIMPLE[member.strip()]) for name, member in members])


def _field(column: dict[str, Any]) -> "pa.Field[Any]":
    metadata = {"description": column["description"], "unit": column.get("unit", "")}
    return pa.field(
        column["name"],
        _arrow_type(column["type"]),
        column["nullable"],
        metadata={key: value for key, value in metadata.items() if value},
    )


def _geo(geometry: dict[str, Any]) -> str:
    """Return the file metadata of GeoParquet 1.1: pixels of an image have no reference system on earth."""
    column = {
        "encoding": "WKB",
        "geometry_types": geometry["types"],
        "crs": None,
        "edges": "planar",
    }
    return json.dumps(
        {"version": "1.1.0", "primary_column": geometry["column"], "columns": {geometry["column"]: column}}
    )


@cache
def schema_version(name: str) -> int:
    """Return the version of table ``name`` that this software writes, the newest it can read."""
    return int(contracts.load(name)["version"])


@cache
def column_names(name: str) -> tuple[str, ...]:
    """Return all columns of table ``name`` in order, partition columns included."""
    return tuple(column["name"] for column in contracts.load(name)["columns"])


@cache
def later_columns(name: str, version: int) -> frozenset[str]:
    """Return the columns of table ``name`` that its objects of ``version`` do not have."""
    columns = contracts.load(name)["columns"]
    return frozenset(column["name"] for column in columns if column.get("since", 1) > version)


@cache
def table_schema(name: str) -> pa.Schema:
    """Return the Arrow schema of the objects of table ``name``.

    Parameters
    ----------
    name : str
        ``cells``, ``slides``, ``failures``, ``runs``, or ``patients`` (which is a view and never stored).

    Returns
    -------
    pyarrow.Schema
        Fields carry ``description`` and ``unit`` as metadata; the schema carries the table's name and
        version, and for ``cells`` the GeoParquet 1.1 key ``geo``. Partition columns are in the path and not
        in the schema.

    Raises
    ------
    FileNotFoundError
        There is no such table.
    """
    contract = contracts.load(name)
    metadata: dict[bytes | str, bytes | str] = {
        TABLE_KEY: name.encode(),
        VERSION_KEY: str(contract["version"]).encode(),
    }
    if "geometry" in contract:
        metadata[b"geo"] = _geo(contract["geometry"]).encode()
    stored = [_field(column) for column in contract["columns"] if not column.get("partition", False)]
    return pa.schema(stored, metadata=metadata)
