"""Tenants: nothing is granted beyond a quota or at a budget that is used up, and what is refused is refused exactly.

The books mirror the rows of what was decided. What may run at all is compared with them by what machines tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from coordinator.core import commands, events
from coordinator.core.amounts import Price, Share
from coordinator.core.data.rows import BlobRow, UploadRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, ConnId, JobId, Ms, PoolName, TenantName, dotted
from coordinator.core.rows import (
    ENDED,
    LIVE_ATTEMPT,
    AttemptRow,
    AttemptState,
    JobRow,
    OnBudget,
    PoolRow,
    Quota,
    Row,
    SpecRow,
    StepRow,
    TenantRow,
)
from coordinator.core.state import ClusterState
from coordinator.core.tenants.months import month_of
from coordinator.core.work.jobspec import PRIORITY_MAX, JobSpec
from coordinator.simulator.goods import Blob
from coordinator.simulator.witness.ground import Ground
from coordinator.simulator.witness.ledger import SCALE, Ledger
from coordinator.simulator.witness.refusals import (
    CONCURRENT,
    PERCENT,
    Holding,
    accrued,
    add_promises,
    estimate,
    held_by,
    refusals,
)
from coordinator.simulator.witness.runs import Runs
from coordinator.simulator.witness.sessions import Sessions, slack_ms

DEFAULT = TenantRow(name=TenantName("default"), created_at_ms=0, priority_max=PRIORITY_MAX)
NO_QUOTA = Quota()
STOPPED_WITHIN_S = 3
"""After a budget is used up: so long until everything of its tenant was told to stop, where that is asked."""


class Tenancy:
    """Books of what tenants hold, may hold and have used."""

    def __init__(self, ground: Ground, runs: Runs, sessions: Sessions) -> None:
        self.ledger = Ledger(ground, runs, sessions)
        self.refused = 0
        """Submissions that were refused, each by the dimensions and amounts that it had to be."""
        self._ground, self._runs = ground, runs
        self._tenants: dict[TenantName, TenantRow] = {}
        self._prices: dict[PoolName, Price] = {}
        self._jobs: dict[JobId, JobRow] = {}
        self._specs: dict[JobId, JobSpec] = {}
        self._steps: dict[JobId, dict[int, StepRow]] = {}
        self._attempts: dict[AttemptId, AttemptRow] = {}
        self._holding: dict[TenantName, dict[AttemptId, AttemptRow]] = {}
        self._live: dict[TenantName, dict[JobId, None]] = {}
        self._grace: dict[TenantName, Holding] = {}
        """What was held when the quota was set last: nothing is taken away then."""
        self._broke_ms: dict[TenantName, Ms] = {}
        """Since when a budget was found used up, in waking time."""
        self._blobs: dict[Blob, int] = {}
        self._uploads: dict[str, UploadRow] = {}
        self._month = 0
        """Of the last decision."""

    def load(self) -> None:
        """What is durable is all there is."""
        self.ledger.load()
        for book in (self._tenants, self._prices, self._jobs, self._specs, self._steps, self._attempts):
            book.clear()
        self._holding.clear()
        self._live.clear()
        self._blobs.clear()
        self._uploads.clear()
        rows = list(self._ground.disk.rows.values())
        for row in (*(r for r in rows if isinstance(r, JobRow)), *(r for r in rows if not isinstance(r, JobRow))):
            self._take(row)
        for name in self._tenants:
            self._grace[name] = held_by(self._holding.get(name, {}).values())

    # ---- the mirror

    def _take(self, row: Row) -> None:
        match row:
            case TenantRow(name=name):
                self._tenants[name] = row
            case PoolRow(name=name, price=price):
                self._prices[name] = price
            case BlobRow(tenant=tenant, digest=digest, size=size):
                self._blobs[tenant, digest] = size
            case UploadRow(upload_id=upload_id):
                self._uploads[upload_id] = row
            case JobRow(job_id=job_id):
                self._jobs[job_id] = row
                live = self._live.setdefault(row.tenant, {})
                if row.state in ENDED:
                    live.pop(job_id, None)
                else:
                    live[job_id] = None
            case SpecRow(job_id=job_id, spec=spec):
                self._specs[job_id] = spec
            case StepRow(job_id=job_id, step=number):
                self._steps.setdefault(job_id, {})[number] = row
            case AttemptRow():
                self._attempts[row.attempt_id] = row
                holding = self._holding.setdefault(self._jobs[row.job_id].tenant, {})
                counts = row.state in LIVE_ATTEMPT or row.state is AttemptState.TAKEN_BACK
                if counts and not all(rank.released for rank in row.ranks):
                    holding[row.attempt_id] = row
                else:
                    holding.pop(row.attempt_id, None)
            case _:
                pass

    def _tenant(self, name: TenantName) -> TenantRow:
        return self._tenants.get(name) or (DEFAULT if name == DEFAULT.name else TenantRow(name=name, created_at_ms=0))

    def _held(self, name: TenantName) -> Holding:
        return held_by(self._holding.get(name, {}).values())

    def _account(self, name: TenantName, now_ms: Ms) -> Holding:
        """With what is promised and used. O(what the tenant has live)."""
        holding = self._held(name)
        jobs = [
            (self._jobs[job_id], self._specs[job_id], list(self._steps[job_id].values()))
            for job_id in self._live.get(name, ())
        ]
        running = [
            (row, self._steps[row.job_id][row.step].task_estimate) for row in self._holding.get(name, {}).values()
        ]
        charged = self.ledger.now.by_month.get((name, month_of(now_ms)), 0)
        add_promises(holding, jobs, charged, accrued(running, now_ms))
        holding.stored = sum(size for (tenant, _), size in self._blobs.items() if tenant == name)
        holding.awaited = sum(row.size for row in self._uploads.values() if row.tenant == name)
        return holding

    # ---- every decision

    def decided(self, event: events.AnyEvent, decision: commands.Decision, state: ClusterState) -> None:
        """What it grants must fit, what it refuses must not."""
        month, self._month = self._month, month_of(state.now_ms)
        turned = month != self._month  # what was used until then is another month's within this decision
        if isinstance(event, events.JobSubmit) and not turned:
            self._check_answer(event, decision, state.now_ms)
        self._note_life(event, state)
        self.ledger.decided(decision, self._attempts, state.now_ms)
        granted: dict[TenantName, list[AttemptRow]] = {}
        limited: list[TenantName] = []
        for write in commands.one_by_one(decision.writes):
            if isinstance(write, commands.Delete):
                if write.table == "tenant":
                    self._tenants.pop(TenantName(str(write.key)), None)
                elif write.table == "blob":
                    self._blobs.pop(cast(Blob, write.key), None)
                elif write.table == "upload":
                    self._uploads.pop(str(write.key), None)
                continue
            row = write.row
            if isinstance(row, AttemptRow) and self._is_new(row):
                granted.setdefault(self._jobs[row.job_id].tenant, []).append(row)
            if isinstance(row, TenantRow):
                limited.append(row.name)
            self._take(row)
        for name in limited:
            self._grace[name] = self._held(name)
            self._broke_ms.pop(name, None)
        for name, rows in granted.items():
            self._check_grants(name, rows, state.now_ms)
        if isinstance(event, events.Tick) and not state.stopping:
            self._check_stopped(state)

    def _is_new(self, row: AttemptRow) -> bool:
        """It holds something, and did not before this decision, or counts again after it was given up."""
        before = self._attempts.get(row.attempt_id)
        return row.state in LIVE_ATTEMPT and (before is None or before.state not in LIVE_ATTEMPT)

    def _check_grants(self, name: TenantName, rows: list[AttemptRow], now_ms: Ms) -> None:
        quota, expect = self._tenant(name).quota, self._ground.expect
        if quota == NO_QUOTA:
            return
        held = self._held(name)
        what = dotted(rows[-1].attempt_id)
        for dimension in CONCURRENT:
            limit, has = getattr(quota, dimension), getattr(held, dimension)
            asked = any(getattr(rank.share.ask, dimension) for row in rows for rank in row.ranks)
            fits = limit is None or not asked or has * 100 <= limit * PERCENT
            expect(fits, f"{name} holds {has} {dimension} with {what}, its limit is {limit}")
        if quota.running is not None:
            others = {row.job_id for row in self._holding[name].values()} - {row.job_id for row in rows}
            more = len(held.jobs) > max(len(others), quota.running)
            grace = self._grace.get(name)
            more = more and not (grace is not None and held.jobs <= grace.jobs)
            expect(not more, f"{name} runs {len(held.jobs)} jobs with {what}, its limit is {quota.running}")
        if quota.budget is not None and any(row.attempt_id not in self._attempts_before(rows) for row in rows):
            spent = self._account(name, now_ms).spent
            expect(spent < quota.budget * SCALE, f"{what} starts at a budget of {quota.budget}, used {spent // SCALE}")

    def _attempts_before(self, rows: list[AttemptRow]) -> set[AttemptId]:
        """Those that had been granted already and count again: they are not new."""
        return {row.attempt_id for row in rows if row.started_at_ms is not None or row.doubted_at_ms is not None}

    # ---- refusals

    def _check_answer(self, event: events.JobSubmit, decision: commands.Decision, now_ms: Ms) -> None:
        answer = next((r.result for r in decision.replies if r.request_id == event.request_id), None)
        made = isinstance(answer, JobRow) and answer.job_id not in self._jobs
        refused = isinstance(answer, CoordError) and answer.code is Code.QUOTA
        if not made and not refused:
            return
        tenant, expect = self._tenant(event.tenant), self._ground.expect
        cost = estimate(event.spec, tenant, self._prices)
        if isinstance(answer, JobRow):
            expect(answer.estimate == cost, f"job {answer.job_id} is estimated at {answer.estimate}, costs {cost}")
        due = refusals(event.spec, tenant, self._account(event.tenant, now_ms), cost)
        told = answer.refusals if isinstance(answer, CoordError) else ()
        self.refused += refused
        expect(told == due, f"{event.tenant} is told {told} of {event.spec.name}, and should be told {due}")

    # ---- time

    def received(self, conn_id: ConnId, at_ms: Ms) -> None:
        provider_id = self._ground.head.state.conns.get(conn_id)
        if provider_id is not None:
            self.ledger.heard(provider_id, at_ms)

    def _note_life(self, event: events.AnyEvent, state: ClusterState) -> None:
        conn_id = getattr(event, "conn_id", None)
        provider_id = state.conns.get(conn_id) if conn_id is not None else None
        if provider_id is not None:
            self.ledger.heard(provider_id, event.at_ms)

    def _check_stopped(self, state: ClusterState) -> None:
        """Where a budget is used up and work is to stop, it is told to."""
        now_ms = self._ground.taken_ms()
        for name, tenant in self._tenants.items():
            budget = tenant.quota.budget
            running = [row for row in self._holding.get(name, {}).values() if row.state in LIVE_ATTEMPT]
            stops = budget is not None and tenant.on_budget is OnBudget.STOP and bool(running)
            if not stops or self._account(name, state.now_ms).spent < (budget or 0) * SCALE:
                self._broke_ms.pop(name, None)
                continue
            since_ms = self._broke_ms.setdefault(name, now_ms)
            if now_ms - since_ms <= STOPPED_WITHIN_S * self._ground.unit_ms + slack_ms(self._ground):
                continue
            for row in running:
                attempt = state.work.attempts.get(row.attempt_id)
                task = state.work.task(row.task_id)
                told = attempt is None or task is None or bool(attempt.stopping) or bool(task.cancelling)
                self._ground.expect(told, f"{dotted(row.attempt_id)} goes on at the end of the budget of {name}")

    # ---- what machines tell

    def runs(self, attempts: Iterable[tuple[AttemptId, Share]]) -> None:
        """These have processes that can run, somewhere: of no tenant are they more than it may hold."""
        held: dict[TenantName, list[Share]] = {}
        for attempt_id, share in attempts:
            job = self._jobs.get(JobId(attempt_id[0]))
            if job is not None:
                held.setdefault(job.tenant, []).append(share)
        for name, shares in held.items():
            quota, grace = self._tenant(name).quota, self._grace.get(name)
            for dimension in CONCURRENT if quota != NO_QUOTA else ():
                limit = getattr(quota, dimension)
                has = sum(getattr(share.ask, dimension) for share in shares)
                most = max((limit or 0) * PERCENT // 100, getattr(grace, dimension) if grace is not None else 0)
                self._ground.expect(
                    limit is None or has <= most, f"{name} really runs {has} {dimension}, {most} are allowed"
                )

    def durable(self, writes: Sequence[commands.Write]) -> None:
        self.ledger.durable(writes)
