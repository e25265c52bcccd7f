"""What somebody would try who took a helper process over."""

import os
import socket
import subprocess
from pathlib import Path


def attempts(path):
    """Return what to try, by name; ``path`` is a file that must stay as it is."""
    parent, path = os.getppid(), Path(path)
    return {
        "environment": lambda: os.environ["AWS_SECRET_ACCESS_KEY"] + os.environ["RAY_AUTH_TOKEN"],
        "parent-environment": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "parent-memory": lambda: Path(f"/proc/{parent}/mem").open("rb").close(),
        "parent-killed": lambda: os.kill(parent, 0),
        "internet": lambda: socket.create_connection(("127.0.0.1", 9), 1),
        "datagram": lambda: socket.socket(type=socket.SOCK_DGRAM),
        "unix-socket": lambda: socket.socket(socket.AF_UNIX),
        "listen": lambda: socket.create_server(("127.0.0.1", 0)),
        "program": lambda: subprocess.run(["/bin/true"], check=True),
        "fork": os.fork,
        "read": path.read_bytes,
        "write": lambda: Path(f"{path}.new").write_bytes(b"x"),
        "append": lambda: path.open("ab").close(),
        "remove": path.unlink,
        "rename": lambda: path.rename(f"{path}.moved"),
        "mode": lambda: path.chmod(0o777),
        "times": lambda: os.utime(path),
    }


def is_refused(attempt):
    """Try it; tell whether the system refused."""
    try:
        attempt()
    except (PermissionError, KeyError):
        return True
    return False
