"""The groups of this agent and of its attempts: every process of an attempt is in one, whatever it forks and however.

The attempts' groups are below one group of this agent's own, named after its state directory, so that the daemon, or
the next keeper, finds them when the keeper is dead.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from coordinator.agent.cpu_cap import CpuCap, quota_us
from coordinator.agent.group import UNIFIED, Group
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
from coordinator.agent.untouched import Untouched
from coordinator.core.amounts import UNIT

CPUS = (os.cpu_count() or 1) * UNIT
"""More is no bound."""
VISITED_QUOTA_US = 10_000
"""A bound of so much and more is no danger to a starter that is inside for a fraction of a millisecond."""
STALE_PART = 10
"""A bound is written anew, which gives its whole quota, when a tenth of it was used since."""


class CgroupHome:
    """The group of this agent. Made by `find`; None where this process may not make groups.

    `v1` are its groups in the older hierarchies, by controller, where a controller is not on the unified one. An
    attempt has a group in each of those that it is bounded by.
    """

    def __init__(self, path: Path, seat: str, controllers: frozenset[str]) -> None:
        self.path = path
        self.controllers = controllers
        self.v1: dict[str, Path] = {}
        self.backs = {UNIFIED: f"{seat}/cgroup.procs"}
        """By hierarchy, the file that leads back to where the agent belongs."""
        self._fds = {UNIFIED: os.open(self.backs[UNIFIED], os.O_WRONLY | os.O_CLOEXEC)}
        self._away: set[str] = set()
        self.last_entered: Path | None = None
        """The attempt's group that this process is inside of."""
        self._names = 0
        self._spare: list[Group] = []
        """Groups that are there, and empty."""
        self.untouched = Untouched()
        self.cap: CpuCap | None = None
        self._to_cap: list[tuple[Group, int]] = []
        """Those that this process has to be out of before."""

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
            home = cls(path, str(seat_of(own)), give_down(path, wanted))
        except OSError:
            return None
        for name in wanted:
            if name not in home.controllers:
                home._find_v1(name, group_name(state_dir))
        paths = [path, *home.v1.values()]
        (state_dir / GROUPS).write_text("".join(f"{path}\n" for path in paths))
        if cpu and ("cpu" in home.controllers or "cpu" in home.v1):
            home.cap = CpuCap(unified="cpu" in home.controllers)
            with contextlib.suppress(OSError):
                home.cap.weigh(home.v1.get("cpu", path), CPUS)
        with contextlib.suppress(OSError):  # a machine with no such bound has another one
            home._bound_processes(processes_all())
        return home

    def _find_v1(self, name: str, group: str) -> None:
        own = v1_group(name)
        if own is not None:
            with contextlib.suppress(OSError):
                (own / group).mkdir(exist_ok=True)
                self._fds[name] = os.open(own / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                self.backs[name] = f"{own}/cgroup.procs"
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

    def group(self, memory: int = 0, processes: int = 0, cpus: int = 0, visited: bool = False) -> CgroupTree:
        """One with nothing in it, bounded where it can be; 0: no bound. OSError when there is no room for it.

        `visited`: a starter goes in, who leaves again at once, so that its bound of CPU time may be there already.
        Otherwise this process does, and the bound comes when it has left.
        """
        group = self._spare.pop() if self._spare else self._new()
        try:
            return self._bounded(group, memory, processes, cpus if self.cap is not None and cpus < CPUS else 0, visited)
        except OSError:
            self._spare.append(group)
            raise

    def _new(self) -> Group:
        self._names += 1
        group = Group(self.path / str(self._names))
        if group.froze and "cpu" in self.controllers:
            group.capped = 1  # an earlier agent's: by how much is not known
        return group

    def _bounded(self, group: Group, memory: int, processes: int, cpus: int, visited: bool) -> CgroupTree:
        group.thaw_if_needed()
        uses = [UNIFIED]
        for name, wanted in (("memory", memory), ("pids", processes), ("cpu", cpus)):
            if wanted and name in self.v1:
                group.have(name, self.v1[name])
                uses.append(name)
        if processes and self.limits_processes and group.processes != processes:
            write(group.path_of("pids") / "pids.max", str(processes))
            group.processes = processes
        late = self._cap(group, cpus, visited) if self.cap is not None else 0
        return CgroupTree(self, group, tuple(uses), memory, late)

    def caps_ahead(self, cpus: int) -> bool:
        """Whether so small a bound of CPU time, if it is one, may be there while a starter is inside."""
        return self.cap is None or not cpus or cpus >= CPUS or quota_us(cpus)[0] >= VISITED_QUOTA_US

    def _cap(self, group: Group, cpus: int, visited: bool) -> int:
        """Have its CPU time bounded. Returns the bound that must wait until whoever enters has left; 0: none."""
        assert self.cap is not None
        room = group.path_of("cpu")
        quota = quota_us(cpus)[0] if cpus else 0
        if cpus and group.weight != cpus:
            self.cap.weigh(room, cpus)
            group.weight = cpus
        ahead = visited and quota >= VISITED_QUOTA_US
        fresh = group.capped == cpus and group.used_us - group.capped_at_us < quota // STALE_PART
        if group.capped and not (ahead and group.capped == cpus):
            self.cap.lift(room)  # what holds the program back must not hold back who goes in
            group.capped = 0
        if ahead and not fresh:
            self._put(group, cpus)
        return 0 if ahead else cpus

    def _put(self, group: Group, cpus: int) -> None:
        assert self.cap is not None
        room = group.path_of("cpu")
        give = self.cap.renew if group.capped == cpus else self.cap.put
        try:
            give(room, *quota_us(cpus))
        except OSError as error:
            # EINVAL: a group above has less to give than this, and gives no more
            logger.log(10 if error.errno == errno.EINVAL else 30, "%s is not capped: %s", room, error.strerror)
        group.capped, group.capped_at_us = cpus, group.used_us

    # ---- being inside for a moment

    def enter(self, group: Group, uses: tuple[str, ...], cpus: int) -> None:
        """This process is in these groups now, and so is whatever it starts: nothing can fork before it is inside.

        A move is a write, 0.03 ms when there were others lately and a grace period of the kernel's (10 ms and more)
        when not; so the way back is made once, after a row of starts. `cpus` bounds them when this process has left.
        """
        for name in self._away.difference(uses):
            self._return(name)
        self.last_entered = group.path
        for name in uses:
            self._away.add(name)
            write(group.procs[name], "0")
        self._cap_those_left()
        if cpus:
            self._to_cap.append((group, cpus))

    def come_back(self) -> None:
        """Out of every attempt's group."""
        for name in list(self._away):
            self._return(name)
        self.last_entered = None
        self._cap_those_left()

    def _return(self, name: str) -> None:
        os.write(self._fds[name], b"0")
        self._away.discard(name)

    def _cap_those_left(self) -> None:
        for group, cpus in self._to_cap:
            self._put(group, cpus)
        self._to_cap.clear()

    def cap_late(self, group: Group, cpus: int) -> None:
        """Whoever entered it has left."""
        self._put(group, cpus)

    def spare(self, group: Group) -> None:
        """Nobody is in it: the next attempt may be."""
        self._spare.append(group)

    def close(self) -> None:
        self.untouched.close()
        for group in self._spare:
            group.close()
        for name, back in self._fds.items():
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
    """The processes of one attempt, in a `Group`; `uses` are the hierarchies that it enters. `memory` and `cpus`
    (millionths) bound it once it runs; 0: no bound, or one that is there already."""

    def __init__(self, home: CgroupHome, group: Group, uses: tuple[str, ...], memory: int, cpus: int) -> None:
        self.main = 0
        self.path = group.path
        self.group = group
        self._home = home
        self._uses = uses
        self._cpus = cpus
        self._memory_max = memory
        self._memory: Path | None = None
        """Where memory is counted."""
        if "memory" in uses or "memory" in home.controllers:
            self._memory = group.path_of("memory")
        self.frozen = False
        self._cpu_before_us = group.used_us

    @property
    def entered(self) -> bool:
        """Whether this process may be inside."""
        return self._home.last_entered == self.path

    @property
    def capped_at(self) -> Path:
        """The group that bounds its CPU time."""
        return self.group.path_of("cpu")

    def enter(self) -> None:
        self._home.enter(self.group, self._uses, self._cpus)

    def entrances(self) -> dict[str, str]:
        """By hierarchy, the files that a starter goes in by."""
        return {name: self.group.procs[name] for name in self._uses}

    def left(self) -> None:
        """The starter is out again: what bounds the program may come."""
        if self._cpus:
            self._home.cap_late(self.group, self._cpus)

    def bound_memory(self) -> bool:
        """Bound it, if it is to be, now that the program is inside and who started it is not: what happens in a group
        that has no memory left is the end of whoever is in it. False: it uses more already."""
        try:
            if self._memory_max and "memory" in self._uses:
                assert self._memory is not None
                write(self._memory / "memory.limit_in_bytes", str(self._memory_max))
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

    def members(self) -> Iterable[int]:
        return pids_of(self.path)

    def freeze(self) -> None:
        self.frozen = self.group.froze = True
        write(self.path / "cgroup.freeze", "1")

    def thaw(self) -> None:
        write(self.path / "cgroup.freeze", "0")
        self.frozen = False

    def kill(self) -> None:
        kill_group(self.path)

    def main_ended(self) -> bool:
        if self.empty():
            return True
        self.kill()
        return False

    def empty(self) -> bool:
        return not self.group.populated()

    def events(self) -> int:
        """A descriptor that says POLLPRI when the group gets empty. The caller closes it."""
        return os.open(self.path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """The groups stay for another attempt, unless they count memory or were given groups below them."""
        if self.frozen:
            self.thaw()
        if self._memory is None and self.group.has_none_below(self._uses, self._home.untouched):
            self._home.spare(self.group)
            return
        for path in self.group.close():
            if populated(path) or not remove_group(path):
                logger.warning("%s is not empty and stays", path)

    # ---- what it used

    def visited(self) -> bool:
        """Whether anybody was ever inside: its program, or a starter on the way there."""
        return self.group.populated() or self.group.ran_since(self._cpu_before_us)

    @property
    def counts_memory(self) -> bool:
        """Whether all that it uses is counted and bounded."""
        return self._memory is not None

    def cpu_ms(self) -> int:
        """Of all that ran in it."""
        return (self.group.read_used_us() - self._cpu_before_us) // 1000

    def memory_peak(self) -> int:
        """Bytes; 0 where nothing counted them."""
        return self._largest(("memory.peak", "memory.max_usage_in_bytes"), "")

    def oom_kills(self) -> int:
        return self._largest(("memory.events", "memory.oom_control"), "oom_kill ")

    def _largest(self, names: tuple[str, ...], key: str) -> int:
        if self._memory is None:
            return 0
        return max(figure(self._memory / name, key) for name in names)
