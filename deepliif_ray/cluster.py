"""The Ray cluster that a command runs on: one it connects to, or one of its own."""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.data  # importing it sets its loggers up, which are silenced below

from deepliif_ray.errors import ConfigError

WORKER_START_S = "900"
"""Ray gives up a process that takes longer to start, by default 60 s, and starts another. On a busy machine
that one takes as long, and nothing ever begins."""
_GIB = 2**30


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this machine for as long as the context lasts.

    Parameters
    ----------
    address : str, optional
        Address of a cluster; by default the one in $RAY_ADDRESS, or else a cluster of this machine alone. A
        connection that exists already is used as it is.

    Raises
    ------
    ConfigError
        There is no cluster at ``address``.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_register_timeout_seconds", WORKER_START_S)
        options |= {"include_dashboard": False, "object_store_memory": _object_store_bytes()}
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        with _without_greeting():
            ray.init(address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"cannot connect to the Ray cluster at {address}: {error}") from error
    # Ray takes SIGTERM for itself, and would end the process with what is under way not written down.
    if callable(on_terminate) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _without_greeting() -> Iterator[None]:
    """Pass on what is written to standard error, without the line by which Ray tells its own log level.

    Its core, which is no Python, writes it past `sys.stderr` whenever that level is set.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as said:
            os.dup2(said.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                said.seek(0)
                lines = said.read().splitlines(keepends=True)
                os.write(2, b"".join(line for line in lines if b"logging.cc" not in line))
    finally:
        os.close(kept)


def _object_store_bytes() -> int:
    return min((2 + (os.cpu_count() or 1)) * _GIB // 8, 32 * _GIB)


def gpus() -> float:
    """Return how many GPUs the connected cluster has."""
    return float(ray.cluster_resources().get("GPU", 0))


def has_gpus() -> bool:
    """Tell whether the connected cluster has GPUs."""
    return gpus() > 0


def cpus() -> float:
    """Return how many CPUs the connected cluster has."""
    return float(ray.cluster_resources().get("CPU", 1))
