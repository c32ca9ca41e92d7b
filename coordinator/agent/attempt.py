"""One attempt on this machine: its lease, its processes, its streams, its end.

    leased -> running <-> frozen -> exited

Knows no socket and no journal: `Custody` does. Times are seconds on CLOCK_BOOTTIME.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
from typing import NamedTuple

from coordinator.agent.cgroup import CgroupTree
from coordinator.agent.isolation import read_status
from coordinator.agent.journal import Held
from coordinator.agent.places import Place
from coordinator.agent.pump import Pump
from coordinator.agent.tree import Tree
from coordinator.core.amounts import Ask, Share
from coordinator.core.rows import EndCause, ExitInfo
from coordinator.core.work.jobspec import LogFull
from coordinator.core.work.launch_plan import LaunchPlan

NOT_RENEWED = "the lease was not renewed for a day"
NOTHING = Share(ask=Ask(cpus=0))
NEAR = 0.75
"""Of its memory: a program that had so much and failed may have asked for more."""
AGAIN_S = 0.05
"""How long what was killed may take before it is killed again: it may have forked meanwhile, or wait for a disk."""


STARTING_S = 2.0
"""How long it is waited that a starter answers, of what is to be ended at once."""
_KILLED = int(signal.SIGKILL)


class Usage(NamedTuple):
    """What the main process had used."""

    cpu_s: float
    memory_max: int
    """Bytes; 0: not known."""
    ran_s: float | None = None
    """How long it ran; None: from when its start was heard of to when its end was."""


_NO_USE = Usage(0.0, 0)


class Attempt:
    """State alone; what moves it is in the methods, each of which may be called at any time."""

    def __init__(self, held: Held, place: Place, freeze_at_s: float, kept_frozen_s: float) -> None:
        self.held = held
        self.name = held.attempt
        self.place = place
        self.freeze_at_s = freeze_at_s
        self.user = 0
        """That its program runs as; 0: ours."""
        self._kept_frozen_s = kept_frozen_s
        self.phase = "leased"
        self.wanted = False
        """It is to run as soon as its lease holds again."""
        self.starting = False
        """A starter was told to start it, and has not answered."""
        self.order = 0
        """The number of that order."""
        self.abandoned = False
        """The starter is killed, since it did not answer in time."""
        self.follows = False
        """Its order waits at a starter for room, and may be called back."""
        self.recalled = False
        """It was."""
        self._recalled_at_s = 0.0
        self.passed_on = False
        """A starter that had its order died before it began it, and another one got it."""
        self.unless_begun: tuple[EndCause, str, int | None] | None = None
        """How it ends if it comes back."""
        self.share = NOTHING
        """What of this machine it uses, or will use."""
        self.in_line = False
        """It was leased ahead, and waits for room."""
        self.plan: LaunchPlan | None = None
        self.secret = ""
        """What opens its endpoint."""
        self.tree: Tree | None = None
        self.pumps: tuple[Pump, ...] = ()
        self.lengths = (0, 0)
        """Of streams that are closed."""
        self.stored = (0, 0)
        self.left_files = False
        """Its plan or its streams may lie in its directory."""
        self.untouched = False
        """It has ended, and is known to have left its program's directories as they were."""
        self.exit: ExitInfo | None = None
        self.saved = False
        """The exit is durable."""
        self.began_s = 0.0
        self.ended_status: int | None = None
        self._status_pipe = -1
        self._gave_up = False
        self.due_told_s = -1.0
        """The appointment that Custody made for it."""
        self._ended_s = 0.0
        self._usage: Usage | None = None
        self._why: tuple[EndCause, str] | None = None
        self._kill_at_s = math.inf
        self._limit_at_s = math.inf
        self._frozen_at_s = 0.0

    def expect(self, order: int, plan: LaunchPlan, tree: Tree, pumps: tuple[Pump, ...]) -> None:
        """A starter is told to start it: `began`, `refused` or `lost` will follow. Its phase is `leased` till then."""
        self.order, self.plan, self.tree, self.pumps, self.starting = order, plan, tree, pumps, True

    def overdue(self, now_s: float) -> bool:
        """The starter has not answered before the lease was over, or when it is to end: it must not start it later."""
        return self.starting and not self.abandoned and now_s >= self.due_s()

    def has_turn(self) -> None:
        """It is begun now, or as soon as its starter hears of it."""
        self.follows = self.recalled = False

    def began(self, main: int, now_s: float) -> None:
        """Its main process was started, by a starter that has left its group. What was asked meanwhile is done now."""
        assert self.plan is not None
        assert self.tree is not None
        self.starting = False
        self.tree.main = main
        self.begin(self.plan, self.tree, self.pumps, -1, now_s)
        if self._why is not None:
            self.tree.signal_all(signal.SIGTERM)
        self.look(now_s)

    def refused(self, code: int, text: str) -> None:
        """It could not be started, and nothing of it runs."""
        self._close_streams()
        assert self.tree is not None
        self.tree.close()
        cause, text = self._why or (EndCause.START, text)
        self.starting, self.tree = False, None
        self.exit = ExitInfo(cause=cause, code=code, text=text)
        self.phase = "exited"

    def recall(self, now_s: float) -> None:
        """Its order is called back: `returned` will follow, or what follows an order."""
        self.recalled, self._recalled_at_s = True, now_s

    def returned(self, now_s: float) -> None:
        """It was not begun, and will not be: it is as if nobody had been told to, or ends if it is to end."""
        assert self.tree is not None
        self._close_streams()
        self.tree.close()
        self.tree = None
        self.starting = self.follows = self.recalled = False
        if self._why is not None:
            self.end(*self._why, 0.0, now_s)
        elif self.unless_begun is not None:
            cause, text, code = self.unless_begun
            self.end(cause, text, 0.0, now_s, code)
        else:
            self.wanted = True

    def lost(self, text: str, now_s: float) -> None:
        """Whether it runs, or how it ended, is not known, and will not be: what there is of it is killed."""
        assert self.tree is not None
        self._why = self._why or (EndCause.AGENT, text)
        self.starting, self.began_s = False, self.began_s or now_s
        self.ended_status, self._usage, self._ended_s = _KILLED, _NO_USE, now_s
        self.tree.kill()
        self._kill_at_s = now_s + AGAIN_S
        self.look(now_s)

    def begin(self, plan: LaunchPlan, tree: Tree, pumps: tuple[Pump, ...], status_pipe: int, now_s: float) -> None:
        """Its main process was started. `status_pipe` brings what `isolation.read_status` reads; -1: nothing does."""
        self.plan, self.tree, self.pumps, self._status_pipe = plan, tree, pumps, status_pipe
        self.phase, self.began_s = "running", now_s
        if plan.time_limit_ms is not None:
            self._limit_at_s = now_s + plan.time_limit_ms / 1000

    # ---- its end

    def end(self, cause: EndCause, text: str, grace_s: float, now_s: float, code: int | None = None) -> None:
        """SIGTERM, grace, SIGKILL to all of it. The first cause stands; a shorter grace counts. Frozen: at once, since
        thawing it could overlap with its successor. `code`: of one that was not started."""
        if self.exit is not None:
            return
        if self.tree is None:
            self.exit = ExitInfo(cause=cause, text=text, code=code)
            self.phase = "exited"
            return
        if self.ended_status is not None:
            return
        first, self._why = self._why is None, self._why or (cause, text)
        if self.starting:  # who starts it may be among its processes
            self._kill_at_s = min(self._kill_at_s, now_s + grace_s)
            return
        if self.phase == "frozen":
            grace_s = 0.0
        elif first:
            self.tree.signal_all(signal.SIGTERM)
        self._kill_at_s = min(self._kill_at_s, now_s + grace_s)
        self.look(now_s)

    def give_up(self, text: str, now_s: float) -> None:
        """What we do with it does not work: kill it, and ask no more of it than that."""
        self._why = EndCause.AGENT, text
        if self.tree is None or self._gave_up:
            self.exit = self.exit or ExitInfo(cause=EndCause.AGENT, text=text)
            self.phase = "exited"
            return
        self._gave_up = True
        self._close_streams()
        self._kill_at_s = now_s - STARTING_S if self.starting else now_s
        with contextlib.suppress(OSError):
            self.tree.kill()

    def _close_streams(self) -> None:
        self.lengths, self.left_files = self.sizes(), True
        for pump in self.pumps:
            pump.close()
        self.pumps = ()

    def on_main_ended(self, status: int, usage: Usage, now_s: float) -> None:
        """The main process was reaped: what it left behind is killed."""
        assert self.tree is not None
        if self._status_pipe >= 0:
            told = read_status(self._status_pipe)
            status = status if told is None else told
        self.ended_status, self._usage, self._ended_s = status, usage, now_s
        if self.tree.main_ended() or self.tree.empty():
            self._finish()
            return
        self._kill_at_s = now_s + AGAIN_S

    # ---- what time brings

    def renew(self, freeze_at_s: float, now_s: float) -> None:
        """The lease holds until another time; thaw it when that is ahead."""
        self.freeze_at_s = freeze_at_s
        if freeze_at_s <= now_s or self.tree is None or self.exit is not None or self._why is not None:
            return
        if self.phase == "running" and self.tree.frozen:
            self.tree.thaw()  # by the guard, while the keeper was held up
        elif self.phase == "frozen":
            self.tree.thaw()
            self.phase = "running"
            self._limit_at_s += now_s - self._frozen_at_s

    def look(self, now_s: float) -> None:
        """Do what is due by now. The end is found here: `exit` is set then, and nothing of it is left."""
        if self.exit is not None:
            return
        if self.tree is None:
            if now_s >= self.freeze_at_s + self._kept_frozen_s:
                self.end(EndCause.EXPIRED, NOT_RENEWED, 0.0, now_s)
            return
        if self.starting:
            return  # see `overdue`
        if self.ended_status is not None and self.tree.empty():
            self._finish()
            return
        if now_s >= self._limit_at_s and self._why is None and self.phase == "running":
            assert self.plan is not None
            limit_s = (self.plan.time_limit_ms or 0) / 1000
            self.end(EndCause.TIMEOUT, f"the time limit of {limit_s:g} s", self.plan.grace_ms / 1000, now_s)
        if now_s >= self.freeze_at_s and self.phase == "running":
            self.tree.freeze()
            self.phase, self._frozen_at_s = "frozen", now_s
            if self._why is not None:
                self._kill_at_s = now_s
        if self.phase == "frozen" and now_s >= self._frozen_at_s + self._kept_frozen_s and self._why is None:
            self.end(EndCause.EXPIRED, NOT_RENEWED, 0.0, now_s)
        if now_s >= self._kill_at_s:
            self.tree.kill()
            self._kill_at_s = now_s + AGAIN_S

    def due_s(self) -> float:
        """When `look` has something to do next, as things stand."""
        if self.exit is not None:
            return math.inf
        if self.tree is None:
            return self.freeze_at_s + self._kept_frozen_s
        if self.starting and self.follows and not self.abandoned:
            return self._recalled_at_s + STARTING_S if self.recalled else self.freeze_at_s
        if self.starting:
            return math.inf if self.abandoned else min(self.freeze_at_s, self._kill_at_s + STARTING_S)
        if self.phase == "frozen":
            return min(self._kill_at_s, self._frozen_at_s + self._kept_frozen_s if self._why is None else math.inf)
        limit_s = self._limit_at_s if self._why is None else math.inf
        return min(self._kill_at_s, limit_s, self.freeze_at_s)

    # ---- its streams

    def sizes(self) -> tuple[int, int]:
        if self.pumps:
            out, err = (pump.length for pump in self.pumps)
            return out, err
        return self.lengths

    def on_stored(self, out_bytes: int, err_bytes: int) -> None:
        self.stored = (max(self.stored[0], out_bytes), max(self.stored[1], err_bytes))
        for pump, offset in zip(self.pumps, self.stored, strict=False):
            pump.on_stored(offset)

    def log_is_full(self, now_s: float) -> None:
        """A stream went over its bound: the job may have said that this is its end."""
        plan = self.plan
        if plan is not None and plan.log_full is LogFull.FAIL and any(pump.overran for pump in self.pumps):
            self.end(EndCause.LOG_FULL, "the log reached its bound", plan.grace_ms / 1000, now_s)

    # ---- how it ended

    def _finish(self) -> None:
        assert self.tree is not None
        assert self._usage is not None
        assert self.ended_status is not None
        for pump in self.pumps:
            pump.drain()
        self.lengths = self.sizes()
        cpu_ms, memory = int(self._usage.cpu_s * 1000), self._usage.memory_max
        if isinstance(self.tree, CgroupTree):
            cpu_ms, memory = max(cpu_ms, self.tree.cpu_ms()), max(memory, self.tree.memory_peak())
        cause, text, code, signum = self._judge(self.ended_status, memory)
        ran_s = self._ended_s - self.began_s if self._usage.ran_s is None else self._usage.ran_s
        self.exit = ExitInfo(
            cause=cause,
            code=code,
            signal=signum,
            text=text,
            ran_ms=max(1, math.ceil(ran_s * 1000)),  # what ran did so for some time, and is charged for it
            out_bytes=self.lengths[0],
            err_bytes=self.lengths[1],
            dropped_bytes=sum(pump.dropped for pump in self.pumps),
            memory_max=memory,
            cpu_ms=cpu_ms,
        )
        self.left_files = self.left_files or any(pump.has_file for pump in self.pumps)
        self.phase, self.pumps = "exited", ()
        self.tree.close()

    def _judge(self, status: int, memory: int) -> tuple[EndCause, str, int | None, int | None]:
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        if self._why is not None:
            return *self._why, code, signum
        if status != 0 and isinstance(self.tree, CgroupTree) and self.tree.oom_kills():
            return (
                EndCause.OOM,
                "the kernel killed a process of it: it used more memory than it was given",
                code,
                signum,
            )
        doubt = self._doubt(memory) if status != 0 else ""
        if signum is not None:
            return EndCause.SIGNALLED, f"killed by {signal_name(signum)}{'; ' if doubt else ''}{doubt}", code, signum
        return EndCause.EXITED, doubt, code, signum

    def _doubt(self, memory: int) -> str:
        """Where nobody counts, a program that is refused memory fails in its own way; we can tell what it had."""
        limit = self.plan.limits.memory if self.plan is not None else 0
        if not limit or memory < NEAR * limit or (isinstance(self.tree, CgroupTree) and self.tree.counts_memory):
            return ""
        return f"its memory may have been too small: it had {memory} bytes, each process may have {limit}"


def signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
