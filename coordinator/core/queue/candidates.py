"""Candidates: the providers that could serve one shape, by how good they are, kept from one Place to the next.

What is kept is what would be found anew: every change of a provider is in the logs of Work, and is taken in before
anybody is chosen. Forecasts move with the time alone: they are those of a moment that is the same for whoever looks.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from coordinator.core.amounts import Ask, Share
from coordinator.core.ids import Ms, ProviderId, TenantName
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import NOTHING, fits, share_of
from coordinator.core.queue.feasible import as_enrolled, out_of_reach
from coordinator.core.queue.ranking import Terms, dice, fit_weight, terms_of, unfit
from coordinator.core.queue.rooms import ANYBODY, NOBODY, Home, Rooms, rooms_of
from coordinator.core.rows import Choice
from coordinator.core.state import ClusterState, Provider
from coordinator.core.work.live import Kept, Plan, Shape, Want

STALE_MAX = 64
"""Outdated entries that a heap may hold beyond as many as count."""
ASIDE_MAX = 16
"""Planned providers of one plan that are asked whether there is room beside it, for one placement."""

Key = tuple[float, ProviderId, TenantName, int]
"""How good a provider is for an ask, the smallest first; the one tenant that it is bound to or nobody (empty); the
number of the plan that it is kept for, or 0."""


class Found(NamedTuple):
    """Who was chosen: shares of providers in their order, and why."""

    shares: list[tuple[ProviderId, Share]]
    forecast: float
    choice: Choice


class _Ranked:
    """Those that have room for one ask."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.keys: dict[ProviderId, Key] = {}
        self.heaps: dict[Home, list[Key]] = {}
        self.entries = 0
        self.bound: dict[TenantName, int] = {}
        """How many of them serve one tenant alone."""

    def put(self, who: ProviderId, key: Key | None) -> None:
        before = self.keys.get(who)
        if key is None:
            if before is not None:
                del self.keys[who]
                self._count(before, -1)
        elif key != before:
            if before is None or before[2] != key[2]:
                if before is not None:
                    self._count(before, -1)
                self._count(key, 1)
            self.keys[who] = key
            heap = self.heaps.get(key[2:])
            if heap is None:
                heap = self.heaps[key[2:]] = []
            heappush(heap, key)
            self.entries += 1
            if self.entries > 2 * len(self.keys) + STALE_MAX:
                self.tidy()

    def _count(self, key: Key, sign: int) -> None:
        if key[2]:
            left = self.bound.get(key[2], 0) + sign
            if left:
                self.bound[key[2]] = left
            else:
                del self.bound[key[2]]

    def tidy(self) -> None:
        self.heaps, self.bound = {}, {}
        for key in self.keys.values():
            self._count(key, 1)
            self.heaps.setdefault(key[2:], []).append(key)
        for heap in self.heaps.values():
            heapify(heap)
        self.entries = len(self.keys)

    def top(self, homes: Sequence[Home]) -> Key | None:
        """The best of these homes."""
        best: Key | None = None
        keys = self.keys
        for home in homes:
            heap = self.heaps.get(home)
            while heap:
                key = heap[0]
                if keys.get(key[1]) is key:
                    if best is None or key < best:
                        best = key
                    break
                heappop(heap)
                self.entries -= 1
        return best


class Candidates:
    """Of one shape. `able` has everybody who could serve it but for what is held there."""

    def __init__(self, state: ClusterState, shape: Shape, policy: Policy) -> None:
        """O(providers): judged once, until the forecasts are too old or the figures are others."""
        self.shape, self._policy = shape, policy
        self.at_ms = moment_ms(shape, state.now_ms, policy)
        self.figures_ms = figures_ms(state)
        self.used_ms = state.now_ms
        self.able: dict[ProviderId, Terms] = {}
        self._seen = state.work.moves
        self._weight = fit_weight(policy)
        self._ranked: dict[Ask, _Ranked] = {}
        pools, labels = shape.pools, shape.labels
        for provider in state.providers.values():
            row = provider.row  # what rules out most, and is asked soonest
            if (not pools or row.pool in pools) and (not labels or all(row.labels.get(n) == v for n, v in labels)):
                self._judge(state, provider)

    def forget(self, who: ProviderId) -> None:
        self.able.pop(who, None)
        for ranked in self._ranked.values():
            ranked.put(who, None)

    def catch_up(self, state: ClusterState) -> None:
        """Take in what has changed. O(providers that changed)."""
        work = state.work
        if self._seen == work.moves:
            return
        for who in work.judged_anew_since(self._seen):
            self._judge(state, state.providers[who])
            if who not in self.able:
                self.forget(who)
        if self._ranked:
            able = self.able
            moved = [who for who in work.moved_since(self._seen) if who in able]
            for ranked in self._ranked.values():
                for who in moved:
                    ranked.put(who, self._key(state, state.providers[who], ranked, able[who]))
        self._seen = work.moves

    def choose(
        self,
        state: ClusterState,
        want: Want,
        asks: Collection[Ask],
        closed: Collection[Plan],
        planned: Collection[int],
    ) -> Found | None:
        """The best providers for one task of `want`, by the first of `asks` that finds as many as it has nodes.

        `planned`: the numbers of the plans that are none of its business or its own; in `closed` are those that it must
        not delay by running on: there it is placed beside the one that is planned, or not at all.
        """
        if len(self.able) < self.shape.nodes:
            return None
        for ask in asks:
            found = self._by(state, want, ask, closed, planned)
            if found is not None:
                return found
        return None

    def pick(
        self,
        state: ClusterState,
        want: Want,
        asks: Collection[Ask],
        closed: Collection[Plan],
        planned: Collection[int],
    ) -> tuple[Ask, Key] | None:
        """Whom `choose` chooses for a task of one node: the alternative, and how good the best provider for it is."""
        homes = homes_of(want.tenant, planned)
        for ask in asks:
            ranked = self._of(state, ask)
            if ranked.keys:
                if self._policy.rank == "random":
                    self._throw(state, ranked)
                key = self._best(state, ranked, want.tenant, ask, closed, homes)
                if key is not None:
                    return ask, key
        return None

    def put_back(self, state: ClusterState, who: ProviderId) -> None:
        """What it holds has changed: it stands elsewhere among the others from now on."""
        self._rank(state, state.providers[who])

    def next_one(self, state: ClusterState, want: Want, ask: Ask, planned: Collection[int]) -> Key | None:
        """The best one for `ask` after another was put back, where no planned start has to be kept."""
        return self._of(state, ask).top(homes_of(want.tenant, planned))

    def room(self, state: ClusterState, ask: Ask) -> int:
        """How many providers have room for `ask` now, plans and tenants aside."""
        return len(self._of(state, ask).keys)

    def bound_to(self) -> set[TenantName]:
        """Tenants that somebody serves alone who has room for more of theirs."""
        return {tenant for ranked in self._ranked.values() for tenant in ranked.bound if tenant != NOBODY}

    def is_empty(self, state: ClusterState) -> bool:
        """Nobody has room for any of its asks, whoever wants it."""
        return len(self.able) < self.shape.nodes or all(
            len(self._of(state, ask).keys) < self.shape.nodes for ask in self.shape.asks
        )

    # ---- inside

    def _judge(self, state: ClusterState, provider: Provider) -> None:
        who, shape = provider.row.provider_id, self.shape
        if any(as_enrolled(provider, shape)) or any(out_of_reach(state, provider, shape, self._policy, self.at_ms)):
            self.able.pop(who, None)
        else:
            self.able[who] = terms_of(state, provider, shape, self.at_ms, self._policy)

    def _rank(self, state: ClusterState, provider: Provider) -> None:
        who = provider.row.provider_id
        for ranked in self._ranked.values():
            ranked.put(who, self._key(state, provider, ranked, self.able[who]))

    def _of(self, state: ClusterState, ask: Ask) -> _Ranked:
        ranked = self._ranked.get(ask)
        if ranked is None:
            ranked = self._ranked[ask] = _Ranked(rooms_of(state, ask, self.shape.arrangement))
            for who, terms in self.able.items():
                key = self._key(state, state.providers[who], ranked, terms)
                if key is not None:
                    ranked.keys[who] = key
            ranked.tidy()
        return ranked

    def _key(self, state: ClusterState, provider: Provider, ranked: _Ranked, terms: Terms) -> Key | None:
        room = ranked.rooms.at(state, provider, self._policy)
        if room is None:
            return None
        unfit, (bound, plan) = room
        return terms.term + self._weight * unfit, provider.row.provider_id, bound, plan

    def _by(
        self,
        state: ClusterState,
        want: Want,
        ask: Ask,
        closed: Collection[Plan],
        planned: Collection[int],
    ) -> Found | None:
        ranked = self._of(state, ask)
        among = len(ranked.keys)
        if among < self.shape.nodes:
            return None
        if self._policy.rank == "random":
            self._throw(state, ranked)
        homes = homes_of(want.tenant, planned)
        taken: list[Key] = []
        while len(taken) < self.shape.nodes:
            key = self._best(state, ranked, want.tenant, ask, closed, homes)
            if key is None:
                break
            taken.append(key)
            if self.shape.nodes > 1:
                del ranked.keys[key[1]]
        if self.shape.nodes > 1:
            for key in taken:
                ranked.keys[key[1]] = key
                heappush(ranked.heaps[key[2:]], key)
                ranked.entries += 1
        return self._found(state, [key[1] for key in taken], ask, among) if len(taken) == self.shape.nodes else None

    def _best(
        self,
        state: ClusterState,
        ranked: _Ranked,
        tenant: TenantName,
        ask: Ask,
        closed: Collection[Plan],
        homes: Sequence[Home],
    ) -> Key | None:
        key = ranked.top(homes)
        for plan in closed:
            beside = self._beside(state, ranked, plan, tenant, ask)
            if beside is not None and (key is None or beside < key):
                key = beside
        return key

    def _beside(self, state: ClusterState, ranked: _Ranked, plan: Plan, tenant: TenantName, ask: Ask) -> Key | None:
        """The best provider of `plan` on which there is room for both."""
        best: Key | None = None
        for who in plan.providers[:ASIDE_MAX]:
            key = ranked.keys.get(who)
            if key is None or key[2] not in (ANYBODY, tenant) or (best is not None and best < key):
                continue
            if fits(state.providers[who].offer, plan.then[who], ask):
                best = key
        return best

    def _throw(self, state: ClusterState, ranked: _Ranked) -> None:
        """The order of `random`: another one for each placement."""
        number = state.work.next_token
        ranked.keys = {who: (float(dice(who, number)), *key[1:]) for who, key in ranked.keys.items()}
        ranked.tidy()

    def _found(self, state: ClusterState, chosen: list[ProviderId], ask: Ask, among: int) -> Found:
        shares: list[tuple[ProviderId, Share]] = []
        loss_ms, fit, forecast, basis, fetch = -1, 0.0, 1.0, "", 0
        for who in chosen:
            offer, load = state.providers[who].offer, state.work.loads.get(who, NOTHING)
            share = share_of(offer, load, ask)
            assert share is not None, f"{who} has no room any more"
            shares.append((who, share))
            terms = self.able[who]
            forecast = min(forecast, terms.forecast)
            fetch += terms.fetch
            if terms.loss_ms > loss_ms:
                loss_ms, basis = terms.loss_ms, terms.basis
                fit = unfit(offer, load, ask, self.shape.arrangement)
        choice = Choice(
            among=among, run_ms=self.shape.run_ms, loss_ms=loss_ms, fit=round(fit * 1e4) / 1e4, basis=basis, fetch=fetch
        )
        return Found(shares, forecast, choice)


def homes_of(tenant: TenantName, planned: Collection[int]) -> list[Home]:
    """Where a tenant may be placed: with nobody or with itself alone, where nothing is planned or one of these is."""
    return [(bound, number) for number in (0, *planned) for bound in (ANYBODY, tenant)]


def figures_ms(state: ClusterState) -> Ms | None:
    """Which figures these are."""
    return state.figures.published.computed_at_ms if state.figures is not None else None


def is_fresh(state: ClusterState, kept: Candidates | Kept, shape: Shape, policy: Policy) -> bool:
    """Whether these were judged by the figures and as of the moment that count now."""
    return kept.figures_ms == figures_ms(state) and kept.at_ms == moment_ms(shape, state.now_ms, policy)


@lru_cache(4_096)
def _offset(shape: Shape) -> int:
    return zlib.crc32(repr(shape).encode())


def moment_ms(shape: Shape, now_ms: Ms, policy: Policy) -> Ms:
    """As of when forecasts are taken: it moves every `rank_every_ms`, for each shape at another time, so that no Place
    judges all of them anew."""
    return now_ms - (now_ms - _offset(shape)) % policy.rank_every_ms
