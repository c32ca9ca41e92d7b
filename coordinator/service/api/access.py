"""Routes of who may come in: tokens and pools."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from coordinator.api_types.access import TokenMade, TokenRequest, Tokens
from coordinator.api_types.fleet import PoolEntry, PoolRequest, Pools
from coordinator.api_types.tenants import PriceRequest
from coordinator.core import events
from coordinator.core.amounts import Price
from coordinator.core.errors import Code, CoordError
from coordinator.core.fleet.providers import DEFAULT_POOL
from coordinator.core.ids import PoolName, TokenId, check_name
from coordinator.core.rows import PoolRow, Role, TokenRow
from coordinator.service.api.entries import pool_entry, token_entry
from coordinator.service.api.fleet import short_text
from coordinator.service.api.pages import Number, page_position, page_token
from coordinator.service.api.query import NoQuery, nearest, shown
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import who
from coordinator.service.tokens import digest_of, new_token_id, new_token_text

LIFE_MAX_S = 10 * 365 * 86_400.0


class TokensQuery(Struct, frozen=True, kw_only=True):
    role: Annotated[str, Meta(description="only tokens of this role; agent shows providers' credentials")] | None = None
    tenant: Annotated[str, Meta(description="only this tenant's")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="entries on one page")] = 100
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class _Position(Struct, frozen=True):
    created_at_ms: Number
    token_id: str


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        near = nearest(text, list(Role))
        raise CoordError(
            Code.BAD_REQUEST,
            f"{shown(text)} is no role" + (f" (did you mean {near}?)" if near else ""),
            f"there are: {', '.join(Role)}",
        ) from None


async def list_tokens(call: Call[TokensQuery, NoBody]) -> Tokens:
    """Tokens without their texts, oldest first. Providers' credentials are left out unless asked for."""
    query = call.query
    role = _role(query.role) if query.role is not None else None
    position = page_position(query.page, _Position)
    after = (position.created_at_ms, position.token_id) if position is not None else (-1, "")
    rows = sorted(
        (
            row
            for row in call.deps.views.tokens.values()
            if (row.role is role if role is not None else row.role is not Role.AGENT)
            and query.tenant in (None, row.tenant)
            and (row.created_at_ms, row.token_id) > after
        ),
        key=lambda row: (row.created_at_ms, row.token_id),
    )
    more, rows = len(rows) > query.limit, rows[: query.limit]
    return Tokens(
        entries=tuple(token_entry(row) for row in rows),
        next_page=page_token(_Position(rows[-1].created_at_ms, rows[-1].token_id)) if more else None,
    )


async def create_token(call: Call[NoQuery, TokenRequest]) -> TokenMade:
    """Make a token; its text is in this answer and nowhere else."""
    body = call.body
    role = _role(body.role)
    expires_ms = None
    if body.expires_in_s is not None:
        if not 0 < body.expires_in_s <= LIFE_MAX_S:
            raise CoordError(Code.BAD_REQUEST, "expires_in_s is out of range", f"give 1 to {LIFE_MAX_S:.0f} seconds")
        expires_ms = call.now_ms + int(body.expires_in_s * 1_000)
    text = new_token_text(role) + (call.deps.settings.join_suffix if role is Role.JOIN else "")
    note = short_text(body.note, "note")
    pool = PoolName(check_name(body.pool, "pool")) if body.pool is not None else None
    tenant = check_name(body.tenant, "tenant") if body.tenant is not None else None
    result = await call.deps.engine.call(
        lambda request_id: events.TokenCreate(
            at_ms=call.now_ms,
            request_id=request_id,
            by=who(call),
            token_id=new_token_id(),
            digest=digest_of(text),
            role=role,
            note=note,
            expires_at_ms=expires_ms,
            pool=pool,
            tenant=tenant,
        )
    )
    assert isinstance(result, TokenRow)
    return TokenMade(token=text, entry=token_entry(result))


async def revoke_token(call: Call[NoQuery, NoBody]) -> None:
    """From now on it opens nothing, and what it holds open is cut. Idempotent."""
    token_id = TokenId(call.name())
    await call.deps.engine.call(
        lambda request_id: events.TokenRevoke(at_ms=call.now_ms, request_id=request_id, by=who(call), token_id=token_id)
    )


async def list_pools(call: Call[NoQuery, NoBody]) -> Pools:
    """Every pool with how many providers it has; `default` is always there."""
    sizes = call.deps.engine.state.pool_sizes
    made = call.deps.views.pools
    names = [DEFAULT_POOL, *sorted(name for name in made if name != DEFAULT_POOL)]
    entries = [pool_entry(name, made.get(name), sizes.get(name, 0)) for name in names]
    return Pools(entries=tuple(entries))


async def create_pool(call: Call[NoQuery, PoolRequest]) -> PoolEntry:
    name = PoolName(check_name(call.body.name, "pool"))
    note = short_text(call.body.note, "note")
    result = await call.deps.engine.call(
        lambda request_id: events.PoolCreate(
            at_ms=call.now_ms, request_id=request_id, by=who(call), name=name, note=note
        )
    )
    assert isinstance(result, PoolRow)
    return pool_entry(name, result, 0)


async def price_pool(call: Call[NoQuery, PriceRequest]) -> PoolEntry:
    """What is granted there from now on costs this; a lease keeps the price that it was granted at."""
    name, asked = PoolName(call.name("name")), call.body.price
    price = Price(cpu=asked.cpu, gpu=asked.gpu, memory=asked.memory)
    result = await call.deps.engine.call(
        lambda request_id: events.PoolPrice(
            at_ms=call.now_ms, request_id=request_id, by=who(call), name=name, price=price
        )
    )
    assert isinstance(result, PoolRow)
    return pool_entry(name, result, call.deps.engine.state.pool_sizes.get(name, 0))


async def delete_pool(call: Call[NoQuery, NoBody]) -> None:
    """Only an unused pool goes."""
    name = PoolName(call.name("name"))
    await call.deps.engine.call(
        lambda request_id: events.PoolDelete(at_ms=call.now_ms, request_id=request_id, by=who(call), name=name)
    )
