"""Fair share: what a tenant has had of the fleet, decayed, and what it holds now, by its weight.

Dominant resources (Ghodsi et al., NSDI 2011): a tenant's share is the largest of its shares of CPUs, GPUs and memory.
What is remembered of it is its mean with exponential weights: d m / dt = (share - m) ln 2 / half-life. So a tenant that
comes in bursts gets over the window what one that always asks gets, and a burst of yesterday is not paid for for ever.
A long memory alone would be paid back in full: after a day alone a tenant would get nothing for most of another one.
So whoever lately had less than its least, a part of what its weight is due among those that want something, is served
before those that had more, while it pays back.

O(1) for each change of what a tenant holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from coordinator.core.amounts import UNIT
from coordinator.core.ids import Ms, TenantName

if TYPE_CHECKING:
    from coordinator.core.policy import Policy
    from coordinator.core.queue.capacity import Offer
    from coordinator.core.tenants.account import Account, Accounts

NO_FLEET = (0, 0, 0)
"""CPUs, GPUs and memory of a fleet that nobody has measured."""
HALF_LIFE_MS: Ms = 24 * 3_600_000
"""What the memory of `Accounts` begins with; `Policy.share_half_life_ms` is put in its place."""
LATELY_MS: Ms = 3_600_000
"""Half-life of what a tenant had lately. Shorter, and on a few CPUs each task would be more than its least for as long
as that is looked at; longer, and a newcomer's first hours would hide that the one before it gets nothing."""


def measure(accounts: Accounts, offers: Iterable[Offer]) -> None:
    """What the fleet has of each: all that is enrolled. O(providers)."""
    cpus = gpus = memory = 0
    for offer in offers:
        cpus, gpus, memory = cpus + offer.cpus, gpus + offer.gpus * UNIT, memory + offer.memory
    accounts.fleet = cpus, gpus, memory


def dominant(accounts: Accounts, account: Account) -> float:
    """The share of the fleet that this tenant holds now, 0..1: that of the resource of which it holds most. What stands
    in line behind others is not held."""
    cpus, gpus, memory = accounts.fleet
    cpus_behind, memory_behind = accounts.behind.get(account.tenant.name, (0, 0))
    return max(
        (account.cpus - cpus_behind) / cpus if cpus else 0.0,
        account.gpus / gpus if gpus else 0.0,
        (account.memory - memory_behind) / memory if memory else 0.0,
        0.0,
    )


def remembered(accounts: Accounts, account: Account) -> float:
    """The decayed mean of its dominant share, as of `Accounts.now_ms`."""
    past_ms = accounts.now_ms - account.share_at_ms
    if past_ms <= 0:
        return account.share
    return _decayed(account.share, dominant(accounts, account), past_ms, accounts.half_life_ms)


def lately(accounts: Accounts, account: Account) -> float:
    """What it had within the last hours, or holds now if that is more: what is given at one moment counts at once."""
    now, past_ms = dominant(accounts, account), max(0, accounts.now_ms - account.share_at_ms)
    return max(now, _decayed(account.lately, now, past_ms, LATELY_MS))


def _decayed(mean: float, now: float, past_ms: Ms, half_life_ms: Ms) -> float:
    return now if now == mean else now + (mean - now) * math.exp2(-past_ms / half_life_ms)


def settle(accounts: Accounts, account: Account) -> None:
    """Take into its memory what it held until now. Called before anything of that changes."""
    past_ms = accounts.now_ms - account.share_at_ms
    if past_ms <= 0:
        return
    now = dominant(accounts, account)
    account.share = _decayed(account.share, now, past_ms, accounts.half_life_ms)
    account.lately = _decayed(account.lately, now, past_ms, LATELY_MS)
    account.share_at_ms = accounts.now_ms


def standing(accounts: Accounts, account: Account, policy: Policy) -> float:
    """Where a tenant stands: the lowest is served next. What it had, and what it holds as if it were held for
    `policy.share_ahead_ms` more, both as shares of the memory's length, by its weight.

    The second term is what moves within one moment: equal tenants take turns. It is small beside the memory, so that
    over a window, and not only while it asks, each gets its share.
    """
    ahead = math.log(2) * policy.share_ahead_ms / policy.share_half_life_ms
    return (remembered(accounts, account) + ahead * dominant(accounts, account)) / account.tenant.weight


Standing = tuple[bool, float]
"""Where a tenant stands, the lowest first: whether it had its least, then `standing`."""


class Standings:
    """Where tenants stand at one moment, beside each other."""

    def __init__(self, accounts: Accounts, wanting: Iterable[TenantName], policy: Policy) -> None:
        """`wanting`: those that somebody waits for. O(these, and those that hold something)."""
        self._accounts, self._policy = accounts, policy
        names = {*wanting, *accounts.holders}
        self._weights = sum(accounts.of(name).tenant.weight for name in names)

    def of(self, name: TenantName) -> Standing:
        accounts, policy = self._accounts, self._policy
        account = accounts.of(name)
        least = policy.share_least * account.tenant.weight / max(1, self._weights)
        return lately(accounts, account) >= least, standing(accounts, account, policy)
