"""A workload: what was submitted when, for how long it ran. And made-up ones, and how they are fitted to a load."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, PoolName, TenantName
from coordinator.simulator.history.fleet import Fleet

HOUR_MS: Ms = 3_600_000
JOBS_MAX = 5_000_000
RUN_MAX_MS: Ms = 10 * 366 * 86_400_000
AT_MAX_MS: Ms = 100 * 366 * 86_400_000
"""Of a submission: a virtual clock that has to go further is not waited for."""


class Job(Struct, frozen=True, gc=False, kw_only=True):
    """One job of one task. What the scheduler is told of its run time is `told_ms` and `limit_ms` alone."""

    at_ms: Ms
    """Of its submission; of a workload that was not fitted to a fleet, since its beginning."""
    run_ms: Ms
    """How long it runs where nothing happens to it."""
    ask: Ask = Ask()
    nodes: int = 1
    pools: tuple[PoolName, ...] = ()
    tenant: TenantName = TenantName("default")
    limit_ms: Ms | None = None
    told_ms: Ms | None = None
    """How long it is expected to run, as its owner said."""


class Workload(Struct, frozen=True, kw_only=True):
    """Jobs in the order of their submission, and what was left out of the file they came from, by reason."""

    jobs: tuple[Job, ...]
    left_out: dict[str, int] = {}

    def hours(self) -> float:
        """CPU hours that it takes where nothing is lost."""
        return sum(job.run_ms * job.nodes * job.ask.cpus for job in self.jobs) / UNIT / HOUR_MS

    def gpu_hours(self) -> float:
        return sum(job.run_ms * job.nodes * job.ask.gpus for job in self.jobs) / UNIT / HOUR_MS


class Made(Struct, frozen=True, kw_only=True):
    """A made-up workload: lengths that share the load equally."""

    lengths_ms: tuple[Ms, ...]
    load: float


def make(wanted: Made, slots: float, from_ms: Ms, to_ms: Ms, dice: Random) -> Workload:
    """Jobs of one CPU that would keep `load` of `slots` busy from `from_ms` to `to_ms`, were none ever lost.

    Each length comes at moments of its own, independent of what came before (a Poisson stream).
    """
    if slots <= 0:
        raise CoordError(Code.BAD_REQUEST, "the fleet has no CPUs, or none is known to have stayed", "name another one")
    jobs: list[Job] = []
    for length_ms in wanted.lengths_ms:
        between_ms = length_ms * len(wanted.lengths_ms) / (wanted.load * slots)
        if (to_ms - from_ms) / between_ms > JOBS_MAX:
            raise CoordError(Code.TOO_MANY, f"that workload has more than {JOBS_MAX} jobs", "take longer ones")
        at = from_ms + dice.expovariate(1.0) * between_ms
        while at < to_ms:
            jobs.append(Job(at_ms=int(at), run_ms=length_ms, limit_ms=length_ms, told_ms=length_ms))
            at += dice.expovariate(1.0) * between_ms
    return Workload(jobs=tuple(sorted(jobs, key=lambda job: job.at_ms)))


def may_grow(jobs: Sequence[Job]) -> None:
    """Return when one more job may be read; CoordError(TOO_MANY) otherwise."""
    if len(jobs) >= JOBS_MAX:
        raise CoordError(Code.TOO_MANY, f"the workload has more than {JOBS_MAX} jobs", "cut it into parts")


def moved(workload: Workload, from_ms: Ms, factor: float = 1.0) -> Workload:
    """The same jobs, the first one at `from_ms`, and the time between them multiplied by `factor`."""
    if not workload.jobs:
        raise CoordError(Code.BAD_REQUEST, "the workload has no jobs", "name a file with some")
    first = workload.jobs[0].at_ms
    jobs = tuple(replace(job, at_ms=from_ms + round((job.at_ms - first) * factor)) for job in workload.jobs)
    return replace(workload, jobs=jobs)


def loaded(workload: Workload, fleet: Fleet, from_ms: Ms, load: float) -> Workload:
    """The same jobs from `from_ms` on, closer together or further apart, so that they ask for `load` of what is there
    from the first submission to the last: of CPUs or of GPUs, whichever is the shorter."""
    work = moved(workload, from_ms)
    length_ms = max(work.jobs[-1].at_ms - from_ms, 1)
    until_ms = from_ms + length_ms
    if fleet.to_ms is not None:
        until_ms = max(from_ms + 1, min(until_ms, fleet.to_ms))
    cpus, gpus = fleet.capacity(from_ms, until_ms)
    hours = (until_ms - from_ms) / HOUR_MS
    needed_h = work.hours() / (cpus / hours) if cpus else 0.0
    if gpus:
        needed_h = max(needed_h, work.gpu_hours() / (gpus / hours))
    return moved(work, from_ms, needed_h / load * HOUR_MS / length_ms)


def told(workload: Workload, factor: float | None) -> Workload:
    """What owners say of run times: `factor` times the truth as the time limit, or nothing with None."""
    if factor is None:
        return replace(workload, jobs=tuple(replace(job, limit_ms=None, told_ms=None) for job in workload.jobs))
    jobs = []
    for job in workload.jobs:
        said = max(job.run_ms, round(job.run_ms * factor))
        jobs.append(replace(job, limit_ms=said, told_ms=said))
    return replace(workload, jobs=tuple(jobs))


def tenants_of(jobs: Sequence[Job]) -> tuple[TenantName, ...]:
    """Every tenant that a job names, in the order of their names."""
    return tuple(sorted({job.tenant for job in jobs}))
