"""What is said to agents about leases, and how long anything may stay undecided."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core import commands, events
from coordinator.core.ids import AttemptId, ConnId, Ms, TaskId, dotted
from coordinator.core.rows import LIVE_ATTEMPT, AttemptRow, AttemptState, LeaseToken
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState
from coordinator.core.work.live import Attempt
from coordinator.simulator.witness.ground import Ground
from coordinator.simulator.witness.sessions import Sessions, slack_ms

SILENT = (Liveness.SUSPECT, Liveness.LOST, Liveness.AWAY)
THERE = (AttemptState.STAGING, AttemptState.RUNNING, AttemptState.FROZEN)


class Leases:
    """Books of what was decided about leases, durable or not."""

    def __init__(self, ground: Ground, sessions: Sessions) -> None:
        self._ground, self._sessions = ground, sessions
        self._rows: dict[AttemptId, AttemptRow] = {}
        self._newest: dict[TaskId, LeaseToken] = {}
        self._acks: set[tuple[AttemptId, int, LeaseToken]] = set()
        self._leased_awake_ms: dict[AttemptId, Ms] = {}
        self._doubted_awake_ms: dict[AttemptId, tuple[Ms, frozenset[int]]] = {}
        """Since when, and of which ranks nothing was heard from then on."""
        self.booted_awake_ms: Ms = 0

    def load(self, state: ClusterState) -> None:
        """What is durable is all there is."""
        self._rows = {a: attempt.row for a, attempt in state.work.attempts.items()}
        self._newest.clear()
        for row in self._ground.disk.rows.values():
            if isinstance(row, AttemptRow):
                self._newest[row.task_id] = max(row.token, self._newest.get(row.task_id, row.token))
        self._leased_awake_ms.clear()
        self._doubted_awake_ms.clear()

    # ---- every decision

    def decided(self, event: events.AnyEvent, decision: commands.Decision, state: ClusterState) -> None:
        """What agents told counts as an acknowledgement; what we tell them must be right."""
        match event:
            case events.AgentGranted():
                self._acks.add((event.attempt_id, event.rank, event.token))
            case events.LeasesHeld():
                self._acks.update(event.held)
            case events.AgentHello():
                self._acks.update((held.attempt_id, held.rank, held.token) for held in event.attempts)
            case _:
                pass
        for write in decision.writes:
            if isinstance(write, commands.Put) and isinstance(write.row, AttemptRow):
                row = write.row
                self._rows[row.attempt_id] = row
                if row.state is not AttemptState.IN_DOUBT:
                    self._doubted_awake_ms.pop(row.attempt_id, None)
                self._newest[row.task_id] = max(row.token, self._newest.get(row.task_id, row.token))
        for send in decision.sends:
            self._check_send(send.conn_id, send.message, state)
        if isinstance(event, events.Tick) and not state.stopping:
            self._check_ages(state)

    def heed(self, sends: Iterable[commands.Send], state: ClusterState) -> None:
        """What a reload has to say."""
        for send in sends:
            self._check_send(send.conn_id, send.message, state)

    def _check_send(self, conn_id: ConnId, message: commands.Message, state: ClusterState) -> None:
        match message:
            case commands.Grant(attempt_id=attempt_id, rank=rank, token=token, term_ms=term_ms):
                row = self._current(attempt_id, token, "is granted", also=AttemptState.TAKEN_BACK)
                self._check_term(row, term_ms)
                if row.state is not AttemptState.TAKEN_BACK:  # else its agent was found gone later in the same decision
                    self._check_there(conn_id, row, rank, state)
            case commands.Launch(attempt_id=attempt_id, rank=rank, token=token):
                row = self._current(attempt_id, token, "is launched")
                self._check_there(conn_id, row, rank, state)
                acked = all((attempt_id, r, token) in self._acks for r in range(len(row.ranks)))
                self._ground.expect(acked, f"{dotted(attempt_id)} is launched before all of its leases are held")
            case commands.Renew(terms=terms):
                for term in terms:
                    row = self._current(term.attempt_id, term.token, "is renewed")
                    self._check_term(row, term.term_ms)
            case commands.Settled(attempt_id=attempt_id, rank=rank):
                row_of = self._rows.get(attempt_id)
                done = row_of is None or row_of.state not in LIVE_ATTEMPT or row_of.ranks[rank].exit is not None
                self._ground.expect(done, f"{dotted(attempt_id)} is settled and lives")
            case _:
                pass

    def _current(
        self, attempt_id: AttemptId, token: LeaseToken, what: str, also: AttemptState = AttemptState.RUNNING
    ) -> AttemptRow:
        """Its row: it lives, by this token, and nobody has a newer one. What one decision grants and takes back is
        `also` in order: nothing was launched."""
        expect, who = self._ground.expect, dotted(attempt_id)
        row = self._rows.get(attempt_id)
        if row is None:
            expect(False, f"{who} {what} and was never decided")
        assert row is not None
        expect(row.token == token, f"{who} {what} by {token}, its token is {row.token}")
        expect(row.state in LIVE_ATTEMPT or row.state is also, f"{who} {what} and is {row.state}")
        newest = self._newest[row.task_id]
        expect(newest == token, f"{who} {what} by {token}, which {newest} has fenced")
        return row

    def _check_term(self, row: AttemptRow, term_ms: Ms) -> None:
        who = dotted(row.attempt_id)
        self._ground.expect(
            0 < term_ms <= row.term_ms, f"{who} is told a term of {term_ms} ms, {row.term_ms} are written"
        )

    def _check_there(self, conn_id: ConnId, row: AttemptRow, rank: int, state: ClusterState) -> None:
        there = state.conns.get(conn_id)
        self._ground.expect(
            row.ranks[rank].provider_id == there, f"{dotted(row.attempt_id)}, rank {rank}, is told to {there}"
        )

    # ---- time

    def _check_ages(self, state: ClusterState) -> None:
        now_ms = self._ground.taken_ms()
        # One that is slow may take its own slowness for a stall, and moves every lease by it.
        slack = slack_ms(self._ground) + (self._ground.policy.stall_ms if self._ground.head.lag_high_ms > 1 else 0)
        live = state.work.attempts
        for attempt_id in [a for a in (*self._leased_awake_ms, *self._doubted_awake_ms) if a not in live]:
            self._leased_awake_ms.pop(attempt_id, None)
            self._doubted_awake_ms.pop(attempt_id, None)
        for attempt_id, attempt in live.items():
            self._check_age(attempt_id, attempt, state, now_ms, slack)

    def _check_age(self, attempt_id: AttemptId, attempt: Attempt, state: ClusterState, now_ms: Ms, slack: Ms) -> None:
        row, policy, expect, who = attempt.row, self._ground.policy, self._ground.expect, dotted(attempt_id)
        if row.state is AttemptState.LEASED:
            waited_ms = now_ms - self._leased_awake_ms.setdefault(attempt_id, now_ms)
            patience_ms = max(policy.grant_ms, policy.rejoin_ms if self._is_new(now_ms) else 0)
            expect(waited_ms <= patience_ms + slack, f"{who} is granted for {waited_ms} ms, and nobody answered")
        else:
            self._leased_awake_ms.pop(attempt_id, None)
        if row.state is AttemptState.IN_DOUBT:
            # Each rank that falls silent, or is back while another is not, begins a wait of its own.
            ranks = frozenset(attempt.silent)
            since_ms, before = self._doubted_awake_ms.get(attempt_id, (now_ms, ranks))
            since_ms = since_ms if before == ranks else now_ms
            self._doubted_awake_ms[attempt_id] = since_ms, ranks
            doubted_ms = now_ms - since_ms
            # The last one may fall silent at the end of the first one's lease.
            most_ms = row.term_ms * len(row.ranks) + slack
            expect(doubted_ms <= most_ms, f"{who} is in doubt for {doubted_ms} ms of {row.term_ms}")
        else:
            self._doubted_awake_ms.pop(attempt_id, None)
        if row.state in THERE:
            for rank in row.ranks:
                provider = state.providers.get(rank.provider_id)
                silent = provider is None or provider.phase in SILENT
                gone = silent and rank.launched and rank.exit is None
                expect(not gone, f"{who} is {row.state}, and {rank.provider_id} is not there")

    def _is_new(self, now_ms: Ms) -> bool:
        """The coordinator started so lately that agents may still be on their way."""
        policy = self._ground.policy
        return now_ms - self.booted_awake_ms <= policy.rejoin_ms + policy.grant_ms + slack_ms(self._ground)
