"""Routes of tenants: who they are, what they may use, and what they use. A tenant's own tokens see it alone."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct

from coordinator.api_types.tenants import TenantChange, TenantEntry, TenantRequest, Tenants, UsageEntry, Usages
from coordinator.core import commands, events
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName, check_name
from coordinator.core.rows import OnBudget, OnFull, Quota, TenantRow
from coordinator.core.tenants.account import DEFAULT_TENANT, implied
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
    limit: Annotated[int, Meta(ge=1, le=1000, description="entries on one page")] = 1000
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class _Position(Struct, frozen=True):
    after: str


def names_after(call: Call[Any, Any], after: str) -> list[TenantName]:
    """Of every tenant there is, in order."""
    return sorted(name for name in {DEFAULT_TENANT, *call.deps.views.tenants} if name > after)


def row_of(call: Call[Any, Any], name: TenantName) -> TenantRow:
    """The tenant of this name; CoordError(NOT_FOUND). To a tenant's own tokens another one is not there."""
    row = call.deps.views.tenants.get(name) or (implied(name) if name == DEFAULT_TENANT else None)
    if row is None or scope_of(call) not in (None, name):
        raise CoordError(Code.NOT_FOUND, f"there is no tenant {name}", "coord tenant list shows those there are")
    return row


async def list_tenants(call: Call[TenantsQuery, NoBody]) -> Tenants:
    """A page of the tenants, in order of their names."""
    query = call.query
    position = page_position(query.page, _Position)
    names = names_after(call, position.after if position is not None else "")
    more, names = len(names) > query.limit, names[: query.limit]
    return Tenants(
        entries=tuple(tenant_entry(row_of(call, name)) for name in names),
        next_page=page_token(_Position(names[-1])) if more else None,
    )


async def show_tenant(call: Call[NoQuery, NoBody]) -> TenantEntry:
    return tenant_entry(row_of(call, TenantName(call.name("name"))))


async def create_tenant(call: Call[NoQuery, TenantRequest]) -> TenantEntry:
    """From now on tokens and jobs may name it."""
    body = call.body
    name = TenantName(check_name(body.name, "tenant"))
    return await _set(
        call,
        name,
        TenantChange(
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


async def change_tenant(call: Call[NoQuery, TenantChange]) -> TenantEntry:
    """What is not named stays. What runs already goes on, also beyond a limit that was lowered."""
    return await _set(call, TenantName(call.name("name")), call.body, create=False)


async def _set(
    call: Call[NoQuery, TenantRequest] | Call[NoQuery, TenantChange],
    name: TenantName,
    change: TenantChange,
    create: bool,
) -> TenantEntry:
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


async def read_usage(call: Call[UsageQuery, NoBody]) -> Usages:
    """What is used, reserved and left, exactly: of one tenant, or of every one that the token may see, a page of them.
    Each of a page is as of its own moment: nobody waits for the sum of ten thousand."""
    query = call.query
    tenant = scope_of(call, query.tenant)
    if tenant is not None:
        return Usages(entries=await _usage(call, tenant))
    position = page_position(query.page, _Position)
    names = names_after(call, position.after if position is not None else "")
    more, names = len(names) > query.limit, names[: query.limit]
    entries: list[UsageEntry] = []
    for name in names:
        with suppress(CoordError):  # deleted meanwhile
            entries += await _usage(call, name)
    return Usages(entries=tuple(entries), next_page=page_token(_Position(names[-1])) if more else None)


async def _usage(call: Call[UsageQuery, NoBody], name: TenantName) -> tuple[UsageEntry, ...]:
    """As it is decided by. CoordError(NOT_FOUND) for a tenant that there is not."""
    result = await call.deps.engine.call(
        lambda request_id: events.UsageRead(at_ms=call.now_ms, request_id=request_id, tenant=name)
    )
    assert isinstance(result, commands.Usages)
    return tuple(usage_entry(one, call.deps.engine.policy) for one in result.entries)
