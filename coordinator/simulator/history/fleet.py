"""A fleet as it was: who was there from when to when, and what each machine offers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, PoolName, ProviderId
from coordinator.core.rows import EndReason, Resources

GAP_MS: Ms = 30_000
"""A shorter absence than this ends no stay: work survives it."""
OURS_GAP_MS: Ms = 3_600_000
"""Nor does one that the coordinator itself made, while it was away or took a second connection for the first."""
OURS = frozenset({EndReason.COORDINATOR_RESTART, EndReason.SUPERSEDED})
NODES_MAX = 100_000


class Session(Struct, frozen=True, gc=False, kw_only=True):
    """One connection, as `coord import sessions` takes it."""

    provider_id: ProviderId
    began_ms: Ms
    ended_ms: Ms | None
    reason: EndReason | None = None


class Stay(Struct, frozen=True, gc=False, kw_only=True, order=True):
    """A time in which work on this machine survives. `ended_ms` None: to the end of what is known."""

    began_ms: Ms
    provider_id: ProviderId
    ended_ms: Ms | None = None


class Machine(Struct, frozen=True, gc=False, kw_only=True):
    """What it offers while it is there."""

    resources: Resources
    pool: PoolName = PoolName("default")


class Fleet(Struct, frozen=True, kw_only=True):
    """`stays` in the order in which they begin. `from_ms` to `to_ms` is what is known."""

    stays: tuple[Stay, ...]
    machines: dict[ProviderId, Machine]
    from_ms: Ms
    to_ms: Ms | None = None
    """None: it goes on as it is; a fleet of nodes that never leave."""

    def capacity(self, from_ms: Ms, to_ms: Ms) -> tuple[float, float]:
        """Hours of CPUs and of GPUs that were there between the two moments. O(stays)."""
        cpus = gpus = 0.0
        for stay in self.stays:
            end = to_ms if stay.ended_ms is None else min(stay.ended_ms, to_ms)
            hours = max(0, end - max(stay.began_ms, from_ms)) / 3_600_000
            offered = self.machines[stay.provider_id].resources
            cpus += hours * offered.cpus
            gpus += hours * len(offered.gpus)
        return cpus, gpus

    def usual_cpus(self) -> float:
        """CPUs of the machine in the middle: what a job's processors are cut into nodes by."""
        sizes = sorted(machine.resources.cpus for machine in self.machines.values())
        return sizes[len(sizes) // 2]


def stays_of(sessions: Iterable[Session]) -> tuple[Stay, ...]:
    """What people care about: sessions of one provider, joined where the next begins before work would be lost."""
    found: list[Stay] = []
    current: Session | None = None
    for session in sorted(sessions, key=lambda s: (s.provider_id, s.began_ms)):
        if current is not None and current.provider_id == session.provider_id and _goes_on(current, session):
            late = _later(current, session)
            current = Session(
                provider_id=current.provider_id, began_ms=current.began_ms, ended_ms=late.ended_ms, reason=late.reason
            )
            continue
        if current is not None:
            found.append(_stay(current))
        current = session
    if current is not None:
        found.append(_stay(current))
    return tuple(sorted(found))


def _stay(session: Session) -> Stay:
    return Stay(provider_id=session.provider_id, began_ms=session.began_ms, ended_ms=session.ended_ms)


def _goes_on(before: Session, after: Session) -> bool:
    if before.ended_ms is None:
        return True
    gap_ms = OURS_GAP_MS if before.reason in OURS else GAP_MS
    return after.began_ms - before.ended_ms < gap_ms


def _later(a: Session, b: Session) -> Session:
    if a.ended_ms is None or b.ended_ms is None:
        return a if a.ended_ms is None else b
    return b if b.ended_ms >= a.ended_ms else a


def of_sessions(sessions: Sequence[Session], resources: Resources) -> Fleet:
    """A fleet of equal machines that came and went as their sessions tell. Raises CoordError on an empty history."""
    if not sessions:
        raise CoordError(Code.BAD_REQUEST, "the fleet's history has no sessions", "name a file with some")
    ends = [session.ended_ms for session in sessions if session.ended_ms is not None]
    return Fleet(
        stays=stays_of(sessions),
        machines={session.provider_id: Machine(resources=resources) for session in sessions},
        from_ms=min(session.began_ms for session in sessions),
        to_ms=max([*ends, *(session.began_ms for session in sessions)]),
    )


def of_nodes(machines: dict[ProviderId, Machine], from_ms: Ms = 0) -> Fleet:
    """Nodes that are all there and never leave."""
    stays = tuple(Stay(began_ms=from_ms, provider_id=name) for name in machines)
    return Fleet(stays=stays, machines=machines, from_ms=from_ms)


_ALIKE = re.compile(r"([0-9]+)x([0-9]+)(?:x([0-9]+))?")


def alike(text: str) -> Fleet | None:
    """`128x8`: 128 nodes of 8 CPUs; `16x32x4`: 16 of 32 CPUs and 4 GPUs; None when `text` is not of that form."""
    found = _ALIKE.fullmatch(text)
    if found is None:
        return None
    nodes, cpus, gpus = int(found[1]), int(found[2]), int(found[3] or 0)
    if not 0 < nodes <= NODES_MAX or not 0 < cpus <= 4_096 or gpus > 64:
        hint = f"1 to {NODES_MAX} nodes of 1 to 4096 CPUs and at most 64 GPUs"
        raise CoordError(Code.BAD_REQUEST, f"{text} is no fleet that can be made", hint)
    wide = math.ceil(math.log10(nodes + 1))
    resources = Resources(cpus=float(cpus), memory_gb=float(4 * cpus), gpus=("gpu",) * gpus)
    return of_nodes({ProviderId(f"node-{n:0{wide}d}"): Machine(resources=resources) for n in range(nodes)})
