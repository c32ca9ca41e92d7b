"""The core at a desk: whatever is told is decided, agents answer in the same moment, and whoever waits is placed, until
nobody has anything more to say.

For worlds without an engine: nothing is made durable, and nothing is on its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from coordinator.core import events
from coordinator.core.commands import Decision
from coordinator.core.decide import decide
from coordinator.core.ids import Ms, RequestId
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.simulator.violation import Violation

PLACES_MAX = 10_000
"""Place events in a row: more is a scheduler that never comes to rest."""
NEVER_MS: Ms = 100 * 366 * 86_400_000
QUIET = Policy(
    heartbeat_interval_ms=NEVER_MS,
    heartbeat_budget_per_s=1e12,
    lost_after_ms=NEVER_MS,
    beat_save_every_ms=NEVER_MS,
    alive_every_ms=NEVER_MS,
    stall_ms=NEVER_MS,
    outage_ms=NEVER_MS,
)
"""The usual policy, but that silence means nothing: nobody beats here."""


class Desk:
    """`carry_out` is given every decision: it answers by `say`, and tells nothing by itself."""

    def __init__(
        self, state: ClusterState, policy: Policy, now: Callable[[], Ms], carry_out: Callable[[Decision], None]
    ) -> None:
        self.state = state
        self.decided = 0
        """Events so far."""
        self._policy, self._now, self._carry_out = policy, now, carry_out
        self._requests = 0
        self._said: deque[events.AnyEvent] = deque()

    def request(self) -> RequestId:
        """The next number of a request."""
        self._requests += 1
        return RequestId(self._requests)

    def say(self, event: events.AnyEvent) -> None:
        """An agent's answer: heard before anybody is placed."""
        self._said.append(event)

    def tell(self, event: events.AnyEvent) -> Decision:
        """Decide it and what follows from it."""
        decision = self.decide(event)
        self.come_to_rest()
        return decision

    def decide(self, event: events.AnyEvent) -> Decision:
        """Decide it alone: `come_to_rest` is to follow in the same moment."""
        self.decided += 1
        decision = decide(self.state, event, self._policy)
        self._carry_out(decision)
        return decision

    def come_to_rest(self) -> None:
        """Raises Violation when the queue asks for a place for ever."""
        for _ in range(PLACES_MAX):
            while self._said:
                self.decide(self._said.popleft())
            if not self.state.work.place_due:
                return
            self.decide(events.Place(at_ms=self._now()))
        raise Violation(f"the queue asks for a place for ever at {self._now()}")
