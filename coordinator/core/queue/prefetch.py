"""Leases ahead: short tasks that a provider is given beyond what it has room for now, so that none waits for us.

A task of some milliseconds would spend its time on the way between two disks. Behind tasks that are known to be short
more of them are lined up: as much work as `policy.prefetch_ms`, and only where short ones run, since room comes free
there soon. Asked for after nobody had room, in the order of the queue; never where somebody ahead has a planned start.
"""

from __future__ import annotations

from collections.abc import Container
from heapq import heapify, heapreplace

from coordinator.core.amounts import Share
from coordinator.core.ids import JobId, Ms, ProviderId
from coordinator.core.policy import Policy
from coordinator.core.queue.candidates import Candidates, Found
from coordinator.core.queue.capacity import NOTHING, share_of
from coordinator.core.queue.feasible import bound_to_others
from coordinator.core.rows import Choice
from coordinator.core.state import ClusterState
from coordinator.core.work.live import Step, Want

RUNS_MIN = 3
"""Runs of a step that must have completed before their median counts."""


def lasts_ms(step: Step, policy: Policy) -> Ms | None:
    """How long a task of this step is taken to run, at least 1; None: not known to be short."""
    lasted = step.lasted_ms
    length_ms = sorted(lasted)[len(lasted) // 2] if len(lasted) >= RUNS_MIN else step.spec.expected_ms
    return max(1, length_ms) if length_ms is not None and length_ms < policy.prefetch_ms else None


def may_be_ahead(want: Want) -> bool:
    """One rank, no GPUs: whoever stands in line must not wait for two places, nor need a device chosen for it. No data
    either: to bring it takes longer than such a turn."""
    shape = want.shape
    return shape.nodes == 1 and not shape.asks[0].gpus and not shape.data


class Prefetch:
    """Who may be given more than it has room for. Only valid within one Place.

    Asked of those whose load has changed since the last Place that got to its end: room for one more in a line comes
    with the end of one before it.
    """

    def __init__(self, state: ClusterState, policy: Policy) -> None:
        self._state, self._policy = state, policy
        self._moves = state.work.moves
        self._moved: list[ProviderId] | None = None
        self._lasts: dict[tuple[JobId, int], Ms | None] = {}
        self._brief: dict[ProviderId, int] = {}
        self._heaps: dict[Want, list[tuple[float, ProviderId]]] = {}

    def choose(self, want: Want, step: Step, candidates: Candidates, kept: Container[ProviderId]) -> Found | None:
        """The provider that has least lined up, of those that could serve it and that are not `kept` for another."""
        length_ms = self._length_ms(step)
        if length_ms is None or not may_be_ahead(want):
            return None
        work, providers = self._state.work, self._state.providers
        if self._moved is None:
            moved = work.moved_since(work.lined_up_to)
            self._moved = [who for who in moved if who in work.loads and who in providers]
        heap = self._heaps.get(want)
        if heap is None:
            among = [who for who in self._moved if who in candidates.able and self._may_serve(who, want)]
            rooms = [(self._lined_up(who, want, length_ms), who) for who in among]
            heap = [(lined_up, who) for lined_up, who in rooms if lined_up < 1.0]
            heapify(heap)
            self._heaps[want] = heap
        while heap:
            before, who = heap[0]
            now = self._lined_up(who, want, length_ms) if who not in kept else 1.0
            if now <= before < 1.0:
                return self._found(who, want, length_ms, candidates)
            heapreplace(heap, (now, who))
            if heap[0][0] >= 1.0:
                heap.clear()
        return None

    def in_a_row(self, want: Want, step: Step, who: ProviderId, most: int) -> int:
        """How many times `choose` would find this one, which it has just found, if each time it was given one: `most`
        at most. Not more often than that, where another one may have to be looked at before."""
        length_ms = self._length_ms(step)
        assert length_ms is not None
        others = self._heaps[want][1:3]  # of a heap the second best is one of these
        taken, places = self._places(who, length_ms)
        count = 1
        while count < most and (lined_up := (taken + count) / places) < 1.0:
            if others and (lined_up, who) > min(others):
                break
            count += 1
        return min(count, self._policy.attempts_per_provider_max - len(self._state.work.loads[who].attempts))

    def _found(self, who: ProviderId, want: Want, length_ms: Ms, candidates: Candidates) -> Found:
        terms = candidates.able[who]
        choice = Choice(among=len(self._heaps[want]), run_ms=length_ms, loss_ms=0, fit=0.0, basis=terms.basis)
        return Found([(who, Share(ask=want.shape.asks[0]))], terms.forecast, choice)

    def close(self) -> None:
        """This Place got to its end: everybody who could be given more was."""
        self._state.work.lined_up_to = self._moves

    def _length_ms(self, step: Step) -> Ms | None:
        key = step.row.job_id, step.row.step
        if key not in self._lasts:
            self._lasts[key] = lasts_ms(step, self._policy)
        return self._lasts[key]

    def _may_serve(self, who: ProviderId, want: Want) -> bool:
        """Whether this want may stand in line there at all. O(attempts there)."""
        provider, load = self._state.providers[who], self._state.work.loads[who]
        fits = share_of(provider.offer, NOTHING, want.shape.asks[0]) is not None
        return fits and not bound_to_others(provider, load, want.tenant)

    def _lined_up(self, who: ProviderId, want: Want, length_ms: Ms) -> float:
        """How much of what may be lined up there is, as a share; from 1 on there may be no more."""
        provider, load = self._state.providers[who], self._state.work.loads[who]
        if len(load.attempts) >= self._policy.attempts_per_provider_max:
            return 1.0
        taken, most = self._places(who, length_ms)
        if taken >= most:
            return 1.0
        if not load.behind and share_of(provider.offer, load, want.shape.asks[0]) is not None:
            return 1.0  # there is room: whatever keeps it from being placed there keeps it from standing in line
        return taken / most

    def _places(self, who: ProviderId, length_ms: Ms) -> tuple[int, int]:
        """How many stand in line there, and how many may."""
        most = max(1, self._policy.prefetch_ms // length_ms) * self._brief_at(who)
        promised = self._state.providers[who].row.promises.prefetch
        return len(self._state.work.loads[who].behind), min(promised, most)

    def _brief_at(self, who: ProviderId) -> int:
        """How many of those that hold room there are short, and have not run for much longer than that: so many at a
        time come free soon. O(those)."""
        found = self._brief.get(who)
        if found is None:
            load, work = self._state.work.loads[who], self._state.work
            found, left = 0, len(load.attempts) - len(load.behind)
            for attempt_id, rank in load.attempts:  # those that hold room came first: the line is not walked
                if not left:
                    break
                if (attempt_id, rank) in load.behind:
                    continue
                left -= 1
                job, row = work.jobs.get(attempt_id[0]), work.attempts[attempt_id].row
                began_ms = row.created_at_ms if row.started_at_ms is None else row.started_at_ms
                if job is not None and began_ms + self._policy.prefetch_wait_ms > self._state.now_ms:
                    found += self._length_ms(job.steps[attempt_id[1]]) is not None
            self._brief[who] = found
        return found
