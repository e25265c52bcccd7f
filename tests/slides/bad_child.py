"""A helper that misbehaves over files by their names, in place of `deepliif_ray.slides.guard_child`."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from deepliif_ray.slides import guard_child

_spoiled = []


def misbehave(name):
    if "segfault" in name:
        ctypes.string_at(8)
    if "abort" in name:
        os.abort()
    if "hang" in name:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        time.sleep(3600)
    if "glib" in name:
        os.write(2, b"GLib-ERROR **: gmem.c:106: failed to allocate 8589934592 bytes\n")
        os.abort()
    if "greedy" in name:
        bytearray(1 << 40)
    if "odd" in name:
        raise LookupError("what is this")
    if "chatty" in name:
        os.write(1, b"warning: odd tag\n" * 10_000)
        os.write(2, b"warning: failed to allocate a warning\n")
    if "oomkilled" in name and not Path(f"{name}.seen").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if "spoiled" in name and _spoiled:
        os.abort()
    if "spoiler" in name:
        _spoiled.append(name)
    if "attempt" in name:
        attempt(name)


def attempt(name):
    """Try what a file that took this process over would; end well only if it was not refused."""
    parent = os.getppid()
    attempts = {
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
        "write": lambda: Path(f"{name}.new").write_bytes(b"x"),
        "append": lambda: Path(name).open("ab").close(),
        "remove": lambda: Path(name).unlink(),
        "rename": lambda: Path(name).rename(f"{name}.moved"),
        "mode": lambda: Path(name).chmod(0o777),
        "times": lambda: os.utime(name),
    }
    try:
        attempts[Path(name).stem.removeprefix("attempt-")]()
    except (PermissionError, KeyError) as error:
        raise LookupError("refused") from error


class Server(guard_child.Server):
    def _slide(self, request):
        if request["do"] == "read" or "open" in Path(request["path"]).name:
            misbehave(request["path"])
        return super()._slide(request)


if __name__ == "__main__":
    guard_child.Server = Server
    guard_child.main(sys.argv[1:])
