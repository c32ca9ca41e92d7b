"""How all processes of an attempt are reached: signalled, frozen, killed, and known to be gone.

A `Cgroup` does it for certain. A `Walk` does what can be done without one: it follows parents, sessions and a mark in
the environment through /proc, again and again until nothing new is found.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

MARK = "COORD_ATTEMPT_MARK"
"""In the environment of every program that the keeper starts: tells whose a process is after its parents died."""
SWEEPS_MAX = 50
"""A tree that forks faster than it is stopped so many times in a row is given another turn."""


class Tree(Protocol):
    """All processes of one attempt."""

    main: int
    """The first one; 0: none was started."""
    frozen: bool

    def signal_all(self, signum: int) -> None: ...

    def members(self) -> Iterable[int]:
        """Its processes just now."""

    def freeze(self) -> None:
        """No process of it runs when this returns, or a moment later."""

    def thaw(self) -> None: ...

    def kill(self) -> None:
        """SIGKILL to everything, frozen or not. Who is left is told by `empty`."""

    def enter(self) -> None:
        """What this process starts from now on is of the tree."""

    def main_ended(self) -> bool:
        """The main process was reaped: what is left of it is killed. Whether nothing was left."""

    def empty(self) -> bool:
        """Whether nothing of it is left, but for the main process, which may wait to be reaped."""

    def close(self) -> None:
        """Remove what was made for it. Only when `empty`."""


def send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def catches(pid: int, signum: int) -> bool:
    """Whether the process has a handler for it: SigCgt of proc(5)."""
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()
        caught = int(text.partition(b"\nSigCgt:")[2].partition(b"\n")[0], 16)
    except (OSError, ValueError):
        return False
    return bool(caught >> (signum - 1) & 1)


def tell(tree: Tree, signum: int) -> None:
    """Send it to those that catch it: a shell around the program does not, and would die of it."""
    for pid in tree.members():
        if catches(pid, signum):
            send(pid, signum)


class Walk:
    """By /proc: what a process that wants to hide from it can do is told in docs/reference/agent-isolation.md."""

    def __init__(self, mark: str) -> None:
        self.main = 0
        self.frozen = False
        self._mark = f"{MARK}={mark}".encode()
        self._known: dict[int, int] = {}
        """Process and when it began: a number may be given again."""
        self._main_lives = True

    def signal_all(self, signum: int) -> None:
        for pid in self._find():
            send(pid, signum)

    def members(self) -> Iterable[int]:
        return self._find()

    def freeze(self) -> None:
        self.frozen = True
        self._repeat(signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        for pid in self._find():
            send(pid, signal.SIGCONT)

    def kill(self) -> None:
        self._repeat(signal.SIGKILL)

    def enter(self) -> None:
        """A mark in its environment, and its session, tell it."""

    def main_ended(self) -> bool:
        self.kill()
        self._main_lives = False  # its number is free, and no longer the name of a session of ours
        return False

    def empty(self) -> bool:
        return not (self._find() - {self.main})

    def close(self) -> None:
        """Nothing was made."""

    def _repeat(self, signum: int) -> None:
        """Until a look finds nobody that was not found before: who forks after the last look was not there at it. The
        oldest first: who waits for another would go on behind its end, and tell what comes next as the program's own.
        """
        done: set[int] = set()
        for _ in range(SWEEPS_MAX):
            fresh = self._find() - done
            if not fresh:
                return
            for pid in sorted(fresh, key=lambda pid: (self._known[pid], pid)):
                send(pid, signum)
            done |= fresh

    def _find(self) -> set[int]:
        if not self.main:
            return set()
        everybody = processes()
        found = {pid for pid, began in self._known.items() if pid in everybody and everybody[pid].began == began}
        if self._main_lives:
            found |= {pid for pid, process in everybody.items() if self.main in (pid, process.session)}
        ours = os.getpid()
        for pid, process in everybody.items():
            if process.parent in (ours, 1) and pid not in found and self._mark in environment(pid):
                found.add(pid)
        before = 0
        while before < len(found):
            before = len(found)
            found |= descendants(found, everybody)
            leaders = {pid for pid in found if everybody[pid].session == pid}
            found |= {pid for pid, process in everybody.items() if process.session in leaders}
        self._known = {pid: everybody[pid].began for pid in found}
        return found


class Process(NamedTuple):
    parent: int
    session: int
    began: int
    """In ticks since boot."""
    stopped: bool = False


def processes() -> dict[int, Process]:
    """Every process that is not a zombie."""
    found: dict[int, Process] = {}
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ValueError):
                    stat = Path(f"/proc/{entry.name}/stat").read_bytes().rpartition(b")")[2].split()
                    if stat[0] not in (b"Z", b"X"):
                        pid, stopped = int(entry.name), stat[0] == b"T"
                        found[pid] = Process(int(stat[1]), int(stat[3]), int(stat[19]), stopped)
    return found


def descendants(roots: Iterable[int], everybody: Mapping[int, Process]) -> set[int]:
    """Those below `roots`, without them unless they are below each other."""
    children: dict[int, list[int]] = {}
    for pid, process in everybody.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    ahead = list(roots)
    while ahead:
        for child in children.get(ahead.pop(), ()):
            if child not in found:
                found.add(child)
                ahead.append(child)
    return found


def environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
