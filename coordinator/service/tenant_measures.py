"""Metrics by tenant: what is held, used, promised and allowed; who waited, and whether promises were kept.

Bounded: the tenants that hold most of the fleet have series of their own, all others are summed as `other`.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest

from coordinator.core import commands
from coordinator.core.amounts import UNIT
from coordinator.core.queue.fair_share import dominant
from coordinator.core.rows import AttemptState, AuditRow, WorkState
from coordinator.core.tenants.account import Account
from coordinator.core.tenants.usage import usage_of
from coordinator.service import metrics as m
from coordinator.service.engine import Engine
from coordinator.service.metric_values import OTHER, Metrics, Source
from coordinator.service.views import LiveViews

MILLIONTHS = frozenset({"cpus", "gpus", "budget"})


def count_waits(metrics: Metrics, views: LiveViews) -> None:
    """Count leases, how long jobs waited, and how far planned starts were wrong, as they become durable."""

    def on_attempt(note: commands.Note) -> None:
        if isinstance(note, commands.AttemptChanged):
            row = note.row
            if row.state is AttemptState.LEASED and not row.ranks[0].acked:
                how = "prefetched" if row.prefetched else "ranked"
                if row.choice is not None and row.choice.backfilled:
                    how = "backfilled"
                metrics.add(m.PLACED, 1, how)

    def on_first(note: commands.Note) -> None:
        if isinstance(note, commands.FirstLeases):
            otherwise = "prefetched" if note.attempts[0].prefetched else "ranked"
            backfilled = sum(row.choice is not None and row.choice.backfilled for row in note.attempts)
            for how, count in (("backfilled", backfilled), (otherwise, len(note.attempts) - backfilled)):
                if count:
                    metrics.add(m.PLACED, count, how)

    def on_audited(rows: list[AuditRow]) -> None:
        for audit in rows:
            if audit.entity != "job" or audit.after != WorkState.RUNNING or audit.job_id is None:
                continue
            job = views.jobs.get(audit.job_id)
            if job is not None and not job.retries:  # a retried one waited for a person, too
                waited_s = max(0.0, audit.wall_ns / 1e9 - job.submitted_at_ms / 1e3)
                metrics.observe(m.QUEUE_WAIT, waited_s, job.tenant)

    def on_promised(note: commands.Note) -> None:
        if isinstance(note, commands.Promised):
            side = "late" if note.started_at_ms > note.promised_at_ms else "early"
            metrics.observe(m.START_ERROR, abs(note.started_at_ms - note.promised_at_ms) / 1_000, side)

    views.listen(on_attempt, commands.AttemptChanged)
    views.listen(on_first, commands.FirstLeases)
    views.listen_audit(on_audited)
    views.listen(on_promised, commands.Promised)


def tenants_source(engine: Engine) -> Source:
    """What tenants use, as it is decided by; of those that had anything since the start, or this month. O(tenants) a
    rendering: 10,000 that are idle take about 20 ms."""

    def ask(metrics: Metrics) -> None:
        state, accounts = engine.state, engine.state.work.accounts
        metrics.put(m.TENANTS, len(accounts.tenants))
        metrics.put(m.LINED_UP, sum(len(load.behind) for load in state.work.loads.values()))
        gauges = (m.TENANT_USED, m.TENANT_RESERVED, m.TENANT_LIMIT, m.TENANT_SHARE, m.TENANT_SHARE_DECAYED)
        for gauge in gauges:
            metrics.clear(gauge)
        by_tenant = accounts.by_tenant
        shares = {name: dominant(accounts, account) for name, account in by_tenant.items() if account.jobs}
        most = nlargest(
            m.TENANTS_MAX - 1, by_tenant, key=lambda name: (shares.get(name, 0.0), by_tenant[name].live, name)
        )
        for name in most:
            _put(metrics, name, usage_of(state, name))
        shown = set(most)
        _put_others(metrics, [account for name, account in by_tenant.items() if name not in shown])
        if len(by_tenant) > len(shown):
            metrics.put(m.TENANT_SHARE, sum(share for name, share in shares.items() if name not in shown), OTHER)

    return ask


def _put(metrics: Metrics, name: str, one: commands.Usage) -> None:
    for dimension in one.dimensions:
        labels = (name, dimension.name)
        metrics.put(m.TENANT_USED, _shown(dimension.name, dimension.used), *labels)
        metrics.put(m.TENANT_RESERVED, _shown(dimension.name, dimension.reserved), *labels)
        if dimension.limit is not None:
            metrics.put(m.TENANT_LIMIT, _shown(dimension.name, dimension.limit), *labels)
    metrics.put(m.TENANT_SHARE, one.share, name)
    metrics.put(m.TENANT_SHARE_DECAYED, one.share_decayed, name)


def _put_others(metrics: Metrics, others: Sequence[Account]) -> None:
    """Their sums, without what running work has accrued and not been charged; a sum of limits would say nothing."""
    if not others:
        return
    busy = [one for one in others if one.live or one.jobs]
    used = {
        "cpus": sum(one.cpus for one in busy),
        "gpus": sum(one.gpus for one in busy),
        "memory": sum(one.memory for one in busy),
        "running": sum(len(one.jobs) for one in busy),
        "queued": sum(one.queued for one in busy),
        "storage": sum(one.row.storage for one in others),
        "ingress": sum(one.row.ingress for one in others),
        "egress": sum(one.row.egress for one in others),
        "budget": sum(one.row.cost for one in others),
    }
    reserved = {
        "storage": sum(one.storage for one in busy),
        "ingress": sum(one.ingress for one in busy),
        "egress": sum(one.egress for one in busy),
        "budget": sum(one.reserved for one in busy),
    }
    for name, amount in used.items():
        metrics.put(m.TENANT_USED, _shown(name, amount), OTHER, name)
        metrics.put(m.TENANT_RESERVED, _shown(name, reserved.get(name, 0)), OTHER, name)


def _shown(dimension: str, amount: int) -> float:
    return amount / UNIT if dimension in MILLIONTHS else amount
