"""What terms agents may hold: everything that was sent to them and that they are not known to have replaced.

No attempt may count as lost before its agent has frozen it by the longest of these.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.core import commands, events
from coordinator.core.ids import AttemptId, ConnId, Ms, ProviderId, dotted
from coordinator.core.rows import AttemptRow, AttemptState, LeaseToken
from coordinator.core.state import ClusterState
from coordinator.simulator.witness.ground import Ground

FREEZE_SHARE = 5 / 6


class Told(Struct, kw_only=True):
    """One term that left for an agent."""

    conn_id: ConnId
    seq: int
    """The heartbeat that it answers; 0: a grant, or the hello."""
    from_ms: Ms
    """The receipt of that heartbeat: the agent counts from a little before it."""
    term_ms: Ms


class Terms:
    """Books of what was sent, by attempt and provider, oldest first."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._told: dict[tuple[AttemptId, LeaseToken, ProviderId], list[Told]] = {}
        self._received: dict[ConnId, dict[int, Ms]] = {}

    def started(self) -> None:
        """From a start on the coordinator counts from then: it does not know what was renewed before."""
        self._received.clear()
        for told in self._told.values():
            for one in told:
                one.from_ms = self._ground.head.now_ms()

    def sent(self, send: commands.Send, state: ClusterState) -> None:
        """It leaves; whether it arrives nobody knows."""
        provider_id = state.conns.get(send.conn_id)
        if provider_id is None:
            return
        match send.message:
            case commands.Grant(attempt_id=attempt_id, token=token, term_ms=term_ms):
                self._note(attempt_id, token, provider_id, send.conn_id, 0, term_ms)
            case commands.Renew(seq=seq, terms=terms):
                for term in terms:
                    self._note(term.attempt_id, term.token, provider_id, send.conn_id, seq, term.term_ms)
            case _:
                pass

    def _note(
        self,
        attempt_id: AttemptId,
        token: LeaseToken,
        provider_id: ProviderId,
        conn_id: ConnId,
        seq: int,
        term_ms: Ms,
    ) -> None:
        from_ms = self._received.get(conn_id, {}).get(seq)
        if from_ms is not None:
            told = self._told.setdefault((attempt_id, token, provider_id), [])
            told.append(Told(conn_id=conn_id, seq=seq, from_ms=from_ms, term_ms=term_ms))

    def decided(self, event: events.AnyEvent, decision: commands.Decision, state: ClusterState) -> None:
        """Heartbeats tell what arrived; a loss must wait for the longest that may have."""
        match event:
            case events.AgentHello(conn_id=conn_id):
                self._received[conn_id] = {0: event.at_ms}
            case events.LinkClosed(conn_id=conn_id):
                self._received.pop(conn_id, None)
            case events.Heartbeats(beats=beats):
                for beat in beats:
                    self._received.setdefault(beat.conn_id, {})[beat.seq] = beat.received_ms
                    self._confirm(beat, state)
            case events.Tick():
                live = state.work.attempts
                self._told = {key: told for key, told in self._told.items() if key[0] in live}
            case _:
                pass
        for write in decision.writes:
            if isinstance(write, commands.Put) and isinstance(write.row, AttemptRow):
                self._check(write.row, state)

    def _confirm(self, beat: events.Beat, state: ClusterState) -> None:
        """Everything before the last renewal that arrived is replaced."""
        provider_id = state.conns.get(beat.conn_id)
        if provider_id is None or not beat.renewed_seq:
            return
        for attempt_id in beat.attempts:
            attempt = state.work.attempts.get(attempt_id)
            told = self._told.get((attempt_id, attempt.row.token, provider_id)) if attempt is not None else None
            arrived = [i for i, t in enumerate(told or ()) if (t.conn_id, t.seq) == (beat.conn_id, beat.renewed_seq)]
            if told is not None and arrived:
                del told[: arrived[-1]]

    def _check(self, row: AttemptRow, state: ClusterState) -> None:
        """One that counts as lost has been frozen, wherever nobody reported its end; unless two may run at once."""
        if row.state is not AttemptState.LOST or self._ground.may_overlap(row.task_id):
            return
        for rank in row.ranks:
            if not rank.launched or rank.exit is not None:
                continue
            told = self._told.get((row.attempt_id, row.token, rank.provider_id), ())
            frozen_ms = max((int(one.from_ms + FREEZE_SHARE * one.term_ms) for one in told), default=0)
            early_ms = frozen_ms - state.now_ms
            self._ground.expect(
                early_ms <= 0, f"{dotted(row.attempt_id)} is lost {early_ms} ms before {rank.provider_id} may freeze it"
            )
            self._told.pop((row.attempt_id, row.token, rank.provider_id), None)  # judged once: its row may change yet
