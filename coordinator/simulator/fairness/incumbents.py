"""Somebody had the fleet alone for a day, then others come: he pays back what he had, and gets his least meanwhile."""

from __future__ import annotations

from random import Random

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, TenantName
from coordinator.core.rows import Resources, TenantRow
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.simulator.fairness.site import BEGAN_MS, POLICY, Site
from coordinator.simulator.violation import Violation

HOUR_MS: Ms = 3_600_000
WINDOW_H = 6
"""What somebody gets is summed over so long."""
SETTLES_H = 4
"""After the others have come: what was alone runs on, and then counts as what he had lately."""
WATCHED_H = 24
SLACK = 0.6
"""Of his least: a window is not a multiple of what one task takes."""
INCUMBENT = TenantName("incumbent")


class Incumbents:
    """One seed."""

    def __init__(self, seed: int) -> None:
        dice = self._dice = Random(seed)  # noqa: S311  a seed is to be repeated, not to be secret
        machines = [Resources(cpus=dice.choice((1, 2, 4, 8)), memory_gb=16) for _ in range(dice.randint(2, 5))]
        self._cpus = int(sum(machine.cpus for machine in machines))
        self._comes = [TenantName(f"newcomer-{number}") for number in range(dice.choice((1, 1, 2)))]
        weights = {name: dice.choice((1, 1, 2, 3)) for name in (INCUMBENT, *self._comes)}
        self.least = POLICY.share_least * weights[INCUMBENT] / sum(weights.values())
        rows = [TenantRow(name=name, created_at_ms=1, weight=weight) for name, weight in weights.items()]
        self.site = Site(machines, rows, self)
        self._alone_h = dice.randint(6, 48)
        self._mean_ms = int(dice.uniform(0.2, 0.8) * HOUR_MS)
        self._tenants: dict[JobId, TenantName] = {}
        self._since: dict[AttemptId, Ms] = {}
        self.used: dict[int, Ms] = {}
        """By hour after the others came: what the incumbent had, in milliseconds of one CPU."""

    def run(self) -> None:
        """Raises Violation where he had less than his least over some window."""
        until_h = self._alone_h + SETTLES_H + WATCHED_H
        tasks = int(3 * until_h * self._cpus * HOUR_MS / self._mean_ms)
        self._submit(INCUMBENT, tasks)
        for name in self._comes:
            self._invite(name, tasks)
        self.site.run_until(until_h * HOUR_MS)
        for attempt_id in list(self._since):
            self._count(attempt_id)
        for begin_h in range(SETTLES_H, SETTLES_H + WATCHED_H - WINDOW_H + 1):
            had = sum(self.used.get(hour, 0) for hour in range(begin_h, begin_h + WINDOW_H))
            share = had / (WINDOW_H * HOUR_MS * self._cpus)
            if share < SLACK * self.least:
                raise Violation(f"{begin_h} hours after others came the incumbent has {share:.3f} of {self.least:.3f}")

    def _invite(self, name: TenantName, tasks: int) -> None:
        self.site.after(self._alone_h * HOUR_MS, lambda: self._submit(name, tasks))

    def _submit(self, tenant: TenantName, tasks: int) -> None:
        step = StepSpec(name="run", command=("true",), tasks=tasks, asks=(Ask(cpus=UNIT),))
        self._tenants[JobId(self.site.state.work.next_job_id)] = tenant
        self.site.submit(tenant, JobSpec(name=str(tenant), steps=(step,)))

    # ---- what runs

    def began(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId) -> Ms:
        self._since[attempt_id] = self.site.now_ms
        return int(self._mean_ms * self._dice.uniform(0.5, 1.5))

    def ended(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId) -> None:
        self._count(attempt_id)

    def _count(self, attempt_id: AttemptId) -> None:
        """What it had, hour by hour."""
        since_ms = self._since.pop(attempt_id)
        if self._tenants[JobId(attempt_id[0])] != INCUMBENT:
            return
        came_ms = BEGAN_MS + self._alone_h * HOUR_MS
        while since_ms < self.site.now_ms:
            hour = (since_ms - came_ms) // HOUR_MS
            until_ms = min(self.site.now_ms, came_ms + (hour + 1) * HOUR_MS)
            self.used[hour] = self.used.get(hour, 0) + until_ms - since_ms
            since_ms = until_ms
