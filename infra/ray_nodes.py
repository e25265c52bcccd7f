"""A Ray cluster of several nodes on this machine, each with processes of its own, that wants a token."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_READY_S = 180.0
_STORE_BYTES = 200 * 10**6
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    # A node's death is noticed in seconds, not in a quarter of a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def title(pid: int) -> str:
    """Return what a process calls itself, or nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in found]


def _family(pid: int) -> list[int]:
    return [pid, *(each for child in children(pid) for each in _family(child))]


class Node:
    """One node: a ``ray start`` that ends with its node."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        ports = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats",
                    f"--object-store-memory={_STORE_BYTES}",
                    *(f"--{name}={free_port()}" for name in ports), *arguments,
                ],
                env=dict(environment), stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def busy(self, at: str) -> bool:
        """Tell whether a process of the node is at work on what the pattern ``at`` matches."""
        return any(re.match(f"ray::.*{at}", title(pid)) for pid in _family(self.process.pid))

    def kill(self) -> None:
        """End all its processes at once, as those of a lost machine end."""
        for pid in _family(self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


class RayNodes:
    """A cluster: its head is started with it, other nodes join and are lost.

    Parameters
    ----------
    logs : Path
        Folder for what the nodes write.
    environment : mapping of str to str
        What nodes and jobs find in their environment beside what this process has, such as credentials.
    head_cpus : int
        CPUs of the head that may be used for work.

    Attributes
    ----------
    environment : dict of str to str
        What a client needs in its environment.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str], *, head_cpus: int) -> None:
        self._folder = tempfile.mkdtemp(prefix="dr-", dir="/tmp")  # Ray's sockets need short paths
        self._logs, port, self._gcs = logs, free_port(), f"127.0.0.1:{free_port()}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {
            **inherited,
            **_ENVIRONMENT,
            "HOME": self._folder,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}",
            **environment,
        }
        head = [
            "--head", f"--port={self._gcs.rpartition(':')[2]}", f"--dashboard-port={port}",
            "--include-dashboard=true", f"--num-cpus={head_cpus}",
        ]  # fmt: skip
        self._started = 0
        self.nodes: list[Node] = []
        self._start(head)
        try:
            self._wait(1)
            self._ask("/api/jobs/")
        except BaseException:
            self.stop()
            raise

    @property
    def gcs(self) -> str:
        """Address for drivers, HOST:PORT."""
        return self._gcs

    def join(self, cpus: int = 1) -> Node:
        """Start a node and wait until the cluster has it."""
        before = self.alive()
        node = self._start([f"--address={self._gcs}", f"--num-cpus={cpus}"])
        self._wait(before + 1)
        return node

    def _start(self, arguments: list[str]) -> Node:
        name = f"node-{self._started}"
        self._started += 1
        # A disk of its own, as it were: nodes that share a folder replace each other's working directories of
        # jobs, also while a job is in there (Ray 2.60).
        disk = f"{self._folder}/{name}"
        environment = {**self.environment, "DEEPLIIF_RAY_CACHE": f"{disk}/cache"}
        node = Node([*arguments, f"--temp-dir={disk}"], environment, self._logs / f"{name}.log")
        self.nodes.append(node)
        return node

    def lose(self, node: Node) -> None:
        """End a node at once, and wait until the cluster has noticed."""
        before = self.alive()
        node.kill()
        self.nodes.remove(node)
        self._wait(before - 1)

    def alive(self) -> int:
        """Return how many nodes the cluster counts as alive."""
        answer = self._ask("/nodes?view=summary")
        return sum(node["raylet"].get("state") == "ALIVE" for node in answer["data"]["summary"])

    def _wait(self, count: int) -> None:
        deadline, trouble = time.monotonic() + _READY_S, ""
        while time.monotonic() < deadline:
            try:
                if (found := self.alive()) == count:
                    return
                trouble = f"it has {found} nodes, not {count}"
            except (OSError, ValueError, KeyError) as error:  # URLError is an OSError
                trouble = f"{type(error).__name__}: {error}"
            ended = [node for node in self.nodes if node.process.poll() is not None]
            if ended:
                trouble = ended[0].log.read_text(errors="replace")[-3000:]
                break
            time.sleep(0.5)
        raise RuntimeError(f"the Ray cluster did not get ready: {trouble}")

    def _ask(self, path: str) -> Any:
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(self.environment["RAY_API_SERVER_ADDRESS"] + path, headers=token)
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError:
                # The dashboard answers before all its parts do.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def stop(self) -> None:
        """End all nodes, the head last, and remove what they kept on disk."""
        for node in reversed(self.nodes):  # killed, as Ray would wait for half a minute for work to end
            node.kill()
        self.nodes = []
        shutil.rmtree(self._folder, ignore_errors=True)
