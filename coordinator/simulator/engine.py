"""The engine as a model: an inbox, batches, one commit in flight, outputs in order, a full disk undone.

It carries decisions out by the same rules as the real one: writes before words, everything undurable rolled back.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from random import Random

from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.decide import decide
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.core.policy import Policy
from coordinator.core.reload import reloaded
from coordinator.core.rows import AttemptRow
from coordinator.core.state import ClusterState
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.clock import HeadClock
from coordinator.simulator.durable import Disk
from coordinator.simulator.parts import Watcher
from coordinator.simulator.violation import Violation

BATCH_MAX = 64
RETRY_S = 1
"""Pause after a full disk before anything is decided again."""
INBOX_MAX = 10_000
"""Events that may wait. A world of this size never has so many; more is a violation, not a policy."""


class Engine:
    """One run of the coordinator's engine."""

    def __init__(
        self,
        policy: Policy,
        unit_ms: Ms,
        agenda: Agenda,
        dice: Random,
        disk: Disk,
        clock: HeadClock,
        watcher: Watcher,
        state: ClusterState,
        take_beats: Callable[[], tuple[events.Beat, ...]],
        carry_out: Callable[[commands.Decision], None],
    ) -> None:
        """`take_beats` empties what arrived since the last batch; `carry_out` is told of what is durable."""
        self.state = state
        self.slow_disk = False
        self._policy, self._unit_ms, self._agenda, self._dice = policy, unit_ms, agenda, dice
        self._disk, self._clock, self._watcher = disk, clock, watcher
        self._take_beats, self._carry_out = take_beats, carry_out
        self._alive = True
        self._inbox: deque[events.AnyEvent] = deque()
        self._tick_waits = False
        self._turn_due = False
        self._paused_until_ms: Ms = 0
        self._open: list[commands.Decision] = []
        self._in_flight: list[commands.Decision] | None = None

    def post(self, event: events.AnyEvent) -> None:
        """Hand an event over. Ticks coalesce."""
        if isinstance(event, events.Tick):
            if self._tick_waits:
                return
            self._tick_waits = True
        self._inbox.append(event)
        self._watcher.expect(len(self._inbox) <= INBOX_MAX, "the inbox is over its bound")
        self.wake()

    def post_together(self, event: events.LeasesHeld | events.AttemptsEnded) -> None:
        """Several acknowledgements, or ends, of one agent that nothing came between are one event."""
        last = self._inbox[-1] if self._inbox else None
        match event, last:
            case events.LeasesHeld(), events.LeasesHeld(conn_id=event.conn_id):
                self._inbox[-1] = replace(event, held=(*last.held, *event.held))
            case events.AttemptsEnded(), events.AttemptsEnded(conn_id=event.conn_id):
                self._inbox[-1] = replace(event, ended=(*last.ended, *event.ended))
            case _:
                self.post(event)

    def post_last_again(self) -> None:
        """What was told last is told a second time."""
        if self._inbox and not isinstance(self._inbox[-1], events.Tick):
            self.post(self._inbox[-1])

    @property
    def tick_waits(self) -> bool:
        return self._tick_waits

    @property
    def busy(self) -> bool:
        """Something waits to be decided or to become durable."""
        return bool(self._inbox) or bool(self._open) or self._in_flight is not None

    def wake(self) -> None:
        """There is something to take."""
        if not self._turn_due:
            self._turn_due = True
            self._agenda.after(1 + self._clock.lag_ms, self._turn)

    def kill(self) -> None:
        """kill -9: what is in flight is durable or not, everything else undurable is gone."""
        if self._in_flight is not None and not self._disk.full and self._dice.random() < 0.5:
            self._make_durable(self._in_flight)
        self._alive = False

    # ---- deciding

    def _turn(self) -> None:
        if not self._alive:
            return
        self._turn_due = False
        if self._clock.asleep_since_ms is not None or self._agenda.now_ms < self._paused_until_ms:
            self._turn_due = True
            self._agenda.after(self._unit_ms // 10, self._turn)
            return
        beats = self._take_beats()
        if beats:
            self._decide(events.Heartbeats(at_ms=self._clock.now_ms(), beats=beats))
        for _ in range(min(len(self._inbox), BATCH_MAX)):
            event = self._inbox.popleft()
            if isinstance(event, events.Tick):
                self._tick_waits = False
            self._decide(event)
        if self.state.work.place_due and not self.state.stopping:
            self._decide(events.Place(at_ms=self._clock.now_ms()))
        if self._inbox or self.state.work.place_due:
            self.wake()
        self._advance()

    def _decide(self, event: events.AnyEvent) -> None:
        try:
            decision = decide(self.state, event, self._policy)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.name}, line {frame.lineno}"
            raise Violation(f"deciding {type(event).__name__} failed in {where}: {error!r}") from error
        decision.writes[:] = commands.one_by_one(decision.writes)  # whoever watches looks at rows
        decision.sends[:] = commands.sends_one_by_one(decision.sends)
        decision.notes[:] = commands.notes_one_by_one(decision.notes)
        self._open.append(decision)
        self._watcher.decided(event, decision, self.state)
        if isinstance(event, events.Heartbeats):
            self._renew_at_once(decision)

    def _renew_at_once(self, decision: commands.Decision) -> None:
        """Renewals wait for no disk, unless a lease that they name has a write that does, or one before them waits."""
        waiting = [*(self._in_flight or ()), *self._open]
        puts = [write.row for one in waiting for write in one.writes if isinstance(write, commands.Put)]
        pending = {row.attempt_id for row in puts if isinstance(row, AttemptRow)}
        held = {
            s.conn_id
            for one in waiting
            if one is not decision
            for s in one.sends
            if isinstance(s.message, commands.Renew)
        }
        now = commands.Decision()
        later: list[commands.Send] = []
        for send in decision.sends:
            renew = send.message
            waits = (
                not isinstance(renew, commands.Renew)
                or send.conn_id in held
                or any(term.attempt_id in pending for term in renew.terms)
            )
            (later if waits else now.sends).append(send)
        decision.sends[:] = later
        if now.sends:
            self._carry_out(now)

    # ---- the disk

    def _advance(self) -> None:
        """Give the disk the next group, or let go what needs no disk."""
        if self._in_flight is not None or not self._open:
            return
        group, self._open = self._open, []
        if not any(decision.writes for decision in group):
            for decision in group:
                self._carry_out(decision)
            return
        self._in_flight = group
        took_ms = self._dice.randint(1, 20)
        if self.slow_disk and self._dice.random() < 0.3:
            took_ms = self._dice.randint(self._unit_ms // 2, 4 * self._unit_ms)
        self._agenda.after(took_ms, self._committed)

    def _committed(self) -> None:
        if not self._alive or self._in_flight is None:
            return
        if self._clock.asleep_since_ms is not None:
            self._agenda.after(self._unit_ms // 10, self._committed)
            return
        group, self._in_flight = self._in_flight, None
        if self._disk.full:
            self._roll_back([*group, *self._open])
        else:
            self._make_durable(group)
            for decision in group:
                self._carry_out(decision)
        self._advance()

    def _make_durable(self, group: list[commands.Decision]) -> None:
        writes = [write for decision in group for write in decision.writes]
        self._disk.commit(writes)
        self._watcher.durable(writes)

    def _roll_back(self, undone: list[commands.Decision]) -> None:
        self._open = []
        full = CoordError(Code.STORE_FULL, "the disk is full", "make room")
        for decision in undone:
            for reply in decision.replies:
                self._watcher.replied(commands.Reply(reply.request_id, full))
        old, self.state = self.state, self._disk.load(self.state.coordinator_id)
        decision = reloaded(old, self.state, self._policy, undone)
        self._watcher.rolled_back(old, self.state, undone, decision)
        self._carry_out(decision)
        if not self._clock.lag_ms:  # a slow turn and this pause together would look like a stall
            self._paused_until_ms = self._agenda.now_ms + RETRY_S * self._unit_ms
        self._clock.was_late(RETRY_S * self._unit_ms)
        self.wake()
