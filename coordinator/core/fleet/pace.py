"""The heartbeat interval that the whole fleet is told, so that it keeps within its budget."""

from __future__ import annotations

from coordinator.core.commands import Decision, Send, TellInterval
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState


def fit_interval(state: ClusterState, policy: Policy, out: Decision) -> None:
    """Tell everybody a new interval when the fleet outgrew its budget, or shrank well below it."""
    fitting = policy.interval_ms(len(state.conns))
    shrunk = policy.interval_ms(len(state.conns) * 5 // 4)
    if fitting > state.interval_ms or shrunk < state.interval_ms:
        # A shorter one counts from an agent's next sign of life: until then it may go by what it was told before.
        for provider_id in state.conns.values():
            session = state.providers[provider_id].session
            assert session is not None
            session.interval_ms = max(session.interval_ms, fitting)
        state.interval_ms = fitting
        out.sends.extend(Send(conn_id, TellInterval(heartbeat_interval_ms=fitting)) for conn_id in state.conns)
