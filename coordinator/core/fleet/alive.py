"""What is stored of having been alive: the coordinator's own sign of life, and the agents' last heartbeats.

From the last stored sign until the next start nobody was watched.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.commands import Decision, Put
from coordinator.core.queue.fair_share import measure
from coordinator.core.rows import Meta, MetaRow
from coordinator.core.state import ClusterState


def say_alive(state: ClusterState, out: Decision) -> None:
    """Also with every stored begin, end or heartbeat: a clock that starts from `alive_at` is behind no stored time."""
    if state.alive_at_ms != state.now_ms:
        state.alive_at_ms = state.now_ms
        out.writes.append(Put(MetaRow(name=Meta.ALIVE_AT_MS, value=str(state.now_ms))))


def save_beats(state: ClusterState, out: Decision) -> None:
    """Every few seconds; with it what fair share remembers."""
    state.beats_saved_ms = state.now_ms
    accounts = state.work.accounts
    measure(accounts, (provider.offer for provider in state.providers.values()))  # also while nobody waits
    for account in accounts.by_tenant.values():
        if account.share != account.row.share:
            accounts.touch(account)
    say_alive(state, out)
    for provider_id in state.conns.values():
        session = state.providers[provider_id].session
        if session is not None and session.last_beat_ms is not None and session.last_beat_ms != session.saved_beat_ms:
            session.saved_beat_ms = session.last_beat_ms
            session.row = replace(session.row, last_heartbeat_at_ms=session.last_beat_ms)
            out.writes.append(Put(session.row))
