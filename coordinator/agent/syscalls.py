"""The few calls to the kernel that Python has no name for. Each raises OSError."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import partial
from itertools import dropwhile
from operator import methodcaller, not_

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
IN_ATTRIB, IN_MOVE, IN_CREATE, IN_DELETE, IN_SELF, IN_Q_OVERFLOW = 0x4, 0xC0, 0x100, 0x200, 0xC00, 0x4000
IN_ONLYDIR, IN_DONT_FOLLOW, IN_ONESHOT = 0x01000000, 0x02000000, 0x80000000
RESOLVE_BENEATH_NO_LINKS = 0x08 | 0x04 | 0x02
"""For `openat2`: beneath the directory, through no link of any kind."""
_CLONE3, _OPENAT2 = 435, 437
_AGAIN_MAX = 64
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02
# the interpreter's lock is held all through: a copy of this process must not find it with somebody else
_LIBC = ctypes.PyDLL(None, use_errno=True)
_LIBC_UNLOCKED = ctypes.CDLL(None, use_errno=True)
_WAKE_COPY = ctypes.pythonapi.PyOS_AfterFork_Child
_WAKE_COPY.restype = None


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls")
    ]


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


def _check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result


def fork_into(flags: int) -> int:
    """fork(2) with new namespaces: the child is the first process of a new PID namespace, and a child of ours."""
    arguments = _CloneArgs(flags=flags, exit_signal=17)
    copy = partial(_LIBC.syscall, _CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    # Not one step of the interpreter may come between the two calls in the child: another thread may have asked for the
    # interpreter's lock, and the child would hand it over, for ever, to a thread that it does not have. So the second
    # call is made by C, where the first one gave 0.
    return _check(next(dropwhile(not_, map(methodcaller("__call__"), (copy, _WAKE_COPY))), 0), "clone3")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    _check(
        _LIBC.mount(source.encode(), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), data.encode()),
        f"mount {target}",
    )


def prctl(option: int, value: int) -> None:
    _check(_LIBC.prctl(option, value, 0, 0, 0), "prctl")


def punch_hole(fd: int, start: int, end: int) -> None:
    """Give back the room of [start, end); the file's length stays."""
    length = ctypes.c_long(end - start)
    _check(_LIBC.fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, ctypes.c_long(start), length), "fallocate")


def inotify() -> int:
    """A descriptor that tells what happens where `inotify_watch` says."""
    return _check(_LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")


def inotify_watch(fd: int, path: str, what: int) -> int:
    """The number of the watch."""
    return _check(_LIBC.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(what)), path)


def openat2(directory: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """open(2) beneath a directory, with rules for the way there. ENOSYS where the kernel has no such call."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    for _ in range(_AGAIN_MAX):
        fd = int(_LIBC_UNLOCKED.syscall(_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)))
        if fd >= 0 or ctypes.get_errno() != errno.EAGAIN:  # somebody renamed a directory on the way
            break
    return _check(fd, path)
