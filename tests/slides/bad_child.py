"""A helper that misbehaves over files by their names, in place of `deepliif_ray.slides.guard_child`."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from deepliif_ray.slides import guard_child
from tests.attempts import attempts, is_refused

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
    if "attempt" in name and is_refused(attempts(name)[Path(name).stem.removeprefix("attempt-")]):
        raise LookupError("refused")


class Server(guard_child.Server):
    def _slide(self, request):
        if request["do"] == "read" or "open" in Path(request["path"]).name:
            misbehave(request["path"])
        return super()._slide(request)


if __name__ == "__main__":
    guard_child.Server = Server
    guard_child.main(sys.argv[1:])
