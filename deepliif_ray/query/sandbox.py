"""SQL of people who are not trusted, run by another process that has nothing to lose or to tell.

DuckDB can be told to leave files, network and settings alone, but not to keep to its memory: some functions
take what they do not count. So the query runs in a process of its own (`deepliif_ray.query.sandbox_child`)
with limits that the system keeps. This process opens the results, hands over the tables, and takes what comes
back up to a size. Cells on this machine the other process may open itself, them alone and only to read, where
the system can hold it to that; of others this one serves the bytes that the query reads.
"""

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any

import duckdb
import pyarrow as pa

from deepliif_ray import confine
from deepliif_ray.errors import DeepliifRayError, QueryError, StorageError
from deepliif_ray.query import sandbox_child as child
from deepliif_ray.query.literals import quoted_list
from deepliif_ray.query.prepared import copying
from deepliif_ray.query.reading import check_reads, check_types, unique_names
from deepliif_ray.query.rooted import RootedFileSystem, needs_root
from deepliif_ray.query.views import SANDBOX, layers, opened

_log = logging.getLogger(__name__)
_START_LIMIT_S = 120
_THREADS = 2
_OPEN_FILES = 64
_GONE = (EOFError, BrokenPipeError, ConnectionResetError)
_OUT_OF_MEMORY = ("failed to allocate", "out of memory", "cannot allocate", "bad_alloc", "memoryerror")


@dataclass(frozen=True)
class Limits:
    """What a query in the sandbox may take.

    Attributes
    ----------
    seconds : float
        From the moment the query begins, cells from a store included.
    memory : int
        Bytes of address space beyond what the process starts with.
    answer : int
        Bytes of the answer, as Arrow.
    """

    seconds: float = 60.0
    memory: int = 4_000_000_000
    answer: int = 1_000_000_000


def ask_sandboxed(results: str, query: str, limits: Limits) -> pa.Table:
    """Return what a query gives that may do nothing but read these results, within limits.

    Raises
    ------
    QueryError
        The query cannot be answered, or not within the limits; the message names the limit.
    ResultsError, StorageError
        See `connect`.
    """
    process = _Process(limits)
    try:
        exchange = _Exchange(results, process, limits)
        # It goes on starting while the results are opened.
        may_open = confine.FILES in exchange.begin() and not needs_root(results)
        task, tables, served = _task(results, query, limits, may_open)
        return exchange.run(task, tables, served)
    finally:
        process.end()


def _task(
    results: str, query: str, limits: Limits, may_open: bool
) -> tuple[dict[str, Any], list[pa.Table], RootedFileSystem | None]:
    """Return what the other process is told, the tables in the order told, and what is served to it."""
    connection, cells, places = opened(results, rooted=not may_open)
    # DuckDB keeps each object open that it has begun to read, and each thread has its own.
    open_files = _OPEN_FILES + (_THREADS + 1) * len(places) * may_open
    if open_files > max(_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        connection.close()
        return _task(results, query, limits, may_open=False)
    with connection:
        try:
            check_reads(connection, query)
        except duckdb.Error as error:
            raise QueryError(f"{results}: {error}") from error
        names = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        tables = [connection.table(f'stored."{name}"').to_arrow_table() for name in names]
        plain = connection.execute(
            "SELECT sql FROM duckdb_views() WHERE NOT internal AND view_name IN "
            "(SELECT table_name FROM duckdb_tables())"
        ).fetchall()
        statements, file = layers(connection)
    settings = SANDBOX | {"memory_limit": f"'{limits.memory * 3 // 4} bytes'", "threads": str(_THREADS)}
    locked = settings.pop("lock_configuration")
    task = {
        "tables": names,
        "statements": ["SET enable_geoparquet_conversion = false", *(view for (view,) in plain)],
        "views": statements,
        "prepared": [] if file is None else [str(file)],
        "copying": [] if file is None else copying(file),
        "last": [
            cells,
            f"SET allowed_paths = {quoted_list(places)}",
            *(f"SET {name} = {value}" for name, value in settings.items()),
            f"SET lock_configuration = {locked}",
        ],
        "query": query,
        "places": places,
        "is_served": not may_open,
        "open_files": open_files,
    }
    return task, tables, RootedFileSystem(results) if places and not may_open else None


class _Process:
    """The other process."""

    def __init__(self, limits: Limits) -> None:
        self.link, theirs = Pipe()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `end`
        numbers = (theirs.fileno(), int(_START_LIMIT_S + limits.seconds) + 1, limits.memory)
        try:
            # As a file, not a module: the package around it imports what talks to stores.
            self._process = subprocess.Popen(
                [sys.executable, "-P", child.__file__, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(theirs.fileno(),),
                env=confine.environment() | {"MALLOC_ARENA_MAX": "2"},
                cwd="/",
                start_new_session=True,  # Ctrl-C is for this process to handle
            )
        except OSError as error:
            self._said.close()
            self.link.close()
            raise DeepliifRayError(f"the sandbox's process cannot be started: {error}") from error
        finally:
            theirs.close()

    def died_of(self, limits: Limits) -> str:
        """Return why the process ended without an answer."""
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "the process that runs it hung up"
        said = os.pread(self._said.fileno(), child.SAID, 0).decode("utf-8", "replace").lower()
        if status == -signal.SIGALRM:
            return too_long(limits)
        if status == -signal.SIGKILL or any(words in said for words in _OUT_OF_MEMORY):
            return too_large(limits)
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"the process that ran it ended ({name}), perhaps for want of memory: {too_large(limits)}"

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self.link.close()
        self._said.close()


def too_long(limits: Limits) -> str:
    """Say that the time is up."""
    return f"the query takes more than the {limits.seconds:g} s of the sandbox"


def too_large(limits: Limits) -> str:
    """Say that memory is not enough."""
    return f"the query {child.MEMORY_WORDS}, {limits.memory / 1e9:g} GB"


class _Exchange:
    """One query, from the task to the answer."""

    def __init__(self, results: str, process: _Process, limits: Limits) -> None:
        self._results, self._process, self._limits = results, process, limits
        self._served: RootedFileSystem | None = None
        self._link: Connection = process.link
        self._batches: list[pa.Table] = []
        self._left = limits.answer
        self._trouble: StorageError | None = None
        self._allowed: frozenset[str] = frozenset()

    def begin(self) -> list[str]:
        """Return what the other process gave up, as soon as it did."""
        self._deadline = time.monotonic() + _START_LIMIT_S
        try:
            gave_up: list[str] = json.loads(self._receive())
        except _GONE as error:
            raise self._refused(self._process.died_of(self._limits)) from error
        if not set(confine.EVERYTHING) <= set(gave_up):
            _log.warning("the process that runs this query %s", confine.described(gave_up))
        return gave_up

    def run(self, task: dict[str, Any], tables: list[pa.Table], served: RootedFileSystem | None) -> pa.Table:
        """Return the answer to a task."""
        prefix, self._served = f"{RootedFileSystem.protocol}://", served
        self._allowed = frozenset(place.removeprefix(prefix) for place in task["places"])
        try:
            self._deadline = time.monotonic() + _START_LIMIT_S
            self._link.send_bytes(json.dumps(task).encode())
            for table in tables:
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, table.schema) as stream:
                    stream.write_table(table)
                self._link.send_bytes(sink.getvalue())
            self._until_done()
            self._deadline = time.monotonic() + self._limits.seconds
            self._until_done()
        except _GONE as error:
            raise self._refused(self._process.died_of(self._limits)) from error
        answer = pa.concat_tables(self._batches)
        return answer.rename_columns(unique_names(answer.column_names))

    def _until_done(self) -> None:
        """Answer what is asked until the other side is done."""
        while True:
            message = self._receive()
            kind, content = message[:1], memoryview(message)[1:]
            if kind == child.DONE:
                return
            if kind == child.FETCH:
                self._fetch(json.loads(bytes(content)))
            elif kind == child.TYPES:
                check_types(*json.loads(bytes(content)))
            elif kind == child.BATCH:
                self._take(content)
            elif kind == child.MEMORY:
                # DuckDB goes on with advice on settings, which are locked here.
                why = bytes(content).decode().partition("\n")[0]
                raise self._refused(f"{too_large(self._limits)} ({why})")
            elif self._trouble is not None:
                raise self._trouble
            else:
                raise self._refused(bytes(content).decode())

    def _receive(self) -> bytes:
        if not self._link.poll(max(self._deadline - time.monotonic(), 0)):
            raise self._refused(too_long(self._limits))
        try:
            return self._link.recv_bytes(self._left + child.SAID)
        except EOFError:
            raise
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise self._refused(self._too_much()) from error

    def _take(self, content: memoryview) -> None:
        self._left -= len(content)
        if self._left < 0:
            raise self._refused(self._too_much())
        try:
            table = pa.ipc.open_stream(content).read_all()
            table.validate(full=True)  # the other process may be out of its mind
        except pa.ArrowException as error:
            raise self._refused(f"its answer is damaged ({error})") from error
        self._batches.append(table)

    def _fetch(self, question: list[Any]) -> None:
        path, *span = question
        if self._served is None or path not in self._allowed:
            self._link.send_bytes(child.REFUSED + b"no such object")
            return
        try:
            if span:
                found = self._served.cat_file(path, *span)
            else:
                found = json.dumps(self._served.info(path)["size"]).encode()
        except StorageError as error:
            self._trouble = error
            self._link.send_bytes(child.REFUSED + b"the store does not answer")
            return
        self._link.send_bytes(child.BYTES + found)

    def _too_much(self) -> str:
        most = self._limits.answer / 1e9
        return f"the answer has more than the {most:g} GB that the sandbox gives; ask for less, or aggregate"

    def _refused(self, why: str) -> QueryError:
        return QueryError(f"{self._results}: {why}")
