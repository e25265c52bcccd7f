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
    across = _across(row)
    n_tiles = across * (int(row["height_px"]) // TILE + 1)
    # Numbers of 16 bits are sorted by counting, many times as fast.
    kinds = {"tile": np.uint16 if n_tiles <= 1 << 16 else np.uint32, **COLUMNS}
    # One array a column from the beginning: many small ones leave holes in memory that stay.
    columns = {name: np.empty(int(row["n_cells"]), kind) for name, kind in kinds.items()}
    n_cells = 0
    for table in tables:
        begin, n_cells = n_cells, n_cells + table.num_rows
        for name, values in columns.items():
            columns[name] = room = _with_room(values, n_cells)
            room[begin:n_cells] = table[name].to_numpy()
    tile = columns.pop("tile")[:n_cells]
    order = np.argsort(tile, kind="stable")
    count = np.bincount(tile, minlength=n_tiles)
    filled = np.flatnonzero(count)
    end = np.cumsum(count[filled])
    tiles = np.column_stack([filled % across, filled // across, end - count[filled], end]).astype("<u4")
    del tile

    def sort(name: str) -> NDArray[Any]:
        return np.take(columns.pop(name)[:n_cells], order, mode="clip")  # what is sorted is let go

    with ThreadPoolExecutor(2) as threads:
        return Packed(dict(zip(COLUMNS, threads.map(sort, COLUMNS), strict=True)), tiles)


def _with_room(values: NDArray[Any], count: int) -> NDArray[Any]:
    """Return an array of at least that length: a record may tell fewer cells than there are."""
    return values if len(values) >= count else np.resize(values, 2 * count)


def _across(row: Mapping[str, Any]) -> int:
    """Return how many tiles lie beside each other."""
    return int(row["width_px"]) // TILE + 1
