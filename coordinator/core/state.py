"""ClusterState: the tables, their indexes, the wheel of deadlines, and what must always hold.

Owned by one task. Only functions of this package change it. It keeps enrolled providers, live sessions,
tokens and pools; history is the store's. Nothing here grows with history.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from coordinator.core.data.invariants import check_data
from coordinator.core.data.live import Data
from coordinator.core.data.loading import load_data
from coordinator.core.events import AgentHello, FiguresPublished, ProviderFigures
from coordinator.core.ids import ConnId, JobId, Ms, PoolName, ProviderId, ProviderKey, SessionId, TokenId
from coordinator.core.queue.capacity import Offer, offer_of, promote
from coordinator.core.rows import (
    AccountRow,
    EndReason,
    Meta,
    MetaRow,
    OutageRow,
    PoolRow,
    ProviderRow,
    Resources,
    Row,
    SessionRow,
    TenantRow,
    TokenRow,
)
from coordinator.core.snapshot import Duplicate, Liveness
from coordinator.core.tenants.account import remember_held
from coordinator.core.tenants.reservations import note_prices
from coordinator.core.wheel import Wheel
from coordinator.core.work.invariants import check_work
from coordinator.core.work.live import Work
from coordinator.core.work.loading import load_work

ENDED_MAX = 4_096
"""Ends that are remembered for a rollback (about 1 MB); an older one that is undone becomes a `read_error`."""


class LiveSession(Struct, gc=False, kw_only=True):
    """An open session. `conn_id` is None while its agent is awaited after a restart."""

    row: SessionRow
    conn_id: ConnId | None
    quiet_from_ms: Ms
    """Silence is counted from here: the last sign of life, moved by our own stalls."""
    last_beat_ms: Ms | None = None
    saved_beat_ms: Ms | None = None
    interval_ms: Ms = 0
    """The longest heartbeat interval that its agent was told since its last sign of life."""
    pinged: bool = False
    seq: int = 0
    """Of the last heartbeat on its connection; 0: none since its hello."""
    undone: SessionRow | None = None
    """How it ended, when a full disk undid that end: it is ended again so."""


class Challenger(Struct, gc=False, kw_only=True):
    """A connection that claims a provider whose old connection has to answer first."""

    conn_id: ConnId
    hello: AgentHello
    """Taken up when the old connection stays silent."""
    deadline_ms: Ms


class Provider(Struct, kw_only=True):
    """An enrolled provider and what is live of it."""

    row: ProviderRow
    phase: Liveness
    session: LiveSession | None = None
    peer: str = ""
    gone_from_ms: Ms | None = None
    """Its absence is counted from here: the last sign of life, moved by our own stalls."""
    challenger: Challenger | None = None
    duplicate: Duplicate | None = None
    offered: Resources | None = None
    """What `capacity` was made of."""
    capacity: Offer | None = None
    cached: bytes = b""
    """What its agent said that it has in its cache: see `data.caches`."""

    @property
    def offer(self) -> Offer:
        """What it offers, in the units of an Ask."""
        if self.capacity is None or self.offered is not self.row.resources:
            self.offered, self.capacity = self.row.resources, offer_of(self.row.resources)
        return self.capacity


class Figures(Struct, kw_only=True):
    """The last figures from analytics, by provider."""

    published: FiguresPublished
    by_provider: dict[ProviderId, ProviderFigures]


class ClusterState:
    """Everything that decisions rest on."""

    def __init__(self, coordinator_id: str) -> None:
        self.coordinator_id = coordinator_id
        self.now_ms: Ms = 0
        self.booted_at_ms: Ms = 0
        self.generation = 1
        self.rejoin_by_ms: Ms = 0
        """Until then sessions wait for their agents after a start."""
        self.stopping = False
        self.ticked_at_ms: Ms = 0
        self.ended: deque[SessionRow] = deque(maxlen=ENDED_MAX)
        """Sessions as they ended lately, durable or not: an end that a full disk undoes is made again from here."""
        self.orphans: list[SessionRow] = []
        """Open sessions whose provider could not be read: the next tick ends them where they were last heard."""
        self.undone_outages: list[OutageRow] = []
        """Times that nobody watched whose writing a full disk undid: the next tick writes them again."""
        self.outage_ms: Ms = 0
        """How long the coordinator was away before this start."""
        self.stepped_ahead = False
        """The wall clock was set forward before this start: how long we were away is not known."""
        self.alive_at_ms: Ms | None = None
        self.interval_ms: Ms = 0
        self.next_session_id = SessionId(1)
        self.next_key = ProviderKey(1)
        self.providers: dict[ProviderId, Provider] = {}
        self.conns: dict[ConnId, ProviderId] = {}
        self.challengers: dict[ConnId, ProviderId] = {}
        self.tokens: dict[TokenId, TokenRow] = {}
        self.tokens_by_digest: dict[str, TokenId] = {}
        self.pools: dict[PoolName, PoolRow] = {}
        self.pool_sizes: dict[PoolName, int] = {}
        self.figures: Figures | None = None
        self.beats_saved_ms: Ms = 0
        self.wall_ns = 0
        """When the event that is decided was taken, to the nanosecond: for audit rows."""
        self.mono_ns = 0
        self.work = Work()
        self.data = Data()
        self._wheel: Wheel[str] = Wheel()

    # ---- loading

    @classmethod
    def load(
        cls,
        coordinator_id: str,
        rows: Iterable[Row],
        next_session_id: int,
        next_key: int,
        *,
        next_job_id: int = 1,
        next_token: int = 1,
        next_audit: int = 1,
        next_ledger: int = 1,
    ) -> ClusterState:
        """The state that these rows tell of: every provider, token, pool, meta row, this coordinator's open sessions
        and the live work. Sessions of others are left alone, their rows are not given here. The counters are above
        every number ever used."""
        state = cls(coordinator_id)
        state.next_session_id = SessionId(next_session_id)
        state.next_key = ProviderKey(next_key)
        state.work.next_job_id = JobId(next_job_id)
        state.work.next_token, state.work.next_audit = next_token, next_audit
        accounts = state.work.accounts
        accounts.next_ledger = next_ledger
        rows = list(rows)
        sessions = []
        for row in rows:
            match row:
                case ProviderRow():
                    state.add_provider(Provider(row=row, phase=_resting_phase(row), gone_from_ms=row.last_seen_ms))
                case SessionRow():
                    sessions.append(row)
                case TokenRow():
                    state.put_token(row)
                case PoolRow():
                    state.pools[row.name] = row
                case TenantRow():
                    accounts.tenants[row.name] = row
                case AccountRow():
                    accounts.rows[row.tenant] = row
                case MetaRow(name=Meta.ALIVE_AT_MS):
                    state.alive_at_ms = int(row.value)
                case MetaRow(name=Meta.GENERATION):
                    state.generation = int(row.value)
                case _:
                    pass
        note_prices(accounts, state.pools)
        for tenant in (*accounts.tenants, *accounts.rows):
            accounts.of(tenant)
        load_work(state.work, rows, state.promote_all)
        load_data(state.data, accounts, rows)
        for account in accounts.by_tenant.values():
            remember_held(account)
        accounts.unsettled.clear()
        for session in sessions:
            provider = state.providers.get(session.provider_id)
            if provider is None:
                state.orphans.append(session)
            else:
                provider.phase = Liveness.AWAITED
                provider.session = LiveSession(
                    row=session,
                    conn_id=None,
                    quiet_from_ms=session.last_heartbeat_at_ms or session.connected_at_ms,
                    last_beat_ms=session.last_heartbeat_at_ms,
                    saved_beat_ms=session.last_heartbeat_at_ms,
                )
        return state

    def promote_all(self) -> None:
        """Of those in line hold their shares who did before: the rows do not say it, what is offered does."""
        for provider_id, load in self.work.loads.items():
            provider = self.providers.get(provider_id) if load.behind else None
            if provider is not None:
                promote(self.work, provider_id, provider.offer)

    # ---- providers, tokens

    def add_provider(self, provider: Provider) -> None:
        self.providers[provider.row.provider_id] = provider
        self.pool_sizes[provider.row.pool] = self.pool_sizes.get(provider.row.pool, 0) + 1

    def remove_provider(self, provider: Provider) -> None:
        """Its appointment stays: an enrolment anew takes the same place. `forget` is final."""
        del self.providers[provider.row.provider_id]
        left = self.pool_sizes.pop(provider.row.pool) - 1
        if left:
            self.pool_sizes[provider.row.pool] = left

    def put_token(self, row: TokenRow) -> None:
        self.tokens[row.token_id] = row
        self.tokens_by_digest[row.digest] = row.token_id

    def remove_token(self, token_id: TokenId) -> None:
        row = self.tokens.pop(token_id)
        del self.tokens_by_digest[row.digest]

    def valid_token(self, digest: str) -> TokenRow | None:
        """The token with this digest, unless it is unknown, revoked or expired now."""
        token_id = self.tokens_by_digest.get(digest)
        row = self.tokens[token_id] if token_id is not None else None
        if row is None or row.revoked_at_ms is not None:
            return None
        if row.expires_at_ms is not None and row.expires_at_ms <= self.now_ms:
            return None
        return row

    def provider_of(self, conn_id: ConnId) -> Provider | None:
        """The provider that this connection is bound to."""
        provider_id = self.conns.get(conn_id)
        return self.providers.get(provider_id) if provider_id is not None else None

    # ---- the wheel

    def review_at(self, provider: Provider, when_ms: Ms) -> None:
        """Have `provider` looked at by the tick of `when_ms` or the one before; an earlier appointment stands.

        A review that comes a little early makes its next appointment itself.
        """
        self._wheel.hasten(provider.row.provider_id, when_ms)

    def due(self) -> list[Provider]:
        """Take the providers whose appointment has come, each once, oldest appointment first."""
        found = (self.providers.get(ProviderId(key)) for key in self._wheel.due(self.now_ms))
        return [provider for provider in found if provider is not None]

    def wheel_image(self) -> tuple[tuple[tuple[int, str], ...], int]:
        """The appointments of providers, and the next bucket to be looked at."""
        return self._wheel.image()

    def restore_wheel(self, wheel: tuple[tuple[int, str], ...], next_bucket: int) -> None:
        """Take appointments over from an image."""
        self._wheel.restore(wheel, next_bucket)

    def appointments(self) -> int:
        """How many entries the wheel holds, outdated ones included."""
        return len(self._wheel)

    # ---- what must always hold

    def check_invariants(self) -> None:
        """Raise AssertionError with the first broken invariant. O(state): for tests and the simulator."""
        for conn_id, provider_id in self.conns.items():
            session = self.providers[provider_id].session
            assert session is not None and session.conn_id == conn_id, f"connection {conn_id} is bound to no session"
        for conn_id, provider_id in self.challengers.items():
            challenger = self.providers[provider_id].challenger
            assert challenger is not None and challenger.conn_id == conn_id, f"stray challenger {conn_id}"
            assert conn_id not in self.conns, f"challenger {conn_id} is bound"
        sizes: dict[PoolName, int] = {}
        keys = set()
        for provider_id, provider in self.providers.items():
            row = provider.row
            assert row.provider_id == provider_id
            assert row.key not in keys and row.key < self.next_key, f"key {row.key} is used twice or not yet given"
            keys.add(row.key)
            sizes[row.pool] = sizes.get(row.pool, 0) + 1
            if provider.session is None:
                assert provider.phase not in (Liveness.ONLINE, Liveness.AWAITED), f"{provider_id}: {provider.phase}"
            else:
                self._check_session(provider, provider.session)
            if provider.challenger is not None:
                assert self.challengers.get(provider.challenger.conn_id) == provider_id
                assert provider.session is not None, f"{provider_id}: a challenger waits for nobody"
            if provider.phase is Liveness.SUSPECT:
                assert provider.row.provider_id in self._wheel, f"{provider_id}: nobody will look at it again"
        assert sizes == self.pool_sizes, "pool sizes are off"
        for digest, token_id in self.tokens_by_digest.items():
            assert self.tokens[token_id].digest == digest
        assert len(self.tokens) == len(self.tokens_by_digest)
        offers = {provider_id: (p.offer.cpus, p.offer.memory) for provider_id, p in self.providers.items() if p.session}
        check_work(self.work, offers)
        check_data(self.data, self.work)

    def _check_session(self, provider: Provider, session: LiveSession) -> None:
        who = provider.row.provider_id
        assert session.row.provider_id == who
        assert session.row.disconnected_at_ms is None, f"{who}: a live session is closed"
        assert session.row.session_id < self.next_session_id
        assert session.row.connected_at_ms <= self.now_ms or not self.now_ms
        if session.conn_id is None:
            assert provider.phase in (Liveness.AWAITED, Liveness.SUSPECT), f"{who}: {provider.phase} without a socket"
        else:
            assert self.conns.get(session.conn_id) == who
            assert provider.phase in (Liveness.ONLINE, Liveness.SUSPECT), f"{who}: {provider.phase} with a socket"
        assert provider.row.provider_id in self._wheel, f"{who}: nobody will look at its session"


def _resting_phase(row: ProviderRow) -> Liveness:
    if row.last_seen_ms is None:
        return Liveness.NEVER_SEEN
    if row.last_end is not None and row.last_end in (EndReason.CLEAN_CLOSE, EndReason.DRAINING):
        return Liveness.AWAY
    return Liveness.LOST
