"""What a process does to itself before it touches what strangers wrote: none of it can be taken back.

For helper processes that are started to be lost. Only the standard library is imported here, so that it costs
nothing and starts no thread.
"""

import ctypes
import os
import resource
import sys
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


def environment() -> dict[str, str]:
    """Return the environment for a helper: what Python needs to start, and nothing that may be a secret."""
    paths = [str(Path(__file__).parents[1]), *(path for path in sys.path if path)]
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return kept | threads | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def limit_memory(more: int, files: int | None = None) -> None:
    """Let this process take ``more`` bytes of address space than it has now; write no core dumps.

    Where the system does not tell how much it has, only the size of files is limited.

    Parameters
    ----------
    more : int
        Bytes.
    files : int, optional
        Bytes that a file it writes may have; by default ``more``.
    """
    largest = more if files is None else files
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def leave_network() -> bool:
    """Put this process into a network of its own, in which there is nothing; tell whether the system lets it.

    Linux lets root do so, and other users where they may make user namespaces. What is open stays.
    Call it before the first thread starts: the system refuses it to processes of several.
    """
    if not sys.platform.startswith("linux"):
        return False
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    return any(unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))
