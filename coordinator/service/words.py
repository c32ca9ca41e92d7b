"""What one agent says of its attempts: gathered within a turn, and passed on as one event.

An event has its price however short it is, and an agent that runs short tasks says a thousand words a second.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator import ports
from coordinator.core import events
from coordinator.core.ids import ConnId
from coordinator.service.inbound import OfAttempt, event_of, token_is_sane

SAID_MAX = 512
"""Words that are one event: some 20 ms of deciding."""


class Words:
    """Of one connection. The order of what is said is kept."""

    __slots__ = ("_clock", "_conn_id", "_count", "_post", "_said")

    def __init__(self, conn_id: ConnId, post: Callable[[events.AnyEvent], None], clock: ports.Clock) -> None:
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

    def add_grants(self, held: events.LeasesHeld) -> None:
        """A frame of acknowledgements alone."""
        self._said.append(held)
        self._count += len(held.held)
        if self._count >= SAID_MAX:
            self.pass_on()

    def pass_on(self) -> None:
        """What was gathered, if anything was."""
        said = self._said
        if said:
            self._said, self._count = [], 0
            self._post(said[0] if len(said) == 1 else events.AgentSaid(at_ms=said[-1].at_ms, said=tuple(said)))
