"""Cgroup v2, where the agent may make groups: every process of an attempt is in one, whatever it forks and however.

The attempts' groups are below one group of this agent's own, named after its state directory, so that the daemon, or
the next keeper, finds them when the keeper is dead.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from pathlib import Path

from coordinator.agent.log import logger
from coordinator.agent.tree import send

GROUPS = "cgroups"
"""File of the state directory that names this agent's groups, the unified one first: a service manager may start the
next agent in another group than this one."""
PROCESSES_ALL = 16_384
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


class CgroupHome:
    """The group of this agent. Made by `find`; None where this process may not make groups.

    `v1` are the groups of the older hierarchies where the controllers are not on the unified one: by name, with the
    descriptor that leads back out of them. There the number of processes is bounded for the agent and all its attempts
    together, by a group that this process stays in: a group for each would double the moves of a start.
    """

    def __init__(self, path: Path, come_back: int) -> None:
        self.path = path
        self.controllers = _enabled(path)
        self.v1: dict[str, tuple[Path, int]] = {}
        self._come_back = come_back
        self._made: set[str] = set()
        self._away: set[int] = set()
        self.last_entered: Path | None = None
        """The attempt's group that this process is inside of."""

    @classmethod
    def find(cls, state_dir: Path) -> CgroupHome | None:
        root = unified_root()
        own = own_group(root) if root is not None else None
        if own is None:
            return None
        own = _make_room(own)
        path = own / group_name(state_dir)
        try:
            path.mkdir(exist_ok=True)
            if "memory" in _enabled(own):
                write(path / "cgroup.subtree_control", "+memory +pids")
            come_back = os.open(_seat(own) / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return None
        home = cls(path, come_back)
        for name in ("memory", "pids"):
            if name not in home.controllers:
                home._find_v1(name, group_name(state_dir))
        paths = [path, *(path for path, _ in home.v1.values())]
        (state_dir / GROUPS).write_text("".join(f"{path}\n" for path in paths))
        return home

    def _find_v1(self, name: str, group: str) -> None:
        own = _v1_group(name)
        if own is not None:
            with contextlib.suppress(OSError):
                (own / group).mkdir(exist_ok=True)
                back = os.open(own / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                self.v1[name] = own / group, back
                if name == "pids":
                    write(own / group / "pids.max", str(PROCESSES_ALL))
                    write(own / group / "cgroup.procs", "0")

    @property
    def limits_memory(self) -> bool:
        return "memory" in self.controllers or "memory" in self.v1

    @property
    def limits_processes(self) -> bool:
        return "pids" in self.controllers or "pids" in self.v1

    def group(self, name: str, memory: int, processes: int) -> CgroupTree:
        """One with nothing in it, bounded where it can be; 0: no bound. OSError when there is no room for it."""
        path = self.path / name
        if name not in self._made:
            with contextlib.suppress(FileExistsError):
                path.mkdir(parents=True)
            self._made.add(name)
        # whoever was in it last may have been frozen, late by the guard or under a keeper that was killed; and we go in
        write(path / "cgroup.freeze", "0")
        rooms = [path]
        if memory and "memory" in self.controllers:
            write(path / "memory.max", str(memory))
            write(path / "memory.oom.group", "1")
            with contextlib.suppress(OSError):
                write(path / "memory.swap.max", "0")
        elif memory and "memory" in self.v1:
            above, _ = self.v1["memory"]
            (above / name).mkdir(parents=True, exist_ok=True)
            write(above / name / "memory.limit_in_bytes", str(memory))
            rooms.append(above / name)
        if processes and "pids" in self.controllers:
            write(path / "pids.max", str(processes))
        return CgroupTree(self, rooms)

    # ---- being inside for a moment

    def enter(self, rooms: list[Path]) -> None:
        """This process is in these groups now, and so is whatever it starts: nothing can fork before it is inside.

        A move is a write, 0.03 ms when there were others lately and a grace period of the kernel's (10 ms and more)
        when not; so the way back is made once, after a row of starts.
        """
        self._away.add(self._come_back)
        self.last_entered = rooms[0]
        write(f"{rooms[0]}/cgroup.procs", "0")
        for room in rooms[1:]:
            self._away.add(self.v1["memory"][1])
            write(f"{room}/cgroup.procs", "0")

    def come_back(self, memory_alone: bool = False) -> None:
        """Out of every attempt's group. `memory_alone`: of the older hierarchy, which the next may not enter."""
        for back in [back for back in self._away if not memory_alone or back != self._come_back]:
            os.write(back, b"0")
            self._away.discard(back)
        if not self._away:
            self.last_entered = None

    def forget(self, name: str) -> None:
        """The group was removed."""
        self._made.discard(name)

    def close(self) -> None:
        os.close(self._come_back)
        remove_group(self.path)
        for path, back in self.v1.values():
            os.write(back, b"0")
            os.close(back)
            remove_group(path)


SEAT = "agent"
"""Where keeper and daemon sit while their own group bounds others: the kernel wants groups without processes for it."""


def _enabled(group: Path) -> frozenset[str]:
    try:
        return frozenset((group / "cgroup.controllers").read_text().split())
    except OSError:
        return frozenset()


def _seat(own: Path) -> Path:
    return own / SEAT if (own / SEAT).is_dir() else own


def _make_room(own: Path) -> Path:
    """Let the group of this process give its controllers to groups below, where it is ours alone (a service with
    Delegate=yes). The group itself is returned, also when this process sits in its seat already."""
    if own.name == SEAT:
        return own.parent
    if not {"memory", "pids"} <= _enabled(own):
        return own
    with contextlib.suppress(OSError):
        if pids_of(own) == [os.getpid()]:
            (own / SEAT).mkdir(exist_ok=True)
            write(own / SEAT / "cgroup.procs", "0")
            write(own / "cgroup.subtree_control", "+memory +pids")
    return own


def _v1_group(controller: str) -> Path | None:
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


class CgroupTree:
    """The processes of one group; `rooms` are the groups of it in each hierarchy, the unified one first."""

    def __init__(self, home: CgroupHome, rooms: list[Path]) -> None:
        self.main = 0
        self.path = rooms[0]
        self._home = home
        self._rooms = rooms
        self._bounded = len(rooms) > 1 or "memory" in home.controllers
        self.frozen = False
        self._cpu_before_us = _figure(self.path / "cpu.stat", "usage_usec ")

    @property
    def entered(self) -> bool:
        """Whether this process may be inside."""
        return self._home.last_entered == self.path

    def enter(self) -> None:
        self._home.come_back(memory_alone=True)
        self._home.enter(self._rooms)

    def signal_all(self, signum: int) -> None:
        for pid in pids_of(self.path):
            send(pid, signum)

    def freeze(self) -> None:
        self.frozen = True
        write(self.path / "cgroup.freeze", "1")

    def thaw(self) -> None:
        write(self.path / "cgroup.freeze", "0")
        self.frozen = False

    def kill(self) -> None:
        kill_group(self.path)

    def main_ended(self) -> None:
        if populated(self.path):
            self.kill()

    def empty(self) -> bool:
        return not populated(self.path)

    def events(self) -> int:
        """A descriptor that says POLLPRI when the group gets empty. The caller closes it."""
        return os.open(self.path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """The group stays for the next attempt of its place, unless it counts memory or was given groups below it."""
        if self.frozen:
            self.thaw()
        if not self._bounded and self.path.stat().st_nlink == 2:
            return
        self._home.forget(self.path.name)
        for path in self._rooms:
            if not remove_group(path):
                logger.warning("%s is not empty and stays", path)

    # ---- what it used

    def cpu_ms(self) -> int:
        """Of all that ran in it."""
        return (_figure(self.path / "cpu.stat", "usage_usec ") - self._cpu_before_us) // 1000

    def memory_peak(self) -> int:
        """Bytes; 0 where nothing counted them."""
        return self._largest(("memory.peak", "memory.max_usage_in_bytes"), "")

    def oom_kills(self) -> int:
        return self._largest(("memory.events", "memory.oom_control"), "oom_kill ")

    def _largest(self, names: tuple[str, ...], key: str) -> int:
        if not self._bounded:
            return 0
        return max(_figure(path / name, key) for path in self._rooms for name in names)


def _figure(path: Path, key: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in read(str(path)).decode().splitlines():
            if line.startswith(key):
                return int(line[len(key) :])
    return 0
