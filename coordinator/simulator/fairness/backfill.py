"""One queue in the order of its submission: whoever is let past its head never delays when that could have started.

The books know when each machine has room for the head at the latest, by the time limits of what runs there. That moment
is noted when somebody becomes the head, and whatever is placed afterwards, the head starts by then.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId
from coordinator.core.queue.freeing import SLACK_MS
from coordinator.core.rows import Resources
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.simulator.fairness.site import Site
from coordinator.simulator.treasurer import DEFAULT
from coordinator.simulator.violation import Violation

HOUR_MS: Ms = 3_600_000
JOBS = 150
WINDOW_H = 400
SLACKS = 2
"""A plan takes every limit to be over a little later than it says, the one before it too."""


class Waiting(Struct):
    """A job that has not begun."""

    cpus: int
    nodes: int
    run_ms: Ms
    limit_ms: Ms
    by_ms: Ms | None = None
    """When it must have begun, noted when it was the head."""


class Backfill:
    """One seed."""

    def __init__(self, seed: int) -> None:
        dice = self._dice = Random(seed)  # noqa: S311  a seed is to be repeated, not to be secret
        sizes = {ProviderId(f"box-{n}"): dice.choice((2, 4, 8)) for n in range(1, dice.randint(3, 7))}
        self._sizes = sizes
        self.site = Site([Resources(cpus=cpus, memory_gb=64) for cpus in sizes.values()], [], self)
        self._waiting: dict[JobId, Waiting] = {}
        self._runs: dict[ProviderId, dict[AttemptId, tuple[int, Ms]]] = {who: {} for who in sizes}
        """CPUs, and the end by its limit."""
        self._jobs: dict[JobId, Waiting] = {}
        self.passed = 0
        """Jobs that began before one that stands ahead of them."""
        self._to_come = JOBS

    def run(self) -> None:
        self._come()
        self.site.run_until(WINDOW_H * HOUR_MS)
        if self._waiting:
            raise Violation(f"jobs {sorted(self._waiting)} have not begun in {WINDOW_H} hours")

    def _come(self) -> None:
        if not self._to_come:
            return
        self._to_come -= 1
        dice = self._dice
        cpus = dice.choice((1, 1, 2, 4))
        able = sum(size >= cpus for size in self._sizes.values())
        if not able:
            cpus, able = 1, len(self._sizes)
        limit_ms = int(dice.choice((0.1, 0.5, 1, 3)) * dice.uniform(0.7, 1.0) * HOUR_MS)
        job = Waiting(
            cpus=cpus * UNIT,
            nodes=dice.randint(1, able) if dice.random() < 0.4 else 1,
            run_ms=int(limit_ms * dice.choice((1.0, dice.random()))),
            limit_ms=limit_ms,
        )
        step = StepSpec(
            name="run", command=("true",), asks=(Ask(cpus=job.cpus),), nodes=job.nodes, time_limit_ms=limit_ms
        )
        job_id = JobId(self.site.state.work.next_job_id)
        self._jobs[job_id] = self._waiting[job_id] = job
        self.site.submit(DEFAULT, JobSpec(name="job", steps=(step,)))
        self._note_head()
        self.site.after(int(dice.expovariate(1.5 * len(self._sizes)) * HOUR_MS), self._come)

    def _note_head(self) -> None:
        """When the job that stands first can begin at the latest."""
        head = min(self._waiting, default=None)
        if head is None or self._waiting[head].by_ms is not None:
            return
        job = self._waiting[head]
        free = sorted(self._free_ms(who, job.cpus) for who, size in self._sizes.items() if size * UNIT >= job.cpus)
        job.by_ms = free[job.nodes - 1] + SLACKS * SLACK_MS

    def _free_ms(self, who: ProviderId, cpus: int) -> Ms:
        """When this machine has room for so many, with nothing new on it."""
        runs = sorted(self._runs[who].values(), key=lambda run: run[1])
        left = self._sizes[who] * UNIT - sum(held for held, _ in runs)
        when_ms = self.site.now_ms
        for held, end_ms in runs:
            if left >= cpus:
                break
            left, when_ms = left + held, end_ms
        return when_ms

    # ---- what runs

    def began(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId) -> Ms:
        job_id = JobId(attempt_id[0])
        job = self._jobs[job_id]
        now_ms = self.site.now_ms
        self._runs[provider_id][attempt_id] = job.cpus, now_ms + job.limit_ms
        held = sum(cpus for cpus, _ in self._runs[provider_id].values())
        if held > self._sizes[provider_id] * UNIT:
            raise Violation(f"{provider_id} runs {held / UNIT} of {self._sizes[provider_id]} CPUs")
        if self._waiting.pop(job_id, None) is not None:
            self.passed += any(other < job_id for other in self._waiting)
            if job.by_ms is not None and now_ms > job.by_ms:
                raise Violation(f"job {job_id} begins {now_ms - job.by_ms} ms after it could have as the head")
        return job.run_ms

    def ended(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId) -> None:
        del self._runs[provider_id][attempt_id]
        self.site.after(0, self._note_head)
