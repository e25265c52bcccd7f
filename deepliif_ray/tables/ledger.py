"""What a results location holds: which slides are committed, which failed, which runs there were.

Layout, below any fsspec URL::

    cells/marker=<Marker>/<slide_key>-<attempt>.parquet
    slides/<slide_key>-<attempt>.parquet        one row: the commit record
    failures/<slide_key>-<attempt>.parquet      one row
    runs/<run_id>.parquet                       one row
    cells/marker=<Marker>/joined-<rows>-<name>.parquet, slides/joined-<name>.parquet, …
                                                what `optimize` made of many of these
    regions/…, region_cells/…, corrections/…    what people say of slides (see `deepliif_ray.annotations`)
    _staging/…, _optimize/…, _lease/…           work in progress, not part of the results
    _damaged/…                                  what `check` moved out of the way
    _forget/…                                   whom a `forget` takes out at the moment

An object that is damaged is passed over: the rest of the results stays usable. It is listed in
`Ledger.damaged`, and everything that shows results says so. A record object without a row only bars its name
(see `deepliif_ray.tables.commit.bar`).
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError
from deepliif_ray.tables.records import Damage, read_records
from deepliif_ray.tables.schema import schema_version

_SLUG_LENGTH = 40
_DIGEST_LENGTH = 12
RETIRED = "retired"
"""Reason of a failure that takes back an earlier one, of a slide that a manifest lists no more."""
_JOINED = re.compile(r"/joined-(\d+)-(?:(\d{4})-)?[^/]*\.parquet$")


def slide_key(slide_id: str) -> str:
    """Return a name for the slide's objects that is safe in any path and differs between slides.

    Parameters
    ----------
    slide_id : str
        Any text.

    Returns
    -------
    str
        At most 53 characters of ``A-Z a-z 0-9 . _ -``, not starting with a dot or hyphen: what can be
        kept of the slide's name, a hyphen, and 12 hexadecimal digits of its SHA-256.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", slide_id)[:_SLUG_LENGTH].lstrip(".-") or "slide"
    if slug.startswith("joined"):  # names of objects of several slides begin so
        slug = f"_{slug}"[:_SLUG_LENGTH]
    digest = hashlib.sha256(slide_id.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{slug}-{digest}"


def joined_name(rows: int, times: int, name: str) -> str:
    """Return the file name of an object that holds ``rows`` cells of slides, joined ``times`` times."""
    return f"joined-{rows:012d}-{times:04d}-{name}.parquet"


def joined_rows(path: str) -> int | None:
    """Return how many cells a cells object of several slides holds; None for one slide's own object.

    Records tell which slides of it count: fewer once a slide was scored again.
    """
    match = _JOINED.search(path)
    return None if match is None else int(match[1])


def record_path(cells: str) -> str:
    """Return the path of the commit record that first names the cells object at path ``cells``."""
    name = cells.rpartition("/")[2]
    return f"slides/{name if joined_rows(cells) is None else 'joined-' + name.rpartition('-')[2]}"


def cells_rank(path: str | None) -> tuple[int, str]:
    """Return what orders cells objects that hold the same of a slide: the last are those to be read.

    Joining goes one way, to objects that were joined more often, and of two that were joined as often
    everybody keeps the last by name. So what was replaced never comes back, though a record that names it
    arrives late.
    """
    match = _JOINED.search(path or "")
    return 0 if match is None else int(match[2] or 1), path or ""


class Ledger:
    """The committed state of a results location.

    It is a snapshot: a table is read when first asked for and kept. Make a new ledger to see later commits.

    Parameters
    ----------
    results : str
        URL of the results.
    must_exist : bool
        Refuse a location that does not exist; if false, such a location is an empty one.

    Raises
    ------
    ResultsError
        The location does not exist. Later, from any method: a newer version of this software wrote an object.
    StorageError
        The store does not answer.
    """

    def __init__(self, results: str, *, must_exist: bool = True) -> None:
        self.results = results
        self._damaged: list[Damage] = []
        if must_exist and not storage.exists(results):
            raise ResultsError(
                f"{results}: there are no results here; check the location, or score to it first"
            )

    def slides(self) -> pa.Table:
        """Return the commit records, the newest of each slide that is not retired, ordered by slide_id."""
        return self._slides.filter(pc.is_null(self._slides.column("retired")))

    def generations(self) -> pa.Table:
        """Return the newest commit record of each slide, ordered by slide_id, those of retired slides too."""
        return self._slides

    def failures(self) -> pa.Table:
        """Return the newest failure of each slide that was not committed since, ordered by slide_id."""
        return self._failures

    def runs(self) -> pa.Table:
        """Return all runs, ordered by their start."""
        return self._runs

    def damaged(self) -> list[Damage]:
        """Return the records that cannot be read, with the slide's id where another record tells it."""
        tables = self._slides, self._failures, self._runs
        if not self._damaged:
            return []
        by_key = {slide_key(slide): slide for slide in tables[0].column("slide_id").to_pylist()}

        def named(damage: Damage) -> Damage:
            key = damage.object.rpartition("/")[2].removesuffix(".parquet").rpartition("-")[0]
            return replace(damage, slide_id=by_key.get(key))

        return [named(damage) for damage in self._damaged]

    @cached_property
    def _slides(self) -> pa.Table:
        slides = newest(settled(self._read("slides")), "committed_at")
        refuse_newer_cells(self.results, slides)
        return slides

    @cached_property
    def _failures(self) -> pa.Table:
        failed = newest(self._read("failures"), "failed_at")
        committed = {
            slide_id: ((_before_all(epoch), at), run_id)
            for slide_id, epoch, at, run_id in _pairs(
                self._slides, "slide_id", "epoch", "committed_at", "run_id"
            )
        }
        standing = []
        for slide_id, epoch, at, run_id in _pairs(failed, "slide_id", "epoch", "failed_at", "run_id"):
            since, by = committed.get(slide_id, (None, None))
            # By the same run: its record was written, but the store said otherwise, or nothing.
            standing.append(since is None or ((_before_all(epoch), at) > since and run_id != by))
        failed = failed.filter(pa.array(standing, pa.bool_()))
        return failed.filter(pc.not_equal(failed.column("reason"), RETIRED))

    @cached_property
    def _runs(self) -> pa.Table:
        runs = self._read("runs").sort_by([("finished_at", "ascending")])  # without one: last
        ids = runs.column("run_id").to_pylist()  # twice, while objects are being joined
        once = runs.take(pa.array([ids.index(run_id) for run_id in dict.fromkeys(ids)], pa.int64()))
        return once.sort_by([("started_at", "ascending"), ("run_id", "ascending")])

    def _read(self, name: str) -> pa.Table:
        """Return all rows of table ``name``."""
        return read_records(self.results, name, self._damaged).table


def refuse_newer_cells(results: str, slides: pa.Table) -> None:
    """Refuse commit records that name cells which newer software wrote, with a `ResultsError`."""
    version = pc.max(slides.column("cells_version")).as_py() or 1
    if version > schema_version("cells"):
        raise ResultsError(
            f"{results}: a newer deepliif_ray wrote its cells (version {version}, this one knows "
            f"{schema_version('cells')}); update deepliif_ray"
        )


def settled(table: pa.Table) -> pa.Table:
    """Return commit records of which all of an attempt name its cells where they were moved to last.

    A record that is committed from what was read before, as when metadata change, may name cells of which
    `optimize` removes the old copy at that moment.
    """
    slides, attempts, paths = (table.column(n).to_pylist() for n in ("slide_id", "attempt", "cells_path"))
    keys = list(zip(slides, attempts, strict=True))
    last: dict[tuple[str, str], int] = {}
    for row, key in enumerate(keys):
        if key not in last or cells_rank(paths[row]) > cells_rank(paths[last[key]]):
            last[key] = row
    if len(last) == len(keys):
        return table
    rows = [row if paths[row] is None else last[key] for row, key in enumerate(keys)]  # None: forgotten
    moved = table.take(pa.array(rows, pa.int64()))
    for name in ("cells_path", "cells_bytes", "cells_digest", "cells_version"):
        position = table.schema.get_field_index(name)
        table = table.set_column(position, table.schema.field(position), moved.column(name))
    return table


def _pairs(table: pa.Table, *names: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def _before_all(epoch: int | None) -> int:
    return -1 if epoch is None else epoch


def newest(table: pa.Table, moment: str) -> pa.Table:
    """Keep the newest row of each slide, ordered by slide_id.

    That is the one with the greatest (epoch, ``moment``, attempt): clocks count only within a lease. Of rows
    that tell the same of one attempt, it is the one whose cells were joined last (`cells_rank`).
    """
    table = table.combine_chunks()  # of thousands of records, each a chunk
    keys = table.select(["slide_id", moment, "attempt"])
    keys = keys.append_column("epoch", pc.fill_null(table.column("epoch"), -1))
    order = ["slide_id", "epoch", moment, "attempt"]
    if "cells_path" in table.column_names:
        ranks = [cells_rank(path) for path in table.column("cells_path").to_pylist()]
        keys = keys.append_column("times", pa.array([times for times, _ in ranks], pa.int64()))
        keys = keys.append_column("path", pa.array([path for _, path in ranks], pa.string()))
        order += ["times", "path"]
    ordered = table.take(pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in order]))
    ids = ordered.column("slide_id").to_pylist()
    last = [row for row, slide_id in enumerate(ids) if row + 1 == len(ids) or ids[row + 1] != slide_id]
    return ordered.take(pa.array(last, pa.int64()))
