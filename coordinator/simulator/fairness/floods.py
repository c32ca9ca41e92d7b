"""Tenants who fill the queue at high priorities, and others below them: nobody waits for ever.

A line (a tenant's jobs of one priority) that could be served and got nothing counts one priority higher after each
`aging_ms`. So within (priorities above it + 1) x `aging_ms` it stands level with everybody, and is served by its share
or, at the latest, LEVELLED x `aging_ms` after it was served last.
"""

from __future__ import annotations

from random import Random

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, TenantName
from coordinator.core.queue.order import LEVELLED
from coordinator.core.rows import Resources, TenantRow
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.simulator.fairness.site import POLICY, Site
from coordinator.simulator.violation import Violation

HOUR_MS: Ms = 3_600_000
WINDOW_H = 48
TENANTS = tuple(map(TenantName, ("flood", "steady", "humble")))
LOOK_EVERY_MS: Ms = 600_000

Line = tuple[TenantName, int]


class Floods:
    """One seed."""

    def __init__(self, seed: int) -> None:
        dice = self._dice = Random(seed)  # noqa: S311  a seed is to be repeated, not to be secret
        machines = [
            Resources(cpus=dice.choice((2, 4)), memory_gb=16, gpus=("gpu",) * dice.choice((0, 1)))
            for _ in range(dice.randint(2, 4))
        ]
        machines[0] = Resources(cpus=4, memory_gb=16, gpus=("gpu",))
        self._nodes_most = len(machines)
        rows = [TenantRow(name=name, created_at_ms=1, weight=dice.choice((1, 1, 3))) for name in TENANTS]
        self.site = Site(machines, rows, self)
        self._mean_ms = int(dice.uniform(0.2, 1.0) * HOUR_MS)
        self._longest_ms = int(1.5 * self._mean_ms)
        self._lines: dict[JobId, Line] = {}
        self._left: dict[JobId, int] = {}
        """Tasks of each job that have not begun."""
        self._served_ms: dict[Line, Ms] = {}
        self.longest_wait_ms: Ms = 0
        self.starts = 0

    def run(self) -> None:
        dice = self._dice
        plain = Ask(cpus=UNIT)
        for tenant in TENANTS[: dice.randint(1, 3)]:
            self._submit(tenant, dice.choice((1, 2)), plain, 1, 5_000)
        for tenant in TENANTS:
            self._come(tenant)
        self.site.after(LOOK_EVERY_MS, self._look)
        self.site.run_until(WINDOW_H * HOUR_MS)

    def _come(self, tenant: TenantName) -> None:
        """Something smaller, at a lower priority: some of it needs a GPU, or several nodes, or a whole machine."""
        dice = self._dice
        ask = dice.choice((Ask(cpus=UNIT), Ask(cpus=UNIT), Ask(cpus=2 * UNIT), Ask(cpus=UNIT, gpus=UNIT)))
        nodes = dice.randint(2, self._nodes_most) if not ask.gpus and dice.random() < 0.3 else 1
        self._submit(tenant, dice.choice((0, 0, -1)), ask, nodes, dice.randint(1, 3))
        self.site.after(int(dice.expovariate(1 / 12) * HOUR_MS), lambda: self._come(tenant))

    def _submit(self, tenant: TenantName, priority: int, ask: Ask, nodes: int, tasks: int) -> None:
        limit_ms = self._longest_ms if self._dice.random() < 0.5 else None
        step = StepSpec(
            name="run", command=("true",), tasks=tasks, asks=(ask,), nodes=nodes, time_limit_ms=limit_ms,
            expected_ms=self._mean_ms,
        )  # fmt: skip
        job_id = JobId(self.site.state.work.next_job_id)
        line = self._lines[job_id] = tenant, priority
        if not self._waits(line):
            self._served_ms[line] = self.site.now_ms
        self._left[job_id] = tasks
        made = self.site.submit(tenant, JobSpec(name="job", steps=(step,), priority=priority))
        assert made == job_id

    def _waits(self, line: Line) -> bool:
        return any(left and self._lines[job_id] == line for job_id, left in self._left.items())

    def _look(self) -> None:
        """Whoever waits was served not longer ago than the policy bounds."""
        self.site.tick()
        self.site.after(LOOK_EVERY_MS, self._look)
        waiting = {self._lines[job_id] for job_id, left in self._left.items() if left}
        top = max((priority for _, priority in waiting), default=0)
        for line in sorted(waiting):
            waited_ms = self.site.now_ms - self._served_ms[line]
            self.longest_wait_ms = max(self.longest_wait_ms, waited_ms)
            # Those that have waited as long are served one after the other, each when its planned start has come.
            most_ms = (top - line[1] + 1 + LEVELLED) * POLICY.aging_ms + (len(waiting) + 1) * self._longest_ms
            if waited_ms > most_ms:
                raise Violation(f"{line[0]} at priority {line[1]} got nothing for {waited_ms} ms, {most_ms} are bound")

    # ---- what runs

    def began(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId) -> Ms:
        if rank == 0:
            job_id = JobId(attempt_id[0])
            self.starts += 1
            self._left[job_id] -= 1
            self._served_ms[self._lines[job_id]] = self.site.now_ms
            if not self._left[job_id]:
                del self._left[job_id]
            self._length_ms = int(self._mean_ms * self._dice.uniform(0.5, 1.5))
        return self._length_ms

    def ended(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId) -> None:
        """Nothing to note."""
