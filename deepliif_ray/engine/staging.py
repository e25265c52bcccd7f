"""Staged blocks: the measured tiles of a slide, durable until the slide is committed.

A block holds consecutive tiles and is named by them, so that listing a folder tells what is done. Its content
follows from slide, model and configuration alone: writing it twice changes nothing. Blocks outlast any
process. A loss of power may damage those on a local disk: waiting for the disk costs more than doing them
again.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.cells.fragments import CoreFragments
from deepliif_ray.cells.measures import DIGEST

FORMAT = f"3 {DIGEST}"
"""Another whenever blocks are written differently or hold other numbers, so that older ones are not read."""
_log = logging.getLogger(__name__)
_NAME = re.compile(r"/(\d+)-(\d+)\.arrow$")
_DTYPES = {
    "measures": np.int64,
    "contacts": np.int32,
    "sides": np.int32,
    "points": np.int32,
    "point_ends": np.int32,
    "runs": np.int32,
    "run_ends": np.int32,
    "marker_histogram": np.int64,
    "rims": np.int64,
    "frame_labels": np.int32,
    "frame_asked": np.uint16,
}
_COUNTS = ("ordinal", "empty")
_SECONDS = ("read_s", "infer_s", "measure_s")


@dataclass(frozen=True)
class StagedTile:
    """A measured tile.

    Attributes
    ----------
    ordinal : int
        Place among the slide's tiles to be read.
    empty : bool
        Whether the published rule found it empty, so that it was not inferred.
    fragments : CoreFragments
    read_s, infer_s, measure_s : float
        Seconds spent on it.
    bad : str, optional
        Why it could not be decoded; it then holds no cell.
    """

    ordinal: int
    empty: bool
    fragments: CoreFragments
    read_s: float
    infer_s: float
    measure_s: float
    bad: str | None = None


def write_block(folder: str, tiles: list[StagedTile]) -> None:
    """Write tiles with consecutive ordinals as one block of the staging ``folder``."""
    arrays = [tile.fragments.to_arrays() for tile in tiles]
    columns: dict[str, Any] = {
        name: pa.array([getattr(tile, name) for tile in tiles]) for name in (*_COUNTS, *_SECONDS)
    }
    columns["bad"] = pa.array([tile.bad for tile in tiles], pa.string())
    for name, dtype in _DTYPES.items():
        columns[name] = pa.array(
            [a[name].astype(dtype, copy=False).tobytes() for a in arrays], pa.large_binary()
        )
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    name = f"{tiles[0].ordinal:07d}-{tiles[-1].ordinal:07d}.arrow"
    storage.write_bytes(storage.join(folder, name), sink.getvalue().to_pybytes(), durable=False)


def _blocks(folder: str) -> dict[str, tuple[int, int]]:
    """Return the first and last ordinal of every block."""
    found = {}
    for url in storage.list_files(folder, ".arrow"):
        match = _NAME.search(url)
        if match:
            found[url] = (int(match[1]), int(match[2]))
    return found


def staged_ordinals(folder: str) -> set[int]:
    """Return the ordinals of all tiles staged in ``folder``; blocks that are damaged are removed."""
    blocks = _blocks(folder)
    if storage.is_local(folder):
        for url in [url for url in blocks if not _is_whole(url)]:
            _log.warning("block.damaged", extra={"object": url})
            storage.remove(url)
            del blocks[url]
    return {ordinal for first, last in blocks.values() for ordinal in range(first, last + 1)}


def _is_whole(url: str) -> bool:
    try:
        with pa.ipc.open_file(pa.py_buffer(storage.read_bytes(url))) as reader:
            return bool(reader.read_all().num_rows)
    except (pa.ArrowException, ValueError, OSError):
        return False


def read_tiles(folder: str) -> Iterator[StagedTile]:
    """Yield the tiles staged in ``folder`` in the order of their ordinals, each once."""
    ordinal = -1
    names = [f.name for f in fields(StagedTile) if f.name != "fragments"]
    for url, (_, last) in sorted(_blocks(folder).items(), key=lambda item: item[1]):
        if last <= ordinal:
            continue
        with pa.ipc.open_file(pa.py_buffer(storage.read_bytes(url))) as reader:
            table = reader.read_all()
        rows = {name: table[name].to_pylist() for name in names}
        for row in range(table.num_rows):
            if rows["ordinal"][row] <= ordinal:
                continue
            ordinal = rows["ordinal"][row]
            arrays = {
                name: np.frombuffer(table[name][row].as_buffer(), dtype=dtype)
                for name, dtype in _DTYPES.items()
            }
            yield StagedTile(
                fragments=CoreFragments.from_arrays(arrays), **{name: rows[name][row] for name in names}
            )
