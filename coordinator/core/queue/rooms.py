"""Room for an ask: which providers have it now, how well the ask fits there, and who else may be placed there.

None of that hangs on who asks or for how long it runs: it is worked out once for all shapes that ask for the same, and
again for a provider when that has changed.
"""

from __future__ import annotations

from coordinator.core.amounts import Ask
from coordinator.core.ids import ProviderId, TenantName
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import NOTHING, fits
from coordinator.core.queue.feasible import is_crowded
from coordinator.core.queue.ranking import unfit
from coordinator.core.state import ClusterState, Provider
from coordinator.core.work.jobspec import Arrangement, Isolation

NOBODY = TenantName("\0")
"""Whose a provider without isolation is that serves several tenants: none of them gets more there."""
ANYBODY = TenantName("")

Home = tuple[TenantName, int]
"""The one tenant that a provider is bound to or nobody (empty); the number of the plan that it is kept for, or 0."""
Room = tuple[float, Home]
"""How badly an ask fits somewhere, and whose that place is."""


class Rooms:
    """Of one ask, arranged in one way. Only for as long as the log of Work has every change of a provider."""

    def __init__(self, ask: Ask, arrangement: Arrangement) -> None:
        self._ask, self._arrangement = ask, arrangement
        self.known: dict[ProviderId, tuple[int, Room | None]] = {}
        """What was found when the provider had changed last at that number of `Work.moves`."""

    def at(self, state: ClusterState, provider: Provider, policy: Policy) -> Room | None:
        """None: there is none."""
        who = provider.row.provider_id
        moved = state.work.moved.get(who, 0)
        known = self.known.get(who)
        if known is not None and known[0] == moved:
            return known[1]
        room = room_at(state, provider, self._ask, self._arrangement, policy)
        self.known[who] = moved, room
        return room

    def forget(self, who: ProviderId) -> None:
        """This provider is not enrolled any more."""
        self.known.pop(who, None)


def room_at(state: ClusterState, provider: Provider, ask: Ask, arrangement: Arrangement, policy: Policy) -> Room | None:
    """What `Rooms.at` finds, worked out."""
    who, work = provider.row.provider_id, state.work
    load, bound = work.loads.get(who, NOTHING), ANYBODY
    if not fits(provider.offer, load, ask):
        return None
    if load.attempts:
        if is_crowded(load, policy):
            return None
        if provider.row.promises.isolation is Isolation.NONE:
            holders = tuple(load.attempts.values())  # a hundred of one tenant, mostly: quicker than as a set
            bound = holders[0] if holders.count(holders[0]) == len(holders) else NOBODY
    return unfit(provider.offer, load, ask, arrangement), (bound, work.planned.get(who, 0))


def rooms_of(state: ClusterState, ask: Ask, arrangement: Arrangement) -> Rooms:
    """The one for all shapes that ask for this."""
    found = state.work.rooms.get((ask, arrangement))
    if found is None:
        found = state.work.rooms[ask, arrangement] = Rooms(ask, arrangement)
    return found


def drop_unused(state: ClusterState) -> None:
    """Those that no shape asks for that is kept. O(shapes)."""
    work = state.work
    used = {(ask, shape.arrangement) for shape in work.candidates for ask in shape.asks}
    work.rooms = {key: rooms for key, rooms in work.rooms.items() if key in used}
