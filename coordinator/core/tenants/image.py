"""Accounts as one plain struct, and back; and what a full disk must not undo of them.

What is held, reserved and accrued follows from the rows of the work: it is not in here.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.ids import Ms, TenantName
from coordinator.core.rows import AccountRow, TenantRow
from coordinator.core.tenants.account import Accounts, durable, remember_held


class AccountMemory(Struct, frozen=True, gc=False, kw_only=True):
    row: AccountRow
    lately: float
    freed: int
    grace: tuple[int, int, int, int]
    told: tuple[str, ...]
    calm_from_ms: Ms | None
    broke: tuple[int, int] | None


class AccountsImage(Struct, frozen=True, gc=False, kw_only=True):
    """Everything that Accounts holds and that does not follow from the work's rows."""

    tenants: tuple[TenantRow, ...]
    accounts: tuple[AccountMemory, ...]
    month: int
    month_ends_ms: Ms
    next_ledger: int
    now_ms: Ms
    wheel: tuple[tuple[Ms, str], ...]
    wheel_next: int


def accounts_image(accounts: Accounts) -> AccountsImage:
    wheel, wheel_next = accounts.wheel.image()
    return AccountsImage(
        tenants=tuple(accounts.tenants.values()),
        accounts=tuple(
            AccountMemory(
                row=durable(account),
                lately=account.lately,
                freed=account.freed,
                grace=account.grace,
                told=account.told,
                calm_from_ms=account.calm_from_ms,
                broke=account.broke,
            )
            for account in accounts.by_tenant.values()
        ),
        month=accounts.month,
        month_ends_ms=accounts.month_ends_ms,
        next_ledger=accounts.next_ledger,
        now_ms=accounts.now_ms,
        wheel=wheel,
        wheel_next=wheel_next,
    )


def restore_accounts(accounts: Accounts, image: AccountsImage) -> None:
    """Before the work is loaded: whose accounts there are."""
    accounts.tenants = {row.name: row for row in image.tenants}
    accounts.month, accounts.month_ends_ms = image.month, image.month_ends_ms
    accounts.next_ledger = image.next_ledger
    for memory in image.accounts:
        accounts.rows[memory.row.tenant] = memory.row
        accounts.of(memory.row.tenant)


def restore_memory(accounts: Accounts, image: AccountsImage) -> None:
    """After it: what is remembered besides the rows."""
    accounts.now_ms = image.now_ms
    for memory in image.accounts:
        account = accounts.of(memory.row.tenant)
        account.lately, account.freed, account.grace = memory.lately, memory.freed, memory.grace
        account.told, account.calm_from_ms, account.broke = memory.told, memory.calm_from_ms, memory.broke
    accounts.wheel.restore(image.wheel, image.wheel_next)
    accounts.unsettled.clear()


def carry_accounts(old: Accounts, fresh: Accounts) -> None:
    """`fresh` was just loaded after a full disk. Shares are memory: they go on. Alerts that stood are looked at again
    (`budgets.tell_again`)."""
    fresh.now_ms = old.now_ms
    fresh.fleet, fresh.half_life_ms = old.fleet, old.half_life_ms
    for name, before in old.by_tenant.items():
        account = fresh.by_tenant.get(TenantName(name))
        if account is not None:
            account.share, account.lately, account.share_at_ms = before.share, before.lately, before.share_at_ms
            account.freed = max(account.freed, before.freed) + 1
            remember_held(account)
