"""Ranking: how good a provider is for a run of some length, the smallest first, and which terms that is made of.

The work that is expected to be lost there with the provider, as a share of the run, together with how badly it fits. A
pure function of the state, the shape and a moment: who keeps it gets what who makes it anew gets.
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache

from msgspec import Struct

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.data.caches import to_fetch
from coordinator.core.data.saving import young_ms
from coordinator.core.fleet.forecast import Curves, curve_of, expected_loss, stays_on, survival_at
from coordinator.core.ids import Ms, ProviderId
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import Offer
from coordinator.core.queue.feasible import score
from coordinator.core.state import ClusterState, Provider
from coordinator.core.verdict.avoiding import weight
from coordinator.core.verdict.suspicion import suspicion
from coordinator.core.work.jobspec import Arrangement
from coordinator.core.work.live import Load, Shape

STAYS_MIN = 1e-6
"""Nobody is taken to leave with more certainty than this."""
SURE = 0.05
"""The hazard over a shorter time counts as so much of that over `rank_ahead_ms` at least: nobody having left so soon
proves nothing."""
SOONEST_MS: Ms = 3_600_000
"""Forecasts are made from an hour on: over less they say nothing more."""
GPU_WEIGHT, CPU_WEIGHT, MEMORY_WEIGHT = 4, 2, 1
"""What is left idle of each: free GPUs are kept for those who need them."""


class Terms(Struct, frozen=True, gc=False):
    """What is known of a provider for runs of one length, whatever it holds."""

    term: float
    """What it is ranked by before its fit."""
    loss_ms: Ms
    forecast: float
    basis: str
    fetch: int = 0
    """Bytes of its inputs that are not in the provider's cache."""


def terms_of(state: ClusterState, provider: Provider, shape: Shape, at_ms: Ms, policy: Policy) -> Terms:
    """Of a connected provider, as of `at_ms`."""
    curve = curve_of(state, provider, policy, at_ms)
    assert curve is not None, f"{provider.row.provider_id} is not connected"
    stays = stays_on(curve, shape.run_ms)
    stake_ms = at_stake_ms(curve, shape, policy)
    if stake_ms < shape.run_ms:
        loss_ms = (1.0 - stays.probability) * stake_ms / 2
    else:
        loss_ms = expected_loss(curve, shape.run_ms)
    fails_ms = mistrust(state, provider.row.provider_id, shape, at_ms, policy) * stake_ms / 2
    loss_ms += fails_ms
    fetch = to_fetch(provider.cached, shape.inputs) if shape.inputs else 0
    match policy.rank:
        case "forecast":
            fetch_ms = fetch * 1_000 / policy.stage_bytes_per_s
            term = risk(curve, shape.run_ms, stake_ms, policy) + (fetch_ms + fails_ms) / shape.run_ms
        case "score":
            term = 1.0 - score(state, provider.row.provider_id)
        case _:
            term = 0.0
    return Terms(term, round(loss_ms), stays.probability, stays.basis, fetch)


def mistrust(state: ClusterState, provider_id: ProviderId, shape: Shape, at_ms: Ms, policy: Policy) -> float:
    """The probability that a run fails there by the provider's fault while it stays: what verdicts of all jobs say of
    it, and what those of this very task do."""
    suspicions = state.work.suspicions.get(provider_id)
    works = 1.0 - suspicion(suspicions, at_ms, policy) if suspicions is not None else 1.0
    for who, until_ms in shape.shunned:
        if who == provider_id:
            works *= 1.0 - weight(until_ms, at_ms, policy.avoid_ms)
    return 1.0 - works


def hazard_of(curve: Curves, run_ms: Ms, policy: Policy) -> float:
    """Losses a millisecond: the mean over the run, or over `rank_ahead_ms` if that is longer."""
    ahead_ms = max(run_ms, policy.rank_ahead_ms)
    return -math.log(max(stays_on(curve, ahead_ms).probability, STAYS_MIN)) / ahead_ms


@lru_cache(maxsize=4_096)
def looks(run_ms: Ms, ahead_ms: Ms) -> tuple[tuple[tuple[Ms, float], ...], float]:
    """How far ahead a run that is shorter than `ahead_ms` is looked: over itself, twice, four times as long and so on.
    Each with its weight, the inverse of its length, and the weight of `ahead_ms`; they sum up to 1."""
    times: list[Ms] = []
    ahead = max(run_ms, SOONEST_MS)
    while ahead < ahead_ms:
        times.append(ahead)
        ahead *= 2
    weights = [1.0 / time for time in (*times, ahead_ms)]
    shares = [weight / sum(weights) for weight in weights]
    return tuple(zip(times, shares, strict=False)), shares[-1]


def ranked_hazard(curve: Curves, run_ms: Ms, policy: Policy) -> float:
    """Losses a millisecond as providers are ranked by them: the weighted geometric mean of those over the times of
    `looks`, so that twice as good in one makes up for half as good in another of equal weight.

    Who stays for long also stays for an hour, and in a fleet that stays for weeks forecasts for an hour tell hardly
    anybody apart; where everybody leaves by night, those for two days do not. By either alone some fleet is placed
    badly, and by several less hangs on the error of each (docs/explanation/placement.md).
    """
    hazard = hazard_of(curve, run_ms, policy)
    if run_ms >= policy.rank_ahead_ms or not curve.at_ms:
        return hazard
    at_ms, p, from_ms = curve.at_ms, curve.p, curve.from_ms
    now = survival_at(at_ms, p, from_ms)
    if now <= 0.0:
        return hazard
    times, last = looks(run_ms, policy.rank_ahead_ms)
    least = SURE * hazard
    mean: float = hazard**last
    for time_ms, share in times:
        stays = survival_at(at_ms, p, from_ms + time_ms) / now
        mean *= max(-math.log(max(stays, STAYS_MIN)) / time_ms, least) ** share
    return mean


def at_stake_ms(curve: Curves, shape: Shape, policy: Policy) -> Ms:
    """How much of a run a loss can take: all of it, or what was done since a checkpoint."""
    if shape.saves_ms is None:
        return shape.run_ms
    if shape.saves_ms:
        return min(shape.run_ms, shape.saves_ms)
    hazard = hazard_of(curve, shape.run_ms, policy)
    return min(shape.run_ms, young_ms(policy.checkpoint_first_cost_ms, hazard, policy))


def risk(curve: Curves, run_ms: Ms, stake_ms: Ms, policy: Policy) -> float:
    """The share of a run that is expected to be lost there: hazard x run / 2, the loss coming halfway. Of a run that
    saves its state each loss takes half of `stake_ms` instead of half of the run.

    The exact `expected_loss` is not what to choose by: it is small again where a run dies at once, and has to be begun
    anew.
    """
    return ranked_hazard(curve, run_ms, policy) * stake_ms / 2


def left_idle(offer: Offer, load: Load, ask: Ask) -> float:
    """How much of what the provider offers stays free behind `ask`, 0..1."""
    idle = weights = 0.0
    if offer.gpus:
        idle += GPU_WEIGHT * (1.0 - (sum(load.gpus) + ask.gpus) / (offer.gpus * UNIT))
        weights += GPU_WEIGHT
    if offer.cpus:
        idle += CPU_WEIGHT * (1.0 - (load.cpus + ask.cpus) / offer.cpus)
        weights += CPU_WEIGHT
    if offer.memory:
        idle += MEMORY_WEIGHT * (1.0 - (load.memory + ask.memory) / offer.memory)
        weights += MEMORY_WEIGHT
    return idle / (GPU_WEIGHT + CPU_WEIGHT + MEMORY_WEIGHT) if weights else 0.0


def unfit(offer: Offer, load: Load, ask: Ask, arrangement: Arrangement) -> float:
    """0: the best fit. To pack is to leave little idle, to spread is to leave much."""
    idle = left_idle(offer, load, ask)
    return idle if arrangement is Arrangement.PACK else 1.0 - idle


def unfits(offer: Offer, load: Load, ask: Ask, arrangement: Arrangement, count: int) -> list[float]:
    """`unfit` of each of so many of `ask` that are placed there one after the other; of one if it asks for GPUs."""
    gpus = GPU_WEIGHT * (1.0 - (sum(load.gpus) + ask.gpus) / (offer.gpus * UNIT)) if offer.gpus else 0.0
    idle = []
    for number in range(1, count + 1):
        left = gpus
        if offer.cpus:
            left += CPU_WEIGHT * (1.0 - (load.cpus + number * ask.cpus) / offer.cpus)
        if offer.memory:
            left += MEMORY_WEIGHT * (1.0 - (load.memory + number * ask.memory) / offer.memory)
        idle.append(left / (GPU_WEIGHT + CPU_WEIGHT + MEMORY_WEIGHT))
    return idle if arrangement is Arrangement.PACK else [1.0 - share for share in idle]


def fit_weight(policy: Policy) -> float:
    """Beside a score it tells equal ones apart."""
    return {"forecast": policy.rank_fit_weight, "fit": 1.0, "score": 1e-6}.get(policy.rank, 0.0)


def dice(provider_id: ProviderId, number: int) -> int:
    """For `random`: another order for each number, the same at each replay."""
    return zlib.crc32(f"{provider_id}/{number}".encode())
