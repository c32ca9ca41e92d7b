"""Which providers could take a task: one constraint after the other, so that each can be named."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.fleet.forecast import curve_of, stays_on
from coordinator.core.ids import Ms, ProviderId, TenantName
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import NOTHING, fits, lacks, serves
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState, Provider
from coordinator.core.verdict.avoiding import is_shunned
from coordinator.core.work.jobspec import Isolation
from coordinator.core.work.live import Load, Shape, Step, Want

LEVELS = (Isolation.NONE, Isolation.UID, Isolation.SANDBOX)
"""Each includes those before it."""
_level = LEVELS.index


def as_enrolled(provider: Provider, shape: Shape) -> Iterator[str]:
    """Constraints that it does not meet and that no waiting would change."""
    row = provider.row
    if not row.promises.work and row.last_seen_ms is not None:
        yield "work"
    if shape.data and not row.promises.data and row.last_seen_ms is not None:
        yield "data"
    if shape.fetches and 0 < row.promises.disk_bytes < shape.fetches:
        yield "disk"
    if shape.pools and row.pool not in shape.pools:
        yield "pool"
    for name, value in shape.labels:
        if row.labels.get(name) != value:
            yield "labels"
            break
    if shape.isolation is not Isolation.NONE and _level(row.promises.isolation) < _level(shape.isolation):
        yield "isolation"
    if row.provider_id in shape.avoid:
        yield "elsewhere"
    offer = provider.offer
    for ask in shape.asks:
        if fits(offer, NOTHING, ask):
            return
    yield from lacks(offer, NOTHING, shape.asks[0])


def as_it_stands(state: ClusterState, provider: Provider, want: Want, policy: Policy) -> Iterator[str]:
    """Constraints that it does not meet now, and may meet later; but for free capacity and the plans of others."""
    yield from out_of_reach(state, provider, want.shape, policy)
    load = state.work.loads.get(provider.row.provider_id)
    if load is not None:
        if bound_to_others(provider, load, want.tenant):
            yield "tenant"
        yield from crowded(load, policy)


def out_of_reach(
    state: ClusterState, provider: Provider, shape: Shape, policy: Policy, at_ms: Ms | None = None
) -> Iterator[str]:
    """Those of the constraints as it stands that no placement changes. Forecasts are as of `at_ms`, or of now."""
    row = provider.row
    if provider.phase is not Liveness.ONLINE:
        yield "online"
    if row.drained_at_ms is not None:
        yield "drained"
    if row.quarantined_until_ms is not None:
        yield "quarantined"
    if shape.shunned and is_shunned(shape.shunned, row.provider_id, state.now_ms if at_ms is None else at_ms):
        yield "avoided"
    if shape.min_score is not None and score(state, row.provider_id) < shape.min_score:
        yield "min_score"
    if shape.min_forecast is not None:
        curve = curve_of(state, provider, policy, at_ms)
        if curve is None or stays_on(curve, shape.run_ms).probability < shape.min_forecast:
            yield "min_forecast"


def bound_to_others(provider: Provider, load: Load, tenant: TenantName) -> bool:
    """Without isolation a provider serves one tenant at a time."""
    return provider.row.promises.isolation is Isolation.NONE and not serves(load, tenant)


def crowded(load: Load, policy: Policy) -> Iterator[str]:
    """Those of the constraints as it stands that a placement changes, for whoever comes."""
    if len(load.attempts) >= policy.attempts_per_provider_max:
        yield "attempts"
    if load.behind:
        yield "lined_up"


def is_crowded(load: Load, policy: Policy) -> bool:
    """Whether there is any of these."""
    return bool(load.behind) or len(load.attempts) >= policy.attempts_per_provider_max


def score(state: ClusterState, provider_id: ProviderId) -> float:
    """The liveness score that analytics published; 0 while none is known."""
    figures = state.figures.by_provider.get(provider_id) if state.figures is not None else None
    return figures.score if figures is not None else 0.0


CONNECTED = frozenset({Liveness.ONLINE})
EXPECTED = frozenset({Liveness.ONLINE, Liveness.SUSPECT, Liveness.AWAITED})
"""There, or not known to be gone."""


def could_ever(
    state: ClusterState,
    step: Step,
    policy: Policy,
    avoid: tuple[ProviderId, ...],
    phases: frozenset[Liveness] = CONNECTED,
    *,
    quarantined: bool = True,
) -> bool:
    """Whether providers in one of these `phases` other than `avoid`, as many as it has nodes, could run a task of this
    step, with nothing else on them. `quarantined`: those that are quarantined count as well, they will be back."""
    able = 0
    for provider in state.providers.values():
        if provider.row.provider_id in avoid or provider.phase not in phases:
            continue
        if provider.row.quarantined_until_ms is not None and not quarantined:
            continue
        if provider.row.drained_at_ms is None and not any(as_enrolled(provider, step.want.shape)):
            able += 1
            if able >= step.spec.nodes:
                return True
    return False
