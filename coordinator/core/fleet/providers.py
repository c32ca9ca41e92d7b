"""Enrolment, drain and farewell of providers: who may be one, and under which identity."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core import audit
from coordinator.core.commands import (
    CloseCode,
    CloseLink,
    Decision,
    Delete,
    Enrolled,
    ProviderForgotten,
    Put,
    Reply,
    Send,
    TellDrain,
    TokenChanged,
)
from coordinator.core.data.saving import ask_to_save
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import ProviderDrain, ProviderEnrol, ProviderForget, ProviderResume
from coordinator.core.fleet.publish import changed, view_of
from coordinator.core.fleet.sessions import end_session
from coordinator.core.fleet.token_room import make_room
from coordinator.core.ids import PoolName, ProviderId, ProviderKey
from coordinator.core.policy import Policy
from coordinator.core.rows import EndReason, ProviderRow, Role, TokenRow
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState, Provider
from coordinator.core.work.endings import recall_all
from coordinator.core.work.loss import forgotten, orphan, silence
from coordinator.core.work.retries import end_quarantine

DEFAULT_POOL = PoolName("default")


def on_enrol(state: ClusterState, event: ProviderEnrol, policy: Policy, out: Decision) -> None:
    """Give a machine an identity and a credential, or renew those it has.

    A join token enrols new ids only. An id that exists needs its own credential (from its machine) or an admin.
    """
    token = state.valid_token(event.token_digest)
    if token is None or token.role not in (Role.JOIN, Role.ADMIN, Role.AGENT):
        raise CoordError(
            Code.UNAUTHENTICATED, "this token does not enrol providers", "make one: coord token create --role join"
        )
    existing = state.providers.get(event.provider_id)
    if token.role is Role.AGENT and (existing is None or token.provider_id != event.provider_id):
        raise CoordError(Code.FORBIDDEN, "a provider's credential speaks for that provider alone", "use a join token")
    if existing is not None:
        _may_renew(existing, token, event)
    pool = _pool_of(state, event, token, existing)
    if event.credential_id in state.tokens or event.credential_digest in state.tokens_by_digest:
        raise CoordError(Code.CONFLICT, f"credential {event.credential_id} exists already", "ask again")
    if existing is None and len(state.providers) >= policy.providers_max:
        raise CoordError(
            Code.TOO_MANY,
            f"{policy.providers_max} providers are enrolled, no more are taken",
            "forget some: coord providers forget",
        )
    if existing is None and len(state.tokens) >= policy.tokens_max:
        make_room(state, policy, out)
    credential = TokenRow(
        token_id=event.credential_id,
        role=Role.AGENT,
        digest=event.credential_digest,
        created_at_ms=state.now_ms,
        provider_id=event.provider_id,
    )
    if existing is None:
        provider = _new_provider(state, event, pool)
    else:
        provider = existing
        _drop_credential(state, provider, out)
        if provider.row.machine_id != event.machine_id:
            moved = CloseLink(code=CloseCode.MACHINE_MISMATCH, reason="this identity was moved to another machine")
            part_from(state, provider, moved, policy, out)
            orphan(state, event.provider_id, f"{event.provider_id} is another machine now", policy, out)
        state.remove_provider(provider)
        provider.row = replace(provider.row, machine_id=event.machine_id, pool=pool, credential_id=event.credential_id)
    state.add_provider(provider)
    state.work.able(event.provider_id, state.now_ms)  # it may be in another pool now
    state.put_token(credential)
    out.writes.append(Put(credential))
    out.writes.append(Put(provider.row))
    out.notes.append(TokenChanged(credential))
    changed(out, provider)
    audit.record(
        state,
        out,
        "provider",
        event.provider_id,
        "enrolled",
        by=f"token:{token.token_id}",
        provider_id=event.provider_id,
    )
    out.replies.append(Reply(event.request_id, Enrolled(provider=provider.row)))


def part_from(state: ClusterState, provider: Provider, why: CloseLink, policy: Policy, out: Decision) -> None:
    """End what an admin's word ends: its session is cut, not failed, and every connection that claims it is closed."""
    waiting = provider.challenger
    if waiting is not None:
        state.challengers.pop(waiting.conn_id)
        provider.challenger = None
        out.sends.append(Send(waiting.conn_id, why))
    if provider.session is not None:
        conn_id = provider.session.conn_id
        end_session(state, provider, EndReason.SUPERSEDED, policy, out)
        silence(state, provider, policy, out)
        if conn_id is not None:
            out.sends.append(Send(conn_id, why))


def _may_renew(existing: Provider, token: TokenRow, event: ProviderEnrol) -> None:
    who = event.provider_id
    if token.role is Role.JOIN:
        raise CoordError(
            Code.CONFLICT,
            f"provider {who} is enrolled already",
            "start its agent with its own state directory, choose another --provider-id, or have an admin forget it",
        )
    if token.role is Role.AGENT and existing.row.machine_id != event.machine_id:
        raise CoordError(
            Code.MACHINE_MISMATCH,
            f"provider {who} belongs to another machine",
            "a copied state directory is no identity: enrol this machine under an id of its own",
        )


def _pool_of(state: ClusterState, event: ProviderEnrol, token: TokenRow, existing: Provider | None) -> PoolName:
    if token.role is Role.JOIN and token.pool is not None:
        if event.pool not in (None, token.pool):
            raise CoordError(
                Code.FORBIDDEN,
                f"this join token enrols into pool {token.pool}, not {event.pool}",
                "use a token of that pool",
            )
        pool = token.pool
    elif token.role is Role.AGENT and existing is not None and event.pool not in (None, existing.row.pool):
        raise CoordError(
            Code.FORBIDDEN,
            f"provider {event.provider_id} is in pool {existing.row.pool}; its own credential cannot move it",
            "renew without a pool, or have an admin enrol it into another one",
        )
    else:
        pool = event.pool or (existing.row.pool if existing is not None else DEFAULT_POOL)
    if pool != DEFAULT_POOL and pool not in state.pools:
        known = ", ".join(sorted(state.pools)) or "none"
        raise CoordError(Code.NOT_FOUND, f"there is no pool {pool} (there are: {known})", f"coord pool create {pool}")
    return pool


def _new_provider(state: ClusterState, event: ProviderEnrol, pool: PoolName) -> Provider:
    key = state.next_key
    state.next_key = ProviderKey(key + 1)
    row = ProviderRow(
        provider_id=event.provider_id,
        key=key,
        machine_id=event.machine_id,
        pool=pool,
        credential_id=event.credential_id,
        enrolled_at_ms=state.now_ms,
    )
    return Provider(row=row, phase=Liveness.NEVER_SEEN)


def _drop_credential(state: ClusterState, provider: Provider, out: Decision) -> None:
    old = state.tokens.get(provider.row.credential_id)
    if old is not None:
        state.remove_token(old.token_id)
        out.writes.append(Delete("token", old.token_id))
        out.notes.append(TokenChanged(replace(old, revoked_at_ms=state.now_ms)))


def _known(state: ClusterState, provider_id: ProviderId) -> Provider:
    provider = state.providers.get(provider_id)
    if provider is None:
        raise CoordError(
            Code.NOT_FOUND, f"no provider {provider_id} is enrolled", "coord providers list shows those that are"
        )
    return provider


def on_drain(state: ClusterState, event: ProviderDrain, out: Decision) -> None:
    """No new work there. Idempotent; the first time stands."""
    provider = _known(state, event.provider_id)
    row = provider.row
    provider.row = replace(
        row,
        drained_at_ms=row.drained_at_ms if row.drained_at_ms is not None else state.now_ms,
        drain_note=event.note,
        away_until_ms=event.away_until_ms,
    )
    who = event.provider_id
    state.work.changed(who)
    audit.record(state, out, "provider", who, "drained", why=event.note, by=event.by, provider_id=who)
    _tell_drain(provider, out)
    recall_all(state, who, "its provider is drained", out)
    ask_to_save(state, who, "its provider is drained", out)
    out.replies.append(Reply(event.request_id, view_of(provider)))


def on_resume(state: ClusterState, event: ProviderResume, out: Decision) -> None:
    """Work may be placed there again: it is neither drained nor quarantined. Idempotent."""
    provider = _known(state, event.provider_id)
    end_quarantine(state, event.provider_id, out, by=event.by)
    provider.row = replace(provider.row, drained_at_ms=None, drain_note="", away_until_ms=None)
    who = event.provider_id
    audit.record(state, out, "provider", who, "resumed", by=event.by, provider_id=who)
    _tell_drain(provider, out)
    state.work.able(who, state.now_ms)
    out.replies.append(Reply(event.request_id, view_of(provider)))


def _tell_drain(provider: Provider, out: Decision) -> None:
    row = provider.row
    out.writes.append(Put(row))
    if provider.session is not None and provider.session.conn_id is not None:
        tell = TellDrain(draining=row.drained_at_ms is not None, note=row.drain_note)
        out.sends.append(Send(provider.session.conn_id, tell))
    changed(out, provider)


def on_forget(state: ClusterState, event: ProviderForget, policy: Policy, out: Decision) -> None:
    """Remove enrolment and credential; its connection is closed, its history stays until retention."""
    provider = _known(state, event.provider_id)
    farewell = CloseLink(code=CloseCode.FORGOTTEN, reason="this provider was forgotten")
    part_from(state, provider, farewell, policy, out)
    _drop_credential(state, provider, out)
    end_quarantine(state, event.provider_id, out, by=event.by)
    state.remove_provider(provider)
    forgotten(state, event.provider_id, policy, out)
    who = event.provider_id
    audit.record(state, out, "provider", who, "forgotten", by=event.by, provider_id=who)
    out.writes.append(Delete("provider", event.provider_id))
    out.notes.append(ProviderForgotten(event.provider_id))
    out.replies.append(Reply(event.request_id, None))
