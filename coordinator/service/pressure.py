"""Pools whose capacity is used up while work waits for it: an alert with the time at which something should end.

Looked at every few seconds, never more than WANTS_MAX kinds of requests at a time: the line in front is what counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

from coordinator.core.ids import Ms
from coordinator.core.plural import count as counted
from coordinator.core.policy import Policy
from coordinator.core.queue.explain import Judged
from coordinator.core.queue.waiting import starts_at_ms
from coordinator.core.state import ClusterState
from coordinator.core.tenants.quotas import room_for
from coordinator.core.work.live import Want
from coordinator.ports.clock import Clock
from coordinator.service.alerts import Alerts
from coordinator.timetext import to_text

KIND = "pool_exhausted"
LOOK_S = 5.0
WAITED_MS = 60_000
"""Work that waits for less is a queue at work."""
WANTS_MAX = 32
JUDGED_MAX = 20_000
"""Providers judged at a look, at some microseconds each: a large fleet has fewer kinds of requests looked at."""
TEXT_MS = 60_000
"""A text with its time stands for so long: to work it out means to look at every attempt of the fleet."""
ANY = "any"
"""The subject where every pool would do."""


class Pressure:
    """Looks at the queue again and again. `run` is its task."""

    def __init__(self, state: Callable[[], ClusterState], policy: Policy, alerts: Alerts) -> None:
        """`state` is asked anew at every look: it is another one after a full disk."""
        self._state = state
        self._policy = policy
        self._alerts = alerts
        self._since: dict[Want, Ms] = {}
        """Requests that wait, and since when they have been seen to."""
        self._standing: dict[str, tuple[str, Ms]] = {}
        """What was told of each pool, and when it was worked out."""

    async def run(self, clock: Clock) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(clock.now_ms())

    def look(self, now_ms: Ms) -> None:
        """Fire for every pool that is used up, and resolve what is over. O(JUDGED_MAX)."""
        state = self._state()
        wants_max = max(1, min(WANTS_MAX, JUDGED_MAX // max(1, len(state.providers))))
        waiting = list(islice(state.work.queue, wants_max))
        self._since = {want: self._since.get(want, now_ms) for want in waiting}
        found: dict[str, tuple[str, Ms]] = {}
        for want in waiting:
            if now_ms - self._since[want] < WAITED_MS or self._waits_for_its_quota(state, want):
                continue
            judged = Judged(state, want, self._policy)
            if judged.able_ever >= want.shape.nodes > judged.able_now:
                for subject in want.shape.pools or (ANY,):
                    told = found.get(subject) or self._standing.get(subject)
                    if told is None or now_ms - told[1] > TEXT_MS:
                        told = self._text(state, want, judged, now_ms), now_ms
                    found[subject] = told
        for subject, (text, _) in found.items():
            self._alerts.fire(KIND, subject, text)
        for subject in set(self._standing) - set(found):
            self._alerts.resolve(KIND, subject)
        self._standing = found

    def _waits_for_its_quota(self, state: ClusterState, want: Want) -> bool:
        """More capacity would not help it."""
        head = state.work.queue[want].heap[0][0]
        return all(room_for(state, want.tenant, head, ask, want.shape.nodes, self._policy) for ask in want.shape.asks)

    def _text(self, state: ClusterState, want: Want, judged: Judged, now_ms: Ms) -> str:
        since = to_text(self._since[want])
        able = f"{counted(judged.able_ever, 'provider')} could run it, {judged.able_now} now{judged.blockers()}"
        text = f"work waits since {since}: {able}"
        free_ms = starts_at_ms(state, want, 0, self._policy)
        if free_ms is None:
            return f"{text}; when some will be free is not known: too few of them are there"
        return f"{text}; some should be free at {to_text(max(free_ms, now_ms))}"
