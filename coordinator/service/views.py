"""What readers in this process may see: immutable views, changed only when the writes behind them are durable.

Owned by the engine, which calls `apply`; everybody else reads. It never holds anything that may still be
rolled back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from msgspec import Struct

from coordinator.core import commands
from coordinator.core.fleet.publish import view_of
from coordinator.core.ids import AttemptId, JobId, Ms, PoolName, ProviderId, TenantName, TokenId
from coordinator.core.rows import (
    ENDED,
    LIVE_ATTEMPT,
    AttemptRow,
    AttemptState,
    AuditRow,
    JobRow,
    PoolRow,
    TenantRow,
    TokenRow,
)
from coordinator.core.snapshot import ProviderView
from coordinator.core.state import ClusterState
from coordinator.service.tokens import digest_of

Listener = Callable[[commands.Note], None]
AuditListener = Callable[[list[AuditRow]], None]


ENDED_MAX = 20_000
"""Jobs and attempts that ended lately: so many of each are still known here."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class AttemptView(Struct, frozen=True, gc=False, kw_only=True):
    """One attempt as it durably stands."""

    row: AttemptRow
    tenant: TenantName
    """Empty where only its row is known: it ended before this start."""
    fenced: bool = False
    """Its token counts no more."""


class Lately(Generic[K, V]):
    """What lives, and of what ended the latest ENDED_MAX."""

    def __init__(self) -> None:
        self._live: dict[K, V] = {}
        self._over: dict[K, V] = {}
        self._order: deque[K] = deque()

    def get(self, key: K) -> V | None:
        found = self._live.get(key)
        return found if found is not None else self._over.get(key)

    def live(self) -> Iterable[V]:
        """Those that have not ended, in the order in which they came."""
        return self._live.values()

    def load(self, live: dict[K, V]) -> None:
        """These live; what ended stays known, unless it lives again."""
        self._live = live
        for key in live:
            self._over.pop(key, None)

    def live_on(self, live: dict[K, V]) -> None:
        """These live, as they are now; none of them had ended."""
        self._live.update(live)

    def put(self, key: K, value: V, ended: bool) -> None:
        if ended:
            self.end({key: value})
        else:
            self._live[key] = value
            self._over.pop(key, None)

    def end(self, over: dict[K, V]) -> None:
        """These have ended."""
        for key in over:
            self._live.pop(key, None)
            if key not in self._over:
                self._order.append(key)
        self._over.update(over)
        while len(self._order) > ENDED_MAX:
            self._over.pop(self._order.popleft(), None)


def ended_fenced(row: AttemptRow) -> bool:
    """Whether the token of an attempt with this row counts no more: it was taken back, or lost and nobody has said how
    it ended. One whose agent said so may still send the rest of its log."""
    if row.state is AttemptState.LOST:
        return any(rank.exit is None for rank in row.ranks)
    return row.state is AttemptState.TAKEN_BACK


def _attempt_view(state: ClusterState, row: AttemptRow) -> AttemptView:
    """An attempt of a state that was just loaded."""
    job = state.work.jobs.get(row.job_id)
    tenant = job.row.tenant if job is not None else TenantName("")
    return AttemptView(row=row, tenant=tenant, fenced=ended_fenced(row))


class LiveViews:
    """Providers, tokens, pools and work as readers see them. Bounded by the policy's bounds on the state."""

    def __init__(self) -> None:
        self.jobs: Lately[JobId, JobRow] = Lately()
        self.attempts: Lately[AttemptId, AttemptView] = Lately()
        self.providers: dict[ProviderId, ProviderView] = {}
        self.tokens: dict[TokenId, TokenRow] = {}
        self.pools: dict[PoolName, PoolRow] = {}
        self.tenants: dict[TenantName, TenantRow] = {}
        """Those that have a row; `default` may have none."""
        self._by_digest: dict[str, TokenRow] = {}
        self._listeners: list[tuple[Listener, tuple[type, ...]]] = []
        self._auditors: list[AuditListener] = []
        self._heard: dict[type, tuple[Listener, ...]] = {}
        """By kind of note: who wants it. A short task leaves twelve notes, and most listeners want none of them."""

    def listen(self, listener: Listener, *kinds: type) -> None:
        """Have `listener` called with each note of these kinds (none named: with each) once it is durable. It must not
        block, await or raise."""
        self._listeners.append((listener, kinds))
        self._heard.clear()

    def listen_audit(self, listener: AuditListener) -> None:
        """The same, with the audit rows of a decision in one call, after its other notes: they are most of what is
        told, and nobody looks at what else changed in between. Those of a `Together` stand in that note alone; what
        came before it is told before it."""
        self._auditors.append(listener)

    def _who_hears(self, kind: type) -> tuple[Listener, ...]:
        found = self._heard[kind] = tuple(who for who, kinds in self._listeners if not kinds or kind in kinds)
        return found

    def load(self, state: ClusterState) -> None:
        """Take over a state that was just loaded: all of it is durable, and shown before anything else happens."""
        self.tokens = dict(state.tokens)
        self._by_digest = {row.digest: row for row in state.tokens.values()}
        self.pools = dict(state.pools)
        self.tenants = dict(state.work.accounts.tenants)
        self.providers = {key: view_of(provider) for key, provider in state.providers.items()}
        work = state.work
        self.jobs.load({key: job.row for key, job in work.jobs.items()})
        found = {key: _attempt_view(state, attempt.row) for key, attempt in work.attempts.items()}
        self.attempts.load({key: view for key, view in found.items() if view.row.state in LIVE_ATTEMPT})
        for key, view in found.items():
            if view.row.state not in LIVE_ATTEMPT:
                self.attempts.put(key, view, ended=True)

    def apply(self, notes: Iterable[commands.Note]) -> None:
        """Publish what became durable."""
        heard = self._heard
        audited: list[AuditRow] = []
        for note in notes:
            kind = type(note)
            # What comes most often first, told by its type alone.
            if kind is commands.Audited:
                audited.append(note.row)  # type: ignore[union-attr,arg-type]
            elif kind is commands.AttemptChanged:
                self._put_attempt(note)  # type: ignore[arg-type]
            elif kind is commands.FirstLeases or kind is commands.Launched or kind is commands.Ended:
                self._put_together(note)  # type: ignore[arg-type]  # by its kind
                if audited:
                    self._tell_audit(audited)
                    audited = []
            else:
                self._put(note)
            listeners = heard.get(kind)
            for listener in listeners if listeners is not None else self._who_hears(kind):
                listener(note)
        if audited:
            self._tell_audit(audited)

    def _tell_audit(self, rows: list[AuditRow]) -> None:
        for auditor in self._auditors:
            auditor(rows)

    def _put_together(self, rows: commands.Together) -> None:
        """Of attempts whose state is another one than before."""
        tenant = rows.tenant
        views = [AttemptView(row=row, tenant=tenant) for row in rows.attempts]
        known = dict(zip(rows.ids, views, strict=True))
        if isinstance(rows, commands.Ended):
            self.attempts.end(known)
        else:
            self.attempts.live_on(known)

    def _put_attempt(self, note: commands.AttemptChanged) -> None:
        row, fenced = note.row, note.fenced
        attempt_id = row.attempt_id
        before = self.attempts.get(attempt_id)
        if before is not None and before.row.state is row.state:
            fenced = fenced or before.fenced  # what changed is something else
        known = AttemptView(row=row, tenant=note.tenant, fenced=fenced)
        self.attempts.put(attempt_id, known, row.state not in LIVE_ATTEMPT)

    def _put(self, note: commands.Note) -> None:
        match note:
            case commands.JobChanged(row=job):
                self.jobs.put(job.job_id, job, job.state in ENDED)
            case commands.ProviderChanged(view=view):
                self.providers[view.provider_id] = view
            case commands.ProviderForgotten(provider_id=provider_id):
                self.providers.pop(provider_id, None)
            case commands.TokenChanged(row=row):
                self._put_token(row)
            case commands.TokenForgotten(row=row):
                self._drop_token(row)
            case commands.PoolChanged(name=name, row=pool):
                if pool is None:
                    self.pools.pop(name, None)
                else:
                    self.pools[name] = pool
            case commands.TenantChanged(name=who, row=tenant_row):
                if tenant_row is None:
                    self.tenants.pop(who, None)
                else:
                    self.tenants[who] = tenant_row
            case _:
                pass

    def _put_token(self, row: TokenRow) -> None:
        if row.provider_id is not None and row.revoked_at_ms is not None:
            self._drop_token(row)
        else:
            self.tokens[row.token_id] = row
            self._by_digest[row.digest] = row

    def _drop_token(self, row: TokenRow) -> None:
        self.tokens.pop(row.token_id, None)
        self._by_digest.pop(row.digest, None)

    def authenticate(self, token: str, now_ms: Ms) -> TokenRow | None:
        """Who this token's text speaks for; None when it is unknown, revoked or expired."""
        row = self._by_digest.get(digest_of(token))
        if row is None or row.revoked_at_ms is not None:
            return None
        if row.expires_at_ms is not None and row.expires_at_ms <= now_ms:
            return None
        return row
