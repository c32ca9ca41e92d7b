"""What came of a replay, in figures. Hours are of CPUs that were held; a wait is from submission to the first start."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from coordinator.core.amounts import UNIT
from coordinator.core.ids import Ms, TenantName
from coordinator.core.rows import TenantRow
from coordinator.simulator.history.books import Books, Record
from coordinator.simulator.history.fleet import Fleet
from coordinator.simulator.history.workload import HOUR_MS

SHORT_MS: Ms = 10_000
"""Bounded slowdown counts a shorter job as one of this length (Feitelson and Rudolph 1998)."""


class Waits(Struct, frozen=True, kw_only=True):
    """Seconds from submission to the first start, of jobs that started."""

    mean_s: float = 0.0
    p50_s: float = 0.0
    p95_s: float = 0.0
    max_s: float = 0.0


class OfTenant(Struct, frozen=True, kw_only=True):
    tenant: str
    jobs: int
    hours: float
    share: float
    """Of all hours that were held."""
    crowded_share: float
    """The same of the time in which somebody waited: what the scheduler had to divide."""
    weight: int
    wait_mean_s: float
    slowdown_mean: float


class Report(Struct, frozen=True, kw_only=True):
    """One policy's run from the first submission to its end."""

    policy: str
    checkpoint: str = "none"
    """How often jobs saved their state."""
    jobs: int
    completed: int
    unfinished: int
    """Were waiting or running when the history ended."""
    refused: int
    starts: int
    lost: int
    """Attempts that died with a machine, or with another rank of theirs."""
    retried_most: int
    """Starts of the job that was started most often."""
    useful_h: float
    lost_h: float
    """Held by attempts that came to nothing, since they last saved their state."""
    saving_h: float
    """Held while checkpoints were taken, or laid out where a job went on."""
    wasted_h: float
    """Both."""
    wasted_share: float
    """Of useful and wasted hours together."""
    waits: Waits
    slowdown_mean: float
    """Bounded slowdown of completed jobs: (end - submission) / run time, at least 1."""
    slowdown_p95: float
    turnaround_mean_s: float
    utilisation: float
    """CPU hours held / CPU hours that were there."""
    utilisation_gpus: float
    jain: float
    """Fairness between tenants: Jain's index of their mean slowdowns; 1 is equal, 1/n is all for one."""
    makespan_s: float
    tenants: tuple[OfTenant, ...]

    @property
    def name(self) -> str:
        """What this run is called beside others."""
        return self.policy if self.checkpoint == "none" else f"{self.policy}, {self.checkpoint}"


def report(
    policy: str,
    fleet: Fleet,
    books: Books,
    end_ms: Ms,
    tenants: Sequence[TenantRow] = (),
    checkpoint: str = "none",
) -> Report:
    """The figures of a run whose clock stands at `end_ms`. O(jobs log jobs)."""
    records = list(books.records.values())
    ended = [record for record in records if record.ended_ms is not None]
    first_ms = min((record.job.at_ms for record in records), default=end_ms)
    useful = sum(hours_of(record, record.job.run_ms * record.job.nodes) for record in ended)
    lost = sum(hours_of(record, record.wasted_ms) for record in records)
    saving = sum(hours_of(record, record.saving_ms) for record in records)
    wasted = lost + saving
    held_cpus, held_gpus, by_tenant, crowded = _held(books, end_ms)
    cpus, gpus = fleet.capacity(first_ms, end_ms)
    slow = sorted(slowdown(record) for record in ended)
    entries = _tenants(records, by_tenant, crowded, tenants)
    return Report(
        policy=policy,
        checkpoint=checkpoint,
        jobs=len(records),
        completed=len(ended),
        unfinished=len(records) - len(ended),
        refused=len(books.refusals),
        starts=sum(record.starts for record in records),
        lost=sum(record.starts - (record.ended_ms is not None or bool(record.running)) for record in records),
        retried_most=max((record.starts for record in records), default=0),
        useful_h=useful,
        lost_h=lost,
        saving_h=saving,
        wasted_h=wasted,
        wasted_share=wasted / (useful + wasted) if useful + wasted else 0.0,
        waits=waits_of(records),
        slowdown_mean=_mean(slow),
        slowdown_p95=quantile(slow, 0.95),
        turnaround_mean_s=_mean([((r.ended_ms or 0) - r.job.at_ms) / 1_000 for r in ended]),
        utilisation=held_cpus / cpus if cpus else 0.0,
        utilisation_gpus=held_gpus / gpus if gpus else 0.0,
        jain=jain([entry.slowdown_mean for entry in entries if entry.slowdown_mean]),
        makespan_s=(end_ms - first_ms) / 1_000,
        tenants=tuple(entries),
    )


def hours_of(record: Record, ms: Ms) -> float:
    """CPU hours of one rank that is held for `ms`."""
    return ms * record.job.ask.cpus / UNIT / HOUR_MS


def slowdown(record: Record) -> float:
    """Bounded slowdown of one that ended."""
    assert record.ended_ms is not None
    return max(1.0, (record.ended_ms - record.job.at_ms) / max(record.job.run_ms, SHORT_MS))


def waits_of(records: Sequence[Record]) -> Waits:
    waits = sorted((r.started_ms - r.job.at_ms) / 1_000 for r in records if r.started_ms is not None)
    if not waits:
        return Waits()
    return Waits(mean_s=_mean(waits), p50_s=quantile(waits, 0.5), p95_s=quantile(waits, 0.95), max_s=waits[-1])


def jain(amounts: Sequence[float]) -> float:
    """(sum x)^2 / (n sum x^2) (Jain, Chiu and Hawe 1984); 1.0 of nothing."""
    squares = sum(x * x for x in amounts)
    return sum(amounts) ** 2 / (len(amounts) * squares) if squares else 1.0


def quantile(rising: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie; 0 of nothing."""
    return rising[min(len(rising) - 1, int(share * len(rising)))] if rising else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _held(books: Books, end_ms: Ms) -> tuple[float, float, dict[str, float], dict[str, float]]:
    """Hours held: of CPUs, of GPUs, of CPUs by tenant, and the same while somebody waited."""
    changes = [(step.at_ms, 0, step.cpus, step.gpus, step.tenant) for step in books.steps]
    changes += [(at_ms, change, 0, 0, "") for at_ms, change in books.waiting]
    cpus = gpus = waiting = 0
    last_ms: Ms = 0
    all_cpus = all_gpus = 0
    holds: dict[str, int] = {}
    since: dict[str, Ms] = {}
    total: dict[str, int] = {}
    crowded: dict[str, int] = {}
    for at_ms, change, more_cpus, more_gpus, tenant in [*sorted(changes), (end_ms, 0, 0, 0, "")]:
        at_ms = min(at_ms, end_ms)
        length = at_ms - last_ms
        all_cpus += cpus * length
        all_gpus += gpus * length
        if waiting and length:
            for name, amount in holds.items():
                crowded[name] = crowded.get(name, 0) + amount * length
        last_ms = at_ms
        cpus, gpus, waiting = cpus + more_cpus, gpus + more_gpus, waiting + change
        if tenant:
            held = holds.get(tenant, 0)
            total[tenant] = total.get(tenant, 0) + held * (at_ms - since.get(tenant, at_ms))
            since[tenant] = at_ms
            if held + more_cpus:
                holds[tenant] = held + more_cpus
            else:
                holds.pop(tenant, None)
    for name, held in holds.items():
        total[name] = total.get(name, 0) + held * (end_ms - since[name])
    scale = UNIT * HOUR_MS
    return (
        all_cpus / scale,
        all_gpus / scale,
        {name: amount / scale for name, amount in total.items()},
        {name: amount / scale for name, amount in crowded.items()},
    )


def _tenants(
    records: Sequence[Record], hours: dict[str, float], crowded: dict[str, float], rows: Sequence[TenantRow]
) -> list[OfTenant]:
    weights = {row.name: row.weight for row in rows}
    theirs: dict[str, list[Record]] = {}
    for record in records:
        theirs.setdefault(record.job.tenant, []).append(record)
    every, every_crowded = sum(hours.values()) or 1.0, sum(crowded.values()) or 1.0
    found = [
        OfTenant(
            tenant=name,
            jobs=len(jobs),
            hours=hours.get(name, 0.0),
            share=hours.get(name, 0.0) / every,
            crowded_share=crowded.get(name, 0.0) / every_crowded,
            weight=weights.get(TenantName(name), 1),
            wait_mean_s=waits_of(jobs).mean_s,
            slowdown_mean=_mean([slowdown(record) for record in jobs if record.ended_ms is not None]),
        )
        for name, jobs in theirs.items()
    ]
    return sorted(found, key=lambda entry: (-entry.hours, entry.tenant))
