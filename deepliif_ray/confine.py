"""What a helper process gives up before it touches what strangers wrote: none of it can be taken back.

For processes that are started to be lost: the one that reads slides, the one that runs SQL. They get none of
the environment that may be a secret, and give up the rest by the means of the Linux kernel, which work
without privileges, in containers too. Whoever takes such a process over, by a hole in an image library or in
a database, can then do no more than lie about its own work: there is nobody to tell what it reads (no
sockets), nothing to change (no writing) and nothing to run (no other programs).

* Landlock (kernel 5.13 on; ``landlock(7)``): the file system is read-only, or closed, and other processes,
  whose environment holds credentials, cannot be looked into or signalled.
* Capabilities (``capabilities(7)``): where the process is root's, it keeps that of reading any file and no
  other. One of those given up looks into other processes past Landlock.
* seccomp (``seccomp(2)``): system calls that connect, run programs, make processes, reach other processes,
  change what files are called or say of themselves, or configure the kernel fail with EPERM.

All of it holds for the thread that calls and for those begun later. Only the standard library is imported
here, so that it costs nothing and starts no thread.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

NETWORK, FILES = "network", "files"
"""What `confine` takes away: talking and running programs (seccomp), changing files and looking into other
processes (Landlock)."""
EVERYTHING = (FILES, NETWORK)
_CANNOT = (
    (NETWORK, "use the network, run programs"),
    (FILES, "write files, look into other processes"),
)
_PASSED_ON = (
    "PATH",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "TZ",
)

_NO_NEW_PRIVILEGES = 38  # prctl
_SET_SECCOMP, _FILTER = 22, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all architectures
_VERSION_FLAG, _PATH_BENEATH = 1, 1
# Rights over files by the version of Landlock that brought them: of the first, all but those of reading files
# and folders.
_READ_FILE, _READING = 0b100, 0b1100
_RIGHTS = ((1, 0b1_1111_1111_0011), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_TCP, _SCOPES = (4, 0b11), (6, 0b11)

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_X32 = 0x4000_0000
# Number on x86_64, and on aarch64 where it has the call.
_FORBIDDEN: tuple[tuple[int | None, int | None], ...] = (
    (41, 198), (42, 203), (43, 202), (288, 242), (49, 200), (50, 201),  # socket connect accept* bind listen
    (59, 221), (322, 281), (57, None), (58, None),  # execve execveat fork vfork
    (101, 117), (310, 270), (311, 271), (438, 438), (434, 434), (424, 424),  # ptrace process_vm_* pidfd_*
    (200, 130), (129, 138), (297, 240),  # tkill rt_sigqueueinfo rt_tgsigqueueinfo
    (425, 425), (426, 426), (427, 427),  # io_uring_*: would do all of this unseen
    (165, 40), (166, 39), (155, 41), (161, 51), (272, 97), (308, 268),  # mount* *root unshare setns
    (428, 428), (429, 429), (430, 430), (431, 431), (432, 432), (433, 433), (442, 442),  # newer mount*
    (321, 280), (298, 241), (323, 282), (248, 217), (249, 218), (250, 219),  # bpf perf userfaultfd keys
    (175, 105), (313, 273), (176, 106), (246, 104), (320, 294), (169, 142),  # modules kexec_* reboot
    (90, None), (91, 52), (268, 53), (452, 452), (92, None), (93, 55), (94, None), (260, 54),  # chmod chown
    (132, None), (235, None), (261, None), (280, 88),  # utime utimes futimesat utimensat
    (188, 5), (189, 6), (190, 7), (197, 14), (198, 15), (199, 16),  # setxattr removexattr
)  # fmt: skip
_CAPABILITIES = ((125, 126), (90, 91))  # capget capset, here by architecture
_CAPABILITY_VERSION = 0x2008_0522
_READ_ANY_FILE = 1 << 2
_KILL, _TGKILL, _CLONE, _CLONE3 = (62, 129), (234, 131), (56, 220), (435, 435)
_THREAD = 0x1_0000  # clone's CLONE_THREAD

# Berkeley packet filter: load a word, jump if equal, if at least, if any bit is set; return.
_LOAD, _EQUAL, _AT_LEAST, _ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENT_AT = 0, 4, 16
_ALLOW, _FAIL = 0x7FFF_0000, 0x0005_0000


def environment() -> dict[str, str]:
    """Return the environment for a helper: what Python needs to start, and nothing that may be a secret."""
    paths = [str(Path(__file__).parents[1]), *(path for path in sys.path if path)]
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return kept | threads | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def limit_memory(more: int, files: int | None = None) -> None:
    """Let this process take ``more`` bytes of address space than it has now; write no core dumps.

    Where there is no ``/proc`` to tell how much it has, only the size of files is limited.

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
        # Bytes: another encoding would be imported, from a file that may be closed to this process by now.
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    except FileNotFoundError:
        return
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def confine() -> tuple[str, ...]:
    """Give up what its work does not need; for a process that has one thread.

    Returns
    -------
    tuple of str
        Which of `FILES` and `NETWORK` this system let it give up.
    """
    if platform.system() != "Linux":
        return ()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return ()
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return ()
    architecture, column = known
    files = _landlock(libc, _RIGHTS) and _drop_capabilities(libc, column)
    network = _seccomp(libc, _program(architecture, column))
    return (*((FILES,) if files else ()), *((NETWORK,) if network else ()))


def close_files(but: Iterable[str] = ()) -> None:
    """Let this thread, and those that it begins, open no file any more but what the kernel tells of itself.

    What is open stays, and so do ``/proc`` and ``/sys``, in which libraries look up processors and memory.
    Call it after the last import, and after `confine` gave up `FILES`, which also closes other processes'
    part of ``/proc``, and changing files.

    Parameters
    ----------
    but : iterable of str
        Files that stay to be read, and are not to be changed. One that is not there is passed over.

    Raises
    ------
    OSError
        It cannot be done.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    stay = [("/proc", _READING), ("/sys", _READING), *((path, _READ_FILE) for path in but)]
    if not _landlock(libc, ((1, _READING),), stay):
        raise OSError(ctypes.get_errno(), "files cannot be closed to this process")


def described(gave_up: Collection[str]) -> str:
    """Return in words what a process that gave this up cannot do, and what it can for want of means."""
    refused = [words for what, words in _CANNOT if what in gave_up]
    possible = [words for what, words in _CANNOT if what not in gave_up]
    if not refused:
        return "is not confined by this system (Linux on x86_64 and aarch64 is), but holds no credentials"
    return f"cannot {', '.join(refused)}" + (f"; CAN {', '.join(possible)}" if possible else "")


def _landlock(
    libc: ctypes.CDLL, taken: tuple[tuple[int, int], ...], but: Iterable[tuple[str, int]] = ()
) -> bool:
    """Take rights over files away, ``but`` these at and below these paths; tell whether it was done."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < 1:
        return False
    rights = sum(bits for since, bits in taken if version >= since)
    attributes = [rights, *(bits for since, bits in (_TCP, _SCOPES) if version >= since)]
    packed = struct.pack(f"{len(attributes)}Q", *attributes)
    rules = libc.syscall(_CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), 0)
    if rules < 0:
        return False
    try:
        for path, kept in but:
            try:
                parent = os.open(path, os.O_PATH)
            except FileNotFoundError:
                continue
            try:
                rule = struct.pack("=Qi", rights & kept, parent)
                if libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0) != 0:
                    return False
            finally:
                os.close(parent)
        return bool(libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _drop_capabilities(libc: ctypes.CDLL, column: int) -> bool:
    get, put = _CAPABILITIES[column]
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)  # effective, permitted, inheritable: lower halves, then upper ones
    if libc.syscall(get, header, held) != 0:
        return False
    kept = struct.unpack("6I", held.raw)[1] & _READ_ANY_FILE
    return bool(libc.syscall(put, header, struct.pack("6I", kept, kept, 0, 0, 0, 0)) == 0)


def _seccomp(libc: ctypes.CDLL, program: bytes) -> bool:
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return bool(libc.prctl(_SET_SECCOMP, _FILTER, ctypes.create_string_buffer(header), 0, 0) == 0)


def _program(architecture: int, column: int) -> bytes:
    """Return the filter as code of the kernel's packet filter, eight bytes an instruction."""
    code: list[bytes] = []

    def add(operation: int, value: int, then: int = 0, otherwise: int = 0) -> None:
        code.append(struct.pack("HBBI", operation, then, otherwise, value))

    def fail(number: int = errno.EPERM) -> None:
        add(_RETURN, _FAIL | number)

    add(_LOAD, _ARCHITECTURE_AT)
    add(_EQUAL, architecture, 1)
    fail()
    add(_LOAD, _NUMBER_AT)
    add(_AT_LEAST, _X32, 0, 1)
    fail()
    for numbers in _FORBIDDEN:
        number = numbers[column]
        if number is not None:
            add(_EQUAL, number, 0, 1)
            fail()
    add(_EQUAL, _CLONE3[column], 0, 1)  # its flags are out of reach; threads are then made by clone
    fail(errno.ENOSYS)
    add(_EQUAL, _CLONE[column], 0, 4)
    add(_LOAD, _ARGUMENT_AT)
    add(_ANY, _THREAD, 1)
    fail()
    add(_RETURN, _ALLOW)
    for call in (_KILL, _TGKILL):  # itself only
        add(_EQUAL, call[column], 0, 4)
        add(_LOAD, _ARGUMENT_AT)
        add(_EQUAL, os.getpid(), 1)
        fail()
        add(_RETURN, _ALLOW)
    add(_RETURN, _ALLOW)
    return b"".join(code)
