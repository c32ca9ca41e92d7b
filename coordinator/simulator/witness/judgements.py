"""Who is online, suspect and lost, judged by the witness' own books of when each was heard."""

from __future__ import annotations

from coordinator.core import events
from coordinator.core.fleet.liveness import LATE_MS
from coordinator.core.ids import Ms, ProviderId
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState, Provider
from coordinator.simulator.witness.ground import Ground
from coordinator.simulator.witness.sessions import Sessions, slack_ms


class Judgements:
    """Checks the phases of all providers after every event."""

    def __init__(self, ground: Ground, sessions: Sessions) -> None:
        self.suspected_after_ms: Ms = 0
        """The longest silence after which a provider became suspect, while we were quick and the interval plain."""
        self._ground, self._sessions = ground, sessions
        self._suspects: set[ProviderId] = set()

    def decided(self, event: events.AnyEvent, state: ClusterState) -> None:
        ticks = isinstance(event, events.Tick) and not state.stopping
        now_ms = self._ground.taken_ms()
        for provider in state.providers.values():
            self._check(provider, ticks, now_ms)
        if ticks:
            self._check_challengers(state, now_ms)

    def _check(self, provider: Provider, ticks: bool, now_ms: Ms) -> None:
        sessions, policy, expect = self._sessions, self._ground.policy, self._ground.expect
        who = provider.row.provider_id
        heard = sessions.heard.get(who)
        slack = slack_ms(self._ground)
        if provider.phase is Liveness.AWAITED and ticks:
            waited_ms = now_ms - sessions.rejoin_from_ms
            # The tick at waking from a stall is out of step: what it moves is moved for good, however long that is ago.
            slack_of_waking = self._ground.unit_ms // 2
            most_ms = policy.rejoin_ms + slack + slack_of_waking
            expect(waited_ms <= most_ms, f"{who} is awaited for {waited_ms} ms")
        if provider.phase is not Liveness.SUSPECT:
            self._suspects.discard(who)
        if heard is None:
            return
        quiet_ms = now_ms - heard.awake_ms
        longer_ms = sessions.interval_high_ms - policy.heartbeat_interval_ms
        if provider.phase is Liveness.LOST:
            # A stall shorter than the policy's is none, and may hide behind a tick that waits: not forgiven.
            least_ms = policy.lost_after_ms - policy.stall_ms - 2 * policy.tick_ms
            expect(quiet_ms >= least_ms, f"{who} is lost, heard {quiet_ms} ms ago")
        elif provider.phase is Liveness.SUSPECT:
            self._check_suspect(provider, quiet_ms, longer_ms)
        if ticks and provider.phase is Liveness.ONLINE:
            most_ms = int(policy.suspect_after_intervals * sessions.interval_high_ms) + longer_ms
            expect(quiet_ms <= most_ms + slack, f"{who} is online, unheard for {quiet_ms} ms")
        elif ticks and provider.phase is Liveness.SUSPECT:
            most_ms = policy.lost_ms(sessions.interval_high_ms) + longer_ms
            expect(quiet_ms <= most_ms + slack, f"{who} is not lost, unheard for {quiet_ms} ms")

    def _check_suspect(self, provider: Provider, quiet_ms: Ms, longer_ms: Ms) -> None:
        """A silent one is suspect no earlier than two intervals less a tick, and what a tick may be late, after it was
        heard."""
        policy, who = self._ground.policy, provider.row.provider_id
        session = provider.session
        if session is not None and session.conn_id is not None:
            head = self._ground.head
            plain_ms = int(policy.suspect_after_intervals * policy.heartbeat_interval_ms)
            least_ms = max(plain_ms, head.told_interval_ms(session.conn_id)) - 2 * policy.tick_ms - LATE_MS
            if who not in self._suspects and longer_ms == 0 and head.lag_high_ms == 1:
                self.suspected_after_ms = max(self.suspected_after_ms, quiet_ms)
            self._ground.expect(quiet_ms >= least_ms, f"{who} is suspect, heard {quiet_ms} ms ago")
        self._suspects.add(who)

    def _check_challengers(self, state: ClusterState, now_ms: Ms) -> None:
        sessions, most_ms = self._sessions, self._ground.policy.challenge_ms + slack_ms(self._ground)
        sessions.challenged = {c: since for c, since in sessions.challenged.items() if c in state.challengers}
        for conn_id, since_ms in sessions.challenged.items():
            waited_ms = now_ms - since_ms
            self._ground.expect(waited_ms <= most_ms, f"challenger {conn_id} waits for {waited_ms} ms")
