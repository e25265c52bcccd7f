"""What every column of every view means, from the contracts in ``schemas/``."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from deepliif_ray import contracts

TABLES = {
    "cells": ("cells", "One row per cell: measurements, no thresholded opinion."),
    "slides": ("slides", "One row per scored slide: its commit record."),
    "failures": ("failures", "One row per slide that could not be scored, and was not since."),
    "runs": ("runs", "One row per run."),
    "patient_indices": ("patients", "One row per patient and marker, with their index."),
    "regions": ("regions", "One row per region that counts: of each slide's newest import."),
}
"""Views that show a contract as it is: its name, and what a row is."""
DESCRIBED = pa.schema(
    [(name, pa.string()) for name in ("view", "kind", "name", "type", "unit", "description", "source")]
)
_TYPES = {
    "string": "VARCHAR",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "binary": "BLOB",
    "timestamp_us_utc": "TIMESTAMP",
}
_ALL = "..."
Column = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A view or a table macro.

    Attributes
    ----------
    name : str
    says : str
        What one row is.
    parameters : list of dict or None
        As contracts write them; None of a view.
    columns : list of dict
        As contracts write them.
    """

    name: str
    says: str
    parameters: list[Column] | None
    columns: list[Column]


@cache
def entries() -> tuple[Entry, ...]:
    """Return the views and then the table macros; read them, do not change them."""
    contract = contracts.load("views")
    found = {
        name: Entry(name, says, None, contracts.load(table)["columns"])
        for name, (table, says) in TABLES.items()
    }
    of = {table: found[name].columns for name, (table, _) in TABLES.items()}
    for name, view in contract["views"].items():
        known = [_known(other, of) for other in view.get("like", ())]
        of[name] = list(_columns(name, view["columns"], known))
        found[name] = Entry(name, view["says"], None, of[name])
    macros = []
    for name, macro in contract["macros"].items():
        parameters = [
            column
            for taken in macro["takes"]
            for column in (contract["parameters"][taken] if isinstance(taken, str) else [taken])
        ]
        if "gives" in macro:
            columns = found[macro["gives"]].columns
        else:
            known = [_known(other, of) for other in macro.get("like", ())]
            columns = of[name] = list(_columns(name, macro["columns"], known))
        says = macro.get(
            "says", f"As the view {macro.get('gives')}, with cut-offs and regions of your choice."
        )
        macros.append(Entry(name, says, parameters, columns))
    return (*found.values(), *macros)


def _known(name: str, of: dict[str, list[Column]]) -> list[Column]:
    """Return the columns of a view or macro that is described already, else those of a stored table."""
    columns: list[Column] = of[name] if name in of else contracts.load(name)["columns"]
    return columns


def _columns(view: str, written: list[str | Column], known: list[list[Column]]) -> Iterator[Column]:
    for column in written:
        if column == _ALL:
            yield from known[0]
        elif isinstance(column, str):
            same = [other for columns in known for other in columns if other["name"] == column]
            if not same:
                raise KeyError(f"schemas/views.yaml: {view}.{column} is in no view that it is like")
            yield same[0]
        else:
            yield column


@cache
def described() -> pa.Table:
    """Return the table ``described``: a row a column or parameter, in the order of `entries`."""
    rows: list[tuple[str, ...]] = []
    told = set()
    for entry in entries():
        listed = [("parameter", each) for each in entry.parameters or ()]
        if entry.name not in told:  # else a view of this name has them
            listed += [("column", each) for each in entry.columns]
        told.add(entry.name)
        for kind, each in listed:
            words = (each.get("unit", ""), " ".join(each["description"].split()), each.get("source", ""))
            rows.append((entry.name, kind, each["name"], sql_type(each["type"]), *map(str, words)))
    return pa.table(list(map(list, zip(*rows, strict=True))), schema=DESCRIBED)


def sql_type(text: str) -> str:
    """Return the type in SQL of what a contract writes as ``text``.

    Examples
    --------
    >>> sql_type("map<string,string>"), sql_type("struct<read_s: float64>")
    ('MAP(VARCHAR, VARCHAR)', 'STRUCT(read_s DOUBLE)')
    """
    nested = re.fullmatch(r"(list|map|struct)<(.+)>", text)
    if nested is None:
        return re.sub(r"\w+", lambda word: _TYPES.get(word[0], word[0]), text)
    if nested[1] == "list":
        return f"{sql_type(nested[2])}[]"
    parts = [" ".join(map(sql_type, part.split(":"))) for part in nested[2].split(",")]
    parts = [" ".join(part.split()) for part in parts]
    return f"{nested[1].upper()}({', '.join(parts)})"
