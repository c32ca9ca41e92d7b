"""One attempt's group in each hierarchy that it needs, kept for the attempts after it.

What is read at every end stays open: a file of the kernel's is read again from its beginning. What was written stays
known, so that it is not written twice.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from coordinator.agent.hierarchies import write
from coordinator.agent.untouched import Untouched

UNIFIED = ""
"""The name of the unified hierarchy; the older ones are named after their controller."""
_USED = b"usage_usec "


class Group:
    """Made where `path` is, on the unified hierarchy. OSError when there is no room for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._paths = {UNIFIED: path}
        self._fds: dict[str, int] = {}
        """Of the directories, by hierarchy."""
        self._watches: dict[tuple[str, ...], tuple[int, ...]] = {}
        """By the hierarchies that were looked at together."""
        self.procs = {UNIFIED: f"{path}/cgroup.procs"}
        """By hierarchy, the file that leads into it."""
        self.froze = not _made(path)
        """It may be frozen: by the guard, late, or under a keeper that was killed."""
        self.processes = 0
        self.weight = 0
        self.capped = 0
        """Millionths of a CPU; 0: not bounded."""
        self.capped_at_us = 0
        """What had been used when the bound was written."""
        self._events = os.open(path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._stat = os.open(path / "cpu.stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._events)
            raise
        self.used_us = 0
        self.read_used_us()

    def have(self, name: str, root: Path) -> None:
        """A group of the same name in an older hierarchy, where this agent's is `root`."""
        if name not in self._paths:
            path = root / self.path.name
            if not _made(path):
                self.capped = 1 if name == "cpu" else self.capped  # by whom, and how much, is not known
            self._paths[name] = path
            self.procs[name] = f"{path}/cgroup.procs"

    def path_of(self, controller: str) -> Path:
        """Where this controller bounds it."""
        return self._paths.get(controller, self.path)

    def thaw_if_needed(self) -> None:
        if self.froze:
            write(f"{self.path}/cgroup.freeze", "0")
            self.froze = False

    def populated(self) -> bool:
        """Whether any process is in it or below."""
        try:
            return b"populated 1" in os.pread(self._events, 256, 0)
        except OSError:
            return False

    def read_used_us(self) -> int:
        """CPU time, of all that ever ran in it. What was read last, where it cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            self.used_us = self._used_us()
        return self.used_us

    def ran_since(self, used_us: int) -> bool:
        """Whether anybody ran in it since so much had been used. Where that cannot be read: yes."""
        try:
            return self._used_us() != used_us
        except (OSError, ValueError):
            return True

    def _used_us(self) -> int:
        text = os.pread(self._stat, 1024, 0)
        start = text.index(_USED) + len(_USED)
        return int(text[start : text.index(b"\n", start)])

    def has_none_below(self, names: tuple[str, ...], by: Untouched) -> bool:
        watches = self._watches.get(names)
        if watches is None:
            watches = self._watches[names] = by.watch(str(self._paths[name]) for name in names)
        elif by.sure(watches):
            return True
        for name in names:
            if name not in self._fds:
                self._fds[name] = os.open(self._paths[name], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if os.fstat(self._fds[name]).st_nlink != 2:
                return False
        return True

    def close(self) -> list[Path]:
        """It is not used again; these are to be removed."""
        for fd in (self._events, self._stat, *self._fds.values()):
            os.close(fd)
        return list(self._paths.values())


def _made(path: Path) -> bool:
    """Make it. False: it was there."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True
