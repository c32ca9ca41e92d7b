"""Cgroup v2, where the agent may make groups: every process of an attempt is in one, whatever it forks and however.

The attempts' groups are below one group of this agent's own, named after its state directory, so that the daemon, or
the next keeper, finds them when the keeper is dead.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.agent.tree import send

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


def write(path: Path, text: str) -> None:
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
        return "populated 1" in (group / "cgroup.events").read_text()
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
    """The group of this agent. Made by `find`; None where this process may not make groups."""

    def __init__(self, path: Path, come_back: int) -> None:
        self.path = path
        self._come_back = come_back

    @classmethod
    def find(cls, state_dir: Path) -> CgroupHome | None:
        root = unified_root()
        own = own_group(root) if root is not None else None
        if own is None:
            return None
        path = own / group_name(state_dir)
        try:
            path.mkdir(exist_ok=True)
            come_back = os.open(own / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return None
        return cls(path, come_back)

    def group(self, name: str) -> CgroupTree:
        """A new one. OSError when there is no room for it."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        return CgroupTree(path, self._come_back)

    def close(self) -> None:
        os.close(self._come_back)
        remove_group(self.path)


class CgroupTree:
    """The processes of one group."""

    def __init__(self, path: Path, come_back: int) -> None:
        self.main = 0
        self.path = path
        self._come_back = come_back

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This process is in the group, and so is whatever it starts: nothing can fork before it is inside. 0.06 ms,
        where a child that moves itself has to be stopped first."""
        fd = os.open(self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
            try:
                yield
            finally:
                os.write(self._come_back, b"0")
        finally:
            os.close(fd)

    def signal_all(self, signum: int) -> None:
        for pid in pids_of(self.path):
            send(pid, signum)

    def freeze(self) -> None:
        write(self.path / "cgroup.freeze", "1")

    def thaw(self) -> None:
        write(self.path / "cgroup.freeze", "0")

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
        try:
            self.path.rmdir()
        except OSError as error:
            if error.errno == errno.EBUSY and not remove_group(self.path):
                raise

    # ---- what it used

    def cpu_ms(self) -> int:
        """Of all that ran in it."""
        return _figure(self.path / "cpu.stat", "usage_usec ") // 1000

    def memory_peak(self) -> int:
        """Bytes; 0 where the memory controller is not ours."""
        return _figure(self.path / "memory.peak", "")

    def oom_kills(self) -> int:
        return _figure(self.path / "memory.events", "oom_kill ")


def _figure(path: Path, key: str) -> int:
    try:
        for line in path.read_text().splitlines():
            if line.startswith(key):
                return int(line[len(key) :])
    except (OSError, ValueError):
        pass
    return 0
