"""The process that runs SQL of people who are not trusted, started by `deepliif_ray.query.sandbox`.

It is given the tables and the statements that make the views, and sends the answer back over the one
descriptor it shares with its parent, batch by batch. It has no credentials, may take no more memory and time
than it was told, and where the system has the means (`deepliif_ray.confine`) it has no network, starts no
program, writes no file, and from the first table on opens none but the cells objects that it was told of,
and a file of views that holds no results.
Where the system has not, or cells are not files of this machine, it opens none at all and asks its parent for
bytes of cells.
Messages begin with a byte that says what they are; the rest is JSON, text, Arrow, or bytes of an object.
"""

import json
import resource
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from deepliif_ray import confine

SAID = 64 * 2**10
"""Bytes that it may write to standard error, the only file it has."""
MEMORY_WORDS = "needs more memory than the sandbox gives"
BATCH_ROWS = 65_536
FETCH, TYPES, BATCH, DONE, PROBLEM, MEMORY = b"?", b"T", b"+", b".", b"!", b"M"
BYTES, REFUSED = b"=", b"-"


def serve(link: Connection, memory: int) -> None:
    """Build the views, run the query, send what it gives.

    Parameters
    ----------
    link : Connection
        To the parent.
    memory : int
        Bytes this process may take beyond those it starts with. DuckDB is told three quarters of it, so that
        most queries that are too large end with DuckDB's own error; the system stops the others.
    """
    gave_up = confine.confine()  # before anything starts a thread
    link.send_bytes(json.dumps(gave_up).encode())
    import duckdb
    import pyarrow as pa

    task = json.loads(link.recv_bytes())
    if task["is_served"]:
        from deepliif_ray.query.ranges import RangesFileSystem
    if confine.FILES in gave_up:
        # All is imported, and DuckDB's threads are still to begin.
        confine.close_files(but=task["prepared"] + ([] if task["is_served"] else task["places"]))
    tables = {name: pa.ipc.open_stream(link.recv_bytes()).read_all() for name in task["tables"]}
    turn = threading.Lock()  # DuckDB reads from several threads

    def ask(*question: str | int | None) -> bytes:
        with turn:
            link.send_bytes(FETCH + json.dumps(question).encode())
            answer = link.recv_bytes()
        if answer[:1] != BYTES:
            raise OSError(answer[1:].decode())
        return answer[1:]

    try:
        connection = duckdb.connect(
            config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        )
        if task["is_served"]:
            connection.register_filesystem(RangesFileSystem(lambda path: json.loads(ask(path)), ask))
        connection.execute("CREATE SCHEMA stored")
        for name, table in tables.items():
            connection.register("arriving", table)
            connection.execute(f'CREATE TABLE stored."{name}" AS SELECT * FROM arriving')
            connection.unregister("arriving")
        for statement in task["statements"]:
            connection.execute(statement)
        _make_views(connection, task)
        for statement in task["last"]:
            connection.execute(statement)
        _tell(link, turn, DONE, "")  # the views are there; from here on it is the query
        confine.limit_memory(memory, SAID)
        resource.setrlimit(resource.RLIMIT_NOFILE, (task["open_files"],) * 2)
        connection.execute("BEGIN TRANSACTION READ ONLY")  # refuses what writes inside a WITH
        answer = connection.sql(task["query"])
        if answer is None:
            _tell(link, turn, PROBLEM, "the query returns no rows; ask with SELECT")
            return
        _tell(link, turn, TYPES, json.dumps([answer.columns, list(map(str, answer.types))]))
        reader = answer.to_arrow_reader(BATCH_ROWS)
        _send(link, turn, pa.Table.from_batches([], reader.schema))
        for batch in reader:
            _send(link, turn, pa.Table.from_batches([batch]))
        _tell(link, turn, DONE, "")
    except (MemoryError, duckdb.OutOfMemoryException, pa.ArrowMemoryError) as error:
        _tell(link, turn, MEMORY, str(error))
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        lacked = any(words in str(error).lower() for words in ("bad_alloc", "memoryerror", "bad allocation"))
        _tell(link, turn, MEMORY if lacked else PROBLEM, str(error))


def _make_views(connection: Any, task: dict[str, Any]) -> None:
    import duckdb

    try:
        for statement in task["copying"]:
            connection.execute(statement)
    except duckdb.Error:
        task["copying"] = []  # the file is gone, or is none
    if not task["copying"]:
        for statement in task["views"]:
            connection.execute(statement)


def _send(link: Connection, turn: threading.Lock, table: Any) -> None:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    with turn:
        link.send_bytes(BATCH + sink.getvalue().to_pybytes())


def _tell(link: Connection, turn: threading.Lock, kind: bytes, text: str) -> None:
    with turn:
        link.send_bytes(kind + text.encode("utf-8", "replace")[:SAID])


def main(arguments: list[str]) -> None:
    """Serve one query.

    Parameters
    ----------
    arguments : list of str
        Descriptor of the connection, the seconds that all may take, and the bytes of memory beyond those at
        the start.
    """
    number, seconds, memory = (int(value) for value in arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.alarm(seconds)  # ends it too when its parent has gone
    with Connection(number) as link:
        serve(link, memory)


if __name__ == "__main__":
    main(sys.argv[1:])
