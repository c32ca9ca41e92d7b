"""Placement: who of those that wait is given which provider. Feasible, then ranked, then chosen.

First come first served, class by class: equal wants are judged once, and who fits nowhere holds up nobody else. The
cost of a Place grows with the lines, with the providers that got better since a line was judged, and with the leases
granted; not with the tasks that wait.
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import heapify, heappop, heappush

from coordinator.core.amounts import Ask, Share
from coordinator.core.attempts import give_up
from coordinator.core.capacity import NOTHING, left_over, share_of
from coordinator.core.commands import Decision
from coordinator.core.endings import skip_doomed
from coordinator.core.events import Place
from coordinator.core.feasible import as_enrolled, as_it_stands, crowded
from coordinator.core.forecast import stays
from coordinator.core.ids import ProviderId, dotted
from coordinator.core.jobspec import Overlap
from coordinator.core.leases import grant, new_attempt, reserve
from coordinator.core.policy import Policy
from coordinator.core.queue import fit_fresh, fit_task, head, job_of
from coordinator.core.rows import AttemptState, TaskRow, WorkState
from coordinator.core.state import ClusterState, Provider
from coordinator.core.transitions import new_task, put_task, touch_step
from coordinator.core.work import Job, Line, Step, Task, Want
from coordinator.core.work import Place as Spot

TIERS = 20
"""Forecasts are rounded to 0.05: below that the better fit is worth more."""

Key = tuple[int, tuple[int, int, int], ProviderId]
"""How good a provider is for an ask, the smallest first: the tier of its forecast, what would be left over, its id."""


JUDGED_MAX = 10_000
"""Providers that one Place judges for wants it has not judged yet: some 50 ms. The next one goes on."""


class Candidates:
    """The providers that could serve one want, by how good they are. Only valid within one Place.

    What is free only shrinks within a Place: an entry whose provider has changed is judged again when it comes up.
    """

    def __init__(self, state: ClusterState, want: Want, among: Collection[Provider], policy: Policy) -> None:
        self._state, self._want, self._policy = state, want, policy
        self.judged = state.work.betters
        """Who gets better after this is not known here."""
        self.forecasts: dict[ProviderId, float] = {}
        self._feasible: list[Provider] = []
        for provider in among:
            if not any(as_it_stands(state, provider, want, policy)) and not any(as_enrolled(state, provider, want)):
                forecast = stays(state, provider, want.horizon_ms, policy)
                self.forecasts[provider.row.provider_id] = forecast.probability if forecast is not None else 0.0
                self._feasible.append(provider)
        self._heaps: dict[Ask, list[Key]] = {}

    def choose(self) -> list[tuple[ProviderId, Share]] | None:
        """A share on as many different providers as the want has nodes, by the first of its asks that finds them."""
        if len(self._feasible) < self._want.nodes:
            return None
        for ask in self._want.asks:
            found = self._by(ask)
            if found is not None:
                return found
        return None

    def _by(self, ask: Ask) -> list[tuple[ProviderId, Share]] | None:
        heap = self._heaps.get(ask)
        if heap is None:
            heap = [key for provider in self._feasible if (key := self._key(provider, ask)) is not None]
            heapify(heap)
            self._heaps[ask] = heap
        chosen: list[tuple[ProviderId, Share]] = []
        taken: list[Key] = []
        while heap and len(chosen) < self._want.nodes:
            key = heappop(heap)
            provider = self._state.providers[key[2]]
            fresh = self._key(provider, ask)
            if fresh is None:
                continue
            if fresh != key:
                heappush(heap, fresh)
                continue
            share = share_of(provider.offer, self._state.work.loads.get(key[2], NOTHING), ask)
            assert share is not None
            chosen.append((key[2], share))
            taken.append(key)
        for key in taken:
            heappush(heap, key)
        return chosen if len(chosen) == self._want.nodes else None

    def _key(self, provider: Provider, ask: Ask) -> Key | None:
        who = provider.row.provider_id
        load = self._state.work.loads.get(who, NOTHING)
        if share_of(provider.offer, load, ask) is None:
            return None
        if load.attempts and any(crowded(provider, load, self._want, self._policy)):
            return None
        return -round(self.forecasts[who] * TIERS), left_over(provider.offer, load, ask), who


def on_place(state: ClusterState, event: Place, policy: Policy, out: Decision) -> None:
    """Grant what fits, in the order of the queue, `placements_max` leases at most; ask to go on with the rest."""
    work = state.work
    work.place_due = False
    if state.stopping:
        return
    heads: list[tuple[Spot, int]] = []
    wants = list(work.queue)
    for number, want in enumerate(wants):
        first = head(work, want)
        if first is not None:
            heads.append((first, number))
    heapify(heads)
    judged: dict[Want, Candidates] = {}
    left, to_judge, began = policy.placements_max, JUDGED_MAX, work.betters
    while heads and left > 0 and to_judge > 0:
        spot, number = heappop(heads)
        want = wants[number]
        line = work.queue.get(want)
        if line is None or head(work, want) != spot:
            _requeue_head(state, want, number, heads)
            continue
        if want not in judged:
            among = _who_is_new(state, want, line)
            to_judge -= len(among)
            judged[want] = Candidates(state, want, among, policy)
        shares = judged[want].choose()
        if shares is None:
            line.blocked, line.judged, line.looked_ms = True, judged[want].judged, work.looked_ms
            continue
        _give(state, spot, shares, judged[want], line.blocked, policy, out)
        left -= 1
        _requeue_head(state, want, number, heads)
    work.place_due = bool(heads) or work.betters != began


def _who_is_new(state: ClusterState, want: Want, line: Line) -> Collection[Provider]:
    """The providers that may have become something for a want: all, or, where a Place found nothing for it, those that
    got better since. O(these)."""
    work = state.work
    if not line.blocked:
        return state.providers.values()
    moves = want.min_score is not None or want.min_forecast is not None
    if moves and line.looked_ms != work.looked_ms:
        return state.providers.values()
    better = [state.providers[who] for who in work.better_since(line.judged) if who in state.providers]
    return state.providers.values() if better and want.nodes > 1 else better


def _requeue_head(state: ClusterState, want: Want, number: int, heads: list[tuple[Spot, int]]) -> None:
    first = head(state.work, want)
    if first is not None:
        heappush(heads, (first, number))


def _give(
    state: ClusterState,
    spot: Spot,
    shares: list[tuple[ProviderId, Share]],
    candidates: Candidates,
    waited: bool,
    policy: Policy,
    out: Decision,
) -> None:
    """These shares are for who stands in this place: a lease, or a reservation while its attempt is in doubt."""
    work = state.work
    job, step, task = job_of(work, spot)
    forecast = min(candidates.forecasts[who] for who, _ in shares)
    where = ", ".join(who for who, _ in shares)
    if task is None:
        cause = work.freed_by if waited and work.freed_by else step.unblocked_by
        task = _first_time(state, job, step, cause, out)
    else:
        cause = work.freed_by if waited and work.freed_by else task.row.waits_for
        doubted = next(iter(task.attempts.values()), None)
        if doubted is not None:
            if step.spec.overlap is Overlap.FORBID:
                _reserve(state, job, step, task, shares, forecast, out)
                return
            cause = f"lease {dotted(doubted.row.attempt_id)}"
            give_up(state, doubted, "overlap is allowed: another one starts now", policy, out)
            if task.row.task not in step.tasks:
                return  # its last loss: the task has failed
        if task.row.task in step.retry:
            step.retry.remove(task.row.task)
        put_task(task, out, attempts=task.row.attempts + 1, not_before_ms=None)
    attempt = new_attempt(state, job, step, task, shares, forecast, cause)
    grant(state, job, step, task, attempt, f"placed on {where}", policy, out)
    fit_task(work, job, step, task)
    fit_fresh(work, job, step)


def _first_time(state: ClusterState, job: Job, step: Step, cause: str, out: Decision) -> Task:
    """The step's next task gets its row."""
    number = step.row.cursor
    row = TaskRow(
        job_id=step.row.job_id, step=step.row.step, task=number, state=WorkState.STAGING, attempts=1, waits_for=cause
    )
    task = new_task(state, job, row, out, cause)
    step.tasks[number] = task
    touch_step(state, step, cursor=number + 1)
    skip_doomed(state, job, step, out)
    return task


def _reserve(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    shares: list[tuple[ProviderId, Share]],
    forecast: float,
    out: Decision,
) -> None:
    """Capacity is held for the replacement; its token is issued when the one in doubt cannot be running any more."""
    old = next(iter(task.attempts.values()))
    put_task(task, out, attempts=task.row.attempts + 1)
    cause = f"lease {dotted(old.row.attempt_id)}"
    attempt = new_attempt(state, job, step, task, shares, forecast, cause)
    assert attempt.row.state is AttemptState.RESERVED
    reserve(state, attempt, f"replaces {dotted(old.row.attempt_id)} when its lease is over", out)
    task.wanted = False
    fit_task(state.work, job, step, task)
