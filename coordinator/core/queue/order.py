"""The order of the queue: priority with what a band has aged, then fair share between tenants, then submission.

Two levels: bands (a tenant's lines of one priority), and in each its lines by who stands first. Nothing that could run
waits for ever: a band that could be served and got nothing counts one priority higher after each `aging_ms`, so within
(priorities above it) x `aging_ms` it stands level with the highest, and shares decide. They may say that its tenant had
more than enough: after LEVELLED x `aging_ms` it stands before all others, whatever its tenant had.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace

from coordinator.core.ids import Ms, TenantName
from coordinator.core.policy import Policy
from coordinator.core.queue.fair_share import Standing, Standings
from coordinator.core.queue.lines import head, is_head, put_head
from coordinator.core.state import ClusterState
from coordinator.core.work.live import Band, Place, Want, Work

BandKey = tuple[TenantName, int]
Turn = tuple[int, Standing, int, Place, BandKey]
"""When a band's turn is, the smallest first: its priority, negated; where its tenant stands; what it has aged, negated;
who is first."""
LEVELLED = 16
"""From this age on a band stands above the highest priority, and not only beside it. On a few CPUs each task of a
tenant with a small share waits for some times `aging_ms`, and is not to be served before one that is owed more."""
LOOKS_MAX = 1_024
"""Lines of one tenant that one Place looks at in vain: some 10 ms. The next ones look at the others, so a tenant with a
hundred thousand kinds of requests holds up nobody but itself. Of all tenants together about twice as many."""
LOOKS_LEAST = 16
"""Of each tenant's in any case."""
FIRST_MAX = 64
"""Of a tenant's, and at most a quarter of them: who is looked at every time. What is planned for them binds those who
come after."""
ALONE: Standing = (False, 0.0)
"""Where whoever is alone stands."""
HELD = ("quota ", "nobody")
"""Why a line is not served that nobody else can help: it does not age."""


class Order:
    """One Place's way through the queue. What it gave out and was not served stands aside until `close`."""

    def __init__(self, state: ClusterState, policy: Policy) -> None:
        """O(bands)."""
        self._state, self._policy = state, policy
        self._aside: list[tuple[BandKey, tuple[Place, int, Want]]] = []
        self._top = top_of(state.work)
        self._standings: Standings | None = None
        """Of nobody where one band waits: it has no other to stand before or behind."""
        if len(state.work.bands) > 1:
            self._standings = Standings(state.work.accounts, (tenant for tenant, _ in state.work.bands), policy)
        self._standing: dict[TenantName, Standing] = {}
        self._turns: list[Turn] = []
        self._bands_of: dict[TenantName, list[BandKey]] = {}
        self._moved: set[BandKey] = set()
        """Bands whose turn may be another one now: never an earlier one, since its tenant got something."""
        self._looks: dict[TenantName, int] = {}
        """How many of its lines were looked at in vain."""
        for key, band in state.work.bands.items():
            if band.since_ms is None:
                band.since_ms = state.now_ms
            turn = self._turn(key, band)
            if turn is not None:
                self._turns.append(turn)
                self._bands_of.setdefault(key[0], []).append(key)
        heapify(self._turns)
        self._looks_max = max(LOOKS_LEAST, min(LOOKS_MAX, 2 * LOOKS_MAX // max(1, len(self._bands_of))))

    def next(self) -> tuple[Want, Place] | None:
        """Whose turn it is, in which line; it is to be followed by `served` or `passed`."""
        while self._turns:
            turn = self._turns[0]
            if self._looks.get(turn[4][0], 0) >= self._looks_max:
                heappop(self._turns)
                continue
            if turn[4] not in self._moved:
                band = self._state.work.bands[turn[4]]
                return band.heads[0][2], turn[3]
            self._moved.discard(turn[4])
            self._put_anew(turn[4])
        return None

    def passed(self) -> None:
        """Nothing for this line: the next one of its band is asked."""
        key = self._turns[0][4]
        self._looks[key[0]] = self._looks.get(key[0], 0) + 1
        self._aside.append((key, heappop(self._state.work.bands[key].heads)))
        self._put_anew(key)

    def skip(self) -> None:
        """Nothing for the band whose turn it is."""
        heappop(self._turns)

    def served(self, want: Want) -> None:
        """The head of this line got something: its tenant stands elsewhere from now on."""
        work = self._state.work
        band = work.bands.get((want.tenant, want.priority))
        if band is not None:
            band.since_ms = self._state.now_ms
        self._standing.pop(want.tenant, None)
        self._moved.update(self._bands_of[want.tenant])

    def close(self) -> bool:
        """Who stood aside stands in line again; of a tenant with too many lines, only when all of them were looked at.
        Whether some are left for the next Place."""
        work = self._state.work
        tired = {tenant for tenant, looks in self._looks.items() if looks >= self._looks_max}
        first_max = min(FIRST_MAX, self._looks_max // 4)
        if work.later:
            for key in list(work.later):
                band = work.bands.get(key)
                if band is not None and key[0] not in tired and not band.heads:
                    self._aside += [(key, entry) for entry in band.later]
                    band.later = []
                if band is None or not band.later:
                    work.later.pop(key, None)
        first: dict[TenantName, int] = {}
        for key, entry in self._aside:
            if not is_head(work, entry):
                continue
            band, tenant = work.bands[key], key[0]
            if tenant in tired and first.get(tenant, 0) >= first_max:
                band.later.append(entry)
                work.later[key] = None
            else:
                first[tenant] = first.get(tenant, 0) + 1
                heappush(band.heads, entry)
        return bool(work.later)

    def _put_anew(self, key: BandKey) -> None:
        """The band whose turn came stands where it stands now, or nowhere."""
        band = self._state.work.bands.get(key)
        turn = self._turn(key, band) if band is not None else None
        if turn is None:
            heappop(self._turns)
        else:
            heapreplace(self._turns, turn)

    def _turn(self, key: BandKey, band: Band) -> Turn | None:
        """None: nobody of this band is left in this Place."""
        first = first_place(self._state.work, band)
        if first is None:
            return None
        aged = age_of(band, self._state.now_ms, self._policy)
        return -effective(key[1], aged, self._top), self._stands(key[0]), -aged, first, key

    def _stands(self, tenant: TenantName) -> Standing:
        if self._standings is None:
            return ALONE
        found = self._standing.get(tenant)
        if found is None:
            found = self._standing[tenant] = self._standings.of(tenant)
        return found


def top_of(work: Work) -> int:
    """The highest priority that somebody waits at. O(bands)."""
    return max((priority for _, priority in work.bands), default=0)


def age_of(band: Band, now_ms: Ms, policy: Policy) -> int:
    """How many priorities higher it counts for what it has waited."""
    return (now_ms - band.since_ms) // policy.aging_ms if band.since_ms is not None else 0


def effective(priority: int, aged: int, top: int) -> int:
    """The priority of a band with what it has aged: up to that of the highest, and beyond it only where it got nothing
    for very long."""
    return priority + aged if aged >= LEVELLED else min(priority + aged, max(priority, top))


def first_place(work: Work, band: Band) -> Place | None:
    """Who stands first in this band; heads of lines that are others now are dropped on the way."""
    while band.heads:
        place, entry, want = band.heads[0]
        line = work.queue.get(want)
        if line is not None and line.entry == entry:
            now = head(work, want)
            if now == place:
                return place
            line.entry, line.first = 0, None
            heappop(band.heads)
            if now is not None:
                put_head(work, now, want)
        else:
            heappop(band.heads)
    return None


def age(state: ClusterState) -> None:
    """Bands that nobody but their own tenant or a new provider can help do not age. O(lines); every few seconds."""
    work = state.work
    for band in work.bands.values():
        if all(work.queue[want].held_by.startswith(HELD) for want in band.wants):
            band.since_ms = state.now_ms
