"""What admins say of tenants and of what pools cost. Nothing that is held is taken away by a change of a quota."""

from __future__ import annotations

from msgspec.structs import asdict, replace

from coordinator.core import audit
from coordinator.core.commands import Decision, Delete, PoolChanged, Put, Reply, TenantChanged
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import PoolPrice, TenantDelete, TenantSet
from coordinator.core.fleet.providers import DEFAULT_POOL
from coordinator.core.ids import PoolName, TenantName, check_name
from coordinator.core.policy import Policy
from coordinator.core.rows import PoolRow, Quota, TenantRow
from coordinator.core.state import ClusterState
from coordinator.core.tenants.account import DEFAULT_TENANT, NO_QUOTA, Account, Accounts, remember_held
from coordinator.core.tenants.dimensions import DIMENSIONS
from coordinator.core.tenants.reservations import MONEY_MAX, note_prices
from coordinator.core.work.jobspec import PRIORITY_MAX, PRIORITY_MIN

WEIGHT_MAX = 1_000_000
RUNTIME_MAX_MS = 366 * 24 * 3_600_000
PRICE_MAX = 10**12
"""A million units an hour. What it comes to in a month is counted up to MONEY_MAX."""


def on_tenant_set(state: ClusterState, event: TenantSet, policy: Policy, out: Decision) -> None:
    """Make a tenant, or change one. What is blocked by its quota is looked at again."""
    accounts = state.work.accounts
    before = accounts.tenant(event.name)
    if event.create:
        _may_be_made(accounts, event.name, policy)
        before = TenantRow(name=event.name, created_at_ms=state.now_ms)
    elif before is None:
        raise CoordError(Code.NOT_FOUND, f"there is no tenant {event.name}", f"coord tenant create {event.name}")
    row = _changed(before, event)
    if not row.created_at_ms:
        row = replace(row, created_at_ms=state.now_ms)
    accounts.tenants[event.name] = row
    known = accounts.by_tenant.get(event.name)
    if known is not None:
        _take_up(accounts, known, row)
        state.work.ask_place()
    out.writes.append(Put(row))
    out.notes.append(TenantChanged(event.name, row))
    what = _in_words(before, row)
    audit.record(
        state,
        out,
        "tenant",
        event.name,
        "created" if event.create else "changed",
        why=what,
        by=event.by,
        tenant=event.name,
    )
    out.replies.append(Reply(event.request_id, row))


def _may_be_made(accounts: Accounts, name: TenantName, policy: Policy) -> None:
    check_name(name, "tenant")
    if accounts.tenant(name) is not None:
        raise CoordError(Code.CONFLICT, f"there is a tenant {name} already", f"change it: coord tenant set {name}")
    if len(accounts.tenants) >= policy.tenants_max:
        raise CoordError(
            Code.TOO_MANY, f"{policy.tenants_max} tenants exist, no more are taken", "delete one: coord tenant delete"
        )


def _changed(row: TenantRow, event: TenantSet) -> TenantRow:
    """The row with what the event says; CoordError(BAD_REQUEST) for what cannot be."""
    limits = dict(event.quota)
    for name, limit in limits.items():
        if name not in DIMENSIONS:
            raise CoordError(Code.BAD_REQUEST, f"a quota has no {name}", f"it has {', '.join(DIMENSIONS)}")
        if limit is not None and not 0 <= limit <= MONEY_MAX:
            raise CoordError(Code.BAD_REQUEST, f"{limit} is no limit of {name}", f"say 0 to {MONEY_MAX}, or none")
    _within("weight", event.weight, 1, WEIGHT_MAX)
    _within("priority_max", event.priority_max, PRIORITY_MIN, PRIORITY_MAX)
    _within("runtime_ms", event.runtime_ms, 1, RUNTIME_MAX_MS)
    said = {
        name: value
        for name in ("note", "weight", "priority_max", "on_full", "on_budget", "runtime_ms")
        if (value := getattr(event, name)) is not None
    }
    return replace(row, quota=replace(row.quota, **limits), **said)


def _within(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise CoordError(Code.BAD_REQUEST, f"{value} is no {name} of a tenant", f"say {least} to {most}")


def _take_up(accounts: Accounts, account: Account, row: TenantRow) -> None:
    account.tenant = row
    account.limited = row.quota != NO_QUOTA
    remember_held(account)
    account.freed += 1
    accounts.unsettled[row.name] = account  # also of one that has no limits any more: its alerts are over


def _in_words(before: TenantRow, row: TenantRow) -> str:
    """What changed: `weight 3, cpus 64000000`."""
    old, new = _flat(before), _flat(row)
    return ", ".join(f"{name} {new[name]}" for name in new if new[name] != old[name] and name != "created_at_ms")


def _flat(row: TenantRow) -> dict[str, object]:
    flat = asdict(row)
    quota: Quota = flat.pop("quota")
    return flat | asdict(quota)


def on_tenant_delete(state: ClusterState, event: TenantDelete, out: Decision) -> None:
    """One that has nothing and that nobody can speak for."""
    accounts, name = state.work.accounts, event.name
    if name == DEFAULT_TENANT:
        raise CoordError(
            Code.CONFLICT, f"tenant {name} cannot be deleted: it is there from the start", "lift its limits instead"
        )
    if name not in accounts.tenants:
        raise CoordError(Code.NOT_FOUND, f"there is no tenant {name} to delete", "coord tenant list")
    account = accounts.by_tenant.get(name)
    if account is not None and account.live:
        jobs = "a job that has not ended" if account.live == 1 else f"{account.live} jobs that have not ended"
        raise CoordError(Code.CONFLICT, f"tenant {name} has {jobs}", "cancel what it runs, or wait for it")
    naming = [t.token_id for t in state.tokens.values() if t.tenant == name and state.valid_token(t.digest)]
    if naming:
        raise CoordError(
            Code.CONFLICT, f"token {naming[0]} speaks for tenant {name}", f"coord token revoke {naming[0]}"
        )
    row = accounts.tenants.pop(name)
    if account is not None:  # kept until the month is over: the ledger of this month is still its own
        _take_up(accounts, account, TenantRow(name=name, created_at_ms=row.created_at_ms))
    out.writes.append(Delete("tenant", name))
    out.notes.append(TenantChanged(name, None))
    audit.record(state, out, "tenant", name, "deleted", by=event.by, tenant=name)
    out.replies.append(Reply(event.request_id, None))


# ---- what pools cost


def on_pool_price(state: ClusterState, event: PoolPrice, out: Decision) -> None:
    """Of what is granted from now on."""
    row = state.pools.get(event.name)
    if row is None and event.name != DEFAULT_POOL:
        raise CoordError(Code.NOT_FOUND, f"there is no pool {event.name}", f"coord pool create {event.name}")
    for name in ("cpu", "gpu", "memory"):
        price = getattr(event.price, name)
        if not 0 <= price <= PRICE_MAX:
            raise CoordError(Code.BAD_REQUEST, f"{price} is no price of {name}", f"say 0 to {PRICE_MAX} millionths")
    row = replace(row or PoolRow(name=PoolName(event.name), created_at_ms=state.now_ms), price=event.price)
    state.pools[event.name] = row
    note_prices(state.work.accounts, state.pools)
    out.writes.append(Put(row))
    out.notes.append(PoolChanged(event.name, row))
    price = row.price
    why = f"an hour costs {price.cpu} a CPU, {price.gpu} a GPU, {price.memory} a GB of memory, in millionths"
    audit.record(state, out, "pool", event.name, "priced", why=why, by=event.by)
    out.replies.append(Reply(event.request_id, row))
