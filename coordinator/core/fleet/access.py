"""Tokens and pools: who may come in, and under which name machines are grouped."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core import audit
from coordinator.core.commands import (
    CloseCode,
    CloseLink,
    Decision,
    Delete,
    PoolChanged,
    Put,
    Reply,
    TokenChanged,
)
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import PoolCreate, PoolDelete, TokenCreate, TokenRevoke
from coordinator.core.fleet.providers import DEFAULT_POOL, part_from
from coordinator.core.fleet.token_room import make_room
from coordinator.core.ids import TenantName
from coordinator.core.policy import Policy
from coordinator.core.rows import PoolRow, Role, TokenRow
from coordinator.core.state import ClusterState
from coordinator.core.tenants.admission import known_tenant
from coordinator.core.tenants.reservations import note_prices


def on_token_create(state: ClusterState, event: TokenCreate, policy: Policy, out: Decision) -> None:
    """Keep a token's digest. An agent's credential comes from enrolment alone."""
    if event.role is Role.AGENT:
        raise CoordError(
            Code.BAD_REQUEST, "an agent's credential is not made by hand", "enrol with a join token instead"
        )
    if event.pool is not None and event.role is not Role.JOIN:
        raise CoordError(Code.BAD_REQUEST, "only a join token is bound to a pool", "leave the pool away")
    if event.pool is not None and event.pool != DEFAULT_POOL and event.pool not in state.pools:
        raise CoordError(Code.NOT_FOUND, f"there is no pool {event.pool}", f"coord pool create {event.pool}")
    if event.role is Role.TENANT and event.tenant is None:
        raise CoordError(Code.BAD_REQUEST, "a tenant token speaks for a tenant", "--role tenant --tenant NAME")
    if event.tenant is not None:
        if event.role not in (Role.TENANT, Role.READ_ONLY):
            raise CoordError(
                Code.BAD_REQUEST,
                "a tenant is named for tenant tokens and for its readers alone",
                "--role tenant, or --role read-only",
            )
        known_tenant(state, TenantName(event.tenant))
    if event.expires_at_ms is not None and event.expires_at_ms <= state.now_ms:
        raise CoordError(Code.BAD_REQUEST, "the token would have expired already", "give a time in the future")
    if event.token_id in state.tokens or event.digest in state.tokens_by_digest:
        raise CoordError(Code.CONFLICT, f"token {event.token_id} exists already", "ask again")
    if len(state.tokens) >= policy.tokens_max:
        make_room(state, policy, out)
    row = TokenRow(
        token_id=event.token_id,
        role=event.role,
        digest=event.digest,
        created_at_ms=state.now_ms,
        note=event.note,
        expires_at_ms=event.expires_at_ms,
        pool=event.pool,
        tenant=event.tenant,
    )
    state.put_token(row)
    out.writes.append(Put(row))
    out.notes.append(TokenChanged(row))
    audit.record(state, out, "token", row.token_id, "created", why=row.role.value, by=event.by, tenant=row.tenant or "")
    out.replies.append(Reply(event.request_id, row))


def on_token_revoke(state: ClusterState, event: TokenRevoke, policy: Policy, out: Decision) -> None:
    """From now on it opens nothing, and what it holds open is cut. Idempotent."""
    row = state.tokens.get(event.token_id)
    if row is None:
        raise CoordError(
            Code.NOT_FOUND, f"there is no token {event.token_id}", "coord token list shows those there are"
        )
    if row.revoked_at_ms is None:
        others = any(
            other.role is Role.ADMIN and other.token_id != row.token_id and state.valid_token(other.digest)
            for other in state.tokens.values()
        )
        if row.role is Role.ADMIN and not others:
            raise CoordError(
                Code.CONFLICT, "this is the last admin token", "make another one first: coord token create --role admin"
            )
        row = replace(row, revoked_at_ms=state.now_ms)
        state.put_token(row)
        out.writes.append(Put(row))
        out.notes.append(TokenChanged(row))
        audit.record(state, out, "token", row.token_id, "revoked", by=event.by, tenant=row.tenant or "")
        provider = state.providers.get(row.provider_id) if row.provider_id is not None else None
        if provider is not None:
            gone = CloseLink(code=CloseCode.UNAUTHENTICATED, reason="this provider's credential was revoked")
            part_from(state, provider, gone, policy, out)
    out.replies.append(Reply(event.request_id, row))


def on_pool_create(state: ClusterState, event: PoolCreate, policy: Policy, out: Decision) -> None:
    if event.name in state.pools or event.name == DEFAULT_POOL:
        raise CoordError(Code.CONFLICT, f"there is a pool {event.name} already", "coord pool list shows the pools")
    if len(state.pools) >= policy.pools_max:
        raise CoordError(
            Code.TOO_MANY, f"{policy.pools_max} pools exist, no more are taken", "delete one: coord pool delete"
        )
    row = PoolRow(name=event.name, created_at_ms=state.now_ms, note=event.note)
    state.pools[event.name] = row
    out.writes.append(Put(row))
    out.notes.append(PoolChanged(event.name, row))
    audit.record(state, out, "pool", event.name, "created", by=event.by)
    out.replies.append(Reply(event.request_id, row))


def on_pool_delete(state: ClusterState, event: PoolDelete, out: Decision) -> None:
    """Only an unused pool goes, and never the default one: it is there without a row."""
    if event.name == DEFAULT_POOL:
        raise CoordError(
            Code.CONFLICT,
            f"pool {event.name} cannot be deleted: providers that name no pool go there",
            "other pools can: coord pool list",
        )
    if event.name not in state.pools:
        raise CoordError(Code.NOT_FOUND, f"there is no pool {event.name} to delete", "coord pool list shows the pools")
    members = state.pool_sizes.get(event.name, 0)
    if members:
        has = "a provider" if members == 1 else f"{members} providers"
        raise CoordError(Code.CONFLICT, f"pool {event.name} has {has}", "enrol them elsewhere or forget them first")
    naming = [t.token_id for t in state.tokens.values() if t.pool == event.name and state.valid_token(t.digest)]
    if naming:
        raise CoordError(Code.CONFLICT, f"join token {naming[0]} enrols into pool {event.name}", "revoke it first")
    del state.pools[event.name]
    note_prices(state.work.accounts, state.pools)
    out.writes.append(Delete("pool", event.name))
    out.notes.append(PoolChanged(event.name, None))
    audit.record(state, out, "pool", event.name, "deleted", by=event.by)
    out.replies.append(Reply(event.request_id, None))
