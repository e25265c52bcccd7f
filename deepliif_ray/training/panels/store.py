"""Panels for training: read and checked in parallel, kept once for each machine, had at random.

`load_panels` reads through Ray Data. A `PanelStore` of what it returns leaves the pixels in Ray's object
store, from where every worker of a machine reads the same memory; made by `PanelStore.local`, it holds them
in this process, without Ray.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from deepliif_ray.errors import ConfigError
from deepliif_ray.training.panels.files import (
    IHC,
    MODALITIES,
    Panels,
    PanelSource,
    UInt8Array,
    read_panels,
    refuse,
)
from deepliif_ray.training.panels.listing import list_panels

if TYPE_CHECKING:  # slow to import, and not needed without it
    import ray.data

TILES_PER_BLOCK = 8
READ_CPUS = 0.25
"""Share of a CPU that a reading task asks for, so that actors on the other cores do not starve it."""
_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "source": pa.int64(),
        "panels": pa.list_(pa.string()),
        "height": pa.int64(),
        "width": pa.int64(),
        "pixels": pa.large_binary(),
        "problem": pa.string(),
    }
)


def load_panels(uris: Sequence[str], modalities: Sequence[str] = MODALITIES) -> "ray.data.Dataset":
    """Return the tiles at ``uris`` as a Ray dataset, which reads and checks them when it is used.

    Parameters
    ----------
    uris : sequence of str
        See `deepliif_ray.training.panels.listing.list_panels`.
    modalities : sequence of str

    Returns
    -------
    ray.data.Dataset
        A row a tile, in order: ``name``; ``source``, the place of its URL in ``uris``; ``panels``, names of
        the panels, the IHC first; ``height``, ``width``; ``pixels``, bytes of uint8 (panels, height, width,
        3); and ``problem``: why it could not be read, and empty if it could.

    Raises
    ------
    ConfigError
        A URL holds no panels, or files of tiles are missing; names them.
    StorageError
        A URL cannot be read.
    """
    level = logging.getLogger("ray.data").level
    import ray.data

    logging.getLogger("ray.data").setLevel(level)  # which the first import sets anew
    rows = [
        {"name": tile.name, "source": number, "files": list(tile.files), "modalities": list(tile.modalities)}
        for number, tile in _listed(uris, modalities)
    ]
    # Not ray.data.range: its read tasks ask for a whole CPU, which actors may never leave free.
    dataset = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // TILES_PER_BLOCK))
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    dataset.context.execution_options.preserve_order = True
    return dataset.map_batches(_read_rows, batch_format="pyarrow", batch_size=None, num_cpus=READ_CPUS)


def _listed(uris: Sequence[str], modalities: Sequence[str]) -> list[tuple[int, PanelSource]]:
    if not uris:
        raise ConfigError("no panels given; give at least one URL")
    found: list[tuple[int, PanelSource]] = []
    problems: list[str] = []
    for number, uri in enumerate(uris):
        try:
            found += [(number, tile) for tile in list_panels(uri, modalities)]
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _read_rows(table: pa.Table) -> Iterator[pa.Table]:
    for row in table.to_pylist():
        yield _read_row(
            row["source"], PanelSource(row["name"], tuple(row["files"]), tuple(row["modalities"]))
        )


def _read_row(source: int, tile: PanelSource) -> pa.Table:
    """Return a tile as a table of one row."""
    row: dict[str, Any] = {"name": tile.name, "source": source, "problem": ""}
    try:
        panels = read_panels(tile)
    except ConfigError as error:
        row["problem"] = str(error)
    else:
        height, width = panels.ihc.shape[:2]
        pixels = np.stack([panels.ihc, *panels.targets.values()])
        row |= {
            "panels": [IHC, *panels.targets],
            "height": height,
            "width": width,
            "pixels": pixels.tobytes(),
        }
    return pa.Table.from_pylist([row], schema=_SCHEMA)


def check_panels(uris: Sequence[str], modalities: Sequence[str] = MODALITIES) -> tuple[pa.Table, list[str]]:
    """Read the tiles at ``uris`` one by one and keep none.

    Returns
    -------
    table : pyarrow.Table
        A row a URL: ``uri``, ``tiles`` that can be read, their ``sizes`` (``WIDTH×HEIGHT``, each once), and
        how many tiles are ``bad``, where they could be listed.
    problems : list of str
        What is wrong, naming files.

    Raises
    ------
    StorageError
        A folder or manifest cannot be read.
    """
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    with ThreadPoolExecutor() as pool:
        for uri in uris:
            try:
                tiles = list_panels(uri, modalities)
            except ConfigError as error:
                problems.append(str(error))
                rows.append({"uri": uri, "tiles": 0, "sizes": "", "bad": None})
                continue
            read = list(pool.map(_size, tiles))
            bad = [problem for _, problem in read if problem]
            problems += bad
            sizes = ", ".join(sorted({size for size, _ in read if size}))
            rows.append({"uri": uri, "tiles": len(tiles) - len(bad), "sizes": sizes, "bad": len(bad)})
    return pa.Table.from_pylist(rows), problems


def _size(tile: PanelSource) -> tuple[str, str]:
    """Return a tile's size, and what is wrong with it; one of them is empty."""
    try:
        height, width = read_panels(tile).ihc.shape[:2]
    except ConfigError as error:
        return "", str(error)
    return f"{width}×{height}", ""


class PanelStore:
    """Tiles by number. Picklable: workers of a cluster get references to the pixels, not the pixels.

    Parameters
    ----------
    tiles : ray.data.Dataset or sequence of pyarrow.Table
        What `load_panels` returned, which is now read; or tables of the same columns.

    Raises
    ------
    ConfigError
        Files cannot be read as panels; lists the first ten and what is wrong with each.
    """

    def __init__(self, tiles: "ray.data.Dataset | Sequence[pa.Table]") -> None:
        self._blocks: list[Any]
        if isinstance(tiles, Sequence):
            self._blocks = list(tiles)
            notes = [_note(table) for table in tiles]
        else:
            import ray

            self._blocks = tiles.materialize().to_arrow_refs()
            note = ray.remote(num_cpus=0)(_note)
            notes = ray.get([note.remote(block) for block in self._blocks])
        refuse([problem for _, _, problems in notes for problem in problems if problem])
        self._places = [
            (block, row) for block, (names, _, _) in enumerate(notes) for row in range(len(names))
        ]
        self._names = [name for names, _, _ in notes for name in names]
        self._sources = [source for _, sources, _ in notes for source in sources]

    @classmethod
    def local(cls, uris: Sequence[str], modalities: Sequence[str] = MODALITIES) -> Self:
        """Read the tiles at ``uris`` into the memory of this process; raises as `load_panels` and above."""
        return cls([_read_row(number, tile) for number, tile in _listed(uris, modalities)])

    def __len__(self) -> int:
        return len(self._places)

    def name_of(self, index: int) -> str:
        """Return the name of tile ``index``."""
        return self._names[index]

    def source_of(self, index: int) -> int:
        """Return the place in ``uris`` of the URL that tile ``index`` came from."""
        return self._sources[index]

    def get(self, index: int) -> Panels:
        """Return tile ``index``; its arrays are read-only views of memory that others may share."""
        number, row = self._places[index]
        block = self._blocks[number]
        if not isinstance(block, pa.Table):
            import ray

            block = ray.get(block)
        names = block["panels"][row].as_py()
        shape = (len(names), block["height"][row].as_py(), block["width"][row].as_py(), 3)
        pixels = _bytes_of(block["pixels"], row).reshape(shape)
        pixels.flags.writeable = False
        return Panels(self._names[index], pixels[0], dict(zip(names[1:], pixels[1:], strict=True)))


def _note(table: pa.Table) -> tuple[list[str], list[int], list[str]]:
    """Return names, sources and problems of a block's tiles."""
    return table["name"].to_pylist(), table["source"].to_pylist(), table["problem"].to_pylist()


def _bytes_of(column: pa.ChunkedArray, row: int) -> UInt8Array:
    """Return one value of a column of large_binary where it lies; Arrow's own scalars are copies."""
    for chunk in column.chunks:
        if row < len(chunk):
            break
        row -= len(chunk)
    _, offsets, data = chunk.buffers()
    begin, end = np.frombuffer(offsets, np.int64)[chunk.offset + row :][:2]
    return np.frombuffer(data, np.uint8)[begin:end]
