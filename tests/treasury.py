"""A site with tenants, prices and a ledger, and a naive book of what they should come to."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.amounts import UNIT, Price
from coordinator.core.errors import CoordError
from coordinator.core.ids import PoolName, TenantName
from coordinator.core.rows import (
    ENDED,
    LIVE_ATTEMPT,
    AccountRow,
    AttemptRow,
    AttemptState,
    JobRow,
    LedgerRow,
    RankRow,
    SpecRow,
    StepRow,
    TenantRow,
)
from coordinator.core.work.jobspec import JobSpec, StepSpec
from tests.site import Site

PHYSICS = TenantName("physics")
HOUR_S = 3_600
CPU_HOUR = Price(cpu=1_000_000)
"""A CPU costs one unit of account an hour."""


class Treasury(Site):
    """Tenants are made, pools priced and jobs submitted in one line each."""

    def tenant(self, name: str = PHYSICS, *, create: bool = True, **more: Any) -> commands.Decision:
        """Make or change one: fields of TenantSet; what it does not have is a quota."""
        fields = set(events.TenantSet.__struct_fields__)
        said = {key: value for key, value in more.items() if key in fields}
        quota = tuple((key, value) for key, value in more.items() if key not in fields)
        return self.decide(
            events.TenantSet(
                at_ms=self.now_ms,
                request_id=self.request(),
                name=TenantName(name),
                create=create,
                quota=quota,
                **said,
            )
        )

    def price(self, price: Price = CPU_HOUR, pool: str = "default") -> commands.Decision:
        return self.decide(
            events.PoolPrice(at_ms=self.now_ms, request_id=self.request(), name=PoolName(pool), price=price)
        )

    def asks(self, spec: JobSpec, tenant: str = PHYSICS, *, any_priority: bool = False) -> commands.Decision:
        return self.decide(
            events.JobSubmit(
                at_ms=self.now_ms,
                request_id=self.request(),
                tenant=TenantName(tenant),
                by="token:t",
                spec=spec,
                any_priority=any_priority,
            )
        )

    def usage(self, tenant: str = PHYSICS) -> commands.Usage:
        read = events.UsageRead(at_ms=self.now_ms, request_id=self.request(), tenant=TenantName(tenant))
        (reply,) = self.decide(read).replies
        assert isinstance(reply.result, commands.Usages), f"refused: {reply.result}"
        (usage,) = reply.result.entries
        return usage

    def used(self, dimension: str, tenant: str = PHYSICS) -> tuple[int, int]:
        """(used, reserved) of a dimension."""
        found = next(d for d in self.usage(tenant).dimensions if d.name == dimension)
        return found.used, found.reserved

    def ledger(self, tenant: str | None = None) -> list[LedgerRow]:
        """What was charged, oldest first."""
        rows = [r for r in self.rows.values() if isinstance(r, LedgerRow) and tenant in (None, r.tenant)]
        return sorted(rows, key=lambda row: row.seq)

    def account(self, tenant: str = PHYSICS) -> AccountRow:
        row = self.rows["account", tenant]
        assert isinstance(row, AccountRow)
        return row


def answered(decision: commands.Decision) -> JobRow:
    """The job that a submission made."""
    result = decision.replies[0].result
    assert isinstance(result, JobRow), f"refused: {result}"
    return result


def refused(decision: commands.Decision) -> list[str]:
    """The dimensions of a refusal; nothing when it was not refused for a quota."""
    result = decision.replies[0].result
    return [r.dimension for r in result.refusals] if isinstance(result, CoordError) else []


# ---- the naive book: everything anew from the rows that are durable, in fractions


def cost_of(rank: RankRow, ran_ms: int) -> Fraction:
    """Millionths for so long, not rounded."""
    ask, price = rank.share.ask, rank.price
    an_hour = Fraction(ask.cpus * price.cpu + ask.gpus * price.gpu, UNIT) + Fraction(ask.memory * price.memory, 10**9)
    return an_hour * Fraction(ran_ms, HOUR_S * 1_000)


def up(amount: Fraction) -> int:
    return -(-amount.numerator // amount.denominator)


class Book:
    """What a tenant has, by the rows alone."""

    def __init__(self, site: Treasury, tenant: str) -> None:
        rows = list(site.rows.values())
        self._site = site
        jobs = {r.job_id: r for r in rows if isinstance(r, JobRow) and r.tenant == tenant}
        live = {job_id: job for job_id, job in jobs.items() if job.state not in ENDED}
        specs = {r.job_id: r.spec for r in rows if isinstance(r, SpecRow)}
        steps = [r for r in rows if isinstance(r, StepRow) and r.job_id in live]
        attempts = [r for r in rows if isinstance(r, AttemptRow) and r.job_id in jobs]
        held = [
            (r.job_id, rank.share.ask)
            for r in attempts
            if r.state in LIVE_ATTEMPT or r.state is AttemptState.TAKEN_BACK
            for rank in r.ranks
            if not rank.released
        ]
        self.cpus = sum(ask.cpus for _, ask in held)
        self.gpus = sum(ask.gpus for _, ask in held)
        self.memory = sum(ask.memory for _, ask in held)
        self.jobs = Counter(job_id for job_id, _ in held)
        """Ranks that each job holds."""
        self.running = len(self.jobs)
        self.queued = sum(job.state.value == "pending" for job in live.values())
        self.storage = sum(specs[job_id].estimate.storage for job_id in live)
        month = _month(site.now_ms)
        self.charged = sum(row.cost for row in site.ledger(tenant) if row.month == month)
        parts = {(r.job_id, r.step): r.task_estimate for r in steps}
        running = [(r, self._accrued(r)) for r in attempts if r.state in LIVE_ATTEMPT and r.started_at_ms is not None]
        self.accrued = sum((accrued for _, accrued in running), Fraction(0))
        over = sum((max(Fraction(0), a - parts[r.job_id, r.step]) for r, a in running), Fraction(0))
        promised = sum(self._promised(specs[job_id], [s for s in steps if s.job_id == job_id]) for job_id in live)
        self.spent = self.charged + self.accrued
        self.committed = self.charged + promised + up(over)

    def _accrued(self, row: AttemptRow) -> Fraction:
        since_ms = row.metered_ms if row.metered_ms is not None else row.started_at_ms
        assert since_ms is not None
        ran_ms = self._site.now_ms - since_ms
        return sum((cost_of(rank, ran_ms) for rank in row.ranks if rank.exit is None), Fraction(0))

    @staticmethod
    def _promised(spec: JobSpec, steps: list[StepRow]) -> int:
        parts = 0
        whole = 0
        for row in steps:
            tasks = spec.steps[row.step].tasks
            parts += row.task_estimate * (tasks - row.completed - row.failed - row.cancelled)
            whole += row.task_estimate * tasks
        return parts + (spec.estimate.cost - whole if spec.estimate.cost is not None else 0)

    def refuses(self, spec: JobSpec, tenant: TenantRow) -> list[str]:
        """The dimensions that refuse this job, of one step whose tasks have one alternative."""
        (step,), quota = spec.steps, tenant.quota
        (ask,) = step.asks
        found = []
        for name in ("cpus", "gpus", "memory"):
            limit, request = getattr(quota, name), getattr(ask, name) * step.nodes
            now = getattr(self, name) if tenant.on_full.value == "refuse" else 0
            if limit is not None and request and (now + request) * 100 > limit * 90:
                found.append(name)
        may_wait = tenant.on_full.value == "queue" and quota.running
        if quota.running is not None and not may_wait and self.running + 1 > quota.running:
            found.append("running")
        if quota.queued is not None and self.queued + 1 > quota.queued:
            found.append("queued")
        stored = spec.estimate.storage
        if quota.storage is not None and stored and (self.storage + stored) * 100 >= quota.storage * 90:
            found.append("storage")
        if quota.budget is not None:
            request = self.estimate(spec, tenant)
            if (self.committed + request) * 100 >= quota.budget * 90:
                found.append("budget")
        return found

    def estimate(self, spec: JobSpec, tenant: TenantRow) -> int:
        """What would be reserved: each rank of each task for its whole time, at the dearest price."""
        if spec.estimate.cost is not None:
            return spec.estimate.cost
        (step,) = spec.steps
        ran_ms = step.expected_ms or step.time_limit_ms or tenant.runtime_ms
        prices = [pool.price for name, pool in self._site.state.pools.items() if not step.pools or name in step.pools]
        ranks = [RankRow(provider_id=next(iter(self._site.state.providers)), price=p) for p in prices]
        dearest = max((up(cost_of(_with(rank, step), ran_ms)) for rank in ranks), default=0)
        return step.tasks * step.nodes * dearest


def _with(rank: RankRow, step: StepSpec) -> RankRow:
    return replace(rank, share=replace(rank.share, ask=step.asks[0]))


def _month(now_ms: int) -> int:
    at = datetime.fromtimestamp(now_ms // 1_000, UTC)
    return at.year * 100 + at.month
