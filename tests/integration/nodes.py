"""A Ray cluster of several nodes on this machine, its processes, and runs on it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from infra.ray_nodes import children, title
from tests.integration.driver import ROOT

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # A node's death is noticed in seconds, not in a quarter of a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}
PATIENCE_S = 280.0
"""No run of these small cohorts takes so long, on a machine however busy: one that does, hangs."""


class Nodes:
    """A cluster of a head and more nodes, of one CPU each."""

    def __init__(self, nodes: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self._before = {name: os.environ.get(name) for name in ENVIRONMENT}
        os.environ.update(ENVIRONMENT)
        self._cluster = Cluster(shutdown_at_exit=True)
        for _ in range(nodes):
            self.add()

    def add(self):
        """Add a node and return it; the first one is the head."""
        return self._cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20, include_dashboard=False)

    @property
    def address(self) -> str:
        return self._cluster.address

    @property
    def others(self) -> list:
        """All nodes but the head."""
        return list(self._cluster.worker_nodes)

    def kill(self, node) -> None:
        """End a node as a lost machine ends: at once."""
        workers = self.workers(node)
        self._cluster.remove_node(node, allow_graceful=False)
        for pid in workers:
            send(pid, signal.SIGKILL)

    def workers(self, node=None, named: str = "(Map|_finalize)") -> list[int]:
        """Return the processes (on ``node``, or anywhere) at work on what ``named`` matches."""
        nodes = [self._cluster.head_node, *self.others] if node is None else [node]
        return [
            pid
            for each in nodes
            for process in each.all_processes.get("raylet", [])
            for pid in children(process.process.pid)
            if re.match(f"ray::.*{named}", title(pid))
        ]

    def shutdown(self) -> None:
        self._cluster.shutdown()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; tell whether the process was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class Run:
    """A run on a cluster as a process of its own."""

    def __init__(self, address: str, manifest: Path, results: Path | str, **options) -> None:
        command = [sys.executable, "-m", "tests.integration.driver", address, str(manifest), str(results)]
        self.process = subprocess.Popen(
            [*command, json.dumps(options)],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said = ""

    def until(self, condition: Callable[[], object]) -> object:
        """Wait until something is so, and return it."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert self.process.poll() is None, f"ended too early: {self.process.communicate()[0][-3000:]}"
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.05)
        return found

    def end(self, within: float = PATIENCE_S) -> int:
        """Return the exit code; a run that does not end is a hang, and killed."""
        try:
            self.said, _ = self.process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end within {within:.0f} s: {self.said[-3000:]}") from None
        return self.process.returncode

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.said, _ = self.process.communicate()


def staged(results: Path) -> int:
    """Return how many blocks of tiles are staged."""
    return len(list(results.glob("_staging/*/*/*.arrow")))
