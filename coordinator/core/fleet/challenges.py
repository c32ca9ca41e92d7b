"""Two connections that claim one provider: the newcomer waits until the holder has answered, or has not."""

from __future__ import annotations

from coordinator.core.commands import CloseCode, CloseLink, Decision, Send, Warned
from coordinator.core.events import AgentHello
from coordinator.core.fleet.publish import changed
from coordinator.core.snapshot import Duplicate
from coordinator.core.state import ClusterState, Provider


def refuse_hello(out: Decision, event: AgentHello, code: CloseCode, reason: str) -> None:
    out.sends.append(Send(event.conn_id, CloseLink(code=code, reason=reason)))


def refuse_duplicate(state: ClusterState, provider: Provider, event: AgentHello, out: Decision) -> None:
    """Two agents with one identity: the holder keeps it, both are shown."""
    provider.duplicate = Duplicate(at_ms=state.now_ms, peer=event.peer, holder_peer=provider.peer)
    refuse_hello(
        out,
        event,
        CloseCode.DUPLICATE,
        f"provider {event.provider_id} is connected from {provider.peer} and answers; this one came from {event.peer}",
    )
    out.notes.append(
        Warned(
            kind="duplicate_provider",
            subject=event.provider_id,
            text=f"agents at {provider.peer} and {event.peer} use one identity; the second was refused",
        )
    )
    changed(out, provider)


def turn_away_challenger(state: ClusterState, provider: Provider, out: Decision) -> None:
    challenger = provider.challenger
    if challenger is not None:
        drop_challenger(state, provider)
        refuse_duplicate(state, provider, challenger.hello, out)


def drop_challenger(state: ClusterState, provider: Provider) -> None:
    if provider.challenger is not None:
        state.challengers.pop(provider.challenger.conn_id, None)
        provider.challenger = None
