"""The cells of a slide as they are stored, for another patient."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError, StorageError, StorageMissingError
from deepliif_ray.tables.schema import table_schema


def relabelled(results: str, row: dict[str, Any], *, patient_id: str, attempt: str) -> Iterator[pa.Table]:
    """Yield the cells of a committed slide with another patient and attempt.

    Parameters
    ----------
    results : str
        URL of the results.
    row : dict
        The slide's commit record.
    patient_id, attempt : str
        What the cells say from now on.

    Raises
    ------
    ResultsError
        The cells are gone or damaged, or not as many as the record says.
    StorageError
        The store does not answer.
    """
    url = storage.join(results, row["cells_path"])
    schema, count = table_schema("cells"), 0
    try:
        file = pq.ParquetFile(pa.BufferReader(storage.read_bytes(url)), pre_buffer=False)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            table = table.filter(pc.equal(table.column("slide_id"), row["slide_id"]))
            count += table.num_rows
            for name, value in {"patient_id": patient_id, "attempt": attempt}.items():
                column = pa.repeat(pa.scalar(value, pa.string()), table.num_rows)
                place = table.schema.get_field_index(name)
                table = (
                    table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
                )
            if table.num_rows:
                yield table.select(schema.names).cast(schema)
    except StorageMissingError as error:
        raise ResultsError(
            f"{url}: the cells of slide {row['slide_id']!r} are gone; score it again"
        ) from error
    except StorageError:
        raise
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise ResultsError(f"{url}: damaged cells ({error}); score their slides again") from error
    if count != row["n_cells"]:
        raise ResultsError(
            f"{url}: {count} cells of slide {row['slide_id']!r}, its record says {row['n_cells']}; score "
            "it again"
        )
