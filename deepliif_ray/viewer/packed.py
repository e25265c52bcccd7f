"""The cells of a slide, packed for a page that counts and draws them itself at any cut-off.

Twelve bytes a cell, sorted by square tiles of the slide, one array a measurement. The whole slide is sent
once: a page that holds the measurements needs no request when a cut-off moves. Cumulative histograms of
squares would be smaller, but each holds for one cut-off while the others stay, and a call has up to five;
counting three million cells anew takes a browser some hundredths of a second.
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

TILE = 1024
"""Side of a tile, level-0 px."""
PART = 64
"""Positions in a tile are whole numbers of 1 / ``PART`` level-0 px."""
DAB_STEPS = 1000
"""Steps of the optical density of DAB to one; cut-offs that are whole numbers of steps are exact."""
MAX_AREA = 65_534
"""Cut-offs of size up to this one are exact, px; larger cells are stored as larger than it."""
COLUMNS = {
    "x": np.uint16, "y": np.uint16, "area": np.uint16, "od": np.uint16, "dab": np.uint16, "marker": np.uint8,
    "flags": np.uint8,
}  # fmt: skip
_ALIGN = 8
_CELLS = Template(resources.files("deepliif_ray.viewer").joinpath("packed.sql").read_text("utf-8"))
_SAID = """coalesce((
  SELECT list_position(['positive', 'negative', 'not_a_cell'], k.call) FROM corrections AS k
  WHERE k.slide_id = c.slide_id AND k.cell_id = c.cell_id AND k.is_current
), 0)"""
_IN_REGION = "FROM region_cells AS r WHERE r.slide_id = c.slide_id AND r.cell_id = c.cell_id AND"


def query_of(row: Mapping[str, Any], asked: "Which", more: str = "") -> tuple[str, list[Any]]:
    """Return SQL of the packed cells that may count, at any cut-offs, and its parameters.

    Parameters
    ----------
    row : mapping
        The slide's commit record.
    asked : Which
    more : str
        SQL of further columns, each with a comma behind it.
    """
    values, where = [row["slide_id"], row["marker"]], []
    if asked.has_regions:
        where.append(f"NOT EXISTS ({_IN_REGION} r.excludes)")
    if asked.region is not None:
        where.append(f"EXISTS ({_IN_REGION} lower(r.class) = lower(?))")
        values.append(asked.region)
    return _CELLS.substitute(
        more=more,
        across=_across(row),
        tile_px=TILE,
        part=PART,
        max_area=MAX_AREA,
        dab_steps=DAB_STEPS,
        last_step=4 * DAB_STEPS,
        said=_SAID if asked.corrections else "0",
        where="WHERE " + " AND ".join(where) if where else "",
    ), values


@dataclass(frozen=True)
class Which:
    """Which cells of a slide are meant.

    Attributes
    ----------
    region : str or None
        Only cells in regions of this class.
    corrections, has_regions : bool
        Whether there are corrections that count, and regions. What is not there is not looked up: that takes
        longer than reading the cells.
    """

    region: str | None = None
    corrections: bool = False
    has_regions: bool = False


@dataclass(frozen=True)
class Packed:
    """Packed cells.

    Attributes
    ----------
    columns : dict of str to ndarray
        `COLUMNS`, each of shape (cells,): position in its tile, area in px, the published integer optical
        density, DAB in steps (0 is below zero, 1 from zero on), the marker's maximum, and flags: 1 for a
        positive majority, 2 and 4 for the number of its correction, 8 where there is a marker.
    tiles : ndarray of uint32, shape (tiles, 4)
        Column, row, first cell and one past the last of each tile that has cells.
    """

    columns: dict[str, NDArray[Any]]
    tiles: NDArray[np.uint32]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.columns["x"])

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.tiles.nbytes + sum(column.nbytes for column in self.columns.values())

    def parts(self) -> Iterable[bytes | memoryview]:
        """Yield the message that holds them: the length of a heading, the heading as JSON, the arrays.

        The heading says of each array its type, how many numbers it has, and where it begins, counted from
        the end of the heading, which is padded so that all begin at whole words.
        """
        arrays: dict[str, NDArray[Any]] = {"tiles": self.tiles.ravel(), **self.columns}
        place, heading = 0, {}
        for name, array in arrays.items():
            heading[name] = {"type": array.dtype.name, "at": place, "length": len(array)}
            place += -(-array.nbytes // _ALIGN) * _ALIGN
        said = {"tile": TILE, "part": PART, "dab_steps": DAB_STEPS, "arrays": heading}
        text = json.dumps(said).encode()
        text += b" " * (-(len(text) + 4) % _ALIGN)
        yield len(text).to_bytes(4, "little")
        yield text
        for array in arrays.values():
            yield memoryview(array.tobytes())
            yield b"\0" * (-array.nbytes % _ALIGN)


def pack(row: Mapping[str, Any], tables: Iterable[pa.Table]) -> Packed:
    """Pack what the SQL of `query_of` gives.

    Parameters
    ----------
    row : mapping
        The slide's commit record.
    tables : iterable of pyarrow.Table
    """
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("tile", *COLUMNS)}
    for table in tables:
        for name, values in parts.items():
            values.append(table[name].to_numpy())
    tile = _joined(parts.pop("tile"), np.uint32)
    # Numbers of 16 bits are sorted by counting, many times as fast.
    order = np.argsort(tile.astype(np.uint16) if tile.max(initial=0) < 1 << 16 else tile, kind="stable")
    tile = tile[order]
    begin = np.flatnonzero(np.append(True, tile[1:] != tile[:-1])) if len(tile) else np.empty(0, np.int64)
    end = np.append(begin[1:], len(tile)) if len(begin) else begin
    across = _across(row)
    tiles = np.column_stack([tile[begin] % across, tile[begin] // across, begin, end]).astype("<u4")
    with ThreadPoolExecutor(2) as threads:
        taken = [
            threads.submit(np.take, _joined(parts.pop(name), kind), order, mode="clip")
            for name, kind in COLUMNS.items()
        ]
    columns = {name: column.result() for name, column in zip(COLUMNS, taken, strict=True)}
    return Packed(columns, tiles)


def _across(row: Mapping[str, Any]) -> int:
    """Return how many tiles lie beside each other."""
    return int(row["width_px"]) // TILE + 1


def _joined(parts: list[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, kind)
