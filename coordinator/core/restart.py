"""The coordinator's own coming and going: what a start makes of open sessions, what a planned stop says."""

from __future__ import annotations

from coordinator.core.commands import CloseCode, CloseLink, Decision, Put, Send, Warned
from coordinator.core.events import Boot
from coordinator.core.fleet.alive import save_beats, say_alive
from coordinator.core.fleet.publish import changed
from coordinator.core.ids import Ms, dotted
from coordinator.core.policy import Policy
from coordinator.core.rows import AttemptState, Meta, MetaRow, OutageRow
from coordinator.core.state import ClusterState
from coordinator.core.tenants.charging import unseen_since
from coordinator.core.verdict.asking import ask_again
from coordinator.core.work.leases import lease_over_ms
from coordinator.core.work.loading import look_at_all
from coordinator.core.work.renewals import renew_all
from coordinator.core.work.transitions import put_attempt


def on_boot(state: ClusterState, event: Boot, policy: Policy, out: Decision) -> None:
    """From the last `alive_at` until now is unobserved; open sessions wait for their agents."""
    state.booted_at_ms = state.ticked_at_ms = state.now_ms
    state.rejoin_by_ms = state.now_ms + policy.rejoin_ms
    state.interval_ms = policy.heartbeat_interval_ms
    state.stepped_ahead = event.wall_step_ms >= policy.wall_jump_ms
    if abs(event.wall_step_ms) >= policy.wall_jump_ms:
        warn_of_step(event.wall_step_ms, out)
    if event.clock:
        out.writes.append(Put(MetaRow(name=Meta.CLOCK, value=event.clock)))
    if state.alive_at_ms is not None and state.alive_at_ms < state.now_ms:
        state.outage_ms = state.now_ms - state.alive_at_ms
        out.writes.append(
            Put(
                OutageRow(
                    coordinator_id=state.coordinator_id,
                    began_at_ms=state.alive_at_ms,
                    ended_at_ms=state.now_ms,
                    cause="restart",
                )
            )
        )
    for last in event.last_beats:
        provider = state.providers.get(last.provider_id)
        session = provider.session if provider is not None else None
        if session is not None and last.at_ms >= session.row.connected_at_ms:
            session.last_beat_ms = max(min(last.at_ms, state.now_ms), session.last_beat_ms or 0)
    for provider in state.providers.values():
        if provider.session is not None:
            state.review_at(provider, state.rejoin_by_ms)
        changed(out, provider)
    seen_ms = state.now_ms - (state.outage_ms or 0)
    for attempt in state.work.attempts.values():
        attempt.unseen_ms = unseen_since(state, attempt, seen_ms)
        attempt.renewed_ms = (state.now_ms,) * len(attempt.renewed_ms)
        attempt.granted_ms = state.now_ms
        if attempt.row.state is AttemptState.IN_DOUBT:  # its lease lives for the whole term again
            put_attempt(attempt, out, lease_over_ms=lease_over_ms(attempt))
    for account in state.work.accounts.by_tenant.values():
        state.work.accounts.changed(account)  # their alerts are told again, their budgets looked at
        account.share_at_ms = account.share_at_ms or state.now_ms  # without a row, its memory begins now
    _warn_again(state, out)
    ask_again(state, policy, out)
    look_at_all(state.work, state.now_ms + int(policy.suspect_after_intervals * state.interval_ms))
    say_alive(state, out)


def _warn_again(state: ClusterState, out: Decision) -> None:
    """Alerts that stood before and still do: those who show them remember nothing over a restart. O(live tasks)."""
    for provider_id in sorted(state.work.quarantined):
        provider = state.providers.get(provider_id)
        if provider is not None:
            text = f"{provider_id} gets no new work until its quarantine is over: {provider.row.quarantine_why}"
            out.notes.append(Warned(kind="provider_quarantined", subject=provider_id, text=text))
    for job in state.work.jobs.values():
        slow = [task.row for step in job.steps for task in step.tasks.values() if task.row.straggler]
        for row in slow:
            text = f"task {dotted(row.task_id)} of {job.row.name} was far slower than expected before the restart"
            out.notes.append(Warned(kind="straggler", subject=dotted(row.task_id), text=text))


def on_stopping(state: ClusterState, policy: Policy, out: Decision) -> None:
    """A planned stop. Sessions stay open: their agents are expected back as the same processes. Every lease is made
    longer first, durably and before the good-byes: nobody freezes while we restart."""
    state.stopping = True
    save_beats(state, out)
    say_alive(state, out)
    for conn_id, provider_id in state.conns.items():
        provider = state.providers[provider_id]
        seq = provider.session.seq if provider.session is not None else 0
        renew_all(state, provider, seq, conn_id, policy.term_planned_stop_ms, out)
    goodbye = CloseLink(code=CloseCode.GOING_AWAY, reason="the coordinator restarts; come back soon")
    out.sends.extend(Send(conn_id, goodbye) for conn_id in (*state.conns, *state.challengers))


def warn_of_step(step_ms: Ms, out: Decision) -> None:
    text = f"the wall clock was moved by {step_ms / 1000:+.1f} s; no deadline or session moved"
    out.notes.append(Warned(kind="clock_jump", subject="coordinator", text=text))
