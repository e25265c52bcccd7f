"""Every object below a results location, and which slides and patients it is about.

What is beside the tables of `deepliif_ray.tables.ledger`, where it names slides::

    regions/, region_cells/, corrections/   Parquet with a column slide_id
    _cutoffs/*.json                         cut-offs; a list ``controls`` names slides
    _forget/*.json                          what is being forgotten, until it is
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from deepliif_ray import storage
from deepliif_ray.tables.check import DAMAGED_FOLDER, FORGET_FOLDER
from deepliif_ray.tables.ledger import Ledger, refuse_newer_cells
from deepliif_ray.tables.records import RECORD_TABLES, Damage, Records, read_if_there, read_records
from deepliif_ray.tables.traces import Holders, Reader

BESIDE = ("regions", "region_cells", "corrections")
_DOCUMENTS = {"_manifests": "manifests", "_cutoffs": "cutoffs", "_optimize": "notes", FORGET_FOLDER: "marks"}
_BEATING_S = 60.0
_LONGEST_TEXT = 16 * 2**20
"""Bytes of a file that is none of ours up to which it is looked through."""


class Unreadable(str):
    """Stands for a document that cannot be read; says why."""

    __slots__ = ()


class Said(NamedTuple):
    """That a slide is a patient's, and when it was said: by epoch and time; nothing where that is unknown."""

    slide: str
    patient: str
    when: tuple[int, Any] | None


@dataclass
class Survey:
    """What is below a results location.

    Attributes
    ----------
    results : str
        URL of the results.
    stored : dict
        What the store says of every object, by path.
    records : dict
        Rows of ``slides``, ``failures`` and ``runs``.
    damaged : list of Damage
        Records that cannot be read.
    parquet : dict
        Which slides and patients every other Parquet object of ours holds, or what is wrong with it.
    documents : dict
        JSON of ours, by path; `Unreadable` where it cannot be read.
    others : list of str
        Paths of what is not of this layout.
    """

    results: str
    stored: dict[str, storage.Stored] = field(default_factory=dict)
    records: dict[str, Records] = field(default_factory=dict)
    damaged: list[Damage] = field(default_factory=list)
    parquet: dict[str, Holders | str] = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def paths(self, kind: str) -> list[str]:
        """Return the paths of the objects of a kind, see `kind_of`."""
        return [path for path in self.stored if kind_of(path) == kind]

    def said(self) -> Iterator[Said]:
        """Yield every statement of whose a slide is, some of them several times."""
        for name, moment in (("slides", "committed_at"), ("failures", "failed_at")):
            columns = ["slide_id", "patient_id", "epoch", moment]
            for row in self.records[name].table.select(columns).to_pylist():
                epoch = -1 if row["epoch"] is None else row["epoch"]
                yield Said(row["slide_id"], row["patient_id"], (epoch, row[moment]))
        for holders in self.parquet.values():
            if not isinstance(holders, str):
                yield from (Said(s, p, None) for s, p in holders if s is not None and p is not None)
        for entry in self.staged().values():
            if isinstance(entry.get("slide_id"), str) and isinstance(entry.get("patient_id"), str):
                yield Said(entry["slide_id"], entry["patient_id"], None)

    def staged(self) -> dict[str, dict[str, Any]]:
        """Return the manifest's row of each staged slide, by the path of its plan."""
        found = {}
        for path in self.paths("staging"):
            document = self.documents.get(path)
            entry = document.get("entry") if isinstance(document, dict) else None
            if isinstance(entry, dict):
                found[path] = entry
        return found

    def slides(self) -> set[str]:
        """Return every slide that is named somewhere."""
        found = {said.slide for said in self.said()}
        for holders in self.parquet.values():
            if not isinstance(holders, str):
                found |= {slide for slide, _ in holders if slide is not None}
        for path in self.paths("manifests"):
            found |= set(listed(self.documents[path], "slides"))
        for path in self.paths("cutoffs"):
            for controls in lists_of(self.documents[path], "controls"):
                found |= {item for item in controls if isinstance(item, str)}
        return found


def kind_of(path: str) -> str:
    """Return what an object is by its path: a table's name, ``staging``, …, or ``other``."""
    folder, _, name = path.partition("/")
    if name.endswith(".parquet") and folder in ("cells", *RECORD_TABLES, *BESIDE):
        return folder
    if name.endswith(".json") and folder in _DOCUMENTS:
        return _DOCUMENTS[folder]
    if folder in ("_lease", "_lease.json"):
        return "lease"
    return {"_staging": "staging", DAMAGED_FOLDER: "damaged"}.get(folder, "other")


def listed(document: Any, name: str) -> list[str]:
    """Return the texts in the list that a JSON object has under ``name``."""
    found = document.get(name) if isinstance(document, dict) else None
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def lists_of(document: Any, name: str) -> Iterator[list[Any]]:
    """Yield every list that a JSON value has under ``name``, at whatever depth."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key == name and isinstance(value, list):
                yield value
            yield from lists_of(value, name)
    elif isinstance(document, list):
        for value in document:
            yield from lists_of(value, name)


def survey(results: str, watch: Callable[[int, int], None], before: Survey | None = None) -> Survey:
    """Look at every object below a results location.

    Parameters
    ----------
    results : str
        URL of the results.
    watch : callable
        Called with the number of objects looked at and of all, now and then.
    before : Survey, optional
        An earlier one: cells objects that are as they were are not read again.

    Raises
    ------
    ResultsError
        There are no results here, or newer software wrote them.
    StorageError
        The store does not answer.
    """
    Ledger(results)  # refuses what is not there
    found = Survey(results, storage.list_stored(results))
    found.records = {name: read_records(results, name, found.damaged) for name in RECORD_TABLES}
    refuse_newer_cells(results, found.records["slides"].table)
    reader = Reader(results)

    def look(path: str) -> None:
        kind = kind_of(path)
        if before is not None and kind == "cells" and before.stored.get(path) == found.stored[path]:
            found.parquet[path] = before.parquet[path]
        elif kind in ("cells", *BESIDE) or (kind == "damaged" and path.endswith(".parquet")):
            holders = reader.holders(path, found.stored[path].size)
            if holders is not None:
                found.parquet[path] = holders
        elif kind in ("lease", *_DOCUMENTS.values()) or (kind == "staging" and path.endswith(".json")):
            document = _document(storage.join(results, path))
            if document is not None:
                found.documents[path] = document

    paths = [path for path in found.stored if kind_of(path) not in (*RECORD_TABLES, "other")]
    with ThreadPoolExecutor(storage.read_threads(results)) as pool:
        for done, _ in enumerate(pool.map(look, paths)):
            watch(done + 1, len(paths))
    gone = [p for p in paths if kind_of(p) in _READ and p not in found.parquet and p not in found.documents]
    for path in gone:  # between listing and reading
        del found.stored[path]
    found.others = found.paths("other")
    return found


_READ = frozenset(("cells", *BESIDE, "lease", *_DOCUMENTS.values()))


def _document(url: str) -> Any:
    content = read_if_there(url)
    if content is None:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        return Unreadable(error)


def small_content(found: Survey, path: str) -> bytes | None:
    """Return the content of a file that is none of ours; None if it is too large to look through, or gone."""
    if found.stored[path].size > _LONGEST_TEXT:
        return None
    return read_if_there(storage.join(found.results, path))


def temporaries(results: str) -> list[str]:
    """Return the paths of files on this machine that were never finished; stores have none.

    Whoever holds the lease writes such files to ``_lease`` all the time, so new ones there are left out.
    """
    if not storage.is_local(results):
        return []
    root = Path(storage.local_path(results))
    then = time.time() - _BEATING_S
    found = []
    for path in sorted(root.rglob(".*.tmp")):
        name = path.relative_to(root).as_posix()
        with suppress(FileNotFoundError):
            if path.is_file() and (not name.startswith("_lease/") or path.stat().st_mtime < then):
                found.append(name)
    return found
