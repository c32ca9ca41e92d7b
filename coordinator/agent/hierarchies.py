"""Control groups as files: where they are, what they hold, and how they are read, written, killed and removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from coordinator.agent.tree import send

GROUPS = "cgroups"
"""File of the state directory that names this agent's groups, the unified one first: a service manager may start the
next agent in another group than this one."""
KILL_ROUNDS = 100
"""Signals sent one by one where the kernel has no cgroup.kill (before 5.14)."""


def group_name(state_dir: Path) -> str:
    """Of this agent's group: the same for every run on this state directory."""
    return "coord-" + hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:16]


def unified_root() -> Path | None:
    """Where cgroup v2 is mounted."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


def own_group(root: Path) -> Path | None:
    """The cgroup v2 directory of this process."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return root / line[4:]
    return None


def read(path: str) -> bytes:
    """A file of the kernel's, in one read: a stream would ask five things about it first."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def write(path: Path | str, text: str) -> None:
    """One write, as the kernel's files want it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def pids_of(group: Path) -> list[int]:
    """Of the group and all groups below it."""
    found: list[int] = []
    for directory, _, _ in os.walk(group):
        with contextlib.suppress(OSError):
            found += [int(line) for line in (Path(directory) / "cgroup.procs").read_text().split()]
    return found


def groups_of(state_dir: Path) -> list[Path]:
    """The groups that the last agent on this state directory made and that are still there."""
    try:
        lines = (state_dir / GROUPS).read_text().splitlines()
    except OSError:
        return []
    return [Path(line) for line in lines if Path(line).name == group_name(state_dir) and Path(line).is_dir()]


def kill_group(group: Path) -> None:
    """SIGKILL to everything in it."""
    try:
        write(group / "cgroup.kill", "1")
    except FileNotFoundError:
        for _ in range(KILL_ROUNDS):
            pids = pids_of(group)
            if not pids:
                return
            for pid in pids:
                send(pid, signal.SIGKILL)


def populated(group: Path) -> bool:
    """Whether any process is in it or below."""
    try:
        return b"populated 1" in read(f"{group}/cgroup.events")
    except OSError:
        return False


def remove_group(group: Path) -> bool:
    """Remove it and the empty groups below it. False when it is not empty."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(FileNotFoundError):
            try:
                Path(directory).rmdir()
            except OSError:
                return False
    return True


SEAT = "agent"
"""Where keeper and daemon sit while their own group bounds others: the kernel wants groups without processes for it."""


def controllers_of(group: Path) -> frozenset[str]:
    try:
        return frozenset((group / "cgroup.controllers").read_text().split())
    except OSError:
        return frozenset()


def give_down(group: Path, controllers: Iterable[str]) -> frozenset[str]:
    """Let groups below it have those of `controllers` that it has itself. Returns which they have now."""
    for name in sorted(controllers_of(group) & set(controllers)):
        with contextlib.suppress(OSError):
            write(group / "cgroup.subtree_control", f"+{name}")
    try:
        return frozenset((group / "cgroup.subtree_control").read_text().split())
    except OSError:
        return frozenset()


def seat_of(own: Path) -> Path:
    return own / SEAT if (own / SEAT).is_dir() else own


def make_room(own: Path, controllers: Iterable[str]) -> Path:
    """Let the group of this process give its controllers to groups below, where it is ours alone (a service with
    Delegate=yes). The group itself is returned, also when this process sits in its seat already."""
    if own.name == SEAT:
        return own.parent
    if not {"memory", "pids"} <= controllers_of(own):
        return own
    with contextlib.suppress(OSError):
        if pids_of(own) == [os.getpid()]:
            (own / SEAT).mkdir(exist_ok=True)
            write(own / SEAT / "cgroup.procs", "0")
            give_down(own, controllers)
    return own


def v1_group(controller: str) -> Path | None:
    """The group of this process in the older hierarchy of `controller`, where that is mounted."""
    with contextlib.suppress(OSError):
        path = next(
            line.split(":", 2)[2]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if controller in line.split(":")[1].split(",")
        )
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup ") and controller in after.split()[2].split(","):
                found = Path(before.split()[4]) / path[1:]
                return found if found.is_dir() else None
    return None


def figure(path: Path, key: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in read(str(path)).decode().splitlines():
            if line.startswith(key):
                return int(line[len(key) :])
    return 0
