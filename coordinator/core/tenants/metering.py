"""Metering: what running costs, to the millionth, and when. Exact: whole numbers alone.

A rate is what an hour costs, times SCALE per millisecond and unit: rate x milliseconds / SCALE is money. One charge is
rounded up, once. What runs at a price is two sums for each tenant, so that what it has accrued at any moment is O(1);
those that have accrued more than was reserved for them are two more.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from coordinator.core.amounts import Ask, Price
from coordinator.core.ids import AttemptId, Ms, TenantName
from coordinator.core.rows import AttemptRow
from coordinator.core.tenants.account import FREE, Account, Accounts, Meter

SCALE = 1_000_000_000 * 3_600_000
"""10^9 bytes, and milliseconds of an hour."""
TOLD_MAX = 4 * 10**18
"""No sum that is told or stored is larger, whatever prices and agents say: it fits into 64 bits."""
OUTDATED_MAX = 64
"""Crossings of those that ended that an account may remember beyond as many as run."""


def rate_of(ask: Ask, price: Price) -> int:
    """What one rank with this ask costs at this price: SCALE-ths of a millionth for each millisecond."""
    if price == FREE:
        return 0
    return (ask.cpus * price.cpu + ask.gpus * price.gpu) * 1_000 + ask.memory * price.memory


def charge(rate: int, ran_ms: Ms) -> int:
    """Millionths for so long at this rate, rounded up."""
    return -(-rate * ran_ms // SCALE)


# ---- what runs


def start(accounts: Accounts, tenant: TenantName, row: AttemptRow, cover: int) -> None:
    """It runs, from the moment that its row says or until which it was charged. `cover` is reserved for its task.
    Nothing for what costs nothing."""
    began_ms = row.metered_ms if row.metered_ms is not None else row.started_at_ms
    rates = {n: rate_of(rank.share.ask, rank.price) for n, rank in enumerate(row.ranks) if rank.exit is None}
    rate = sum(rates.values())
    if not rate or began_ms is None:
        return
    account = accounts.of(tenant)
    meter = Meter(rates=rates, rate=0, since_ms=began_ms, cover=cover)
    account.meters[row.attempt_id] = meter
    _turn(account, row.attempt_id, meter, rate)
    accounts.changed(account)


def stop_rank(accounts: Accounts, tenant: TenantName, attempt_id: AttemptId, rank: int) -> None:
    """This rank of it accrues nothing any more: it was charged."""
    account = accounts.of(tenant)
    meter = account.meters.get(attempt_id)
    rate = meter.rates.pop(rank, 0) if meter is not None else 0
    if meter is not None and rate:
        _turn(account, attempt_id, meter, meter.rate - rate)
        accounts.changed(account)
    if meter is not None and not meter.rate:
        del account.meters[attempt_id]


def stop(accounts: Accounts, tenant: TenantName, attempt_id: AttemptId) -> None:
    """All that is left of it accrues nothing any more."""
    account = accounts.by_tenant.get(tenant)
    meter = account.meters.get(attempt_id) if account is not None else None
    for rank in list(meter.rates) if meter is not None else ():
        stop_rank(accounts, tenant, attempt_id, rank)


def move_start(account: Account, attempt_id: AttemptId, since_ms: Ms) -> None:
    """It was charged until then."""
    meter = account.meters[attempt_id]
    rate = meter.rate
    _turn(account, attempt_id, meter, 0)
    meter.since_ms = since_ms
    _turn(account, attempt_id, meter, rate)


def _turn(account: Account, attempt_id: AttemptId, meter: Meter, rate: int) -> None:
    """It accrues at this rate, as if it had from its start on."""
    more = rate - meter.rate
    account.rate += more
    account.base += more * meter.since_ms
    if meter.over:
        account.over_rate -= meter.rate
        account.over_base -= meter.rate * meter.since_ms
        account.over_cover -= meter.cover
        meter.over = False
    meter.rate = rate
    if rate:
        heappush(account.crossings, (_crosses_ms(meter), attempt_id))
    if len(account.crossings) > 2 * len(account.meters) + OUTDATED_MAX:
        account.crossings = [(_crosses_ms(m), a) for a, m in account.meters.items() if m.rate and not m.over]
        heapify(account.crossings)


def _crosses_ms(meter: Meter) -> Ms:
    """The first moment at which it has accrued more than was reserved."""
    return meter.since_ms + meter.cover * SCALE // meter.rate + 1


# ---- what is used


def spent_scaled(account: Account, now_ms: Ms) -> int:
    """What was charged this month and what is accrued now, in SCALE-ths of a millionth."""
    return account.row.cost * SCALE + account.rate * now_ms - account.base


def spent(account: Account, now_ms: Ms) -> int:
    """The same in millionths, rounded up."""
    return min(-(-spent_scaled(account, now_ms) // SCALE), TOLD_MAX)


def committed(account: Account, now_ms: Ms) -> int:
    """What is used and what is promised beyond that, in millionths: what was charged, what is reserved for tasks that
    have not ended, and what running ones have accrued beyond their own reservation. Amortised O(log running)."""
    while account.crossings and account.crossings[0][0] <= now_ms:
        crossed_ms, attempt_id = heappop(account.crossings)
        meter = account.meters.get(attempt_id)
        if meter is not None and not meter.over and _crosses_ms(meter) == crossed_ms:
            meter.over = True
            account.over_rate += meter.rate
            account.over_base += meter.rate * meter.since_ms
            account.over_cover += meter.cover
    overrun = account.over_rate * now_ms - account.over_base - account.over_cover * SCALE
    return min(account.row.cost + account.reserved - (-overrun // SCALE), TOLD_MAX)


def next_crossing_ms(account: Account) -> Ms | None:
    """When one of those that run may begin to overrun."""
    return account.crossings[0][0] if account.crossings else None


def is_broke(account: Account, now_ms: Ms) -> bool:
    """Whether its budget is used up: nothing of it starts."""
    budget = account.tenant.quota.budget
    if budget is None:
        return False
    return account.broke == (account.row.month, budget) or spent_scaled(account, now_ms) >= budget * SCALE
