"""Routes of tenants: who they are, what they may use, and what they use. A tenant's own tokens see it alone."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct

from coordinator import api_types as t
from coordinator.core import commands, events
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName, check_name
from coordinator.core.rows import OnBudget, OnFull, Quota, TenantRow
from coordinator.service.api.fleet import short_text
from coordinator.service.api.money import tenant_entry, usage_entry
from coordinator.service.api.pages import page_position, page_token
from coordinator.service.api.query import NoQuery, nearest, shown
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import scope_of, who

E = TypeVar("E", bound=StrEnum)
DIMENSIONS = Quota.__struct_fields__


class TenantsQuery(Struct, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=1000, description="entries on one page")] = 100
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class UsageQuery(Struct, frozen=True, kw_only=True):
    tenant: Annotated[str, Meta(description="only this tenant's")] | None = None


class _Position(Struct, frozen=True):
    after: str


async def usages(call: Call[Any, Any], tenant: TenantName | None) -> commands.Usages:
    """What is used, as it is decided by. CoordError(NOT_FOUND) for a tenant that there is not."""
    result = await call.deps.engine.call(
        lambda request_id: events.UsageRead(at_ms=call.now_ms, request_id=request_id, tenant=tenant)
    )
    assert isinstance(result, commands.Usages)
    return result


async def list_tenants(call: Call[TenantsQuery, NoBody]) -> t.Tenants:
    """A page of the tenants, in order of their names."""
    query = call.query
    position = page_position(query.page, _Position)
    after = position.after if position is not None else ""
    found = await usages(call, None)
    rows = sorted((one.tenant for one in found.entries if one.tenant.name > after), key=lambda row: row.name)
    more, rows = len(rows) > query.limit, rows[: query.limit]
    return t.Tenants(
        entries=tuple(tenant_entry(row) for row in rows),
        next_page=page_token(_Position(rows[-1].name)) if more else None,
    )


async def show_tenant(call: Call[NoQuery, NoBody]) -> t.TenantEntry:
    """One tenant. To its own tokens another one is not there."""
    name, own = TenantName(call.name("name")), scope_of(call)
    if own is not None and own != name:
        raise CoordError(Code.NOT_FOUND, f"there is no tenant {name}", "coord tenant list shows those there are")
    found = await usages(call, name)
    return tenant_entry(found.entries[0].tenant)


async def create_tenant(call: Call[NoQuery, t.TenantRequest]) -> t.TenantEntry:
    """From now on tokens and jobs may name it."""
    body = call.body
    name = TenantName(check_name(body.name, "tenant"))
    return await _set(
        call,
        name,
        t.TenantChange(
            note=body.note,
            weight=body.weight,
            priority_max=body.priority_max,
            on_full=body.on_full,
            on_budget=body.on_budget,
            runtime_ms=body.runtime_ms,
            quota=body.quota,
        ),
        create=True,
    )


async def change_tenant(call: Call[NoQuery, t.TenantChange]) -> t.TenantEntry:
    """What is not named stays. What runs already goes on, also beyond a limit that was lowered."""
    return await _set(call, TenantName(call.name("name")), call.body, create=False)


async def _set(
    call: Call[NoQuery, t.TenantRequest] | Call[NoQuery, t.TenantChange],
    name: TenantName,
    change: t.TenantChange,
    create: bool,
) -> t.TenantEntry:
    note = short_text(change.note, "note") if change.note is not None else None
    on_full = _one_of(OnFull, change.on_full, "on_full") if change.on_full is not None else None
    on_budget = _one_of(OnBudget, change.on_budget, "on_budget") if change.on_budget is not None else None
    quota = tuple((_dimension(dimension), limit) for dimension, limit in change.quota.items())
    result = await call.deps.engine.call(
        lambda request_id: events.TenantSet(
            at_ms=call.now_ms,
            request_id=request_id,
            by=who(call),
            name=name,
            create=create,
            note=note,
            weight=change.weight,
            priority_max=change.priority_max,
            on_full=on_full,
            on_budget=on_budget,
            runtime_ms=change.runtime_ms,
            quota=quota,
        )
    )
    assert isinstance(result, TenantRow)
    return tenant_entry(result)


def _dimension(name: str) -> str:
    if name not in DIMENSIONS:
        near = nearest(name, DIMENSIONS)
        raise CoordError(
            Code.BAD_REQUEST,
            f"quota: {shown(name)} is no dimension" + (f" (did you mean {near}?)" if near else ""),
            f"there are: {', '.join(DIMENSIONS)}",
        )
    return name


def _one_of(kind: type[E], text: str, what: str) -> E:
    if text not in set(kind):
        raise CoordError(Code.BAD_REQUEST, f"{what}: {shown(text)} is not taken", f"write one of: {', '.join(kind)}")
    return kind(text)


async def delete_tenant(call: Call[NoQuery, NoBody]) -> None:
    """Only one without live jobs and valid tokens goes. Its ledger stays until its retention."""
    name = TenantName(call.name("name"))
    await call.deps.engine.call(
        lambda request_id: events.TenantDelete(at_ms=call.now_ms, request_id=request_id, by=who(call), name=name)
    )


async def read_usage(call: Call[UsageQuery, NoBody]) -> t.Usages:
    """What is used, reserved and left, exactly: of one tenant, or of every one that the token may see."""
    found = await usages(call, scope_of(call, call.query.tenant))
    policy = call.deps.engine.policy
    entries = sorted(found.entries, key=lambda one: one.tenant.name)
    return t.Usages(entries=tuple(usage_entry(one, policy) for one in entries))
