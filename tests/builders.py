"""Small builders for tests of the core: a fleet whose clock is in the test's hand.

`Fleet` decides events as the engine would (invariants are checked after every one), keeps the rows that a
store would hold, and remembers what was sent, replied and noted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from coordinator.core import commands, events
from coordinator.core.decide import decide
from coordinator.core.errors import CoordError
from coordinator.core.ids import (
    ConnId,
    Ms,
    PoolName,
    ProviderId,
    RequestId,
    TokenId,
)
from coordinator.core.policy import Policy
from coordinator.core.reload import reloaded
from coordinator.core.rows import (
    AttemptRow,
    AuditRow,
    JobRow,
    LedgerRow,
    Role,
    Row,
    SessionRow,
    TokenRow,
    row_key,
)
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState, Provider

START_MS: Ms = 1_800_000_000_000
"""When every fleet begins, on the observed clock."""
JOIN = TokenRow(token_id=TokenId("join-1"), role=Role.JOIN, digest="digest of the join token", created_at_ms=START_MS)
ADMIN = TokenRow(token_id=TokenId("admin-1"), role=Role.ADMIN, digest="digest of the admin", created_at_ms=START_MS)

M = TypeVar("M")


def a_hello(
    conn: int,
    provider: str = "a",
    *,
    at_ms: Ms = START_MS,
    process: str = "p1",
    boot: str = "b1",
    machine: str | None = None,
    key: str = "",
) -> events.AgentHello:
    """A hello of `provider` on connection `conn`. Its fresh resume key is `key-<conn>`."""
    return events.AgentHello(
        at_ms=at_ms,
        conn_id=ConnId(conn),
        provider_id=ProviderId(provider),
        machine_id=machine if machine is not None else f"machine of {provider}",
        boot_id=boot,
        process_id=process,
        agent_version="1",
        peer=f"10.0.0.{conn}:4000",
        fresh_resume_digest=f"key-{conn}",
        resume_digest=key,
    )


def an_enrolment(
    provider: str = "a",
    *,
    at_ms: Ms = START_MS,
    machine: str | None = None,
    token: str = JOIN.digest,
    pool: str | None = None,
    credential: str | None = None,
    request: int = 1,
) -> events.ProviderEnrol:
    credential = credential if credential is not None else f"credential-{provider}"
    return events.ProviderEnrol(
        at_ms=at_ms,
        request_id=RequestId(request),
        provider_id=ProviderId(provider),
        machine_id=machine if machine is not None else f"machine of {provider}",
        token_digest=token,
        credential_digest=f"digest of {credential}",
        credential_id=TokenId(credential),
        pool=PoolName(pool) if pool is not None else None,
    )


class Fleet:
    """The core at work. Times given to it are seconds since it began."""

    def __init__(self, *providers: str, policy: Policy | None = None) -> None:
        """Booted, with a join and an admin token, and `providers` enrolled."""
        self.policy = policy if policy is not None else Policy(verdict_wait_ms=0)
        self.now_ms: Ms = START_MS
        self.rows: dict[tuple[str, object], Row] = {row_key(row): row for row in (JOIN, ADMIN)}
        self.decisions: list[commands.Decision] = []
        self.state = self._load()
        self._next_request = 1
        self.decide(events.Boot(at_ms=self.now_ms))
        for provider in providers:
            self.decide(an_enrolment(provider, at_ms=self.now_ms))

    def _load(self) -> ClusterState:
        sessions_ever = [row.session_id for row in self.rows.values() if isinstance(row, SessionRow)]
        keys = [row.key for row in self.rows.values() if hasattr(row, "key")]
        rows = [r for r in self.rows.values() if not isinstance(r, SessionRow) or r.disconnected_at_ms is None]
        numbers = [row.seq for row in self.rows.values() if isinstance(row, AuditRow)]
        tokens = [row.token.number for row in self.rows.values() if isinstance(row, AttemptRow)]
        jobs = [row.job_id for row in self.rows.values() if isinstance(row, JobRow)]
        return ClusterState.load(
            "head",
            rows,
            max(sessions_ever, default=0) + 1,
            max(keys, default=0) + 1,
            next_job_id=max(jobs, default=0) + 1,
            next_token=max(tokens, default=0) + 1,
            next_audit=max(numbers, default=0) + 1,
            next_ledger=max((row.seq for row in self.rows.values() if isinstance(row, LedgerRow)), default=0) + 1,
        )

    # ---- deciding

    @property
    def now_s(self) -> float:
        return (self.now_ms - START_MS) / 1_000

    def at(self, seconds: float) -> Fleet:
        """Set the clock, without ticking."""
        self.now_ms = START_MS + round(seconds * 1_000)
        return self

    def decide(self, event: events.AnyEvent, durable: bool = True) -> commands.Decision:
        """Decide; the writes reach the rows unless `durable` is false (a full disk will undo them)."""
        decision = decide(self.state, event, self.policy)
        decision.writes[:] = commands.one_by_one(decision.writes)
        decision.sends[:] = commands.sends_one_by_one(decision.sends)
        decision.notes[:] = commands.notes_one_by_one(decision.notes)
        self.state.check_invariants()
        self.decisions.append(decision)
        told = [note.row for note in decision.notes if isinstance(note, commands.Audited)]
        assert all(row.before != row.after for row in told), "a row of the audit tells of no change"
        if durable:
            self.write(decision)
        return decision

    def write(self, decision: commands.Decision) -> None:
        for write in decision.writes:
            match write:
                case commands.Put(row=row):
                    self.rows[row_key(row)] = row
                case commands.Delete(table=table, key=key):
                    self.rows.pop((table, key), None)

    def request(self) -> RequestId:
        self._next_request += 1
        return RequestId(self._next_request)

    def hello(self, conn: int, provider: str = "a", *, durable: bool = True, **more: str) -> commands.Decision:
        return self.decide(a_hello(conn, provider, at_ms=self.now_ms, **more), durable)

    def beat(self, *conns: int) -> commands.Decision:
        beats = tuple(events.Beat(conn_id=ConnId(conn), received_ms=self.now_ms) for conn in conns)
        return self.decide(events.Heartbeats(at_ms=self.now_ms, beats=beats))

    def pong(self, conn: int) -> commands.Decision:
        return self.decide(events.AgentPong(at_ms=self.now_ms, conn_id=ConnId(conn)))

    def bye(
        self, conn: int, *, draining: bool = False, away_until_ms: Ms | None = None, durable: bool = True
    ) -> commands.Decision:
        bye = events.AgentBye(at_ms=self.now_ms, conn_id=ConnId(conn), draining=draining, away_until_ms=away_until_ms)
        return self.decide(bye, durable)

    def closed(self, conn: int, durable: bool = True) -> commands.Decision:
        return self.decide(events.LinkClosed(at_ms=self.now_ms, conn_id=ConnId(conn)), durable)

    def tick(self, stalled_s: float = 0.0) -> commands.Decision:
        return self.decide(events.Tick(at_ms=self.now_ms, stalled_ms=round(stalled_s * 1_000)))

    def run_to(self, seconds: float, beating: Iterable[int] = ()) -> None:
        """Tick every second from now to `seconds`; `beating` connections send a heartbeat every fifth."""
        conns = tuple(beating)
        while self.now_s + 1 <= seconds:
            self.at(self.now_s + 1)
            if conns and round(self.now_s) % 5 == 0:
                self.beat(*conns)
            self.tick()

    def restart(self, back_at: float) -> commands.Decision:
        """Killed now, serving again at `back_at` from the rows that were durable."""
        self.at(back_at)
        self.state = self._load()
        last_beats: tuple[events.LastBeat, ...] = ()
        return self.decide(events.Boot(at_ms=self.now_ms, last_beats=last_beats))

    def disk_was_full(self, *undone: commands.Decision) -> commands.Decision:
        """Roll back: go on from the rows, as after a full disk."""
        old, self.state = self.state, self._load()
        decision = reloaded(old, self.state, self.policy, undone)
        self.state.check_invariants()
        self.decisions.append(decision)
        return decision

    # ---- looking

    def provider(self, provider: str = "a") -> Provider:
        return self.state.providers[ProviderId(provider)]

    def phase(self, provider: str = "a") -> Liveness:
        return self.provider(provider).phase

    def sessions(self, provider: str = "a") -> list[SessionRow]:
        """The durable sessions, oldest first."""
        found = [r for r in self.rows.values() if isinstance(r, SessionRow) and r.provider_id == provider]
        return sorted(found, key=lambda row: row.session_id)

    def ended_s(self, provider: str = "a", index: int = -1) -> float:
        """When its last (or the given) session ended, in seconds since the fleet began."""
        ended = self.sessions(provider)[index].disconnected_at_ms
        assert ended is not None
        return (ended - START_MS) / 1_000


def sent(decision: commands.Decision, kind: type[M]) -> list[tuple[int, M]]:
    """(connection, message) of every message of this kind in a decision."""
    return [(s.conn_id, s.message) for s in decision.sends if isinstance(s.message, kind)]


def closes(decision: commands.Decision) -> dict[int, commands.CloseCode]:
    """With what code each connection is closed."""
    return {conn: message.code for conn, message in sent(decision, commands.CloseLink)}


def refusal(decision: commands.Decision) -> CoordError:
    """The error that a request was answered with."""
    (reply,) = decision.replies
    assert isinstance(reply.result, CoordError), f"not refused: {reply.result}"
    return reply.result
