"""Starting a program that is kept from its neighbours, from the agent and from the coordinator.

`uid`: a user id of its own, no groups, no way to more rights. `sandbox`: besides, namespaces of its own for mounts,
processes and IPC; with root's rights also the user id, without them a user namespace. Runs in a child that this process
forks; whatever fails there is told to the parent over a pipe that the program never sees.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from coordinator.agent import syscalls
from coordinator.agent.spawn import EVERY_SIGNAL, NOT_STARTED, CannotStart, find_program, why
from coordinator.agent.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
)

_STATUS = struct.Struct("i")
_ERROR_BYTES_MAX = 4_096


class Walls(Struct, frozen=True, kw_only=True):
    """What a sandbox hides, and what stays."""

    work: str
    """The one directory of the agent's that the program has."""
    tmp: str
    """Becomes /tmp and /var/tmp."""
    hidden: tuple[str, ...]


class Program(Struct, frozen=True, kw_only=True):
    """All that the child needs to know."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    directory: str
    stdin: int
    outputs: tuple[int, int]
    user: int
    """To become; 0: stay who we are."""
    groups: tuple[int, ...] = ()
    """Beside the user's own."""
    limits: tuple[tuple[int, int, int], ...] = ()
    """(resource, soft, hard)."""
    walls: Walls | None = None


class Started(Struct, kw_only=True):
    pid: int
    status: int = -1
    """A pipe that brings the program's own wait status when `pid` is only its init; the caller's to close."""


def start_isolated(program: Program) -> Started:
    """Fork, set up, execute. Raises CannotStart. Returns when the program runs: 1 to 3 ms at `uid`, 3 to 8 in a
    sandbox."""
    owner = os.geteuid(), os.getegid()
    told, tell = os.pipe2(os.O_CLOEXEC)
    status, report = os.pipe2(os.O_CLOEXEC) if program.walls is not None else (-1, -1)
    try:
        try:
            pid = _fork(program)
        except OSError as error:
            raise CannotStart(NOT_STARTED, f"no process could be made: {error.strerror}") from None
        if pid == 0:
            _in_child(program, owner, tell, report)
        os.close(tell)
        tell = -1
        refusal = _read_all(told)
        if refusal:
            os.waitpid(pid, 0)
            code, _, text = refusal.decode("utf-8", "replace").partition(" ")
            raise CannotStart(int(code), text)
        kept, status = status, -1
        return Started(pid=pid, status=kept)
    finally:
        for fd in (told, tell, status, report):
            if fd >= 0:
                os.close(fd)


def read_status(pipe: int) -> int | None:
    """The program's wait status that its init left; None: it left none. Closes the pipe."""
    try:
        os.set_blocking(pipe, False)
        data = os.read(pipe, _STATUS.size)
    except BlockingIOError:
        data = b""
    finally:
        os.close(pipe)
    return int(_STATUS.unpack(data)[0]) if len(data) == _STATUS.size else None


def _read_all(pipe: int) -> bytes:
    data = b""
    while len(data) < _ERROR_BYTES_MAX and (more := os.read(pipe, _ERROR_BYTES_MAX)):
        data += more
    return data


def _fork(program: Program) -> int:
    if program.walls is None:
        return os.fork()
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC
    return syscalls.fork_into(flags if os.geteuid() == 0 else flags | syscalls.CLONE_NEWUSER)


# ---- in the child: nothing may return from here, and nothing of the agent may be left open


def _in_child(program: Program, owner: tuple[int, int], tell: int, report: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for signum in EVERY_SIGNAL:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _close_all_but(tell, report, program.stdin, *program.outputs)
        if program.walls is None:
            _become(program)
        else:
            _be_init(program, program.walls, owner, tell, report)
    except (CannotStart, OSError) as error:
        _refuse(tell, error)
    finally:
        os._exit(NOT_STARTED)


def _refuse(tell: int, error: CannotStart | OSError) -> None:
    """Said to who waits for the program: the code, and in words what is wrong."""
    if isinstance(error, OSError):
        error = CannotStart(NOT_STARTED, f"{error.filename or 'set-up'}: {error.strerror}")
    os.write(tell, f"{error.code} {error.text}".encode()[:_ERROR_BYTES_MAX])


def _close_all_but(*keep: int) -> None:
    before = 3
    for fd in sorted(fd for fd in keep if fd >= 0):
        os.closerange(before, fd)
        before = fd + 1
    os.closerange(before, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _become(program: Program) -> NoReturn:
    """Be the program: its session, rights, limits, directory, streams; then execute it."""
    os.setsid()
    os.umask(0o022)
    for kind, soft, hard in program.limits:
        resource.setrlimit(kind, (soft, hard))
    if program.user:
        os.setgroups(program.groups)
        os.setresgid(program.user, program.user, program.user)
        os.setresuid(program.user, program.user, program.user)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    try:
        os.chdir(program.directory)
    except OSError as error:
        raise CannotStart(NOT_STARTED, f"directory {program.directory}: {error.strerror}") from None
    # found with the program's own rights, inside of its walls
    path = find_program(program.argv[0], program.env.get("PATH", ""), program.directory)
    for fd, target in ((program.stdin, 0), (program.outputs[0], 1), (program.outputs[1], 2)):
        os.dup2(fd, target)
    try:
        os.execve(path, program.argv, program.env)  # noqa: S606  # an argument list, never a shell
    except OSError as error:
        raise why(error, path) from None
    except ValueError as error:
        raise CannotStart(NOT_STARTED, str(error)) from None


def _be_init(program: Program, walls: Walls, owner: tuple[int, int], tell: int, report: int) -> NoReturn:
    """The first process of the namespaces: it dies with the keeper, and everything inside dies with it."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if owner[0] != 0:
        _keep_ids(*owner)
    build_walls(walls, as_root=owner[0] == 0)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(report)
            _become(program)
        except (CannotStart, OSError) as error:
            _refuse(tell, error)
        finally:
            os._exit(NOT_STARTED)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    for fd in (0, 1, 2, tell, program.stdin, *program.outputs):
        with contextlib.suppress(OSError):
            os.close(fd)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            os.write(report, _STATUS.pack(status))
            os._exit(0)  # and the kernel kills whatever else is inside


def _keep_ids(uid: int, gid: int) -> None:
    """In the new user namespace we are who we were outside; nobody else exists in it."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


# ---- the sandbox's view of the file system


def build_walls(walls: Walls, as_root: bool) -> None:
    """In a mount namespace of our own: what is hidden is covered, and cannot be uncovered by a program without rights.

    The machine's files stay visible with the rights that they have; this is no container image.
    """
    syscalls.mount("none", "/", flags=MS_REC | MS_PRIVATE)
    work = os.open(walls.work, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tmp = os.open(walls.tmp, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    hidden = {covered(Path(path)) if as_root else Path(path) for path in walls.hidden}  # as the machine has them
    for place in ("/tmp", "/var/tmp"):  # noqa: S108  # these are what is taken away
        if not Path(place).is_symlink() and Path(place).is_dir():
            _bind(tmp, place)
    if not as_root:
        # what our user has outside of the sandbox, and would be let into
        hidden |= {Path("/sys/fs/cgroup"), Path(f"/run/user/{os.geteuid()}")}
    for path in sorted(hidden):
        if path.is_dir():
            _cover(path)
    Path(walls.work).mkdir(mode=0o755, parents=True, exist_ok=True)
    _bind(work, walls.work)
    for path in sorted(hidden):
        if path.is_dir() and not Path(walls.work).is_relative_to(path):
            syscalls.mount("none", str(path), flags=MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    if Path("/dev/shm").is_dir():  # noqa: S108  # the place of shared memory
        syscalls.mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108  # its own
    syscalls.mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.close(work)
    os.close(tmp)


def covered(path: Path) -> Path:
    """What has to be covered so that `path` is hidden and a place below it can be reached by another user: the
    outermost directory on the way that others cannot pass, whose content was out of reach for them anyway."""
    for ancestor in reversed(path.parents):
        with contextlib.suppress(OSError):
            if not ancestor.stat().st_mode & stat.S_IXOTH:
                return ancestor
    return path


def _cover(path: Path) -> None:
    syscalls.mount("hidden", str(path), "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m,nr_inodes=1k")


def _bind(fd: int, target: str) -> None:
    syscalls.mount(f"/proc/self/fd/{fd}", target, flags=MS_BIND | MS_REC)
    with contextlib.suppress(OSError):  # without root's rights flags that the machine set cannot be changed
        syscalls.mount("none", target, flags=MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV)
