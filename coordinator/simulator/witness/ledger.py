"""What running costs, by books of the witness's own: each millionth once, for as long as was seen and told, no longer.

A decision is judged with the rows that it left from; what a commit says must add up by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.core import commands
from coordinator.core.amounts import UNIT, Ask, Price
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, TenantName, dotted
from coordinator.core.rows import (
    LIVE_ATTEMPT,
    AccountRow,
    AttemptRow,
    AttemptState,
    EndCause,
    JobRow,
    LedgerRow,
    RankRow,
)
from coordinator.core.tenants.months import begins_ms, month_of
from coordinator.simulator.witness.ground import Ground
from coordinator.simulator.witness.runs import Runs
from coordinator.simulator.witness.sessions import Sessions

HOUR_MS: Ms = 3_600_000
SCALE = 10**9 * HOUR_MS
"""Rates are what a millisecond costs, times this."""
FREE = Price()

Rank = tuple[AttemptId, int]


def rate_of(ask: Ask, price: Price) -> int:
    return (ask.cpus * price.cpu + ask.gpus * price.gpu) * (10**9 // UNIT) + ask.memory * price.memory


def up(scaled: int) -> int:
    """In millionths, rounded up."""
    return -(-scaled // SCALE)


class Charges:
    """What was charged, by month and by rank."""

    def __init__(self) -> None:
        self.by_month: dict[tuple[TenantName, int], int] = {}
        self.by_job: dict[JobId, int] = {}
        self.ran_ms: dict[Rank, Ms] = {}

    def add(self, row: LedgerRow) -> None:
        key = row.tenant, row.month
        self.by_month[key] = self.by_month.get(key, 0) + row.cost
        self.by_job[row.job_id] = self.by_job.get(row.job_id, 0) + row.cost
        rank = (row.job_id, row.step, row.task, row.attempt), row.rank
        self.ran_ms[rank] = self.ran_ms.get(rank, 0) + row.ran_ms

    def copy(self) -> Charges:
        other = Charges()
        other.by_month, other.by_job, other.ran_ms = dict(self.by_month), dict(self.by_job), dict(self.ran_ms)
        return other


class Ledger:
    """`now`: with what was decided and may yet be rolled back. `kept`: what is durable."""

    def __init__(self, ground: Ground, runs: Runs, sessions: Sessions) -> None:
        self.now, self.kept = Charges(), Charges()
        self._ground, self._runs, self._sessions = ground, runs, sessions
        self._accounts: dict[TenantName, AccountRow] = {}
        self._jobs: dict[JobId, JobRow] = {}
        self._attempts: dict[AttemptId, AttemptRow] = {}
        self._heard_ms: dict[ProviderId, Ms] = {}
        self._seq = 0
        self._metered: dict[int, LedgerRow] = {}
        """Rows of bytes, by seq."""

    def load(self) -> None:
        """What is durable is all there is."""
        self.now = self.kept.copy()

    def heard(self, provider_id: ProviderId, at_ms: Ms) -> None:
        """A sign of life."""
        self._heard_ms[provider_id] = max(at_ms, self._heard_ms.get(provider_id, 0))

    # ---- every decision

    def decided(self, decision: commands.Decision, before: Mapping[AttemptId, AttemptRow], now_ms: Ms) -> None:
        """`before`: the attempts' rows that it left from."""
        rows = [write.row for write in decision.writes if isinstance(write, commands.Put)]
        was = self.now.ran_ms
        charged = [row for row in rows if isinstance(row, LedgerRow) and row.kind == "run"]
        attempts = {row.attempt_id: row for row in rows if isinstance(row, AttemptRow)}
        if charged:
            was = dict(was)
            for row in charged:
                self.now.add(row)
                self._check_time(row, before, now_ms)
                if row.at_ms == begins_ms(month_of(now_ms)):  # a month turned first: that is never taken back
                    turned: Rank = (row.job_id, row.step, row.task, row.attempt), row.rank
                    was[turned] = was.get(turned, 0) + row.ran_ms
        for attempt_id, after in attempts.items():
            row_before = before.get(attempt_id)
            if row_before is not None and (row_before.state in LIVE_ATTEMPT or _goes_on(row_before, after)):
                for rank in range(len(after.ranks)):
                    self._check_end(row_before, after, rank, was.get((attempt_id, rank), 0), now_ms)

    def _check_time(self, row: LedgerRow, before: Mapping[AttemptId, AttemptRow], now_ms: Ms) -> None:
        attempt_id = row.job_id, row.step, row.task, row.attempt
        attempt, expect, who = before.get(attempt_id), self._ground.expect, f"ledger row {row.seq}"
        if attempt is None:
            expect(False, f"{who} charges attempt {dotted(attempt_id)}, which nobody knows")
            return
        may_run = attempt.state in LIVE_ATTEMPT or attempt.state is AttemptState.LOST  # who is back goes on
        expect(may_run, f"{who} charges {dotted(attempt_id)}, which is {attempt.state}")
        most_ms = now_ms - _began_ms(attempt)
        ran_ms = self.now.ran_ms[attempt_id, row.rank]
        expect(row.ran_ms > 0 and ran_ms <= most_ms, f"{who} makes {ran_ms} ms of {most_ms} that were seen")

    def _check_end(self, before: AttemptRow, after: AttemptRow, rank: int, was_ms: Ms, now_ms: Ms) -> None:
        """A rank that ends in this decision is charged for what its agent told, within what was seen."""
        old, new = before.ranks[rank], after.ranks[rank]
        if old.exit is not None or new.price == FREE:
            return
        is_ms, expect = self.now.ran_ms.get((before.attempt_id, rank), 0), self._ground.expect
        who = f"{dotted(before.attempt_id)}, rank {rank},"
        began_ms = _began_ms(before)
        seen_ms = max(0, now_ms - began_ms)
        if new.exit is not None and not _unseen(new):
            truly = self._runs.exits.get((before.attempt_id, rank))
            if truly is not None and new.exit.cause is not EndCause.AGENT:
                expect(truly.ran_ms == new.exit.ran_ms, f"{who} ran {truly.ran_ms} ms, and {new.exit.ran_ms} are kept")
            due_ms = max(was_ms, min(new.exit.ran_ms, seen_ms))
            expect(is_ms == due_ms, f"{who} is charged for {is_ms} ms, its meter says {due_ms}")
        elif new.exit is not None or after.state not in LIVE_ATTEMPT:
            heard_ms = max(0, self._heard_by_ms(new.provider_id, now_ms) - began_ms) if old.running else 0
            expect(is_ms <= max(was_ms, heard_ms), f"{who} was lost and is charged {is_ms} ms, seen for {heard_ms}")

    def _heard_by_ms(self, provider_id: ProviderId, now_ms: Ms) -> Ms:
        """Until when it counts as heard at the latest: a session that ends without a word lasts an interval longer."""
        return self._heard_ms.get(provider_id, now_ms) + self._sessions.interval_high_ms

    # ---- what became durable

    def durable(self, writes: Sequence[commands.Write]) -> None:
        """One commit: it adds up."""
        rows = [write.row for write in writes if isinstance(write, commands.Put)]
        tenants: set[TenantName] = set()
        jobs: set[JobId] = set()
        for row in rows:
            match row:
                case LedgerRow(kind=kind) if kind != "run":
                    self._metered[row.seq] = row
                    tenants.add(row.tenant)
                case LedgerRow():
                    self._check_row(row)
                    self.kept.add(row)
                    tenants.add(row.tenant)
                    jobs.add(row.job_id)
                case AccountRow(tenant=name):
                    self._accounts[name] = row
                    tenants.add(name)
                case JobRow(job_id=job_id):
                    self._jobs[job_id] = row
                    jobs.add(job_id)
                case AttemptRow():
                    self._attempts[row.attempt_id] = row
                case _:
                    pass
        for name in sorted(tenants):
            account = self._accounts.get(name)
            told = account.cost if account is not None else 0
            summed = self.kept.by_month.get((name, account.month if account is not None else 0), 0)
            self._ground.expect(told == summed, f"the account of {name} says {told}, its ledger {summed}")
            if account is not None:
                self._check_bytes(account)
        for job_id in sorted(jobs):
            told, summed = self._jobs[job_id].cost, self.kept.by_job.get(job_id, 0)
            self._ground.expect(told == summed, f"job {job_id} cost {told} by its row, its ledger says {summed}")

    def _check_bytes(self, account: AccountRow) -> None:
        """Of this month: the rows of its hours, each as it was written last."""
        who = account.tenant
        rows = [row for row in self._metered.values() if (row.tenant, row.month) == (who, account.month)]
        kinds = {"ingress": account.ingress, "egress": account.egress, "storage": account.storage_mb_s}
        for kind, told in kinds.items():
            summed = sum(row.amount for row in rows if row.kind == kind)
            self._ground.expect(told == summed, f"{who}: {told} of {kind} by its account, {summed} by its ledger")

    def _check_row(self, row: LedgerRow) -> None:
        expect, who = self._ground.expect, f"ledger row {row.seq}"
        expect(row.seq > self._seq, f"{who} follows {self._seq}")
        self._seq = row.seq
        job = self._jobs.get(row.job_id)
        expect(job is not None and job.tenant == row.tenant, f"{who} charges {row.tenant}: not the one who asked")
        attempt = self._attempts.get((row.job_id, row.step, row.task, row.attempt))
        if attempt is None:
            expect(False, f"{who} charges what was never granted")
            return
        held = attempt.ranks[row.rank]
        asked = held.share.ask
        same = (row.price, row.provider_id, row.cpus, row.gpus, row.memory) == (
            held.price, held.provider_id, asked.cpus, asked.gpus, asked.memory
        )  # fmt: skip
        expect(same, f"{who} charges {row}, granted was {held}")
        cost = up(rate_of(asked, held.price) * row.ran_ms)
        expect(row.cost == cost, f"{who} charges {row.cost} for what costs {cost}")
        months = month_of(row.at_ms - 1), month_of(row.at_ms)
        expect(row.month in months, f"{who} is of {row.at_ms} and in month {row.month}")


def _began_ms(row: AttemptRow) -> Ms:
    return row.started_at_ms if row.started_at_ms is not None else row.created_at_ms


def _goes_on(before: AttemptRow, after: AttemptRow) -> bool:
    """It was given up, and counts again."""
    return before.state is AttemptState.LOST and after.state is not AttemptState.LOST


def _unseen(rank: RankRow) -> bool:
    """Its agent died with it: nobody saw how long it ran."""
    return rank.exit is not None and rank.exit.cause is EndCause.AGENT and not rank.exit.ran_ms
