"""What a job is declared to use: money exact to a millionth of the unit of account, sizes in bytes."""

from __future__ import annotations

from decimal import Decimal

from coordinator.core.amounts import millionths
from coordinator.core.work.jobspec import Estimate
from coordinator.jobfile.model import ESTIMATE
from coordinator.jobfile.table import Table
from coordinator.jobfile.values import BYTES_MAX, size


def estimate(top: Table) -> Estimate:
    """The job's declaration; nothing is declared where it stays silent."""
    table = top.table("estimate")
    if table is None:
        return Estimate()
    table.only(ESTIMATE, "an estimate")
    return Estimate(
        cost=_cost(table),
        storage=size(table, "storage", 0, BYTES_MAX) or 0,
        ingress=size(table, "ingress", 0, BYTES_MAX) or 0,
        egress=size(table, "egress", 0, BYTES_MAX) or 0,
    )


def _cost(table: Table) -> int | None:
    found = table.find("cost")
    if found is None:
        return None
    amount = None
    match found.value:
        case bool():
            pass
        case str():
            amount = millionths(found.value)
        case int() if abs(found.value) < 10**18:
            amount = millionths(str(found.value))
        case float():
            # The shortest decimal that reads as this float: what was written, as far as it has 15 digits.
            amount = millionths(format(Decimal(repr(found.value)), "f"))
    if amount is None:
        table.wrong(
            found, "an amount of money", 'write units of account, not finer than a millionth: cost = 12.5, or "12.5"'
        )
    return amount
