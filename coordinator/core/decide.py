"""decide(state, event, policy) -> Decision: one match, no detail."""

from __future__ import annotations

from coordinator.core import events, restart
from coordinator.core.commands import Decision, Reply
from coordinator.core.data.dispatch import on_data
from coordinator.core.errors import CoordError
from coordinator.core.fleet import access, forecast, liveness, providers, sessions
from coordinator.core.policy import Policy
from coordinator.core.queue import explain, placement
from coordinator.core.state import ClusterState
from coordinator.core.tenants import registry as tenants
from coordinator.core.tenants import usage
from coordinator.core.tenants.budgets import settle_accounts, write_accounts
from coordinator.core.tenants.charging import turn_month
from coordinator.core.verdict import settling
from coordinator.core.verdict.events import VerdictGiven
from coordinator.core.work import attempts, holding, jobs, succeeding
from coordinator.core.work.transitions import write_touched


def decide(state: ClusterState, event: events.AnyEvent, policy: Policy) -> Decision:
    """Take `event` into `state` and say what follows from it.

    Deterministic. `event.at_ms` never goes back; an older one is taken at the state's own time. A refused
    request changes nothing and is answered with its CoordError; an event that nobody waits for never raises.
    """
    state.now_ms = max(state.now_ms, event.at_ms)
    state.work.accounts.now_ms = state.now_ms
    state.wall_ns = event.wall_ns or state.now_ms * 1_000_000
    state.mono_ns = event.mono_ns or state.now_ms * 1_000_000
    turned = Decision()
    if state.now_ms >= state.work.accounts.month_ends_ms:
        turn_month(state, turned)
    out = Decision(writes=list(turned.writes), notes=list(turned.notes))
    try:
        _dispatch(state, event, policy, out)
    except CoordError as error:
        request_id = getattr(event, "request_id", None)
        if request_id is None:
            raise
        out = Decision(writes=turned.writes, notes=turned.notes, replies=[Reply(request_id, error)])
    settle_accounts(state, policy, out)
    write_touched(state, out)
    write_accounts(state, out)
    return out


def _dispatch(state: ClusterState, event: events.AnyEvent, policy: Policy, out: Decision) -> None:
    match event:  # what comes most often first
        case events.AgentSaid():
            for said in event.said:
                _dispatch(state, said, policy, out)
        case events.AttemptsEnded():
            succeeding.on_ended(state, event, policy, out)
        case events.AttemptExited():
            attempts.on_exited(state, event, policy, out)
        case events.LeasesHeld():
            holding.on_held(state, event, policy, out)
        case events.AgentGranted():
            attempts.on_granted(state, event, policy, out)
        case events.AttemptPhase():
            attempts.on_phase(state, event, policy, out)
        case events.Place():
            placement.on_place(state, event, policy, out)
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
        case events.PoolPrice():
            tenants.on_pool_price(state, event, out)
        case events.TenantSet():
            tenants.on_tenant_set(state, event, policy, out)
        case events.TenantDelete():
            tenants.on_tenant_delete(state, event, out)
        case events.UsageRead():
            usage.on_usage_read(state, event, out)
        case events.Stopping():
            restart.on_stopping(state, policy, out)
        case events.FiguresPublished():
            forecast.on_figures(state, event)
        case events.JobSubmit():
            jobs.on_submit(state, event, policy, out)
        case events.JobCancel():
            jobs.on_cancel(state, event, policy, out)
        case events.JobRetry():
            jobs.on_retry(state, event, policy, out)
        case events.JobExplain():
            explain.on_explain(state, event, policy, out)
        case events.JobPreview():
            explain.on_preview(state, event, policy, out)
        case events.AgentRefused():
            attempts.on_refused(state, event, policy, out)
        case VerdictGiven():
            settling.on_given(state, event, policy, out)
        case _:
            on_data(state, event, policy, out)
