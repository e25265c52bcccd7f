"""A real S3 server, SeaweedFS, for the tests and for developers: ``python -m infra.s3 FOLDER``."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

READY_S, STOP_S = 120.0, 20.0
GRPC = 10_000  # SeaweedFS listens for gRPC at each port plus this
FIXED_PORTS = {"master": 19333, "volume": 18080, "filer": 18888, "s3": 18333}


def weed() -> str | None:
    """Path of the server's program: installed beside this Python, or found on the PATH."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def _free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports() -> dict[str, int]:
    """Return a free port for each part of the server, its gRPC port free too."""
    found: list[int] = []
    while len(found) < len(FIXED_PORTS):
        port = 11_000 + uuid.uuid4().int % 11_000
        if port not in found and _free(port) and _free(port + GRPC):
            found.append(port)
    return dict(zip(FIXED_PORTS, found, strict=True))


class S3Server:
    """An S3 server that keeps its data in ``folder``; stopped and started again, it has them still."""

    key = "deepliif-ray-test-key"
    secret = "hush-Zq81-never-in-any-record"

    def __init__(self, folder: Path, ports: dict[str, int] | None = None) -> None:
        self.folder = folder
        self.ports = ports or free_ports()
        self.endpoint = f"http://127.0.0.1:{self.ports['s3']}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def launch(self) -> None:
        """Start the server without waiting for it."""
        data, config = self.folder / "data", self.folder / "s3.json"
        data.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "test",
            "credentials": [{"accessKey": self.key, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config.write_text(json.dumps({"identities": [identity]}))
        ports = {f"-{part}.port={port}" for part, port in self.ports.items()}
        # With the default raft and its times, a restart takes 20 s instead of 2.
        quick = ["-master.raftHashicorp", "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"]
        command = [
            weed() or "weed",
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
        ]
        command += ["-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", *ports, *quick]
        command += ["-volume.max=1000", "-master.volumeSizeLimitMB=64", "-master.volumePreallocate=false"]
        command += ["-master.telemetry=false"]
        # It would take credentials of the environment for further administrators.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def start(self) -> None:
        """Start the server and wait until it stores and gives back an object."""
        self.launch()
        client, began, trouble = self.client(), time.monotonic(), "it never answered"
        while time.monotonic() < began + READY_S:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                if "ready" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                    client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="ready", Body=b"ready")
                if client.get_object(Bucket="ready", Key="ready")["Body"].read() == b"ready":
                    return
            except (BotoCoreError, ClientError) as error:
                trouble = str(error)
                time.sleep(0.1)
        self.stop()
        log = (self.folder / "server.log").read_text(errors="replace")
        raise RuntimeError(f"the S3 server did not get ready: {trouble}\n{log[-4000:]}")

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the server at once; what it acknowledged stays in its folder."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, how)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None

    def client(self) -> Any:
        """Return a botocore client, for what the package itself has no use for."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30),
        )

    def bucket(self, name: str | None = None) -> str:
        """Make a new bucket; return its URL."""
        name = name or f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"


def main() -> None:
    """Serve a folder on fixed ports until stopped."""
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    server = S3Server(folder, FIXED_PORTS)
    server.start()
    print(f"# S3 at {server.endpoint}, data in {folder}; stop with Ctrl-C. In another terminal:")
    for name, value in server.environment.items():
        print(f"export {name}={value}")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop(signal.SIGTERM)


if __name__ == "__main__":
    main()
