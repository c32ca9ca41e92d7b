"""Any interleaving of submissions, ends, losses, retries, restarts, full disks, changed quotas and prices, and months.

A hypothesis state machine on the core, its agents honest. Beside it a naive book adds everything up anew from the rows
that are durable, in fractions: what the core says and refuses must be the same to the micro-unit.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from coordinator.core import commands
from coordinator.core.amounts import UNIT, Ask, Price
from coordinator.core.errors import CoordError
from coordinator.core.ids import TenantName, dotted
from coordinator.core.image import image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.rows import (
    ENDED,
    AttemptRow,
    AttemptState,
    JobRow,
    OnBudget,
    OnFull,
    Promises,
    Resources,
    TenantRow,
)
from coordinator.core.tenants.dimensions import guardrail
from coordinator.core.tenants.months import ends_ms, month_of
from coordinator.core.work.jobspec import Estimate, Isolation, JobSpec, RetryRule
from tests.builders import START_MS
from tests.site import a_job, a_step
from tests.treasury import Book, Treasury, refused, up

PROVIDERS = ("a", "b")
TENANTS = ("physics", "chemistry")
POLICY = Policy(jobs_max=20, quarantine_failures=50)
OFFER = Resources(cpus=6.0, memory_gb=8.0, gpus=("g0",))
LIMITS = {
    "cpus": (None, 0, UNIT, 3 * UNIT, 5 * UNIT),
    "gpus": (None, 0, 2 * UNIT),
    "memory": (None, 10**9, 4 * 10**9),
    "running": (None, 0, 1, 2),
    "queued": (None, 1, 3),
    "storage": (None, 0, 100),
    "budget": (None, 0, 1_000, 50_000, 10 * UNIT),
}
PRICES = (Price(), Price(cpu=UNIT), Price(cpu=777_777, gpu=3 * UNIT, memory=12_345))
ASKS = (Ask(), Ask(cpus=2 * UNIT), Ask(cpus=UNIT // 2, gpus=UNIT), Ask(memory=1_500_000_001), Ask(cpus=4 * UNIT))
ESTIMATES = (Estimate(), Estimate(), Estimate(cost=7), Estimate(cost=900, storage=30))


class Watched(Treasury):
    """Looks at every lease the moment that it is durable."""

    def write(self, decision: commands.Decision) -> None:
        super().write(decision)
        rows = [write.row for write in decision.writes if isinstance(write, commands.Put)]
        for row in (row for row in rows if isinstance(row, AttemptRow)):
            if row.state in (AttemptState.LEASED, AttemptState.RESERVED) and row.created_at_ms == self.now_ms:
                self.within_its_quota(row)
            if row.state is AttemptState.LEASED and not any(rank.acked for rank in row.ranks):
                self.with_money_left(row)

    def tenant_of(self, row: AttemptRow) -> TenantRow:
        job = self.rows["job", row.job_id]
        assert isinstance(job, JobRow)
        tenant = self.rows["tenant", job.tenant]
        assert isinstance(tenant, TenantRow)
        return tenant

    def within_its_quota(self, row: AttemptRow) -> None:
        """Of all that it asks of: its tenant holds no more than the guardrail."""
        tenant = self.tenant_of(row)
        book = Book(self, tenant.name)
        for name in ("cpus", "gpus", "memory"):
            bound = getattr(tenant.quota, name)
            if bound is not None and getattr(row.ranks[0].share.ask, name):
                rail = guardrail(name, bound, POLICY)
                assert getattr(book, name) <= rail, f"{tenant.name} was let beyond its {name}"
        running = tenant.quota.running
        fresh = row.attempt == 1 and book.jobs[row.job_id] == len(row.ranks)
        assert running is None or not fresh or book.running <= running, f"{tenant.name} runs {book.running} jobs"

    def with_money_left(self, row: AttemptRow) -> None:
        tenant = self.tenant_of(row)
        budget = tenant.quota.budget
        assert budget is None or Book(self, tenant.name).spent < budget, f"{dotted(row.attempt_id)} starts on nothing"


class Tenants(RuleBasedStateMachine):
    """Never: more held than a quota gives, a start at a used up budget, a millionth charged twice or lost."""

    def __init__(self) -> None:
        super().__init__()
        self.site = Watched(
            *PROVIDERS, offer=OFFER, promises=Promises(work=True, isolation=Isolation.SANDBOX), policy=POLICY
        )
        for name in TENANTS:
            self.site.tenant(name)

    # ---- people

    @rule(
        tenant=st.sampled_from(TENANTS),
        ask=st.sampled_from(ASKS),
        tasks=st.integers(1, 4),
        nodes=st.sampled_from((1, 1, 2)),
        expected_ms=st.sampled_from((None, 1, 5_000, 3_600_000)),
        estimate=st.sampled_from(ESTIMATES),
        limit=st.sampled_from((0, 3)),
    )
    def submit(
        self,
        tenant: str,
        ask: Ask,
        tasks: int,
        nodes: int,
        expected_ms: int | None,
        estimate: Estimate,
        limit: int,
    ) -> None:
        """It is admitted exactly when the naive book says so, else every dimension is named."""
        step = a_step(asks=(ask,), tasks=tasks, nodes=nodes, expected_ms=expected_ms, retry=RetryRule(limit=limit))
        spec = replace(a_job(step), estimate=estimate)
        self.offer(tenant, spec)

    def offer(self, tenant: str, spec: JobSpec) -> None:
        if len(self.site.state.work.jobs) >= POLICY.jobs_max:
            return
        book = Book(self.site, tenant)
        row = self.site.state.work.accounts.tenants[TenantName(tenant)]
        expected, estimate = book.refuses(spec, row), book.estimate(spec, row)
        decision = self.site.asks(spec, tenant)
        result = decision.replies[0].result
        assert expected == refused(decision), f"the book refuses {expected}: {result}"
        if isinstance(result, JobRow):
            assert estimate == result.estimate
        else:
            assert isinstance(result, CoordError) and not decision.writes, "a refusal changes nothing"
            for refusal in result.refusals:
                spent = {"budget": up(book.spent), "storage": 0}
                used = spent.get(refusal.dimension, getattr(book, refusal.dimension, None))
                assert used == refusal.used, f"{refusal.dimension}: {refusal.used} is said to be used, {used} is"

    @precondition(lambda self: self.site.state.work.jobs)
    @rule(pick=st.integers(0, 100))
    def cancel(self, pick: int) -> None:
        jobs = sorted(self.site.state.work.jobs)
        self.site.cancel(jobs[pick % len(jobs)])

    @rule(pick=st.integers(0, 100))
    def run_again(self, pick: int) -> None:
        """What failed or was cancelled, of a live job or of one that ended; refused or not."""
        jobs = [r for r in self.site.rows.values() if isinstance(r, JobRow) and r.failed + r.cancelled]
        if jobs and len(self.site.state.work.jobs) < POLICY.jobs_max:
            self.site.retry(jobs[pick % len(jobs)].job_id)

    @rule(tenant=st.sampled_from(TENANTS), name=st.sampled_from(sorted(LIMITS)), pick=st.integers(0, 100))
    def limit(self, tenant: str, name: str, pick: int) -> None:
        self.site.tenant(tenant, create=False, **{name: LIMITS[name][pick % len(LIMITS[name])]})

    @rule(tenant=st.sampled_from(TENANTS), full=st.sampled_from(OnFull), budget=st.sampled_from(OnBudget))
    def manners(self, tenant: str, full: OnFull, budget: OnBudget) -> None:
        self.site.tenant(tenant, create=False, on_full=full, on_budget=budget)

    @rule(price=st.sampled_from(PRICES))
    def price(self, price: Price) -> None:
        self.site.price(price)

    # ---- agents

    def held(self) -> list[tuple[str, int]]:
        return [
            (dotted(held.attempt_id), held.rank)
            for agent in self.site.agents.values()
            for held in agent.held.values()
            if held.phase == "running"
        ]

    @rule(pick=st.integers(0, 100), code=st.sampled_from((0, 0, 0, 1, 127)), ran_ms=st.integers(0, 400_000))
    def exits(self, pick: int, code: int, ran_ms: int) -> None:
        """It says that it ran for so long, however long that was."""
        if running := self.held():
            attempt, rank = running[pick % len(running)]
            self.site.exits(attempt, code, rank=rank, ran_ms=ran_ms)

    @rule(name=st.sampled_from(PROVIDERS))
    def falls_silent(self, name: str) -> None:
        self.site.falls_silent(name)

    @rule(name=st.sampled_from(PROVIDERS), how=st.sampled_from(("same", "empty", "rebooted")))
    def back(self, name: str, how: str) -> None:
        self.site.back(name, empty=how == "empty", rebooted=how == "rebooted")

    # ---- time and disks

    @rule(seconds=st.sampled_from((1, 7, 20, 61)))
    def time_passes(self, seconds: int) -> None:
        self.site.run_to(self.site.now_s + seconds)

    @rule(before_s=st.integers(0, 3))
    def month_turns(self, before_s: int) -> None:
        """Nobody looks until a moment before the end of the month, which then turns within the next seconds."""
        turn_s = (ends_ms(month_of(self.site.now_ms)) - START_MS) / 1_000
        ahead_s = turn_s - before_s - self.site.now_s
        if ahead_s > 0:
            self.site.at(self.site.now_s + ahead_s)
            self.site.tick(stalled_s=ahead_s)
        self.site.run_to(turn_s + 2)

    @rule()
    def image(self) -> None:
        """A copy goes on in its place."""
        self.site.state = state_of(image_of(self.site.state))

    @rule(back=st.booleans())
    def restart(self, back: bool) -> None:
        self.site.restart(self.site.now_s + 1)
        for name in PROVIDERS if back else ():
            self.site.back(name)

    @rule(pick=st.integers(0, 100))
    def full_disk(self, pick: int) -> None:
        """Ends that were not durable are undone; their agents say them again."""
        first = len(self.site.decisions)
        self.site.durable = False
        self.exits(pick, 0, 5_000)
        self.site.durable = True
        self.site.disk_was_full(*self.site.decisions[first:])

    # ---- what must always hold

    @invariant()
    def the_ledger_is_the_account(self) -> None:
        """And every job's cost is the sum of what its attempts were charged."""
        month = month_of(self.site.now_ms)
        for name in TENANTS:
            self.site.usage(name)  # the first decision after a reload finds the month
            account = self.site.state.work.accounts.of(TenantName(name))
            charged = sum(row.cost for row in self.site.ledger(name) if row.month == account.row.month)
            assert charged == account.row.cost, f"{name}: {account.row.cost} on the account, {charged} in the ledger"
            assert account.row.month == month or not account.rate
        by_job: dict[int, int] = {}
        for row in self.site.ledger():
            by_job[row.job_id] = by_job.get(row.job_id, 0) + row.cost
        for job in self.site.rows.values():
            if isinstance(job, JobRow):
                assert by_job.get(job.job_id, 0) == job.cost, f"job {job.job_id} cost {job.cost}: {by_job}"
        numbers = [row.seq for row in self.site.ledger()]
        assert numbers == list(range(1, len(numbers) + 1)), "the ledger has gaps"

    @invariant()
    def usage_is_what_the_rows_come_to(self) -> None:
        for name in TENANTS:
            book = Book(self.site, name)
            usage = {d.name: d for d in self.site.usage(name).dimensions}
            for dimension in ("cpus", "gpus", "memory", "running", "queued"):
                assert getattr(book, dimension) == usage[dimension].used, f"{name}: {dimension}"
            budget = usage["budget"]
            assert (up(book.spent), book.committed) == (budget.used, budget.used + budget.reserved), f"{name}: budget"
            assert book.storage == usage["storage"].reserved

    @invariant()
    def nothing_ended_is_set_aside_for(self) -> None:
        for name in TENANTS:
            jobs = [r for r in self.site.rows.values() if isinstance(r, JobRow) and r.tenant == name]
            if all(job.state in ENDED for job in jobs):
                account = self.site.state.work.accounts.of(TenantName(name))
                assert (0, 0, 0) == (account.reserved, account.storage, account.live)


TestTenants = Tenants.TestCase
TestTenants.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, phases=(Phase.generate,)
)
