"""Metering: what running costs, to the millionth, and when. Exact: whole numbers alone.

A rate is what an hour costs, times SCALE per millisecond and unit: rate x milliseconds / SCALE is money. One charge is
rounded up, once. What runs now is two sums for each tenant, so that what it has accrued at any moment costs O(1).
"""

from __future__ import annotations

from coordinator.core.account import FREE, Account
from coordinator.core.amounts import Ask, Price
from coordinator.core.ids import Ms

SCALE = 1_000_000_000 * 3_600_000
"""10^9 bytes, and milliseconds of an hour."""


def rate_of(ask: Ask, price: Price) -> int:
    """What one rank with this ask costs at this price: SCALE-ths of a millionth for each millisecond."""
    if price == FREE:
        return 0
    return (ask.cpus * price.cpu + ask.gpus * price.gpu) * 1_000 + ask.memory * price.memory


def charge(rate: int, ran_ms: Ms) -> int:
    """Millionths for so long at this rate, rounded up."""
    return -(-rate * ran_ms // SCALE)


def spent_scaled(account: Account, now_ms: Ms) -> int:
    """What was charged this month and what is accrued now, in SCALE-ths of a millionth."""
    return account.row.cost * SCALE + account.rate * now_ms - account.base


def is_broke(account: Account, now_ms: Ms) -> bool:
    """Whether its budget is used up: nothing of it starts."""
    budget = account.tenant.quota.budget
    return budget is not None and spent_scaled(account, now_ms) >= budget * SCALE
