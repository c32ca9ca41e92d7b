"""Where metrics come from: notes, and the counters of those who do the work. Nothing is declared here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import get_args

import psutil

from coordinator.core import commands
from coordinator.core.fleet.providers import DEFAULT_POOL
from coordinator.core.rows import ENDED, LIVE_ATTEMPT, AttemptState, AuditRow, WorkState
from coordinator.core.snapshot import Liveness
from coordinator.ports.analytics import Analytics
from coordinator.ports.clock import Clock
from coordinator.service import metrics as m
from coordinator.service.agents import AgentLinks
from coordinator.service.alerts import Alerts
from coordinator.service.delivery import Delivery
from coordinator.service.engine import Engine
from coordinator.service.feed import Feed
from coordinator.service.heartbeats import HeartbeatWriter
from coordinator.service.metric_values import Metrics, Source
from coordinator.service.relay.relay import Relay
from coordinator.service.views import LiveViews


def count_notes(metrics: Metrics, views: LiveViews) -> None:
    """Count sessions and warnings as they become durable."""

    def on_audited(rows: list[AuditRow]) -> None:
        for (entity, after), n in Counter([(row.entity, row.after) for row in rows]).items():
            metrics.add(m.TRANSITIONS, n, entity, after)

    def on_note(note: commands.Note) -> None:
        match note:
            case commands.SessionOpened(resumed=resumed):
                metrics.add(m.SESSIONS_OPENED, 1, "resumed" if resumed else "new")
            case commands.SessionEnded(reason=reason):
                metrics.add(m.SESSIONS_ENDED, 1, reason.value)
            case commands.Warned(kind=kind):
                metrics.add(m.WARNINGS, 1, kind)
            case _:
                pass

    def on_together(note: commands.Note) -> None:
        if isinstance(note, commands.FirstLeases | commands.Ended):
            metrics.add(m.TRANSITIONS, len(note.tasks), "task", note.tasks[0].state.value)
        if isinstance(note, commands.Together):
            metrics.add(m.TRANSITIONS, len(note.attempts), "attempt", note.attempts[0].state.value)

    views.listen_audit(on_audited)
    views.listen(on_together, *get_args(commands.Together))
    views.listen(on_note, commands.SessionOpened, commands.SessionEnded, commands.Warned)


def fleet_source(views: LiveViews, alerts: Alerts) -> Source:
    """The fleet as it stands. O(providers) a rendering: 100,000 take about 10 ms."""

    def ask(metrics: Metrics) -> None:
        counts = dict.fromkeys(Liveness, 0)
        for view in views.providers.values():
            counts[view.liveness] += 1
        for liveness, n in counts.items():
            metrics.put(m.PROVIDERS, n, liveness.value)
        metrics.put(m.TOKENS, len(views.tokens))
        metrics.put(m.POOLS, len(views.pools.keys() - {DEFAULT_POOL}))
        for kind, n in alerts.active().items():
            metrics.put(m.ALERTS, n, kind)

    return ask


def engine_source(engine: Engine) -> Source:
    """What the engine did, and what waits for it."""

    def ask(metrics: Metrics) -> None:
        counters = engine.counters
        metrics.put(m.ENGINE_EVENTS, counters.events)
        metrics.put(m.ENGINE_DECISIONS, counters.decisions)
        metrics.put(m.ENGINE_COMMITS, counters.commits)
        metrics.put(m.ENGINE_COMMIT_SECONDS, counters.commit_seconds)
        metrics.put(m.ENGINE_COMMIT_MAX, counters.commit_seconds_max)
        metrics.put(m.ENGINE_ROLLBACKS, counters.rollbacks)
        metrics.put(m.SESSION_ENDS_UNDONE, counters.ends_undone)
        metrics.put(m.ENGINE_REFUSED, counters.refused)
        metrics.put(m.ENGINE_STALLS, counters.stalls)
        metrics.put(m.ENGINE_INBOX, engine.inbox_depth)
        metrics.put_distribution(m.PLACE_SECONDS, counters.place_seconds, counters.place_seconds_sum)
        metrics.put(m.STORE_FULL, engine.full_since_ms is not None)

    return ask


def links_source(links: AgentLinks) -> Source:
    """Agents' connections."""

    def ask(metrics: Metrics) -> None:
        counters = links.counters
        metrics.put(m.LINKS, links.connected)
        metrics.put(m.LINKS_PUSHED, int(links.pushed))
        metrics.put(m.LINKS_OPENED, counters.opened)
        metrics.put(m.LINKS_CLOSED, counters.closed)
        metrics.put(m.LINKS_REFUSED, counters.refused)
        metrics.put(m.LINK_MESSAGES, counters.messages)
        metrics.put(m.LINK_BAD_FRAMES, counters.bad_frames)
        metrics.put(m.LINK_UNKNOWN, counters.unknown_messages)
        metrics.put(m.LOG_FRAMES, counters.log_frames)
        metrics.put(m.LINKS_SLOWED, counters.slowed)
        metrics.put(m.PLANS_FAILED, counters.plans_failed)
        for order, n in counters.orders.items():
            metrics.put(m.ORDERS, n, order)
        metrics.put(m.LINKS_CUT, counters.cut_stalled, "stalled")
        metrics.put(m.LINKS_CUT, counters.cut_fast, "too_fast")
        metrics.put(m.LINKS_CUT, counters.cut_bad, "bad_frames")
        metrics.put(m.LINKS_CUT, counters.cut_silent, "no_hello")

    return ask


def work_source(engine: Engine, views: LiveViews, feed: Feed) -> Source:
    """Live work. O(live jobs and attempts) a rendering: 200,000 jobs take about 30 ms."""

    def ask(metrics: Metrics) -> None:
        jobs = Counter(row.state for row in views.jobs.live())
        attempts = Counter(view.row.state for view in views.attempts.live())
        for state in WorkState:
            if state not in ENDED:
                metrics.put(m.JOBS, jobs[state], state.value)
        for phase in AttemptState:
            if phase in LIVE_ATTEMPT:
                metrics.put(m.ATTEMPTS, attempts[phase], phase.value)
        waiting = 0
        for job in engine.state.work.jobs.values():
            for step in job.steps:
                if step.ready and not step.closed:
                    waiting += step.spec.tasks - step.row.cursor + len(step.retry)
        metrics.put(m.TASKS_WAITING, waiting)
        metrics.put(m.FEED_FOLLOWERS, feed.followers)

    return ask


def relay_source(relay: Relay) -> Source:
    """Logs on their way."""

    def ask(metrics: Metrics) -> None:
        counters = relay.counters
        metrics.put(m.RELAY_TAKEN, counters.taken_bytes)
        metrics.put(m.RELAY_STORED, counters.stored_bytes)
        metrics.put(m.RELAY_DROPPED, counters.dropped_bytes)
        metrics.put(m.RELAY_REFUSED, counters.refused)
        metrics.put(m.RELAY_WAITING, relay.waiting_bytes)
        metrics.put(m.RELAY_LAG, counters.lag_seconds)
        metrics.put(m.RELAY_LAG_MAX, counters.lag_seconds_max)
        metrics.put(m.RELAY_APPENDS, counters.appends)
        metrics.put(m.RELAY_APPEND_SECONDS, counters.append_seconds)
        metrics.put(m.RELAY_APPEND_MAX, counters.append_seconds_max)
        metrics.put(m.RELAY_FAILURES, counters.append_failures)
        metrics.put(m.RELAY_HOLDS, counters.holds)
        metrics.put(m.RELAY_HELD, relay.held_connections())
        metrics.put(m.RELAY_FOLLOWERS, relay.followers)

    return ask


def delivery_source(delivery: Delivery) -> Source:
    """Alerts on their way to people."""

    def ask(metrics: Metrics) -> None:
        for receiver, counters in delivery.counters().items():
            metrics.put(m.DELIVERIES, counters.delivered, receiver, "delivered")
            metrics.put(m.DELIVERIES, counters.retried, receiver, "retried")
            metrics.put(m.DELIVERIES, counters.failed, receiver, "failed")
        metrics.put(m.DELIVERIES_WAITING, delivery.waiting)

    return ask


def heartbeats_source(writer: HeartbeatWriter) -> Source:
    """What became of the heartbeats."""

    def ask(metrics: Metrics) -> None:
        counters = writer.counters
        metrics.put(m.BEATS_OFFERED, counters.offered)
        metrics.put(m.BEATS_STORED, counters.stored)
        metrics.put(m.BEATS_DUPLICATE, counters.duplicates)
        metrics.put(m.BEATS_DROPPED, counters.dropped_full, "full")
        metrics.put(m.BEATS_DROPPED, counters.dropped_store, "store")
        metrics.put(m.BEATS_WAITING, writer.waiting)
        metrics.put(m.BEATS_FLUSHES, counters.flushes)
        metrics.put(m.BEATS_FLUSH_FAILED, counters.flush_failures)
        metrics.put(m.BEATS_HOLDS, counters.holds)
        metrics.put_distribution(m.BEATS_FLUSH_SECONDS, counters.flush_seconds, counters.flush_seconds_sum)

    return ask


def analytics_source(analytics: Analytics, clock: Clock) -> Source:
    """The worker, and how old its figures are."""

    def ask(metrics: Metrics) -> None:
        health = analytics.health()
        metrics.put(m.ANALYTICS_UP, health.up)
        metrics.put(m.ANALYTICS_RESTARTS, health.restarts)
        if health.computed_at_ms is None:
            metrics.clear(m.FIGURES_AGE)
        else:
            metrics.put(m.FIGURES_AGE, max(0, clock.now_ms() - health.computed_at_ms) / 1_000)

    return ask


def process_source(clock: Clock, loop_lag_ms: Callable[[], float], version: str, coordinator_id: str) -> Source:
    """This process."""
    process = psutil.Process()
    began_s = clock.monotonic_s()

    def ask(metrics: Metrics) -> None:
        metrics.put(m.INFO, 1, version, coordinator_id)
        metrics.put(m.UPTIME, clock.monotonic_s() - began_s)
        metrics.put(m.LOOP_LAG, loop_lag_ms() / 1_000)
        with process.oneshot():
            times = process.cpu_times()
            metrics.put(m.CPU, times.user + times.system)
            metrics.put(m.RESIDENT, process.memory_info().rss)
            metrics.put(m.FILES, process.num_fds())

    return ask
