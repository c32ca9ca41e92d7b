"""What one agent says of its attempts: gathered within a turn, and passed on as one event.

An event has its price however short it is, and an agent that runs short tasks says a thousand words a second. What is
said side by side of leases held, or of ends, is decided together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, groupby

from coordinator.core import events
from coordinator.core.ids import AttemptId, ConnId
from coordinator.core.rows import ExitInfo, LeaseToken
from coordinator.ports.clock import Clock
from coordinator.service.inbound import Answers, OfAttempt, event_of, token_is_sane

SAID_MAX = 512
"""Words that are one event: some 20 ms of deciding."""


class Words:
    """Of one connection. The order of what is said is kept."""

    __slots__ = ("_clock", "_conn_id", "_count", "_post", "_said")

    def __init__(self, conn_id: ConnId, post: Callable[[events.AnyEvent], None], clock: Clock) -> None:
        self._conn_id, self._post, self._clock = conn_id, post, clock
        self._said: list[events.AttemptEvent] = []
        self._count = 0

    def add(self, message: OfAttempt) -> bool:
        """False, and nothing is added: its token is beyond all bounds."""
        if not token_is_sane(message.token):
            return False
        self._said.append(event_of(message, self._conn_id, self._clock.now_ms()))
        self._count += 1
        if self._count >= SAID_MAX:
            self.pass_on()
        return True

    def add_all(self, answers: Answers) -> None:
        """A frame of acknowledgements and ends alone."""
        self._said += answers.said
        self._count += answers.messages
        if self._count >= SAID_MAX:
            self.pass_on()

    def pass_on(self) -> None:
        """What was gathered, if anything was."""
        if self._said:
            said, self._said, self._count = _together(self._said), [], 0
            self._post(said[0] if len(said) == 1 else events.AgentSaid(at_ms=said[-1].at_ms, said=tuple(said)))


def _together(said: list[events.AttemptEvent]) -> list[events.AttemptEvent]:
    """The same, with acknowledgements, and ends, that nothing stands between as one event each."""
    found: list[events.AttemptEvent] = []
    for kind, some in groupby(said, key=_kind_of):
        alike = list(some)
        at_ms, conn_id = alike[-1].at_ms, alike[-1].conn_id
        if len(alike) == 1 or kind is None:
            found += alike
        elif kind is events.LeasesHeld:
            held = tuple(chain.from_iterable(map(_held, alike)))
            found.append(events.LeasesHeld(at_ms=at_ms, conn_id=conn_id, held=held))
        else:
            ended = tuple(chain.from_iterable(map(_ended, alike)))
            found.append(events.AttemptsEnded(at_ms=at_ms, conn_id=conn_id, ended=ended))
    return found


def _kind_of(event: events.AttemptEvent) -> type[events.AttemptEvent] | None:
    """What several like this one are; None: each is something else."""
    match event:
        case events.AgentGranted() | events.LeasesHeld():
            return events.LeasesHeld
        case events.AttemptExited() | events.AttemptsEnded():
            return events.AttemptsEnded
        case _:
            return None


def _held(event: events.AttemptEvent) -> Sequence[tuple[AttemptId, int, LeaseToken]]:
    match event:
        case events.LeasesHeld(held=held):
            return held
        case events.AgentGranted(attempt_id=attempt_id, rank=rank, token=token):
            return ((attempt_id, rank, token),)
        case _:
            return ()


def _ended(event: events.AttemptEvent) -> Sequence[tuple[AttemptId, int, LeaseToken, ExitInfo]]:
    match event:
        case events.AttemptsEnded(ended=ended):
            return ended
        case events.AttemptExited(attempt_id=attempt_id, rank=rank, token=token, exit=exit):
            return ((attempt_id, rank, token, exit),)
        case _:
            return ()
