"""decide(state, event, policy) -> Decision: one match, no detail."""

from __future__ import annotations

from typing import assert_never

from coordinator.core import access, events, forecast, liveness, providers, restart, sessions
from coordinator.core.commands import Decision, Reply
from coordinator.core.errors import CoordError
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState


def decide(state: ClusterState, event: events.AnyEvent, policy: Policy) -> Decision:
    """Take `event` into `state` and say what follows from it.

    Deterministic. `event.at_ms` never goes back; an older one is taken at the state's own time. A refused
    request changes nothing and is answered with its CoordError; an event that nobody waits for never raises.
    """
    state.now_ms = max(state.now_ms, event.at_ms)
    out = Decision()
    try:
        _dispatch(state, event, policy, out)
    except CoordError as error:
        request_id = getattr(event, "request_id", None)
        if request_id is None:
            raise
        return Decision(replies=[Reply(request_id, error)])
    return out


def _dispatch(state: ClusterState, event: events.AnyEvent, policy: Policy, out: Decision) -> None:
    match event:
        case events.Heartbeats():
            liveness.on_heartbeats(state, event, policy, out)
        case events.Tick():
            liveness.on_tick(state, event, policy, out)
        case events.AgentHello():
            sessions.on_hello(state, event, policy, out)
        case events.AgentPong():
            liveness.on_pong(state, event, policy, out)
        case events.AgentBye():
            sessions.on_bye(state, event, policy, out)
        case events.LinkClosed():
            sessions.on_link_closed(state, event, policy, out)
        case events.Boot():
            restart.on_boot(state, event, policy, out)
        case events.ProviderEnrol():
            providers.on_enrol(state, event, policy, out)
        case events.ProviderDrain():
            providers.on_drain(state, event, out)
        case events.ProviderResume():
            providers.on_resume(state, event, out)
        case events.ProviderForget():
            providers.on_forget(state, event, policy, out)
        case events.TokenCreate():
            access.on_token_create(state, event, policy, out)
        case events.TokenRevoke():
            access.on_token_revoke(state, event, policy, out)
        case events.PoolCreate():
            access.on_pool_create(state, event, policy, out)
        case events.PoolDelete():
            access.on_pool_delete(state, event, out)
        case events.Stopping():
            restart.on_stopping(state, out)
        case events.FiguresPublished():
            forecast.on_figures(state, event)
        case _:
            assert_never(event)
