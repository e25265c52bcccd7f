"""Which cells objects are read, and how: the same for SQL and for data frames."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from deepliif_ray import storage
from deepliif_ray.tables.damage import footer_problem
from deepliif_ray.tables.ledger import joined_rows
from deepliif_ray.tables.records import Damage
from deepliif_ray.tables.schema import schema_version

_VERSIONS = range(1, schema_version("cells") + 1)


@dataclass(frozen=True)
class CellsObjects:
    """Cells objects that are read alike.

    Attributes
    ----------
    paths : list of str
        Relative to the results; the first one was looked at and can be read.
    version : int
        Schema version of all.
    partial : bool
        There is one, and only those of its slides count whose records name it.
    """

    paths: list[str]
    version: int
    partial: bool


def cells_objects(url: str, slides: pa.Table, damaged: list[Damage]) -> list[CellsObjects]:
    """Return the cells objects that records name and that are not damaged, each once.

    Parameters
    ----------
    url : str
        URL of the results.
    slides : pyarrow.Table
        Commit records that count.
    damaged : list of Damage
        What is known to be damaged; what is found to be is added to it.

    Raises
    ------
    StorageError
        The store does not answer.
    """
    lost = {damage.object for damage in damaged}
    # Several slides may share an object, which is read once.
    versions = {
        path: version or 1
        for path, version in zip(
            slides.column("cells_path").to_pylist(), slides.column("cells_version").to_pylist(), strict=True
        )
        if path and path not in lost
    }
    # An object of several slides may still hold one that was scored again since: then its slides are picked.
    partial = {path for path in versions if _holds_more(slides, path)}
    groups = [[path for path in versions if versions[path] == v and path not in partial] for v in _VERSIONS]
    found = []
    for paths in [*groups, *([path] for path in partial)]:
        while paths and (problem := footer_problem(storage.join(url, paths[0]))) is not None:
            # DuckDB takes columns from the first one, and opens the others when it needs them.
            damaged += _slides_of(slides, paths.pop(0), problem)
        if paths:
            found.append(CellsObjects(paths, versions[paths[0]], paths[0] in partial))
    return found


def _slides_of(slides: pa.Table, path: str, problem: str) -> list[Damage]:
    ids = slides.filter(pc.equal(slides.column("cells_path"), path)).column("slide_id").to_pylist()
    return [Damage(path, "cells", slide, f"{problem}; score the slide again") for slide in ids]


def _holds_more(slides: pa.Table, path: str) -> bool:
    """Tell whether an object of several slides holds cells that no record counts any more."""
    rows = joined_rows(path)
    if rows is None:
        return False
    counted = pc.sum(slides.filter(pc.equal(slides.column("cells_path"), path)).column("n_cells")).as_py()
    return bool(counted != rows)
