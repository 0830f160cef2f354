"""Takes rights from the present process, for good: writing, starting programs, the network, memory and time.

A second line of defence around what reads and runs the files of strangers. The first is that nothing in such a file is
run. Everything here is the kernel's: it holds for native code, too, and for whatever the process starts.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Landlock, from linux/landlock.h. Its three system calls have the same numbers on every architecture that PyTorch has.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_OLDEST: Final = 2  # version 1 forbids every renaming from one folder to another
_EXECUTE, _WRITE_FILE, _READS = 1 << 0, 1 << 1, (1 << 2) | (1 << 3)
_MAKE_SPECIAL: Final = (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 12)  # devices, sockets, pipes, links
_RIGHTS: Final = {2: 14, 3: 15, 5: 16}  # version: so many rights on files (truncate since 3, ioctl on devices since 5)
_TCP: Final = 0b11  # since version 4: bind, connect
_SCOPES: Final = 0b11  # since version 6: abstract sockets of others, signals to others

# seccomp, from linux/seccomp.h, linux/filter.h and linux/audit.h.
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 1, 22, 38, 2
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _NOT_PERMITTED = 0x7FFF0000, 0x00050001
_NUMBER_AT, _ARCHITECTURE_AT, _SECOND_ARGUMENT_AT = 0, 4, 24
_OTHER_ABI: Final = 0x40000000  # x32 on x86-64
_IO_URING_SETUP: Final = 425  # a ring opens sockets without the system call
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # type into the terminal, as if the user did
_CALLS: Final = {  # architecture as audit has it; socket, ioctl
    "x86_64": (0xC000003E, 41, 16),
    "aarch64": (0xC00000B7, 198, 29),
}

# Capabilities, from linux/capability.h: two of 64 in the first of two words of three sets.
_CAPABILITY_VERSION, _KEPT_CAPABILITIES = 0x20080522, (1 << 1) | (1 << 2)


@dataclass(frozen=True)
class Limits:
    """What the process may take of the machine.

    Args:
        memory: bytes of data, on Linux.
        cpu: seconds of processor time, of all threads together.
        file: bytes of the largest file that it writes.
    """

    memory: int
    cpu: int
    file: int


def confine(folder: Path | str, limits: Limits) -> list[str]:
    """Take from this process all that reading, computing and writing to `folder` does not need.

    Returns:
        What could not be taken here, in words.

    Raises:
        RuntimeError: the process has several threads already; the others would keep their rights.
    """
    if sys.platform == "linux":
        if len(os.listdir("/proc/self/task")) > 1:
            raise RuntimeError("rights are given up by one thread: too late, there are others")
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)  # seccomp and Landlock ask for it
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # it does not outlive its parent
    steps: dict[str, Callable[[], bool]] = {
        "memory and time": lambda: _limit_resources(limits),
        "the files that are written": lambda: _limit_files(Path(folder)),
        "the network": _forbid_sockets,
    }
    unlimited = [what for what, step in steps.items() if not step()]
    _drop_capabilities()
    return unlimited


def _limit_resources(limits: Limits) -> bool:
    if sys.platform == "win32":
        return False
    import resource

    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, limits.file)
    _lower(resource.RLIMIT_CPU, limits.cpu, grace=5)
    if sys.platform != "linux":  # others do not count what is mapped
        return False
    _lower(resource.RLIMIT_DATA, limits.memory)
    return True


def _lower(kind: int, value: int, grace: int = 0) -> None:
    """A stricter limit of the user's stays; `grace` lies between the warning signal and the end."""
    if sys.platform != "win32":
        import resource

        soft, hard = (sys.maxsize if old == resource.RLIM_INFINITY else old for old in resource.getrlimit(kind))
        resource.setrlimit(kind, (min(value, soft), min(value + grace, hard)))


def _limit_files(folder: Path) -> bool:
    """Write in `folder` and to /dev/null alone, make no links or devices, start no program."""
    version = _landlock_version()
    if version < _OLDEST:
        return False
    rights = (1 << max(count for since, count in _RIGHTS.items() if since <= version)) - 1
    handled = rights & ~_READS
    ruleset = struct.pack("QQQ", handled, _TCP * (version >= 4), _SCOPES * (version >= 6))
    owner = _syscall(_CREATE_RULESET, ruleset, len(ruleset), 0)
    if owner < 0:
        return False
    _allow(owner, folder, handled & ~(_EXECUTE | _MAKE_SPECIAL))
    _allow(owner, Path(os.devnull), handled & (_WRITE_FILE | 1 << 14))
    done = _syscall(_RESTRICT_SELF, owner, 0) == 0
    os.close(owner)
    return done


def _allow(ruleset: int, path: Path, rights: int) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, opened), 0)
    finally:
        os.close(opened)


def _landlock_version() -> int:
    """0 or less where there is none."""
    return _syscall(_CREATE_RULESET, None, 0, _VERSION) if sys.platform == "linux" else 0


def _forbid_sockets() -> bool:
    """No socket of any kind, and no typing into the terminal."""
    if sys.platform != "linux" or platform.machine() not in _CALLS or sys.maxsize < 2**32:
        return False
    architecture, socket, ioctl = _CALLS[platform.machine()]
    program = (
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _NOT_PERMITTED),
        (_LOAD, 0, 0, _NUMBER_AT),
        *_forbid_if(_IF_AT_LEAST, _OTHER_ABI),
        *_forbid_if(_IF_EQUAL, socket),
        *_forbid_if(_IF_EQUAL, _IO_URING_SETUP),
        (_IF_EQUAL, 1, 0, ioctl),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _SECOND_ARGUMENT_AT),
        *_forbid_if(_IF_EQUAL, _TIOCSTI),
        *_forbid_if(_IF_EQUAL, _TIOCLINUX),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_ = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    return _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filter_))


def _forbid_if(test: int, value: int) -> tuple[tuple[int, int, int, int], ...]:
    """Two lines: a test, of which the second number says how many lines a failed one jumps over, and the end."""
    return (test, 0, 1, value), (_RETURN, 0, 0, _NOT_PERMITTED)


def _drop_capabilities() -> None:
    """What makes root of a process is gone, but for reading and writing files of others where the above lets it."""
    if sys.platform == "linux":
        libc: Any = ctypes.CDLL(None)
        header, sets = struct.pack("Ii", _CAPABILITY_VERSION, 0), ctypes.create_string_buffer(24)
        libc.capget(header, sets)
        permitted = struct.unpack_from("I", sets, 4)[0] & _KEPT_CAPABILITIES
        libc.capset(header, struct.pack("6I", permitted, permitted, 0, 0, 0, 0))


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """Less than 0 where it failed."""
    call: Any = ctypes.CDLL(None).syscall
    call.restype = ctypes.c_long
    return int(call(*(ctypes.c_long(value) if isinstance(value, int) else value for value in (number, *arguments))))


def _prctl(option: int, *arguments: int) -> bool:
    call: Any = ctypes.CDLL(None).prctl
    return call(option, *(ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0)[:4])) == 0
