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
import time
from collections.abc import Iterable
from pathlib import Path

from coordinator import wire
from coordinator.agent.config import AgentConfig
from coordinator.agent.log import logger
from coordinator.agent.untouched import Untouched

TRASH = ".trash"
VARIABLES = {
    "HOME": "home",
    "TMPDIR": "tmp",
    "COORD_OUTPUT_DIR": "outputs",
    "COORD_CHECKPOINT_DIR": "checkpoints",
    "COORD_TRACE_DIR": "trace",
}
"""Of the program, and which part of its place they name."""
PLAN = "plan.json"
STREAMS = ("stdout", "stderr")
SPARE_MAX = wire.ATTEMPTS_MAX
"""Leases ahead come and go by the hundred: every pair that is not kept for them is made and removed again."""
SWEEP_AGAIN_S = 0.2
"""Removers are started no more often: each start holds the keeper up for a millisecond."""
BATCH = 500
"""Directories that one remover is given: its argument list has a bound."""


class Place:
    """One pair of directories. Their names are strings: of a short attempt's cost a fifth was making paths."""

    def __init__(self, number: int, kept: str, work: str) -> None:
        self.number = number
        self.kept = kept
        """What the agent keeps: no program reaches it at `uid` and `sandbox`."""
        self.work = work
        self.streams = tuple(f"{kept}/{name}" for name in STREAMS)
        self.variables = {name: f"{work}/{part}" for name, part in VARIABLES.items()}
        """What a program is told of its directories."""
        self.always: dict[str, str] = {}
        """What every program in it is told, whatever its job says; kept here by who tells it."""
        self._made: list[int] = []
        self.watches: tuple[int, ...] = ()
        """Of its program's directories; none: nobody knows what is done to them."""

    def directory(self, name: str) -> str:
        """The working directory that a plan names: relative to the program's home, or absolute."""
        home = self.variables["HOME"]
        return str(Path(home, name)) if name else home

    def make(self, again: Untouched | None) -> None:
        """`again`: who knows whether it may be used again; None: it may not. OSError when there is no room."""
        for path in (self.kept, self.work, *self.variables.values()):
            os.mkdir(path, 0o700)  # noqa: PTH102  # strings: see Place
        if again is not None:
            self.watches = again.watch((self.work, *self.variables.values()))
            self._made = self._changes()

    def _changes(self) -> list[int]:
        return [os.stat(path).st_ctime_ns for path in (self.work, *self.variables.values())]  # noqa: PTH116  # likewise

    def is_untouched(self, by: Untouched) -> bool:
        """Whether nothing was ever made or removed in the program's directories."""
        try:
            return by.sure(self.watches) or (bool(self._made) and self._made == self._changes())
        except OSError:
            return False

    def empty(self) -> None:
        """Nothing that could be taken for the next attempt's is left; its token will be written over the old one."""
        for path in (*self.streams, f"{self.kept}/{PLAN}"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108  # likewise


def work_of(config: AgentConfig) -> Path:
    """Where programs of this agent have their directories."""
    return Path(config.work_dir).resolve() if config.work_dir else Path(config.state_dir).resolve() / "work"


def place_at(kept: str, work: str) -> Place:
    """The place of an attempt by what the keeper calls its directory; `work` is where the agent has programs' ones."""
    number = kept.rpartition("/")[2]
    return Place(int(number), kept, f"{work}/{number}")


class Places:
    """All of them. `keep` are the numbers in use when the keeper starts; what else lies there is removed."""

    def __init__(self, attempts: Path, work: Path, keep: Iterable[int]) -> None:
        self._roots = (attempts, work)
        self._used = {number: self._place(number) for number in keep}
        self._next = max(self._used, default=0) + 1
        self._spare: list[Place] = []
        self._untouched = Untouched()
        self._trashed = 0
        self._remover = 0
        self._swept_s = -SWEEP_AGAIN_S
        self._due = True
        for root, mode in zip(self._roots, (0o700, 0o711), strict=True):  # a program of its own user passes to its own
            (root / TRASH).mkdir(mode=0o700, parents=True, exist_ok=True)
            root.chmod(mode)
            left = [int(entry.name) for entry in (root / TRASH).iterdir() if entry.name.isdigit()]
            self._trashed = max([self._trashed, *left])
        for root in self._roots:
            for entry in root.iterdir():
                if entry.name != TRASH and not (entry.name.isdigit() and int(entry.name) in self._used):
                    self._put_away(str(entry))

    def _place(self, number: int) -> Place:
        kept, work = self._roots
        return Place(number, f"{kept}/{number}", f"{work}/{number}")

    def used(self, number: int) -> Place:
        return self._used[number]

    def untouched(self, place: Place) -> bool:
        """Whether it is known that nothing was done in its program's directories. One call: nobody looks there."""
        return self._untouched.sure(place.watches)

    def take(self, again: bool = True) -> Place:
        """One with nothing in it. `again`: it may be used again. OSError when there is no room for it."""
        if self._spare:
            place = self._spare.pop()
        else:
            place = self._place(self._next)
            self._next += 1
            try:
                place.make(self._untouched if again else None)
            except OSError:
                self._remove(place)
                raise
        self._used[place.number] = place
        return place

    def give_back(self, place: Place, again: bool, files: bool = True) -> None:
        """Nothing in it is needed any more. `again`: the next attempt may have it, if it is as it was. `files`: the
        agent's own may be there."""
        del self._used[place.number]
        if again and len(self._spare) < SPARE_MAX and place.is_untouched(self._untouched):
            with contextlib.suppress(OSError):
                if files:
                    place.empty()
                self._spare.append(place)
                return
        self._remove(place)

    def close(self) -> None:
        """Nothing is taken or given back any more."""
        self._untouched.close()

    # ---- removing

    def _remove(self, place: Place) -> None:
        for path in (place.kept, place.work):
            self._put_away(path)

    def _put_away(self, path: str) -> None:
        """It is gone from its place when this returns, and from the disk soon."""
        self._trashed += 1
        try:
            os.rename(path, f"{path.rpartition('/')[0]}/{TRASH}/{self._trashed}")  # noqa: PTH104  # likewise
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning("%s cannot be removed: %s", path, error.strerror)
            return
        self._due = True

    def on_child(self, pid: int) -> None:
        """A child was reaped: it may be the remover."""
        if pid == self._remover:
            self._remover = 0

    def sweep(self) -> None:
        """Start a process that removes what lies in the trash, if anything was put there since the last one."""
        now_s = time.monotonic()
        if not self._due or self._remover or now_s < self._swept_s + SWEEP_AGAIN_S:
            return
        left = [str(entry) for root in self._roots for entry in (root / TRASH).iterdir()]
        self._due = len(left) > BATCH
        if left:
            arguments = ["rm", "-rf", "--one-file-system", "--", *left[:BATCH]]
            try:
                self._remover = os.posix_spawn("/bin/rm", arguments, {"PATH": "/usr/bin:/bin"})
                self._swept_s = now_s
            except OSError as error:
                # no process can be made just now; with what the next attempt leaves, it is tried again
                logger.warning("what attempts left is not removed yet: %s", error.strerror)
