"""Meters of bytes: what a tenant keeps, for how long, and what went over the coordinator's link for it.

An account's counts of a month are the sums of its ledger rows of that month, exactly: one row for each tenant, kind and
hour (UTC), written anew as it grows. What nobody settled while the coordinator was away is the hour's in which it was.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from msgspec.structs import replace

from coordinator.core.commands import Decision, Put
from coordinator.core.data.events import BytesMoved
from coordinator.core.ids import JobId, Ms, PoolName, ProviderId, TenantName
from coordinator.core.rows import LedgerRow
from coordinator.core.tenants.account import FREE, Account, Accounts

if TYPE_CHECKING:
    from coordinator.core.state import ClusterState

HOUR_MS: Ms = 3_600_000
SPREAD_MS: Ms = 300_000
"""What tenants keep is settled within so long after the hour: not all in one moment."""
SETTLED_AT_ONCE = 200
KEPT_UNIT = 1_000_000 * 1_000
"""Byte-milliseconds of a megabyte-second: in those alone a month of 4 TB would not fit into 64 bits."""


def on_moved(state: ClusterState, event: BytesMoved, out: Decision) -> None:
    """Also of transfers that were cut off."""
    for moved in event.moved:
        move(state.work.accounts, moved.tenant, moved.ingress, moved.egress, out)


def move(accounts: Accounts, tenant: TenantName, ingress: int, egress: int, out: Decision) -> None:
    account = accounts.of(tenant)
    account.awaited = max(0, account.awaited - ingress)
    row = account.row
    account.row = replace(row, ingress=row.ingress + ingress, egress=row.egress + egress)
    for kind, amount in (("ingress", ingress), ("egress", egress)):
        _write(accounts, account, kind, amount, accounts.now_ms, out)
    accounts.touch(account)
    accounts.changed(account)


def storage_changes(state: ClusterState, tenant: TenantName, more: int, out: Decision) -> None:
    """It keeps so many bytes more (or, below zero, less) from now on."""
    accounts = state.work.accounts
    account = accounts.of(tenant)
    settle_storage(accounts, account, state.now_ms, out)
    account.row = replace(account.row, storage=account.row.storage + more)
    if account.row.storage and tenant not in state.data.hours:
        state.data.hours.put(tenant, next_look_ms(tenant, state.now_ms))
    accounts.touch(account)
    accounts.changed(account)


def settle_storage(accounts: Accounts, account: Account, until_ms: Ms, out: Decision) -> None:
    """What it kept until then is metered: the rest of the hour that it was settled in last, and what came after."""
    row = account.row
    if row.storage_at_ms >= until_ms:
        return
    since_ms = row.storage_at_ms
    account.row = replace(row, storage_at_ms=until_ms)
    accounts.touch(account)
    if not row.storage or not since_ms:
        return
    hour_ends_ms = since_ms - since_ms % HOUR_MS + HOUR_MS
    for begin_ms, end_ms in ((since_ms, min(hour_ends_ms, until_ms)), (hour_ends_ms, until_ms)):
        if begin_ms < end_ms:
            kept, account.kept_rest = divmod(account.kept_rest + row.storage * (end_ms - begin_ms), KEPT_UNIT)
            account.row = replace(account.row, storage_mb_s=account.row.storage_mb_s + kept)
            _write(accounts, account, "storage", kept, end_ms - 1, out)


def settle_due(state: ClusterState, out: Decision) -> None:
    """Once an hour, of each tenant that keeps something. O(those whose time has come)."""
    accounts, hours = state.work.accounts, state.data.hours
    for number, name in enumerate(hours.due(state.now_ms)):
        tenant = TenantName(name)
        account = accounts.by_tenant.get(tenant)
        if number >= SETTLED_AT_ONCE:
            hours.put(name, state.now_ms + 1)
        elif account is not None and account.row.storage:
            settle_storage(accounts, account, state.now_ms, out)
            hours.put(name, next_look_ms(tenant, state.now_ms))


def next_look_ms(tenant: TenantName, now_ms: Ms) -> Ms:
    return now_ms - now_ms % HOUR_MS + HOUR_MS + zlib.crc32(tenant.encode()) % SPREAD_MS


def count_again(old: Accounts, fresh: Accounts, out: Decision) -> None:
    """After a full disk: what had moved has moved, though its rows were undone. A month that turned meanwhile begins
    without it."""
    fresh.now_ms = old.now_ms
    for tenant, before in old.by_tenant.items():
        account = fresh.by_tenant.get(tenant)
        if account is None or account.row.month != before.row.month:
            continue
        ingress, egress = before.row.ingress - account.row.ingress, before.row.egress - account.row.egress
        if ingress or egress:
            move(fresh, tenant, ingress, egress, out)


def _write(accounts: Accounts, account: Account, kind: str, amount: int, at_ms: Ms, out: Decision) -> None:
    """The row of this hour is so much more."""
    if not amount:
        return
    hour_ms = at_ms - at_ms % HOUR_MS
    row = account.hours.get(kind)
    if row is None or row.at_ms != hour_ms:
        row = _of_hour(account, kind, hour_ms, accounts.next_ledger)
        accounts.next_ledger += 1
    account.hours[kind] = row = replace(row, amount=row.amount + amount)
    out.writes.append(Put(row))


def _of_hour(account: Account, kind: str, hour_ms: Ms, seq: int) -> LedgerRow:
    return LedgerRow(
        seq=seq,
        at_ms=hour_ms,
        month=account.row.month,
        tenant=account.tenant.name,
        job_id=JobId(0),
        step=0,
        task=0,
        attempt=0,
        rank=0,
        provider_id=ProviderId(""),
        pool=PoolName(""),
        cpus=0,
        gpus=0,
        memory=0,
        price=FREE,
        ran_ms=0,
        cost=0,
        kind=kind,
    )
