"""Who a process is, so that another can tell whether it is gone."""

import os
import socket
from pathlib import Path
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_ENDED = frozenset("ZX")


def this_process() -> dict[str, Any]:
    """Return what names this process: machine, the set of processes its number belongs to, number, start.

    Host names and numbers are not enough: machines are cloned with their names, the outermost set of
    processes is called the same on every Linux, containers share a host's name, and numbers are used again.
    """
    return {
        "host": socket.gethostname(),
        "boot": _text(_BOOT),
        "processes": _processes(),
        "pid": os.getpid(),
        "pid_started": _state(os.getpid())[1],
    }


def is_gone(holder: dict[str, Any]) -> bool:
    """Tell whether ``holder`` names a process of this machine, since it was last started, that is no more.

    False where that cannot be known.
    """
    me = this_process()
    pid = holder.get("pid")
    if not me["boot"] or any(holder.get(name) != me[name] for name in ("host", "boot", "processes")):
        return False
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's
        return False
    state, started = _state(pid)
    return state in _ENDED or (started is not None and started != holder.get("pid_started"))


def name_of(holder: dict[str, Any]) -> str:
    """Return how messages name a holder."""
    return f"run {holder.get('run_id', '?')} on {holder.get('host', '?')} (process {holder.get('pid', '?')})"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _processes() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _state(pid: int) -> tuple[str, int | None]:
    """Return a process's state and when it started, in ticks since the machine did; ("", None) if unknown."""
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (fields[0], int(fields[19])) if len(fields) > 19 else ("", None)
