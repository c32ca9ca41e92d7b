"""Pools whose capacity is used up while work waits for it: an alert with the time at which something should end.

Looked at every few seconds, never more than WANTS_MAX kinds of requests at a time: the line in front is what counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice

from coordinator import ports
from coordinator.core.explain import Judged
from coordinator.core.ids import Ms
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.core.work import Job, Want
from coordinator.service.alerts import Alerts
from coordinator.timetext import to_text

KIND = "pool_exhausted"
LOOK_S = 5.0
WAITED_MS = 60_000
"""Work that waits for less is a queue at work."""
WANTS_MAX = 32
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
        self._standing: set[str] = set()

    async def run(self, clock: ports.Clock) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(clock.now_ms())

    def look(self, now_ms: Ms) -> None:
        """Fire for every pool that is used up, and resolve what is over. O(WANTS_MAX x providers)."""
        state = self._state()
        waiting = list(islice(state.work.queue, WANTS_MAX))
        self._since = {want: self._since.get(want, now_ms) for want in waiting}
        found: dict[str, str] = {}
        for want in waiting:
            if now_ms - self._since[want] < WAITED_MS:
                continue
            judged = Judged(state, want, self._policy)
            if judged.able_ever >= want.nodes > judged.able_now:
                for subject in want.pools or (ANY,):
                    found.setdefault(subject, self._text(state, want, judged, now_ms))
        for subject, text in found.items():
            self._alerts.fire(KIND, subject, text)
        for subject in self._standing - set(found):
            self._alerts.resolve(KIND, subject)
        self._standing = set(found)

    def _text(self, state: ClusterState, want: Want, judged: Judged, now_ms: Ms) -> str:
        since = to_text(self._since[want])
        text = f"work waits since {since}: {judged.able_ever} providers could run it, {judged.able_now} have room"
        ends_ms = first_end_ms(state, want.pools)
        if ends_ms is None:
            return f"{text}; when something ends is not known, no run times or limits tell"
        return f"{text}; something should end at {to_text(max(ends_ms, now_ms))}"


def first_end_ms(state: ClusterState, pools: Iterable[str]) -> Ms | None:
    """When the first attempt in these pools (none: any) should end, by its siblings' run times, its expectation
    or its limit; None where nothing tells. O(attempts)."""
    wanted, first = set(pools), None
    for attempt in state.work.attempts.values():
        row = attempt.row
        job = state.work.jobs.get(row.job_id)
        lasts_ms = _lasts_ms(job, row.step) if job is not None and row.started_at_ms is not None else None
        if lasts_ms is None or row.started_at_ms is None:
            continue
        for rank in row.ranks:
            provider = state.providers.get(rank.provider_id)
            if provider is not None and not rank.released and (not wanted or provider.row.pool in wanted):
                ends_ms = row.started_at_ms + lasts_ms
                first = ends_ms if first is None else min(first, ends_ms)
    return first


def _lasts_ms(job: Job, number: int) -> Ms | None:
    step = job.steps[number]
    if step.lasted_ms:
        return sorted(step.lasted_ms)[len(step.lasted_ms) // 2]
    return step.spec.expected_ms or step.spec.time_limit_ms
