"""The keeper as a model: it holds leases, starts, freezes, thaws and ends attempts, and keeps how they ended.

It needs no network: what it knows is in its machine's memory, and its clock goes on while everything is suspended.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Protocol

from msgspec.structs import replace

from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.commands import Launch
from coordinator.core.ids import AttemptId, Ms
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken
from coordinator.core.work.jobspec import StepSpec
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.machine import Held, Machine, Run
from coordinator.simulator.porter import Porter

KEPT_FROZEN_S = 24 * 3600
FAILURES = (
    ExitInfo(cause=EndCause.EXITED, code=1),
    ExitInfo(cause=EndCause.EXITED, code=1),
    ExitInfo(cause=EndCause.EXITED, code=75),
    ExitInfo(cause=EndCause.EXITED, code=126),
    ExitInfo(cause=EndCause.SIGNALLED, signal=11),
    ExitInfo(cause=EndCause.OOM),
    ExitInfo(cause=EndCause.LOG_FULL),
    ExitInfo(cause=EndCause.START, code=127, text="no such program"),
)


class Ear(Protocol):
    """The daemon of the moment."""

    def hear(self, held: Held) -> None:
        """This is how it stands now."""
        ...

    def tell_progress(self, held: Held, fraction: float) -> bool:
        """Whether it is on its way."""
        ...


class Keeper:
    """One run of the keeper of one machine."""

    def __init__(
        self,
        process_id: str,
        machine: Machine,
        unit_ms: Ms,
        agenda: Agenda,
        dice: Random,
        porter: Porter | None = None,
    ) -> None:
        """`porter`: in a world of data."""
        self.process_id = process_id
        self.machine = machine
        self.boot_id = machine.boot_id
        self.alive = True
        self.daemons = 0
        self.resume_key = ""
        self.ear: Ear | None = None
        self._memory, self._porter = machine.memory, porter
        self._unit_ms, self._agenda, self._dice = unit_ms, agenda, dice
        self._clean_up()

    def _clean_up(self) -> None:
        """What the keeper before left behind is killed, and recorded as ended with its agent."""
        left = {name for name, run in self.machine.runs.items() if run.going}
        for attempt_id, rank in list(self.machine.runs):
            self.machine.remove(attempt_id, rank, None)
        for held in list(self._memory.held.values()):
            if held.exit is None and held.phase == "leased" and self._dice.random() < 0.5:
                del self._memory.held[held.attempt_id, held.rank]
            elif held.exit is None:
                lived_ms = 0
                if held.began_ms is not None and (held.attempt_id, held.rank) in left:
                    lived_ms = self.machine.measured(self._agenda.now_ms - held.began_ms)
                held.exit = ExitInfo(cause=EndCause.AGENT, text="the agent started anew", lived_ms=lived_ms)
                held.phase = "exited"

    def die(self, cleaned: bool) -> None:
        """kill -9. `cleaned`: its daemon lives to kill the attempts."""
        self.alive = False
        if cleaned and self.machine.promises.kills_all:
            for attempt_id, rank in list(self.machine.runs):
                self.machine.remove(attempt_id, rank, None)
        self.machine.books.orphaned(self.machine)

    # ---- what the daemon asks

    def hold(
        self, attempt_id: AttemptId, rank: int, token: LeaseToken, share: Share, freeze_at_ms: Ms, in_line: bool
    ) -> str:
        """Keep this lease; why not otherwise. `in_line`: it was granted ahead, and waits for its turn."""
        memory, task_id = self._memory, attempt_id[:3]
        floor = memory.floors.get(task_id, LeaseToken(0, 0))
        if token.generation < memory.generation or token < floor:
            return f"token {token.number} is older than one that was seen"
        known = memory.held.get((attempt_id, rank))
        if known is not None:
            return "" if known.token == token and known.exit is None else "it is held by another token"
        memory.floors[task_id] = token
        memory.generation = token.generation
        for held in list(memory.held.values()):
            if held.attempt_id[:3] == task_id and held.token < token and held.exit is None:
                self._finish(held, ExitInfo(cause=EndCause.STOPPED, text="a newer token came"))
        held = Held(
            attempt_id=attempt_id, rank=rank, token=token, share=share, freeze_at_ms=freeze_at_ms, in_line=in_line
        )
        memory.held[attempt_id, rank] = held
        self._watch(held)
        return ""

    def run(self, order: Launch) -> bool:
        """Start it once. False when nothing of this name and token is held."""
        held, step = self._memory.held.get((order.attempt_id, order.rank)), order.step
        if held is None or held.token != order.token:
            return False
        if self._porter is not None and held.order is None:
            held.order = order
        if held.in_line:
            held.wanted = step
            self._call_next()
        elif held.phase == "leased" and not held.ending:
            self._stage(held, step, self._unit_ms)
        return True

    def _stage(self, held: Held, step: StepSpec, most_ms: Ms) -> None:
        held.phase = "staging"
        if self._porter is not None and held.order is not None and (step.inputs or held.order.restore):
            self._tell(held)
            self._porter.stage(self, held, lambda: self._start(held, step))
        else:
            self._agenda.after(self._dice.randint(1, most_ms), lambda: self._start(held, step))

    # ---- who stands in line

    def _call_next(self) -> None:
        """Those in line begin in the order of their tokens, as far as what runs here leaves room."""
        while self._works():
            line = [h for h in self._memory.held.values() if h.in_line and h.exit is None and not h.ending]
            first = min(line, key=lambda held: held.token, default=None)
            if first is None or first.wanted is None or first.freeze_at_ms <= self._agenda.now_ms:
                return
            if not self._fits(first.share.ask):
                return
            first.in_line = False
            self._stage(first, first.wanted, max(1, self._unit_ms // 50))

    def _fits(self, ask: Ask) -> bool:
        offers = self.machine.resources
        here = [h.share.ask for h in self._memory.held.values() if h.exit is None and not h.in_line]
        named = {name: sum(dict(one.named).get(name, 0) for one in here) for name, _ in ask.named}
        return (
            sum(one.cpus for one in here) + ask.cpus <= offers.cpus * UNIT
            and sum(one.memory for one in here) + ask.memory <= offers.memory_gb * 1e9
            and all(named[name] + amount <= offers.named.get(name, 0) * UNIT for name, amount in ask.named)
        )

    def deadline(self, attempt_id: AttemptId, token: LeaseToken, freeze_at_ms: Ms) -> None:
        """Its lease was renewed until then."""
        for held in self._memory.held.values():
            if held.attempt_id == attempt_id and held.token == token and held.exit is None:
                held.freeze_at_ms = freeze_at_ms
                self._watch(held)
                if held.phase == "frozen" and freeze_at_ms > self._agenda.now_ms:
                    held.phase, held.frozen_at_ms = "running", None
                    self._go(held)
                    self._tell(held)
        self._call_next()

    def end(self, attempt_id: AttemptId, token: LeaseToken, grace_ms: Ms, unbegun: bool) -> None:
        """All of it, within its grace. `unbegun`: only if it was not begun."""
        for held in list(self._memory.held.values()):
            if unbegun and held.phase != "leased":
                continue
            if held.attempt_id == attempt_id and held.token <= token and held.exit is None and not held.ending:
                held.ending = "told to"
                soon_ms = 0 if held.phase == "leased" else self._dice.randint(0, max(1, grace_ms))
                self._agenda.after(soon_ms, partial(self._stopped, held))

    def end_all(self) -> None:
        """The agent leaves."""
        for held in self._memory.held.values():
            if held.exit is None and not held.ending:
                held.ending = "the agent leaves"
                soon_ms = self._dice.randint(0, 3 * self._unit_ms)
                self._agenda.after(soon_ms, partial(self._stopped, held, EndCause.AGENT))

    def forget(self, attempt_id: AttemptId, rank: int, token: LeaseToken) -> None:
        """Its end is settled."""
        held = self._memory.held.get((attempt_id, rank))
        if held is not None and held.token == token and held.exit is not None:
            del self._memory.held[attempt_id, rank]

    def unsettled(self) -> list[Held]:
        return list(self._memory.held.values())

    # ---- its clock

    def wake(self) -> None:
        """Everything stood still until now: what is over its deadline is frozen before anything runs again."""
        for held in list(self._memory.held.values()):
            self._look(held)

    def _works(self) -> bool:
        return self.alive and not self.machine.suspended

    def _watch(self, held: Held) -> None:
        self._agenda.at(held.freeze_at_ms, lambda: self._look(held))

    def _look(self, held: Held) -> None:
        if not self._works() or held.exit is not None:
            return
        now = self._agenda.now_ms
        if held.phase == "running" and held.freeze_at_ms <= now:
            self._freeze(held)
        elif held.frozen_at_ms is not None and now - held.frozen_at_ms >= KEPT_FROZEN_S * self._unit_ms:
            self._finish(held, ExitInfo(cause=EndCause.EXPIRED))

    def _freeze(self, held: Held) -> None:
        held.phase, held.frozen_at_ms = "frozen", self._agenda.now_ms
        run = self.machine.runs[held.attempt_id, held.rank]
        pause(run, self._agenda.now_ms)
        self.machine.books.stands(self.machine, held.attempt_id, held.rank)
        self.machine.books.freezes(self.machine, held.attempt_id)
        self._agenda.after(KEPT_FROZEN_S * self._unit_ms, lambda: self._look(held))
        self._tell(held)

    # ---- processes

    def _start(self, held: Held, step: StepSpec) -> None:
        """Its inputs are there. Where the lease is over by now, it waits frozen before its first step."""
        if not self._works():
            if self.alive:
                self._agenda.after(self._unit_ms, lambda: self._start(held, step))
            return
        if held.exit is not None or held.ending or held.phase != "staging":
            return
        ends, length_ms = self._program(step)
        if ends.cause is EndCause.START:
            self._finish(held, ends)
            return
        held.began_ms = self._agenda.now_ms
        late = held.freeze_at_ms <= self._agenda.now_ms
        run = Run(
            token=held.token, share=held.share, left_ms=length_ms, since_ms=self._agenda.now_ms, ends=ends, going=False
        )
        self.machine.runs[held.attempt_id, held.rank] = run
        if late:
            held.phase, held.frozen_at_ms = "frozen", self._agenda.now_ms
            self._agenda.after(KEPT_FROZEN_S * self._unit_ms, lambda: self._look(held))
        else:
            held.phase = "running"
            self._go(held)
        self._tell(held)
        if self._porter is not None:
            self._porter.follow(self, held)

    def _program(self, step: StepSpec) -> tuple[ExitInfo, Ms]:
        """How this run of `work MEAN_MS FAILS_PERCENT` will end, and after what time."""
        _, mean_ms, fails = step.command
        length_ms = int(int(mean_ms) * self._dice.uniform(0.2, 1.8))
        failed = self._dice.random() * 100 < int(fails)
        ends = self._dice.choice(FAILURES) if failed else ExitInfo(cause=EndCause.EXITED, code=0)
        if step.time_limit_ms is not None and length_ms > step.time_limit_ms:
            return ExitInfo(cause=EndCause.TIMEOUT), step.time_limit_ms
        return ends, length_ms

    def _go(self, held: Held) -> None:
        self.machine.books.runs(self.machine, held.attempt_id, held.rank, held.token)
        let_run(self.machine.runs[held.attempt_id, held.rank], self._agenda.now_ms)
        self.follow(held)

    def follow(self, held: Held) -> None:
        """Be there when the program ends."""
        run = self.machine.runs[held.attempt_id, held.rank]
        number = run.number
        self._agenda.after(run.left_ms, lambda: self._ended(held, run, number))

    def _ended(self, held: Held, run: Run, number: int) -> None:
        if not (self._works() and run.number == number and run.going and held.exit is None):
            return
        well = run.ends.cause is EndCause.EXITED and run.ends.code == 0
        brings = held.order is not None and held.rank == 0 and bool(held.order.step.outputs)
        if self._porter is not None and well and brings and not held.ending:
            self._bring(held, run.ends)
        else:
            self._finish(held, run.ends)

    def _bring(self, held: Held, ends: ExitInfo) -> None:
        """Its program has succeeded; that is said together with its outputs."""
        assert self._porter is not None and held.began_ms is not None
        held.ran_ms = self.machine.measured(self._agenda.now_ms - held.began_ms)
        ends = replace(ends, ran_ms=held.ran_ms)
        held.phase = "uploading"
        self.machine.remove(held.attempt_id, held.rank, ends)
        self._tell(held)
        self._porter.publish(self, held, ends)

    # ---- what else it is asked, and says

    def save(self, attempt_id: AttemptId, token: LeaseToken) -> None:
        """A checkpoint is wanted now."""
        held = self._memory.held.get((attempt_id, 0))
        if self._porter is not None and self._works() and held is not None and held.token == token:
            self._porter.save_now(self, held)

    def warm(self, attempt_id: AttemptId, rank: int) -> None:
        """It may be granted this one soon."""
        if self._porter is not None and self._works():
            self._porter.warm(self, attempt_id, rank)

    def tell_progress(self, held: Held, fraction: float) -> bool:
        """Its program says how far it is. Whether that left."""
        return self.ear is not None and self.ear.tell_progress(held, fraction)

    @property
    def connected(self) -> bool:
        """It has a daemon."""
        return self.ear is not None

    def finish(self, held: Held, ends: ExitInfo) -> None:
        """Its data has come to an end: this is how it ended."""
        self._finish(held, ends)

    def _stopped(self, held: Held, cause: EndCause = EndCause.STOPPED) -> None:
        if held.exit is not None or not self.alive:
            return
        if self.machine.suspended:
            self._agenda.after(self._unit_ms, lambda: self._stopped(held, cause))
            return
        self._finish(held, ExitInfo(cause=cause, text=held.ending))

    def _finish(self, held: Held, ends: ExitInfo) -> None:
        if held.ran_ms is not None:
            ends = replace(ends, ran_ms=held.ran_ms)
        elif held.began_ms is not None:
            ends = replace(ends, ran_ms=self.machine.measured(self._agenda.now_ms - held.began_ms))
        self.machine.remove(held.attempt_id, held.rank, ends)
        held.phase, held.exit = "exited", ends
        self._call_next()
        self._tell(held)

    def _tell(self, held: Held) -> None:
        if self.ear is not None:
            self.ear.hear(held)


def pause(run: Run, now_ms: Ms) -> None:
    """Its processes stand still from now on."""
    if run.going:
        run.left_ms = max(0, run.left_ms - (now_ms - run.since_ms))
        run.going = False
        run.number += 1


def let_run(run: Run, now_ms: Ms) -> None:
    run.going, run.since_ms = True, now_ms
