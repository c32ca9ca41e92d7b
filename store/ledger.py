"""The ledger in the truth: every charge, in the order of its making, and their sums."""

from __future__ import annotations

from coordinator.core.amounts import UNIT, Price
from coordinator.core.ids import JobId, PoolName, ProviderId, TenantName
from coordinator.core.rows import LedgerRow
from coordinator.ports.store import SUMMED_BY
from store.table import Columns, Table, one_column, upsert

COLUMNS = (
    "seq",
    "at_ms",
    "month",
    "tenant",
    "job_id",
    "step",
    "task",
    "attempt",
    "rank",
    "provider_id",
    "pool",
    "cpus",
    "gpus",
    "memory",
    "price_cpu",
    "price_gpu",
    "price_memory",
    "ran_ms",
    "cost",
    "kind",
    "amount",
)
_NAMES = ", ".join(COLUMNS)
PRUNE = """
DELETE FROM ledger WHERE at_ms < ? AND seq IN (SELECT seq FROM ledger ORDER BY seq LIMIT ?)
"""
"""(before_ms, limit): of the oldest rows, those that are older than that."""
_WITHIN = "seq BETWEEN (SELECT min(seq) FROM ledger WHERE month = ?) AND (SELECT max(seq) FROM ledger WHERE month = ?)"
_DAY_MS = 86_400_000
_KEYS = {
    "tenant": "tenant",
    "month": "CAST(month AS TEXT)",
    "pool": "pool",
    "job": "CAST(job_id AS TEXT)",
    "provider": "provider_id",
    "day": f"date(at_ms / {_DAY_MS} * {_DAY_MS // 1_000}, 'unixepoch')",
}
assert tuple(_KEYS) == SUMMED_BY
_OF_RUNS = ("pool", "job", "provider")
_BYTES = ", ".join(f"sum(iif(kind = '{kind}', amount, 0))" for kind in ("ingress", "egress", "storage"))
_COSTLIEST = "spent DESC, key"
_ORDER = {"month": "key DESC", "day": "key DESC"}


def listing(*, tenant: bool, month: bool, job: bool) -> str:
    """([job], [tenant], [month], before, limit): charges, newest first."""
    where = " AND ".join([*_conditions(tenant=tenant, month=month, job=job), "seq < ?"])
    return f"SELECT {_NAMES} FROM ledger WHERE {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608  names of ours


def sums(by: str, *, tenant: bool, month: bool, job: bool) -> str:
    """([job], [tenant], [month], limit): (key, cost, ran_ms, cpu_ms, gpu_ms, charges, ingress, egress, storage), the
    costliest first; of months and days the newest. Bytes belong to no job, pool or provider."""
    conditions = _conditions(tenant=tenant, month=month, job=job) + ["kind = 'run'"] * (by in _OF_RUNS)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    order = _ORDER.get(by, _COSTLIEST)
    return (
        f"SELECT {_KEYS[by]} AS key, sum(cost) AS spent, sum(ran_ms), sum(cpus * ran_ms / {UNIT}), "  # noqa: S608  names of ours
        f"sum(gpus * ran_ms / {UNIT}), sum(kind = 'run'), {_BYTES} "
        f"FROM ledger {where} GROUP BY key ORDER BY {order} LIMIT ?"
    )


def _conditions(*, tenant: bool, month: bool, job: bool) -> list[str]:
    """Of a job or a tenant the index is walked; of a month all between its first and its last charge: a plus keeps the
    other conditions from an index of theirs."""
    found = ["job_id = ?"] * job + ["+tenant = ?" if job else "tenant = ?"] * tenant
    if month and not job:
        return [*found, _WITHIN, "+month = ?"]
    return found + ["+month = ?"] * month


def asked(tenant: TenantName | None, month: int | None, job_id: JobId | None) -> list[str | int]:
    """What the conditions of a listing or of sums are given."""
    months = [] if month is None else [month] * (3 if job_id is None else 1)
    return [value for value in (job_id, tenant, *months) if value is not None]


def to_columns(row: LedgerRow) -> Columns:
    price = row.price
    return (
        row.seq,
        row.at_ms,
        row.month,
        row.tenant,
        row.job_id,
        row.step,
        row.task,
        row.attempt,
        row.rank,
        row.provider_id,
        row.pool,
        row.cpus,
        row.gpus,
        row.memory,
        price.cpu,
        price.gpu,
        price.memory,
        row.ran_ms,
        row.cost,
        row.kind,
        row.amount,
    )


def from_columns(c: Columns) -> LedgerRow:
    return LedgerRow(
        seq=c[0],
        at_ms=c[1],
        month=c[2],
        tenant=TenantName(c[3]),
        job_id=JobId(c[4]),
        step=c[5],
        task=c[6],
        attempt=c[7],
        rank=c[8],
        provider_id=ProviderId(c[9]),
        pool=PoolName(c[10]),
        cpus=c[11],
        gpus=c[12],
        memory=c[13],
        price=Price(cpu=c[14], gpu=c[15], memory=c[16]),
        ran_ms=c[17],
        cost=c[18],
        kind=c[19],
        amount=c[20],
    )


TABLE = Table(
    name="ledger",
    columns=COLUMNS,
    put=upsert("ledger", COLUMNS, ("seq",)),
    delete="DELETE FROM ledger WHERE seq = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)
