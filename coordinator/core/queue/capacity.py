"""What a provider offers, what is held of it, and which share of it a rank would get. Exact: whole numbers alone."""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.ids import AttemptId, ProviderId, TenantName
from coordinator.core.queue.fair_share import settle
from coordinator.core.rows import Resources
from coordinator.core.work.live import Load, Work

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


def fits(offer: Offer, load: Load, ask: Ask) -> bool:
    """Whether `share_of` finds one: the same, where no more is wanted."""
    if load.cpus + ask.cpus > offer.cpus or (ask.memory and load.memory + ask.memory > offer.memory):
        return False
    return not (ask.gpus or ask.named) or share_of(offer, load, ask) is not None


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
    add_share(load, share, 1)


def line_up(
    work: Work, provider_id: ProviderId, attempt_id: AttemptId, rank: int, share: Share, tenant: TenantName
) -> None:
    """From now on this rank stands behind those that hold something there. Its token is above all of theirs in line."""
    load = work.load_of(provider_id)
    assert (attempt_id, rank) not in load.attempts, f"{attempt_id} stands in line at {provider_id} twice"
    load.attempts[attempt_id, rank] = tenant
    load.behind[attempt_id, rank] = share
    lined_up(work, tenant, share, 1)


def promote(work: Work, provider_id: ProviderId, offer: Offer) -> None:
    """Those in line hold their shares from now on, one after the other, as far as they fit. O(those).

    Which ones do follows from the rows alone: it is not written.
    """
    load = work.loads.get(provider_id)
    if load is None or not load.behind:
        return
    freed = work.freed.get(provider_id)
    while load.behind:
        (attempt_id, rank), share = next(iter(load.behind.items()))
        if not fits(offer, load, share.ask):
            return
        _begin_turn(work, provider_id, load, (attempt_id, rank), share)
        if freed is not None:
            work.attempts[attempt_id].turned_by = freed[1]


def take_turn(work: Work, provider_id: ProviderId, attempt_id: AttemptId, rank: int, offer: Offer) -> bool:
    """This one holds its share from now on, if there is room. True also when it did already."""
    load = work.loads[provider_id]
    share = load.behind.get((attempt_id, rank))
    if share is None:
        return True
    if share_of(offer, load, share.ask) is None:
        return False
    _begin_turn(work, provider_id, load, (attempt_id, rank), share)
    return True


def _begin_turn(work: Work, provider_id: ProviderId, load: Load, key: tuple[AttemptId, int], share: Share) -> None:
    """There is room for it: it stands in line no more."""
    del load.behind[key]
    work.move(provider_id)
    lined_up(work, load.attempts[key], share, -1)
    add_share(load, share, 1)


def release(work: Work, provider_id: ProviderId, attempt_id: AttemptId, rank: int, share: Share) -> None:
    """Nothing of this rank holds anything there any more. `promote` follows."""
    load = work.loads[provider_id]
    tenant = load.attempts.pop((attempt_id, rank))
    if load.behind.pop((attempt_id, rank), None) is not None:
        lined_up(work, tenant, share, -1)
    else:
        add_share(load, share, -1)
    work.drop_empty_load(provider_id)
    work.better(provider_id)


def count_behind(work: Work) -> None:
    """Count anew what those in line will hold. O(those)."""
    work.behind.clear()
    for load in work.loads.values():
        for key, share in load.behind.items():
            lined_up(work, load.attempts[key], share, 1)


def lined_up(work: Work, tenant: TenantName, share: Share, count: int) -> None:
    """So many more of a tenant stand in line for `share` each, or fewer where it is below 0."""
    settle(work.accounts, work.accounts.of(tenant))
    cpus, memory = work.behind.get(tenant, (0, 0))
    cpus, memory = cpus + count * share.ask.cpus, memory + count * share.ask.memory
    if cpus or memory:
        work.behind[tenant] = cpus, memory
    else:
        work.behind.pop(tenant, None)


def add_share(load: Load, share: Share, sign: int) -> None:
    """Count a share in, out again with `sign` -1, or in so many times."""
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
    return {tenant}.issuperset(load.attempts.values())
