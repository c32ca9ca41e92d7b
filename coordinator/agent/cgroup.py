"""The groups of this agent and of its attempts: every process of an attempt is in one, whatever it forks and however.

The attempts' groups are below one group of this agent's own, named after its state directory, so that the daemon, or
the next keeper, finds them when the keeper is dead.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from coordinator.agent.cpu_cap import CpuCap, quota_us
from coordinator.agent.hierarchies import (
    GROUPS,
    figure,
    give_down,
    group_name,
    kill_group,
    make_room,
    own_group,
    pids_of,
    populated,
    remove_group,
    seat_of,
    unified_root,
    v1_group,
    write,
)
from coordinator.agent.log import logger
from coordinator.agent.tree import send
from coordinator.core.amounts import UNIT

UNIFIED = ""
"""The name of the unified hierarchy; the older ones are named after their controller."""


class CgroupHome:
    """The group of this agent. Made by `find`; None where this process may not make groups.

    `v1` are its groups in the older hierarchies, by controller, where a controller is not on the unified one. An
    attempt has a group in each of those that it is bounded by.
    """

    def __init__(self, path: Path, come_back: int, controllers: frozenset[str]) -> None:
        self.path = path
        self.controllers = controllers
        self.v1: dict[str, Path] = {}
        self._backs = {UNIFIED: come_back}
        """By hierarchy, the descriptor that leads back to where this process belongs."""
        self._away: set[str] = set()
        self.last_entered: Path | None = None
        """The attempt's group that this process is inside of."""
        self._names = 0
        self._spare: list[str] = []
        """Groups that are there, and empty."""
        self.cap: CpuCap | None = None
        self._capped: set[Path] = set()
        self._to_cap: list[tuple[Path, int]] = []
        """Those that this process has to be out of before."""
        self._weights: dict[Path, int] = {}

    @classmethod
    def find(cls, state_dir: Path, cpu: bool = True) -> CgroupHome | None:
        """`cpu`: also what bounds CPU time."""
        root = unified_root()
        own = own_group(root) if root is not None else None
        if own is None:
            return None
        wanted = ("memory", "pids", "cpu") if cpu else ("memory", "pids")
        own = make_room(own, wanted)
        path = own / group_name(state_dir)
        try:
            path.mkdir(exist_ok=True)
            come_back = os.open(seat_of(own) / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return None
        home = cls(path, come_back, give_down(path, wanted))
        for name in wanted:
            if name not in home.controllers:
                home._find_v1(name, group_name(state_dir))
        paths = [path, *home.v1.values()]
        (state_dir / GROUPS).write_text("".join(f"{path}\n" for path in paths))
        if cpu and ("cpu" in home.controllers or "cpu" in home.v1):
            home.cap = CpuCap(unified="cpu" in home.controllers)
            with contextlib.suppress(OSError):
                home.cap.weigh(home.v1.get("cpu", path), (os.cpu_count() or 1) * UNIT)
        with contextlib.suppress(OSError):  # a machine with no such bound has another one
            home._bound_processes(processes_all())
        return home

    def _find_v1(self, name: str, group: str) -> None:
        own = v1_group(name)
        if own is not None:
            with contextlib.suppress(OSError):
                (own / group).mkdir(exist_ok=True)
                self._backs[name] = os.open(own / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                self.v1[name] = own / group

    def _bound_processes(self, most: int) -> None:
        if self.limits_processes:
            write(self.v1.get("pids", self.path) / "pids.max", str(most))

    @property
    def limits_memory(self) -> bool:
        return "memory" in self.controllers or "memory" in self.v1

    @property
    def limits_processes(self) -> bool:
        return "pids" in self.controllers or "pids" in self.v1

    def group(self, memory: int = 0, processes: int = 0, cpus: int = 0) -> CgroupTree:
        """One with nothing in it, bounded where it can be; 0: no bound. OSError when there is no room for it."""
        if not self._spare:
            self._names += 1
            self._spare.append(str(self._names))
        name = self._spare[-1]
        rooms = {UNIFIED: self.path / name}
        if cpus >= (os.cpu_count() or 1) * UNIT:
            cpus = 0  # there is no more than that
        path = self._made(rooms[UNIFIED])
        # whoever was in it last may have been frozen, late by the guard or under a keeper that was killed; and we go in
        write(path / "cgroup.freeze", "0")
        if memory and "memory" in self.v1:
            rooms["memory"] = self._made(self.v1["memory"] / name)
        if processes and self.limits_processes:
            if "pids" in self.v1:
                rooms["pids"] = self._made(self.v1["pids"] / name)
            write(rooms.get("pids", path) / "pids.max", str(processes))
        if self.cap is not None:
            room = self.v1["cpu"] / name if "cpu" in self.v1 else path
            if cpus and room is not path:
                rooms["cpu"] = self._made(room)
            if room in self._capped:  # we go in: what holds the program back must not hold us back
                self.cap.lift(room)
                self._capped.discard(room)
            if cpus and self._weights.get(room) != cpus:
                self.cap.weigh(room, cpus)
                self._weights[room] = cpus
        self._spare.pop()
        return CgroupTree(self, rooms, memory, cpus if self.cap is not None else 0)

    @staticmethod
    def _made(path: Path) -> Path:
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        return path

    # ---- being inside for a moment

    def enter(self, rooms: dict[str, Path], cpus: int) -> None:
        """This process is in these groups now, and so is whatever it starts: nothing can fork before it is inside.

        A move is a write, 0.03 ms when there were others lately and a grace period of the kernel's (10 ms and more)
        when not; so the way back is made once, after a row of starts. `cpus` bounds them when this process has left.
        """
        for name in self._away - rooms.keys():
            self._return(name)
        self.last_entered = rooms[UNIFIED]
        for name, room in rooms.items():
            self._away.add(name)
            write(f"{room}/cgroup.procs", "0")
        self._cap_those_left()
        if cpus:
            self._to_cap.append((rooms.get("cpu", rooms[UNIFIED]), cpus))

    def come_back(self) -> None:
        """Out of every attempt's group."""
        for name in list(self._away):
            self._return(name)
        self.last_entered = None
        self._cap_those_left()

    def _return(self, name: str) -> None:
        os.write(self._backs[name], b"0")
        self._away.discard(name)

    def _cap_those_left(self) -> None:
        assert self.cap is not None or not self._to_cap
        for room, cpus in self._to_cap:
            assert self.cap is not None
            try:
                self.cap.put(room, *quota_us(cpus))
            except OSError as error:
                # EINVAL: a group above has less to give than this, and gives no more
                logger.log(10 if error.errno == errno.EINVAL else 30, "%s is not capped: %s", room, error.strerror)
            self._capped.add(room)
        self._to_cap.clear()

    def forget(self, rooms: dict[str, Path]) -> None:
        """The groups were removed."""
        self._capped.difference_update(rooms.values())
        for room in rooms.values():
            self._weights.pop(room, None)

    def spare(self, name: str) -> None:
        """Nobody is in the groups of this name: the next attempt may be."""
        self._spare.append(name)

    def close(self) -> None:
        for name, back in self._backs.items():
            if name != UNIFIED:
                os.write(back, b"0")
            os.close(back)
        remove_group(self.path)
        for path in self.v1.values():
            remove_group(path)


def processes_all() -> int:
    """Of all attempts together: a quarter of what the machine can have is left to others."""
    kernel = Path("/proc/sys/kernel")
    return min(int((kernel / name).read_text()) for name in ("pid_max", "threads-max")) * 3 // 4


class CgroupTree:
    """The processes of one attempt; `rooms` are its groups by hierarchy. `memory` and `cpus` (millionths) bound it
    once it runs; 0: no bound."""

    def __init__(self, home: CgroupHome, rooms: dict[str, Path], memory: int, cpus: int) -> None:
        self.main = 0
        self.path = rooms[UNIFIED]
        self._home = home
        self._rooms = rooms
        self._cpus = cpus
        self._memory_max = memory
        self._memory = rooms.get("memory", self.path) if "memory" in rooms or "memory" in home.controllers else None
        """Where memory is counted."""
        self.frozen = False
        self._cpu_before_us = figure(self.path / "cpu.stat", "usage_usec ")

    @property
    def entered(self) -> bool:
        """Whether this process may be inside."""
        return self._home.last_entered == self.path

    @property
    def capped_at(self) -> Path:
        """The group that bounds its CPU time."""
        return self._rooms.get("cpu", self.path)

    def enter(self) -> None:
        self._home.enter(self._rooms, self._cpus)

    def bound_memory(self) -> bool:
        """Bound it, if it is to be, now that the program is inside and this process is not: what happens in a group
        that has no memory left is the end of whoever is in it. False: it uses more already."""
        try:
            if self._memory_max and "memory" in self._rooms:
                write(self._rooms["memory"] / "memory.limit_in_bytes", str(self._memory_max))
            elif self._memory_max and self._memory is not None:
                write(self.path / "memory.oom.group", "1")
                with contextlib.suppress(OSError):
                    write(self.path / "memory.swap.max", "0")
                write(self.path / "memory.max", str(self._memory_max))
        except OSError:
            return False
        return True

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
        """The groups stay for another attempt, unless they count memory or were given groups below them."""
        if self.frozen:
            self.thaw()
        if self._memory is None and all(room.stat().st_nlink == 2 for room in self._rooms.values()):
            self._home.spare(self.path.name)
            return
        self._home.forget(self._rooms)
        for path in self._rooms.values():
            if not remove_group(path):
                logger.warning("%s is not empty and stays", path)

    # ---- what it used

    @property
    def counts_memory(self) -> bool:
        """Whether all that it uses is counted and bounded."""
        return self._memory is not None

    def cpu_ms(self) -> int:
        """Of all that ran in it."""
        return (figure(self.path / "cpu.stat", "usage_usec ") - self._cpu_before_us) // 1000

    def memory_peak(self) -> int:
        """Bytes; 0 where nothing counted them."""
        return self._largest(("memory.peak", "memory.max_usage_in_bytes"), "")

    def oom_kills(self) -> int:
        return self._largest(("memory.events", "memory.oom_control"), "oom_kill ")

    def _largest(self, names: tuple[str, ...], key: str) -> int:
        if self._memory is None:
            return 0
        return max(figure(self._memory / name, key) for name in names)
