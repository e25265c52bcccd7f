"""The cells of a committed slide, a part at a time and only the columns that are asked for."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError

BATCH = 65_536


def cells_of(results: str, row: dict[str, Any], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the cells that a slide's record names, at most `BATCH` at a time.

    An object may hold the cells of several slides: those of this slide are picked, and there must be as many
    as its record says.

    Parameters
    ----------
    results : str
        URL of the results.
    row : dict
        The slide's commit record: ``slide_id``, ``cells_path`` and ``n_cells``.
    columns : sequence of str

    Raises
    ------
    ResultsError
        The cells are gone or damaged, or not as many as the record says.
    StorageError
        The store does not answer.
    """
    if row["cells_path"] is None:
        return
    url = storage.join(results, row["cells_path"])
    slide_id, count = row["slide_id"], 0
    try:
        with _opened(url) as file:
            groups = [
                n for n in range(file.num_row_groups) if _may_hold(file.metadata.row_group(n), slide_id)
            ]
            wanted = list(dict.fromkeys(["slide_id", *columns]))
            for batch in file.iter_batches(BATCH, groups, wanted, use_threads=False):
                table = pa.Table.from_batches([batch])
                table = table.filter(pc.equal(table.column("slide_id"), slide_id))
                count += table.num_rows
                if table.num_rows:
                    yield table.select(columns)
    except FileNotFoundError as error:
        raise ResultsError(
            f"{url}: the cells of slide {slide_id!r} are gone; try again, or score it"
        ) from error
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        said = " ".join(str(error).split())
        raise ResultsError(f"{url}: the cells of slide {slide_id!r} cannot be read ({said})") from error
    if count != row["n_cells"]:
        raise ResultsError(
            f"{url}: {count} cells of slide {slide_id!r}, its record says {row['n_cells']}; score it again"
        )


def _opened(url: str) -> pq.ParquetFile:
    if storage.is_local(url):
        return pq.ParquetFile(storage.local_path(url), memory_map=True)
    filesystem, path = storage.arrow_filesystem(url)
    return pq.ParquetFile(filesystem.open_input_file(path), pre_buffer=False)


def _may_hold(group: Any, slide_id: str) -> bool:
    """Tell whether a row group may hold cells of a slide, by what its footer says."""
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema == "slide_id":
            said = column.statistics
            if said is None or not said.has_min_max:
                return True
            return bool(said.min <= slide_id <= said.max)
    return True
