"""Where a task is not to go again, as its verdicts say: first not at all, then less and less reluctantly."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.ids import Ms, ProviderId
from coordinator.core.policy import Policy
from coordinator.core.verdict.rows import AVOID_MAX, Avoided

GRAINS = 36
"""Of `Policy.avoid_ms`: ten minutes of six hours."""
FADED = 4
"""After so many further halvings an avoided provider is one like all others."""

Shunned = tuple[tuple[ProviderId, Ms], ...]
"""Providers, and until when each is not taken at all."""


def with_avoided(
    avoid: tuple[Avoided, ...], providers: tuple[ProviderId, ...], why: str, now_ms: Ms, policy: Policy
) -> tuple[Avoided, ...]:
    """These providers as well, from now; those that have faded are left out."""
    kept = [
        one for one in avoid if one.provider_id not in providers and weight(one.until_ms, now_ms, policy.avoid_ms) > 0.0
    ]
    grain_ms = _grain_ms(policy)
    until_ms = -(-(now_ms + policy.avoid_ms) // grain_ms) * grain_ms
    more = [Avoided(provider_id=who, at_ms=now_ms, until_ms=until_ms, why=why) for who in providers]
    return (*kept, *more)[-AVOID_MAX:]


def _grain_ms(policy: Policy) -> Ms:
    """Times are rounded to it: tasks that leave a provider together want the same, and are one line of the queue. No
    ranking looks back so far."""
    return max(policy.avoid_ms // GRAINS, policy.rank_every_ms, 1)


def lifted(one: Avoided, policy: Policy) -> Avoided:
    """It may be placed there again, if nowhere better."""
    grain_ms = _grain_ms(policy)
    return replace(one, until_ms=(one.at_ms // grain_ms - 1) * grain_ms)


def hard_ones(avoid: tuple[Avoided, ...], now_ms: Ms) -> list[Avoided]:
    """Those where it is not placed at all, oldest first."""
    return [one for one in avoid if one.until_ms > now_ms]


def shunned(avoid: tuple[Avoided, ...]) -> Shunned:
    """The same as a shape has it."""
    return tuple(sorted((one.provider_id, one.until_ms) for one in avoid))


def is_shunned(away: Shunned, provider_id: ProviderId, at_ms: Ms) -> bool:
    """Whether a task with these is not placed there at all."""
    return any(who == provider_id and at_ms < until_ms for who, until_ms in away)


def weight(until_ms: Ms, at_ms: Ms, half_ms: Ms) -> float:
    """1: not at all; from then on a half, halving; 0: faded."""
    if at_ms < until_ms:
        return 1.0
    halvings = (at_ms - until_ms) / max(half_ms, 1)
    return 0.5 ** (1.0 + halvings) if halvings < FADED else 0.0
