"""What a provider offers, what is held of it, and which share of it a rank would get. Exact: whole numbers alone."""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.ids import AttemptId, ProviderId, TenantName
from coordinator.core.rows import Resources
from coordinator.core.work import Load, Work

GB = 1_000_000_000
NOTHING = Load()
"""Of a provider that holds nothing. Never changed."""


class Offer(Struct, frozen=True, gc=False, kw_only=True):
    """What a provider offers, in the units of Ask."""

    cpus: int
    memory: int
    gpus: int
    """How many."""
    named: dict[str, int]


def offer_of(resources: Resources) -> Offer:
    return Offer(
        cpus=round(resources.cpus * UNIT),
        memory=round(resources.memory_gb * GB),
        gpus=len(resources.gpus),
        named={name: round(amount * UNIT) for name, amount in resources.named.items()},
    )


def lacks(offer: Offer, load: Load, ask: Ask) -> list[str]:
    """What is missing for `ask` with `load` held: `cpus`, `memory`, `gpus`, `named:NAME`; nothing when it fits."""
    found = []
    if load.cpus + ask.cpus > offer.cpus:
        found.append("cpus")
    if load.memory + ask.memory > offer.memory and ask.memory:
        found.append("memory")
    if ask.gpus and gpus_for(offer, load, ask.gpus) is None:
        found.append("gpus")
    for name, amount in ask.named:
        if load.named.get(name, 0) + amount > offer.named.get(name, 0):
            found.append(f"named:{name}")
    return found


def share_of(offer: Offer, load: Load, ask: Ask) -> Share | None:
    """The share that a rank asking for `ask` would hold; None when it does not fit."""
    if load.cpus + ask.cpus > offer.cpus or (ask.memory and load.memory + ask.memory > offer.memory):
        return None
    for name, amount in ask.named:
        if load.named.get(name, 0) + amount > offer.named.get(name, 0):
            return None
    if not ask.gpus:
        return Share(ask=ask)
    gpus = gpus_for(offer, load, ask.gpus)
    return Share(ask=ask, gpus=gpus) if gpus is not None else None


def gpus_for(offer: Offer, load: Load, amount: int) -> tuple[tuple[int, int], ...] | None:
    """Which GPUs: whole ones that nobody uses, and the part on the fullest one that has room for it.

    A part goes to a GPU that is shared already before it breaks a free one: free ones serve those who need them whole.
    """
    whole, part = divmod(amount, UNIT)
    held = [load.gpus[index] if index < len(load.gpus) else 0 for index in range(offer.gpus)]
    chosen: list[tuple[int, int]] = []
    if part:
        room = [(-used, index) for index, used in enumerate(held) if used + part <= UNIT]
        if not room:
            return None
        _, index = min(room)
        chosen.append((index, part))
        held[index] += part
    free = [index for index, used in enumerate(held) if not used]
    if len(free) < whole:
        return None
    chosen.extend((index, UNIT) for index in free[:whole])
    return tuple(sorted(chosen))


def left_over(offer: Offer, load: Load, ask: Ask) -> tuple[int, int, int]:
    """What stays free behind `ask`: GPUs, CPUs, memory. The smaller, the better the fit: GPUs are the dearest."""
    return (
        offer.gpus * UNIT - sum(load.gpus) - ask.gpus,
        offer.cpus - load.cpus - ask.cpus,
        offer.memory - load.memory - ask.memory,
    )


def hold(
    work: Work, provider_id: ProviderId, attempt_id: AttemptId, rank: int, share: Share, tenant: TenantName
) -> None:
    """From now on this rank holds its share."""
    load = work.load_of(provider_id)
    assert (attempt_id, rank) not in load.attempts, f"{attempt_id} holds its share of {provider_id} twice"
    load.attempts[attempt_id, rank] = tenant
    _add(load, share, 1)


def release(work: Work, provider_id: ProviderId, attempt_id: AttemptId, rank: int, share: Share) -> None:
    """Nothing of this rank holds anything there any more."""
    load = work.loads[provider_id]
    del load.attempts[attempt_id, rank]
    _add(load, share, -1)
    work.drop_empty_load(provider_id)
    work.better(provider_id)


def _add(load: Load, share: Share, sign: int) -> None:
    load.cpus += sign * share.ask.cpus
    load.memory += sign * share.ask.memory
    for index, amount in share.gpus:
        while len(load.gpus) <= index:
            load.gpus.append(0)
        load.gpus[index] += sign * amount
    for name, amount in share.ask.named:
        load.named[name] = load.named.get(name, 0) + sign * amount


def serves(load: Load, tenant: TenantName) -> bool:
    """Whether everything that is held there is this tenant's."""
    return all(holder == tenant for holder in load.attempts.values())
