"""Where attempts live on the disk: what the agent keeps of each, and what its program sees.

    attempts/7/   0700, the agent's: plan.json, token, stdout, stderr
    work/7/       the program's: home (HOME and working directory), tmp, outputs, checkpoints, trace

Making directories is the dearest part of a short attempt (0.1 to 0.3 ms each on ext4, where a start costs 0.3), so a
pair that nothing was left in is used again, by attempts that run as the same user. Everything else is removed by a
process that does only that: a program may have left a million files, and the keeper has deadlines to keep.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from coordinator.agent.log import logger

TRASH = ".trash"
HOME, TMP, OUTPUTS, CHECKPOINTS, TRACE = PARTS = ("home", "tmp", "outputs", "checkpoints", "trace")
VARIABLES = {
    "HOME": HOME,
    "TMPDIR": TMP,
    "COORD_OUTPUT_DIR": OUTPUTS,
    "COORD_CHECKPOINT_DIR": CHECKPOINTS,
    "COORD_TRACE_DIR": TRACE,
}
"""Of the program, and which part of its place they name."""
PLAN = "plan.json"
STREAMS = ("stdout", "stderr")
SPARE_MAX = 64
BATCH = 500
"""Directories that one remover is given: its argument list has a bound."""


class Place:
    """One pair of directories."""

    def __init__(self, number: int, kept: Path, work: Path) -> None:
        self.number = number
        self.kept = kept
        """What the agent keeps: no program reaches it at `uid` and `sandbox`."""
        self.work = work
        self.parts = {name: work / name for name in PARTS}
        self.streams = tuple(str(kept / name) for name in STREAMS)
        # strings: of a short attempt's cost a fifth was making paths
        self.kept_text, self.work_text = str(kept), str(work)
        self.variables = {name: f"{self.work_text}/{part}" for name, part in VARIABLES.items()}
        """What a program is told of its directories."""
        self._plan = f"{self.kept_text}/{PLAN}"
        self._made: list[int] = []

    def directory(self, name: str) -> str:
        """The working directory that a plan names: relative to the program's home, or absolute."""
        home = self.variables["HOME"]
        return str(Path(home, name)) if name else home

    def make(self) -> None:
        """OSError when there is no room."""
        for path in (self.kept, self.work, *self.parts.values()):
            path.mkdir(mode=0o700)
        self._made = self._changes()

    def _changes(self) -> list[int]:
        return [os.stat(path).st_ctime_ns for path in (self.work_text, *self.variables.values())]  # noqa: PTH116

    def is_untouched(self) -> bool:
        """Whether nothing was ever made or removed in the program's directories."""
        try:
            return bool(self._made) and self._made == self._changes()
        except OSError:
            return False

    def empty(self) -> None:
        """Nothing that could be taken for the next attempt's is left; its token will be written over the old one."""
        for path in (*self.streams, self._plan):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108


class Places:
    """All of them. `keep` are the numbers in use when the keeper starts; what else lies there is removed."""

    def __init__(self, attempts: Path, work: Path, keep: Iterable[int]) -> None:
        self._roots = (attempts, work)
        self._used = {number: self._place(number) for number in keep}
        self._next = max(self._used, default=0) + 1
        self._spare: list[Place] = []
        self._trashed = 0
        self._remover = 0
        self._due = True
        for root, mode in zip(self._roots, (0o700, 0o711), strict=True):  # a program of its own user passes to its own
            (root / TRASH).mkdir(mode=0o700, parents=True, exist_ok=True)
            root.chmod(mode)
            for entry in root.iterdir():
                if entry.name != TRASH and not (entry.name.isdigit() and int(entry.name) in self._used):
                    self._put_away(entry)

    def _place(self, number: int) -> Place:
        kept, work = (root / str(number) for root in self._roots)
        return Place(number, kept, work)

    def used(self, number: int) -> Place:
        return self._used[number]

    def take(self) -> Place:
        """One with nothing in it. OSError when there is no room for it."""
        if self._spare:
            place = self._spare.pop()
        else:
            place = self._place(self._next)
            self._next += 1
            try:
                place.make()
            except OSError:
                self._remove(place)
                raise
        self._used[place.number] = place
        return place

    def give_back(self, place: Place, again: bool) -> None:
        """Nothing in it is needed any more. `again`: the next attempt may have it, if it is as it was."""
        del self._used[place.number]
        if again and len(self._spare) < SPARE_MAX and place.is_untouched():
            with contextlib.suppress(OSError):
                place.empty()
                self._spare.append(place)
                return
        self._remove(place)

    # ---- removing

    def _remove(self, place: Place) -> None:
        for path in (place.kept, place.work):
            self._put_away(path)

    def _put_away(self, path: Path) -> None:
        """It is gone from its place when this returns, and from the disk soon."""
        trash = path.parent / TRASH
        while True:
            self._trashed += 1
            target = trash / str(self._trashed)
            if target.exists():
                continue
            try:
                path.rename(target)
            except FileNotFoundError:
                return
            except OSError as error:
                logger.warning("%s cannot be removed: %s", path, error.strerror)
                return
            self._due = True
            return

    def on_child(self, pid: int) -> None:
        """A child was reaped: it may be the remover."""
        if pid == self._remover:
            self._remover = 0

    def sweep(self) -> None:
        """Start a process that removes what lies in the trash, if anything was put there since the last one."""
        if not self._due or self._remover:
            return
        left = [str(entry) for root in self._roots for entry in (root / TRASH).iterdir()]
        self._due = len(left) > BATCH
        if left:
            arguments = ["rm", "-rf", "--one-file-system", "--", *left[:BATCH]]
            try:
                self._remover = os.posix_spawn("/bin/rm", arguments, {"PATH": "/usr/bin:/bin"})
            except OSError as error:
                # no process can be made just now; with what the next attempt leaves, it is tried again
                logger.warning("what attempts left is not removed yet: %s", error.strerror)
