"""Two tenants by their weights, each steady or in bursts: over the window each gets its share, to a few percent."""

from __future__ import annotations

from random import Random

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, TenantName
from coordinator.core.rows import Resources, TenantRow
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.simulator.fairness.site import POLICY, Site
from coordinator.simulator.violation import Violation

HOUR_MS: Ms = 3_600_000
WINDOW_H = 48
WITHIN = 0.05
"""Of the whole: how far from its share a tenant may be over the window."""
FIRST, SECOND, GUEST = TenantName("first"), TenantName("second"), TenantName("guest")
GUEST_EVERY_H = 9
WAITS_MOST = POLICY.aging_ms
"""A guest who comes once in some hours is far below everybody's share: he waits for the next that ends, not longer."""


class Shares:
    """One seed."""

    def __init__(self, seed: int) -> None:
        dice = self._dice = Random(seed)  # noqa: S311  a seed is to be repeated, not to be secret
        weights = dice.choice(((3, 1), (3, 1), (1, 1), (2, 1), (1, 4)))
        machines = [Resources(cpus=dice.choice((1, 2, 4)), memory_gb=16) for _ in range(dice.randint(2, 4))]
        self._cpus = int(sum(machine.cpus for machine in machines))
        rows = [TenantRow(name=n, created_at_ms=1, weight=w) for n, w in zip((FIRST, SECOND), weights, strict=True)]
        self.site = Site(machines, [*rows, TenantRow(name=GUEST, created_at_ms=1)], self)
        self.expected = weights[0] / sum(weights)
        self._mean_ms = {FIRST: self._length(), SECOND: self._length(), GUEST: HOUR_MS // 4}
        self._longest_ms = int(1.5 * max(self._mean_ms.values()))
        self.used_ms: dict[TenantName, Ms] = dict.fromkeys((FIRST, SECOND, GUEST), 0)
        self._since: dict[AttemptId, Ms] = {}
        self._tenants: dict[JobId, TenantName] = {}
        self._asked_ms: dict[JobId, Ms] = {}
        self.guests = 0
        self.longest_wait_ms: Ms = 0

    def _length(self) -> Ms:
        return int(self._dice.uniform(0.5, 1.5) * HOUR_MS)

    def run(self) -> float:
        """Returns how far the first one's share was from what it should be. Raises Violation beyond WITHIN."""
        steady = self._dice.choice((FIRST, SECOND, None, None))
        for tenant, share in ((FIRST, self.expected), (SECOND, 1 - self.expected)):
            if tenant == steady or (steady is None and tenant is SECOND):
                self._submit(tenant, WINDOW_H * self._cpus * 4)
            else:
                self._burst(tenant, share, self._dice.choice((2, 4, 6, 8)), self._dice.uniform(1.0, 1.6))
        self._invite()
        self.site.run_until(WINDOW_H * HOUR_MS)
        for attempt_id, since_ms in self._since.items():
            self.used_ms[self._tenants[attempt_id[0]]] += self.site.now_ms - since_ms
        first, second = self.used_ms[FIRST], self.used_ms[SECOND]
        off = first / (first + second) - self.expected
        if abs(off) > WITHIN:
            raise Violation(f"a share of {self.expected:.2f} was {self.expected + off:.3f} over the window")
        return off

    def _burst(self, tenant: TenantName, share: float, every_h: int, excess: float) -> None:
        """As much as its share of the time until the next burst, or more; the first one comes at once."""
        work_ms = share * excess * every_h * HOUR_MS * self._cpus
        self._submit(tenant, -int(-work_ms // self._mean_ms[tenant]))
        self.site.after(every_h * HOUR_MS, lambda: self._burst(tenant, share, every_h, excess))

    def _submit(self, tenant: TenantName, tasks: int) -> None:
        step = StepSpec(name="run", command=("true",), tasks=tasks, asks=(Ask(cpus=UNIT),))
        job_id = JobId(self.site.state.work.next_job_id)
        self._tenants[job_id] = tenant
        if tenant == GUEST:
            self._asked_ms[job_id] = self.site.now_ms
        made = self.site.submit(tenant, JobSpec(name=str(tenant), steps=(step,)))
        assert made == job_id

    def _invite(self) -> None:
        """Somebody comes now and then: he is not held up by two who always ask."""
        self.site.after(int(self._dice.expovariate(1 / GUEST_EVERY_H) * HOUR_MS), self._guest)

    def _guest(self) -> None:
        self._submit(GUEST, 1)
        self._invite()

    # ---- what runs

    def began(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId) -> Ms:
        self._since[attempt_id] = self.site.now_ms
        tenant = self._tenants[attempt_id[0]]
        if tenant == GUEST:
            waited_ms = self.site.now_ms - self._asked_ms[attempt_id[0]]
            self.guests += 1
            self.longest_wait_ms = max(self.longest_wait_ms, waited_ms)
            if waited_ms > self._longest_ms + WAITS_MOST:
                raise Violation(f"a guest waits for {waited_ms} ms, nobody runs for longer than {self._longest_ms} ms")
        return int(self._mean_ms[tenant] * self._dice.uniform(0.5, 1.5))

    def ended(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId) -> None:
        self.used_ms[self._tenants[attempt_id[0]]] += self.site.now_ms - self._since.pop(attempt_id)
