"""Which cells are exported, and what is told of them."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.query.ask import scored
from deepliif_ray.query.streaming import Stream

ROWS = 20_000
"""Cells that are in memory at once."""
TOUCHING = "bbox_x1 > ? AND bbox_x0 < ? AND bbox_y1 > ? AND bbox_y0 < ?"
"""SQL of cells that touch a rectangle; its parameters are x0, x1, y0 and y1, level-0 px."""
_LISTED = 5
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "deepliif_ray/cell")


@dataclass(frozen=True)
class Calls:
    """Which cells count, and how they are called.

    Attributes
    ----------
    cutoffs : str or mapping, optional
        The name of a set that is kept with the results, or values; see docs/scores.md.
    region : str, optional
        Only cells in regions of this class.
    corrections : bool
        Whether what people said of single cells counts.
    """

    cutoffs: str | Mapping[str, float | str] | None = None
    region: str | None = None
    corrections: bool = True

    def of(self, name: str) -> str:
        """Return SQL for a view or macro with these calls, such as ``called_cells``."""
        return scored(name, cutoffs=self.cutoffs, region=self.region, corrections=self.corrections)

    def of_macro(self, name: str) -> str:
        """Return SQL for a table macro that is no view, such as ``slide_h_scores``, with these calls."""
        source = self.of(name)
        return source if source.endswith(")") else f"{source}()"


@dataclass(frozen=True)
class Exported:
    """What was written, or how far it is.

    Attributes
    ----------
    slide_id : str
    n_cells : int
    files : tuple of str
        None yet while it is going on.
    origin : tuple of int
        Where on the slide coordinates begin: x and y, level-0 px.
    """

    slide_id: str
    n_cells: int
    files: tuple[str, ...] = ()
    origin: tuple[int, int] = (0, 0)


def slide_record(stream: Stream, results: str, slide: str | None) -> dict[str, Any]:
    """Return the commit record of the slide that is meant.

    Parameters
    ----------
    stream : Stream
    results : str
        URL of the results, for messages.
    slide : str or None
        Its id; None where the results have a single one.

    Raises
    ------
    ConfigError
        There is no such slide, or several and none is named.
    QueryError
        Its cells are lost.
    """
    ids = stream.table("SELECT slide_id FROM slides ORDER BY 1")["slide_id"].to_pylist()
    listed = ", ".join(map(repr, ids[:_LISTED])) + ", …" * (len(ids) > _LISTED)
    if slide is None and len(ids) != 1:
        raise ConfigError(
            f"{results}: there are {len(ids):,} slides ({listed or 'none'}); give --slide with one"
        )
    if slide is not None and slide not in ids:
        raise ConfigError(f"{results}: there is no slide {slide!r}; there are {listed or 'none'}")
    slide_id = ids[0] if slide is None else slide
    row: dict[str, Any]
    (row,) = stream.table(
        "SELECT * EXCLUDE (timings, attributes) FROM slides WHERE slide_id = ?", [slide_id]
    ).to_pylist()
    lost = stream.table("SELECT problem FROM damaged WHERE kind = 'cells' AND slide_id = ?", [slide_id])
    if lost.num_rows:
        raise QueryError(f"{results}: the cells of slide {slide_id!r} are lost: {lost['problem'][0].as_py()}")
    return row


def called_cells(
    stream: Stream,
    row: Mapping[str, Any],
    calls: Calls,
    columns: str,
    *,
    join: str = "",
    order: str = "cell_id",
) -> Iterator[pa.Table]:
    """Yield the cells of a slide that count, `ROWS` at a time.

    Parameters
    ----------
    stream : Stream
    row : mapping
        The slide's commit record.
    calls : Calls
    columns, join, order : str
        SQL of the columns, of what else they are taken from, and of the order of cells.

    Raises
    ------
    QueryError
        No cell counts, or DuckDB cannot answer: there is no such set of cut-offs, or no such region.
    """
    query = f"SELECT {columns} FROM {source_of(calls)} AS c {join} ORDER BY {order}"
    found = False
    for batch in stream.batches(query, [row["slide_id"], row["marker"]], ROWS):
        found = True
        yield batch
    if not found:
        raise QueryError(f"slide {row['slide_id']!r}: no cell counts{why_none(stream, row, calls)}")


def source_of(calls: Calls, where: str = "true") -> str:
    """Return SQL for the counted cells of one slide; its parameters are the slide's id and marker.

    Parameters
    ----------
    calls : Calls
    where : str
        SQL of a condition on these cells; its own parameters come after the two.
    """
    # The marker is in the paths of objects: those of others need not be opened.
    return f"(SELECT * FROM {calls.of('called_cells')} WHERE slide_id = ? AND marker = ? AND {where})"


def why_none(stream: Stream, row: Mapping[str, Any], calls: Calls) -> str:
    """Return what to say of a slide without a cell that counts, and what to do."""
    if calls.region is None:
        return " with these cut-offs, so nothing was written; see `index --slides`"
    query = "SELECT DISTINCT class FROM regions WHERE slide_id = ? ORDER BY 1"
    there = stream.table(query, [row["slide_id"]])["class"].to_pylist()
    it_has = ", ".join(there) or "no regions"
    return f" in regions of class {calls.region!r}, so nothing was written; it has {it_has}"


def object_ids(slide_id: str, attempt: str, cells: pa.ChunkedArray) -> list[str]:
    """Return the names of cells in all exports: UUIDs that are the same whenever they are made.

    Parameters
    ----------
    slide_id, attempt : str
        The slide, and the attempt that measured it: measured again, its cells are others.
    cells : pyarrow.ChunkedArray of int64
        Their ``cell_id``.
    """
    space = uuid.uuid5(_IDS, f"{slide_id}\n{attempt}")
    return [str(uuid.uuid5(space, str(cell))) for cell in cells.to_pylist()]


def image_name(row: Mapping[str, Any]) -> str:
    """Return what QuPath calls the image of a slide: the name of its file."""
    uri = row["uri"]
    return PurePosixPath(unquote(uri) if "://" in uri else uri).name
